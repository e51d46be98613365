/**
 * The one frame codec of the product: between a host and its executor processes, and between hosts on a byte stream.
 *
 * A frame is a kind, a number, a small header and a payload. Large byte ranges are written as they lie, never joined;
 * small ones are gathered, because one system call with few ranges is cheaper than one with many. The decoder takes the
 * stream in pieces of any size, and can tell its reader where the next bytes belong, so that a large payload goes from
 * the kernel straight to its place. What kinds mean and what is in a header is left to others (executor-frame.ts).
 *
 * Layout, little-endian, every part padded with zeros to a multiple of 8 bytes:
 *
 *     0  u32  magic 'ITF1'
 *     4  u16  kind
 *     6  u16  tag
 *     8  u32  number
 *     12 u32  bytes of the header
 *     16 u64  bytes of the payload
 *     24      header, padding, payload, padding
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from './errors.js';
import { formatBytes, MiB } from './units.js';

/** Header, payload and frame begin at multiples of this many bytes, so that 64-bit elements can be viewed in place. */
export const frameAlignment = 8;

const prefixBytes = 24;
const magic = 0x31465449;
/** What every frame begins with, `ITF1`. */
export const frameMagic = new Uint8Array([0x49, 0x54, 0x46, 0x31]);
const headerBytesMax = 16 * MiB;
/** Ranges shorter than this are gathered into one piece. Measured: a range of its own costs about as much as copying 16 KiB. */
const referenceBytesMin = 16 * 1024;
const scratchBytes = 64 * 1024;

/** A received frame. Header and payload are views on the same buffer. */
export interface Frame {
  readonly kind: number;
  /** A small number whose meaning depends on the kind; 0 unless said otherwise. */
  readonly tag: number;
  /** What the sender counts its frames or requests with, 0 to 2^32 − 1. */
  readonly number: number;
  readonly header: Uint8Array;
  readonly payload: Uint8Array;
}

/** Makes a buffer of that many bytes; its content does not matter. Node's adapters hand in one that skips the zeros. */
export type Allocate = (bytes: number) => Uint8Array<ArrayBuffer>;

const allocateZeros: Allocate = (bytes) => new Uint8Array(bytes);
const zeros = new Uint8Array(frameAlignment);

/** Zeros that bring `bytes` to the next multiple of the alignment. */
export function framePadding(bytes: number): Uint8Array {
  return zeros.subarray(0, alignedBytes(bytes) - bytes);
}

/** The next multiple of the alignment. */
export function alignedBytes(bytes: number): number {
  return Math.ceil(bytes / frameAlignment) * frameAlignment;
}

/** What `encodeFrame` takes. The payload is the concatenation of its ranges. */
export interface OutgoingFrame {
  readonly kind: number;
  readonly tag?: number;
  readonly number: number;
  readonly header: Uint8Array;
  readonly payload: readonly Uint8Array[];
}

/** The frame as byte ranges to be written in order. Long ranges of the payload are among them by reference. */
export function encodeFrame(frame: OutgoingFrame, allocate: Allocate = allocateZeros): Uint8Array[] {
  const { header, payload } = frame;
  let payloadBytes = 0;
  for (const range of payload) payloadBytes += range.byteLength;
  const headPadding = framePadding(header.byteLength);
  const tailPadding = framePadding(payloadBytes);

  const ranges: Uint8Array[] = [];
  let first = 0;
  let gatheredBytes = prefixBytes + header.byteLength + headPadding.byteLength;
  let opening = true;
  for (let index = 0; index <= payload.length; index += 1) {
    const range = payload[index];
    if (range !== undefined && range.byteLength < referenceBytesMin) {
      gatheredBytes += range.byteLength;
      continue;
    }
    if (range === undefined) gatheredBytes += tailPadding.byteLength;
    if (gatheredBytes > 0) {
      const piece = allocate(gatheredBytes);
      let offset = 0;
      if (opening) {
        writePrefix(piece, frame, payloadBytes);
        piece.set(header, prefixBytes);
        offset = prefixBytes + header.byteLength;
        piece.set(headPadding, offset);
        offset += headPadding.byteLength;
        opening = false;
      }
      for (; first < index; first += 1) {
        const small = payload[first] as Uint8Array;
        piece.set(small, offset);
        offset += small.byteLength;
      }
      if (range === undefined) piece.set(tailPadding, offset);
      ranges.push(piece);
    }
    if (range !== undefined) ranges.push(range);
    first = index + 1;
    gatheredBytes = 0;
  }
  return ranges;
}

