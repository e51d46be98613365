/**
 * Records of a store as bytes: `length u32 · checksum u32 · body`, little endian. The checksum (CRC-32) covers length and
 * body, so that a torn or damaged record is recognised; where the records of a file end, `readRecord` says whether it was
 * a clean end.
 */
import { bytesOfByteText, byteTextOfBytes } from './byte-text.js';
import type { Mutation, StoreRecord } from './requests.js';

export const recordHeaderBytes = 8;
/** A body beyond it is damage, not a record: transactions are bounded far below. */
export const recordBytesMax = 256 * 1_048_576;

const kinds = { revision: 1, grant: 2, revoke: 3, compact: 4, base: 5, entry: 6 } as const;
const putMark = 1;
const deleteMark = 2;

export function encodeRecord(record: StoreRecord): Uint8Array {
  const writer = new Writer();
  writer.number(kinds[record.type]);
  switch (record.type) {
    case 'revision':
      writer.number(record.revision);
      writer.number(record.mutations.length);
      for (const mutation of record.mutations) writeMutation(writer, mutation);
      break;
    case 'grant':
      writer.text(record.lease);
      writer.number(record.ttlSeconds);
      break;
    case 'revoke':
      writer.text(record.lease);
      writer.number(record.revision);
      break;
    case 'compact':
      writer.number(record.revision);
      break;
    case 'base':
      writer.text(record.cluster);
      writer.number(record.revision);
      break;
    case 'entry': {
      const { key, value, createRevision, modRevision, version, lease } = record.entry;
      writer.text(key);
      writer.bytes(value);
      for (const number of [createRevision, modRevision, version]) writer.number(number);
      writer.text(lease);
      break;
    }
  }
  return writer.finish();
}

export type RecordRead =
  | { readonly type: 'record'; readonly record: StoreRecord; readonly next: number }
  /** Nothing more. */
  | { readonly type: 'end' }
  /** What is here is no whole record: a torn write, unless a whole record follows (`resumes`), which means damage. */
  | { readonly type: 'broken'; readonly reason: string; readonly resumes: boolean };

/** The record at an offset of a file. */
export function readRecord(bytes: Uint8Array, offset: number): RecordRead {
  if (offset === bytes.length) return { type: 'end' };
  if (bytes.length - offset < recordHeaderBytes)
    return { type: 'broken', reason: 'its header is cut off', resumes: false };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(offset, true);
  const next = offset + recordHeaderBytes + length;
  if (length > recordBytesMax || next > bytes.length)
    return { type: 'broken', reason: 'its body is cut off', resumes: false };
  const body = bytes.subarray(offset + recordHeaderBytes, next);
  if (checksum(length, body) !== view.getUint32(offset + 4, true)) {
    const resumes = next < bytes.length && readRecord(bytes, next).type === 'record';
    return { type: 'broken', reason: 'its checksum does not fit', resumes };
  }
  return { type: 'record', record: decode(new Reader(body)), next };
}

function decode(reader: Reader): StoreRecord {
  const kind = reader.number();
  switch (kind) {
    case kinds.revision: {
      const revision = reader.number();
      const mutations = Array.from({ length: reader.number() }, () => readMutation(reader));
      return { type: 'revision', revision, mutations };
    }
    case kinds.grant:
      return { type: 'grant', lease: reader.text(), ttlSeconds: reader.number() };
    case kinds.revoke:
      return { type: 'revoke', lease: reader.text(), revision: reader.number() };
    case kinds.compact:
      return { type: 'compact', revision: reader.number() };
    case kinds.base:
      return { type: 'base', cluster: reader.text(), revision: reader.number() };
    case kinds.entry: {
      const key = reader.text();
      const value = reader.bytes();
      const [createRevision, modRevision, version] = [reader.number(), reader.number(), reader.number()];
      return { type: 'entry', entry: { key, value, createRevision, modRevision, version, lease: reader.text() } };
    }
    default:
      throw new RangeError(`a store record of the unknown kind ${kind}: written by a newer version?`);
  }
}

function writeMutation(writer: Writer, mutation: Mutation): void {
  writer.number(mutation.type === 'put' ? putMark : deleteMark);
  writer.text(mutation.key);
  if (mutation.type === 'delete') return;
  writer.bytes(mutation.value);
  writer.text(mutation.lease);
}

function readMutation(reader: Reader): Mutation {
  const isPut = reader.number() === putMark;
  const key = reader.text();
  return isPut ? { type: 'put', key, value: reader.bytes(), lease: reader.text() } : { type: 'delete', key };
}

/** Numbers are 8 bytes (they stay below 2^53), texts are byte texts. */
class Writer {
  private buffer = new Uint8Array(256);
  private view = new DataView(this.buffer.buffer);
  private length = recordHeaderBytes;

  number(value: number): void {
    this.reserve(8);
    this.view.setFloat64(this.length, value, true);
    this.length += 8;
  }

  text(text: string): void {
    this.bytes(bytesOfByteText(text));
  }

  bytes(bytes: Uint8Array): void {
    this.number(bytes.length);
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  finish(): Uint8Array {
    const length = this.length - recordHeaderBytes;
    this.view.setUint32(0, length, true);
    this.view.setUint32(4, checksum(length, this.buffer.subarray(recordHeaderBytes, this.length)), true);
    return this.buffer.subarray(0, this.length);
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const larger = new Uint8Array(Math.max(this.buffer.length * 2, this.length + bytes));
    larger.set(this.buffer.subarray(0, this.length));
    this.buffer = larger;
    this.view = new DataView(larger.buffer);
  }
}

class Reader {
  private readonly source: Uint8Array;
  private readonly view: DataView;
  private position = 0;

  constructor(source: Uint8Array) {
    this.source = source;
    this.view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  }

  number(): number {
    this.position += 8;
    return this.view.getFloat64(this.position - 8, true);
  }

  text(): string {
    return byteTextOfBytes(this.span());
  }

  /** A copy: the file's buffer is not kept for it. */
  bytes(): Uint8Array {
    return this.span().slice();
  }

  private span(): Uint8Array {
    const length = this.number();
    this.position += length;
    return this.source.subarray(this.position - length, this.position);
  }
}

const table = new Uint32Array(256).map((_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

function checksum(length: number, body: Uint8Array): number {
  let crc = 0xffffffff;
  for (let shift = 0; shift < 32; shift += 8) {
    crc = (crc >>> 8) ^ (table[(crc ^ (length >>> shift)) & 0xff] ?? 0);
  }
  for (const byte of body) crc = (crc >>> 8) ^ (table[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}
