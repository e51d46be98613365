/**
 * A journal of the decision log: slices one after another, as they lay in memory, each with a head and a checksum. To write one costs a
 * copy; tables with features are made of it later, when nobody waits. Every journal holds all texts that it needs, so that it
 * can be read when those before it are gone.
 *
 *     head (6 words of 32 bits: mark, layout, bytes of meta, bytes of parts, checksum, 0) | meta (JSON, to 8 bytes) | parts
 *
 * A crash leaves a part of the last frame behind: it is passed over. Words are in the order of the machine; a journal of
 * another kind of machine, or of a release with other figures, is refused as a whole.
 */
import { figureCount } from './figures.js';
import {
  decisionIntegers,
  decisionNumbers,
  LogSlice,
  outcomeIntegers,
  outcomeNumbers,
  planWidth,
  rowIntegers,
} from './log-slice.js';

export interface JournalFrame {
  readonly slice: LogSlice;
  /** Number of the slice's first decision in the run. */
  readonly firstDecision: number;
}

export interface JournalContents {
  readonly frames: readonly JournalFrame[];
  /** All texts by their numbers; the same for all frames, because numbers never change their text. */
  readonly texts: readonly string[];
  /** Why the rest cannot be read; empty when all is well, or when the end is what a crash leaves. */
  readonly damage: string;
}

interface FrameMeta {
  readonly decisions: number;
  readonly rows: number;
  readonly outcomes: number;
  readonly wallOffsetMs: number;
  readonly firstDecision: number;
  readonly texts: readonly string[];
}

const mark = 0x4c44_4931;
const headWords = 6;
const headBytes = headWords * 4;
/** Changes whenever what a slice holds does. */
const layout = [
  figureCount,
  decisionNumbers.width,
  decisionIntegers.width,
  rowIntegers.width,
  outcomeNumbers.width,
  outcomeIntegers.width,
  planWidth,
].reduce((sum, width) => Math.imul(sum, 61) + width, 1);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A slice as a frame: pieces to be written one after another, without a copy of the slice.
 *
 * @param texts Those that frames before it in the same journal have not.
 */
export function journalFrame(slice: LogSlice, texts: readonly string[], firstDecision: number): readonly Uint8Array[] {
  const { decisions, rows, outcomes, wallOffsetMs } = slice;
  const meta: FrameMeta = { decisions, rows, outcomes, wallOffsetMs, firstDecision, texts };
  const json = encoder.encode(JSON.stringify(meta));
  const metaBytes = Math.ceil(json.byteLength / 8) * 8;
  const head = new Uint8Array(headBytes + metaBytes).fill(0x20, headBytes);
  head.set(json, headBytes);
  const parts = slice.usedParts();
  const words = new Int32Array(head.buffer, 0, headWords);
  words.set([mark, layout, metaBytes, parts.reduce((sum, { byteLength }) => sum + byteLength, 0)]);
  words[4] = checksum([head.subarray(headBytes), ...parts]);
  return [head, ...parts];
}

/** Reads what can be read of a journal. */
export function readJournal(bytes: Uint8Array): JournalContents {
  const frames: JournalFrame[] = [];
  const texts: string[] = [];
  const contents = (damage: string): JournalContents => ({ frames, texts, damage });
  for (let at = 0; at + headBytes <= bytes.byteLength;) {
    const [found, madeBy, metaBytes = 0, partBytes = 0, sum] = new Int32Array(copied(bytes, at, at + headBytes).buffer);
    if (found !== mark) return contents(`byte ${at} begins no frame of a journal of this kind of machine`);
    if (madeBy !== layout) return contents('it was written by a release whose figures are others');
    const end = at + headBytes + metaBytes + partBytes;
    if (metaBytes < 0 || partBytes < 0) return contents(`the frame at byte ${at} has a length below 0`);
    if (end > bytes.byteLength) break;
    // A copy of its own begins at a multiple of 8, wherever the frame lies.
    const body = copied(bytes, at + headBytes, end);
    if (checksum([body]) !== sum) return contents(`the frame at byte ${at} has not the checksum it was written with`);
    const { slice, ...frame } = sliceOf(JSON.parse(decoder.decode(body.subarray(0, metaBytes))) as FrameMeta);
    let from = metaBytes;
    for (const part of slice.usedParts()) {
      part.set(body.subarray(from, from + part.byteLength));
      from += part.byteLength;
    }
    for (const text of frame.texts) texts.push(text);
    frames.push({ slice, firstDecision: frame.firstDecision });
    at = end;
  }
  return contents('');
}

/** Not by `slice`: of a Node Buffer that is no copy. */
function copied(bytes: Uint8Array, from: number, to: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.subarray(from, to));
}

/** A slice of the frame's sizes whose numbers are still to be filled in. */
function sliceOf({ decisions, rows, outcomes, wallOffsetMs, firstDecision, texts }: FrameMeta): {
  readonly slice: LogSlice;
  readonly firstDecision: number;
  readonly texts: readonly string[];
} {
  const slice = new LogSlice({ decisions, rows, outcomes });
  slice.begin(wallOffsetMs);
  slice.decisions = decisions;
  slice.rows = rows;
  slice.outcomes = outcomes;
  return { slice, firstDecision, texts };
}

/** Over words of 32 bits; parts are multiples of four bytes long and begin at multiples of four. */
function checksum(parts: readonly Uint8Array[]): number {
  let sum = 0x811c_9dc5;
  for (const { buffer, byteOffset, byteLength } of parts) {
    const words = new Int32Array(buffer, byteOffset, byteLength / 4);
    for (let index = 0; index < words.length; index += 1) sum = Math.imul(sum ^ (words[index] as number), 0x0100_0193);
  }
  return sum | 0;
}
