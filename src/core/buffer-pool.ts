/**
 * Memory for large messages, used again instead of given back: the first touch of fresh memory costs several times as much
 * as copying into memory that was used before (600 KB: 270 µs against 40 µs), and what is left to the garbage collector
 * makes it look through the whole heap every 64 MB.
 *
 * What is never given back is the garbage collector's, as anything else: a reader that is not sure to be the last one
 * simply says nothing. Giving back what somebody still reads mixes up tensors of different requests.
 */
import type { Allocate } from './frame.js';

/** Smaller buffers come from the allocator's own free lists anyway. */
const pooledBytesMin = 64 * 1024;

export interface BufferPoolOptions {
  /** Buffers longer than this are not kept. */
  readonly bytesMax: number;
  /** Bytes that are kept while nobody uses them; at the bound what comes back is left to the garbage collector. */
  readonly freeBytesMax: number;
  readonly allocate: Allocate;
}

export class BufferPool {
  readonly #options: BufferPoolOptions;
  readonly #free: ArrayBuffer[] = [];
  #freeBytes = 0;
  readonly #lent = new WeakSet<ArrayBufferLike>();

  constructor(options: BufferPoolOptions) {
    this.#options = options;
  }

  /** A buffer of its own, whatever was in it. */
  readonly allocate: Allocate = (bytes) => {
    const { allocate, bytesMax } = this.#options;
    if (bytes < pooledBytesMin || bytes > bytesMax) return allocate(bytes);
    const buffer = this.#takeFree(bytes) ?? allocate(roomyBytes(bytes)).buffer;
    this.#lent.add(buffer);
    return new Uint8Array(buffer, 0, bytes);
  };

  /** Takes a buffer back: nobody reads it any more. Buffers that are not from this pool are ignored, and so is a second time. */
  release(buffer: ArrayBufferLike): void {
    if (!this.#lent.delete(buffer)) return;
    if (this.#freeBytes + buffer.byteLength > this.#options.freeBytesMax) return;
    this.#freeBytes += buffer.byteLength;
    this.#free.push(buffer as ArrayBuffer);
  }

  /** The one that was given back last, of those that are long enough: it is the most likely to be in the processor's cache. */
  #takeFree(bytes: number): ArrayBuffer | undefined {
    const index = this.#free.findLastIndex((buffer) => buffer.byteLength >= bytes);
    if (index < 0) return undefined;
    const [buffer] = this.#free.splice(index, 1);
    this.#freeBytes -= buffer?.byteLength ?? 0;
    return buffer;
  }
}

/** A quarter more, in whole pages, so that messages of slightly different sizes share buffers. */
function roomyBytes(bytes: number): number {
  return Math.ceil((bytes * 1.25) / 4096) * 4096;
}
