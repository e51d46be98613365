/**
 * Lines of profile files: a checksum, a space, JSON. A line that is torn or damaged is skipped and named; what follows it
 * is read on. Lines of other versions are skipped silently: they are whole.
 */
import { crc32 } from 'node:zlib';

/** Bytes of one line; longer ones are damage. */
export const lineBytesMax = 4 * 1024 * 1024;

const newline = 0x0a;

export function encodeLine(value: unknown): Uint8Array {
  const json = Buffer.from(JSON.stringify(value));
  return Buffer.concat([Buffer.from(`${checksum(json)} `), json, Buffer.from('\n')]);
}

export interface ReadLines {
  /** Bytes up to the end of the last whole line. */
  readonly wholeBytes: number;
  /** Bytes of damaged lines before that. */
  readonly damagedBytes: number;
  /** Bytes behind it: a line that is being written, or was torn. */
  readonly tornBytes: number;
}

/** Calls `onValue` for each whole line of a file's bytes, in order. */
export function readLines(bytes: Uint8Array, onValue: (value: unknown) => void): ReadLines {
  let start = 0;
  let damagedBytes = 0;
  for (;;) {
    const end = bytes.indexOf(newline, start);
    if (end < 0) return { wholeBytes: start, damagedBytes, tornBytes: bytes.byteLength - start };
    const line = bytes.subarray(start, end);
    const value = decodeLine(line);
    if (value === undefined) damagedBytes += line.byteLength + 1;
    else onValue(value);
    start = end + 1;
  }
}

/** Bytes read until other work of the process gets its turn. */
const turnBytes = 128 * 1024;

/** The same, in turns: a folder of many megabytes must not hold up a host that serves. */
export async function readLinesInTurns(bytes: Uint8Array, onValue: (value: unknown) => void): Promise<ReadLines> {
  let wholeBytes = 0;
  let damagedBytes = 0;
  for (;;) {
    const turnEnd = bytes.indexOf(newline, Math.min(bytes.byteLength, wholeBytes + turnBytes));
    const end = turnEnd < 0 ? bytes.byteLength : turnEnd + 1;
    const read = readLines(bytes.subarray(wholeBytes, end), onValue);
    wholeBytes += read.wholeBytes;
    damagedBytes += read.damagedBytes;
    if (end === bytes.byteLength) return { wholeBytes, damagedBytes, tornBytes: read.tornBytes };
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function decodeLine(line: Uint8Array): unknown {
  if (line.byteLength < 11 || line.byteLength > lineBytesMax) return undefined;
  const json = Buffer.from(line.buffer, line.byteOffset + 9, line.byteLength - 9);
  if (Buffer.from(line.buffer, line.byteOffset, 9).toString('latin1') !== `${checksum(json)} `) return undefined;
  try {
    return JSON.parse(json.toString('utf8')) as unknown;
  } catch {
    // The checksum is right and the text is not JSON: somebody else's line.
    return undefined;
  }
}

function checksum(bytes: Uint8Array): string {
  return crc32(bytes).toString(16).padStart(8, '0');
}
