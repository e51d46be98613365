/** Where Node gets memory for frames. */
import type { Allocate } from '#core/frame.js';

/**
 * Uninitialised memory with a buffer of its own, never from Node's shared pool. A plain array and no Buffer, whose `slice`
 * means something else.
 */
export const allocateRaw: Allocate = (bytes) => new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);
