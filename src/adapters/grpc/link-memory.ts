/** Memory for what links receive and send. */
import type { Allocate } from '#core/frame.js';
import { KiB } from '#core/units.js';

/** Shorter ranges share memory with others. */
const pooledBytesMax = 2 * KiB;

/** Without the zeros; a longer range is one of its own, so that views keep alive nothing else. */
export const allocateReceived: Allocate = (bytes) => {
  if (bytes <= pooledBytesMax) return allocatePooled(bytes);
  const buffer = Buffer.allocUnsafeSlow(bytes);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, bytes);
};

export const allocatePooled: Allocate = (bytes) => {
  const buffer = Buffer.allocUnsafe(bytes);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, bytes);
};
