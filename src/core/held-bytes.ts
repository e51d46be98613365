/**
 * Bytes of a tensor that lie outside of this process's memory, such as where an executor has left them. Whoever only sends
 * a tensor on needs them no more than a letter's carrier: they are fetched when somebody looks at `data`, and never where
 * the next reader gets at them by itself.
 *
 * Where they lie, who may read them there and when the place is used again is left to the adapter that made them.
 */

/** Key of a tensor whose bytes are held elsewhere. */
export const heldBytes = Symbol('heldBytes');

export interface HeldBytes {
  readonly byteLength: number;
  /** Brings the bytes here, the first time; later calls give the same. @throws UNAVAILABLE when they were let go of. */
  read(): Uint8Array;
  /** So many of the bytes, from `offset` on: views, as of an array. Past the end it ends with the whole. */
  part(offset: number, byteLength: number): HeldBytes;
}
