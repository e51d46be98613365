/**
 * Buffers for large frames, used again instead of given back: the first touch of fresh memory costs several times as much
 * as copying into memory that was used before (600 KB: 270 µs against 40 µs).
 */
import type { Allocate } from '#core/frame.js';

/** Smaller buffers come from the allocator's own free lists anyway. */
const pooledBytesMin = 64 * 1024;
/** Buffers that are kept while nobody uses them. */
const buffersMax = 4;

export class BufferPool {
  readonly #free: ArrayBuffer[] = [];
  readonly #lent = new Set<ArrayBufferLike>();
  readonly #bytesMax: number;

  /** @param bytesMax Buffers longer than this are not kept. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  readonly allocate: Allocate = (bytes) => {
    if (bytes < pooledBytesMin || bytes > this.#bytesMax) return allocateRaw(bytes);
    const index = this.#free.findIndex((buffer) => buffer.byteLength >= bytes);
    const buffer = index < 0 ? allocateRaw(roomyBytes(bytes)).buffer : (this.#free.splice(index, 1)[0] as ArrayBuffer);
    this.#lent.add(buffer);
    return new Uint8Array(buffer, 0, bytes);
  };

  /** Takes a buffer back: nobody reads it any more. Buffers that are not from this pool are ignored. */
  release(buffer: ArrayBufferLike): void {
    if (!this.#lent.delete(buffer)) return;
    this.#free.unshift(buffer as ArrayBuffer);
    if (this.#free.length > buffersMax) this.#free.pop();
  }
}

/**
 * Uninitialised memory with a buffer of its own, never from Node's shared pool. A plain array and no Buffer, whose `slice`
 * means something else.
 */
export const allocateRaw: Allocate = (bytes) => new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);

/** A quarter more, in whole pages, so that frames of slightly different sizes share buffers. */
function roomyBytes(bytes: number): number {
  return Math.ceil((bytes * 1.25) / 4096) * 4096;
}