function writePrefix(piece: Uint8Array<ArrayBuffer>, frame: OutgoingFrame, payloadBytes: number): void {
  const view = new DataView(piece.buffer, piece.byteOffset, prefixBytes);
  view.setUint32(0, magic, true);
  view.setUint16(4, frame.kind, true);
  view.setUint16(6, frame.tag ?? 0, true);
  view.setUint32(8, frame.number, true);
  view.setUint32(12, frame.header.byteLength, true);
  view.setUint32(16, payloadBytes % 2 ** 32, true);
  view.setUint32(20, Math.floor(payloadBytes / 2 ** 32), true);
}

/** The frame in one piece of its own. */
export function joinRanges(ranges: readonly Uint8Array[], allocate: Allocate = allocateZeros): Uint8Array<ArrayBuffer> {
  let bytes = 0;
  for (const range of ranges) bytes += range.byteLength;
  const joined = allocate(bytes);
  let offset = 0;
  for (const range of ranges) {
    joined.set(range, offset);
    offset += range.byteLength;
  }
  return joined;
}

export interface FrameDecoderOptions {
  /** Bytes of one frame, prefix and padding included. At the bound: REQUEST_TOO_LARGE, and the stream is over. */
  readonly frameBytesMax: number;
  readonly allocate?: Allocate;
}

/**
 * Turns a byte stream back into frames.
 *
 * Two ways to feed it. `push` takes a piece that the reader gives away: frames that lie whole and aligned inside it
 * become views on it. `target` and `advance` serve readers that fill a buffer they are given: every frame then owns its
 * buffer alone, and may be transferred to another thread. A malformed stream throws and stays broken.
 */
export class FrameDecoder {
  readonly #frameBytesMax: number;
  readonly #allocate: Allocate;
  /** Made when first needed: a reader whose pieces end with frames never does. */
  #scratchBuffer: Uint8Array<ArrayBuffer> | undefined;
  /** Bytes of the beginning of a frame that wait in the scratch buffer. */
  #scratchFilled = 0;
  /** A frame that is being received into its own buffer. */
  #partial: Uint8Array<ArrayBuffer> | undefined;
  #partialFilled = 0;
  #failure: IntarsiaError | undefined;

  constructor(options: FrameDecoderOptions) {
    this.#frameBytesMax = options.frameBytesMax;
    this.#allocate = options.allocate ?? allocateZeros;
  }

