/**
 * Cuts the bytes of a call into gRPC messages: five bytes of head (compressed or not, length big-endian), then the message.
 *
 * A message that lies whole in a piece is a view on it, which is what small ones do. A longer one gets memory of its own
 * once its length is known, and each piece is copied there as it comes, so that pieces need not be kept. Whether a
 * message may be so long is decided before (receive-watch.ts).
 */
import type { Allocate } from '#core/frame.js';

const headBytes = 5;

export type OnMessage = (compressed: boolean, message: Uint8Array) => void;

export class MessageReader {
  readonly #head = new Uint8Array(headBytes);
  readonly #headView = new DataView(this.#head.buffer);
  #headFilled = 0;
  #compressed = false;
  /** A message that is being received into its own memory. */
  #partial: Uint8Array | undefined;
  #partialFilled = 0;

  readonly #allocate: Allocate;

  constructor(allocate: Allocate) {
    this.#allocate = allocate;
  }

  /** Whether the bytes may end here: no message is half received. */
  get atBoundary(): boolean {
    return this.#headFilled === 0 && this.#partial === undefined;
  }

  /** Takes a piece, which must not change afterwards, and emits the messages that end in it. */
  read(piece: Buffer, onMessage: OnMessage): void {
    const end = piece.byteLength;
    for (let at = 0; at < end;) {
      if (this.#partial !== undefined) {
        at += this.#fill(this.#partial, piece, at);
        if (this.#partialFilled === this.#partial.byteLength) this.#emitPartial(this.#partial, onMessage);
        continue;
      }
      for (; at < end && this.#headFilled < headBytes; at += 1) {
        this.#head[this.#headFilled] = piece[at] as number;
        this.#headFilled += 1;
      }
      if (this.#headFilled < headBytes) return;
      this.#headFilled = 0;
      this.#compressed = this.#head[0] !== 0;
      const length = this.#headView.getUint32(1);
      if (length <= end - at) {
        onMessage(this.#compressed, new Uint8Array(piece.buffer, piece.byteOffset + at, length));
        at += length;
      } else {
        this.#partial = this.#allocate(length);
        this.#partialFilled = 0;
      }
    }
  }

  #fill(partial: Uint8Array, piece: Buffer, at: number): number {
    const bytes = Math.min(partial.byteLength - this.#partialFilled, piece.byteLength - at);
    partial.set(piece.subarray(at, at + bytes), this.#partialFilled);
    this.#partialFilled += bytes;
    return bytes;
  }

  #emitPartial(partial: Uint8Array, onMessage: OnMessage): void {
    this.#partial = undefined;
    onMessage(this.#compressed, partial);
  }
}