  get #scratch(): Uint8Array<ArrayBuffer> {
    this.#scratchBuffer ??= this.#allocate(scratchBytes);
    return this.#scratchBuffer;
  }

  /** Whether the stream may end here: no frame is half received. */
  get atBoundary(): boolean {
    return this.#partial === undefined && this.#scratchFilled === 0;
  }

  /** Where the next bytes belong; never empty. Valid until the next `advance`. */
  target(): Uint8Array<ArrayBuffer> {
    if (this.#partial !== undefined) return this.#partial.subarray(this.#partialFilled);
    return this.#scratch.subarray(this.#scratchFilled);
  }

  /** Takes the bytes that were written to `target`. @throws INVALID_ARGUMENT or REQUEST_TOO_LARGE. */
  advance(bytes: number, onFrame: (frame: Frame) => void): void {
    this.#check();
    if (this.#partial !== undefined) {
      this.#partialFilled += bytes;
      this.#finishPartial(onFrame);
      return;
    }
    const end = this.#scratchFilled + bytes;
    const rest = this.#parse(this.#scratch, 0, end, false, onFrame);
    if (rest > 0) this.#scratch.copyWithin(0, rest, end);
    this.#scratchFilled = end - rest;
  }

  /** Takes a piece of the stream, which the caller must not change afterwards. @throws INVALID_ARGUMENT or REQUEST_TOO_LARGE. */
  push(piece: Uint8Array, onFrame: (frame: Frame) => void): void {
    this.#check();
    let position = 0;
    while (position < piece.byteLength) {
      if (this.#partial === undefined && this.#scratchFilled === 0) {
        position = this.#parse(piece, position, piece.byteLength, true, onFrame);
        if (position === piece.byteLength) return;
      }
      const target = this.target();
      const bytes = Math.min(target.byteLength, piece.byteLength - position, this.#wanted());
      target.set(piece.subarray(position, position + bytes));
      position += bytes;
      this.advance(bytes, onFrame);
    }
  }

  /** Bytes of the current frame that are known to be missing: the rest of the prefix, then all there is room for. */
  #wanted(): number {
    return this.#partial === undefined && this.#scratchFilled < prefixBytes
      ? prefixBytes - this.#scratchFilled
      : Infinity;
  }

  /** Emits the whole frames in the range and returns where the unread rest begins; a long one moves to its own buffer. */
  #parse(source: Uint8Array, start: number, end: number, given: boolean, onFrame: (frame: Frame) => void): number {
    let position = start;
    while (end - position >= prefixBytes) {
      const frameBytes = this.#measure(source, position);
      const next = position + frameBytes;
      if (next <= end) {
        if (given && (source.byteOffset + position) % frameAlignment === 0) {
          onFrame(frameIn(source.subarray(position, next)));
        } else {
          const own = this.#allocate(frameBytes);
          own.set(source.subarray(position, next));
          onFrame(frameIn(own));
        }
        position = next;
        continue;
      }
      if (given || frameBytes > scratchBytes) {
        this.#partial = this.#allocate(frameBytes);
        this.#partial.set(source.subarray(position, end));
        this.#partialFilled = end - position;
        return end;
      }
      return position;
    }
    return position;
  }

  #finishPartial(onFrame: (frame: Frame) => void): void {
    const partial = this.#partial;
    if (partial === undefined || this.#partialFilled < partial.byteLength) return;
    this.#partial = undefined;
    this.#partialFilled = 0;
    onFrame(frameIn(partial));
  }

  #measure(source: Uint8Array, position: number): number {
    try {
      return measureFrame(source, position, this.#frameBytesMax);
    } catch (error) {
      this.#failure = asIntarsiaError(error);
      throw error;
    }
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** Bytes of the frame whose prefix begins there, after checking it. */
function measureFrame(source: Uint8Array, position: number, frameBytesMax: number): number {
  const view = new DataView(source.buffer, source.byteOffset + position, prefixBytes);
  if (view.getUint32(0, true) !== magic) {
    throw intarsiaError('INVALID_ARGUMENT', 'frame stream is malformed: a frame does not begin with ITF1');
  }
  const headerBytes = view.getUint32(12, true);
  if (headerBytes > headerBytesMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `frame stream is malformed: a header of ${formatBytes(headerBytes)} exceeds ${formatBytes(headerBytesMax)}`,
      { headerBytes, headerBytesMax },
    );
  }
  const payloadBytes = view.getUint32(16, true) + view.getUint32(20, true) * 2 ** 32;
  const frameBytes = prefixBytes + alignedBytes(headerBytes) + alignedBytes(payloadBytes);
  if (frameBytes > frameBytesMax) {
    throw intarsiaError(
      'REQUEST_TOO_LARGE',
      `a frame of ${formatBytes(frameBytes)} exceeds the limit of ${formatBytes(frameBytesMax)}`,
      { frameBytes, frameBytesMax },
    );
  }
  return frameBytes;
}

/** The frame that fills these bytes; its prefix has been checked. */
function frameIn(bytes: Uint8Array): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, prefixBytes);
  const headerBytes = view.getUint32(12, true);
  const payloadBytes = view.getUint32(16, true) + view.getUint32(20, true) * 2 ** 32;
  const payloadStart = prefixBytes + alignedBytes(headerBytes);
  return {
    kind: view.getUint16(4, true),
    tag: view.getUint16(6, true),
    number: view.getUint32(8, true),
    header: bytes.subarray(prefixBytes, prefixBytes + headerBytes),
    payload: bytes.subarray(payloadStart, payloadStart + payloadBytes),
  };
}

/** The frame in one whole piece, such as one that another thread sent. @throws INVALID_ARGUMENT when it is not exactly one. */
export function decodeWholeFrame(piece: Uint8Array): Frame {
  if (piece.byteLength < prefixBytes || measureFrame(piece, 0, Infinity) !== piece.byteLength) {
    throw intarsiaError('INVALID_ARGUMENT', `a piece of ${piece.byteLength} bytes is not one whole frame`);
  }
  return frameIn(piece);
}
