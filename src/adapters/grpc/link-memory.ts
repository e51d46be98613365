/**
 * Memory for what links receive.
 *
 * The bytes of large messages lie outside of V8's heap, and die young. V8 notices that cheaply, in a fraction of a
 * millisecond, when 32 MB of young ones have gathered. But a process whose heap is small is led, by the same bytes, to go
 * through its whole heap every 25 MB before it comes to that, which took two thirds of a receiver's time. So the young ones
 * are collected here somewhat sooner. With a large heap it makes no difference.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Allocate } from '#core/frame.js';
import { KiB, MiB } from '#core/units.js';

/** Shorter ranges share memory with others. */
const pooledBytesMax = 2 * KiB;
/** Received between two collections. */
const collectAfterBytes = 16 * MiB;

let sinceCollectionBytes = 0;
let collectYoung: (() => void) | undefined;

/** Without the zeros; a longer range is one of its own, so that views keep alive nothing else. */
export const allocateReceived: Allocate = (bytes) => {
  if (bytes <= pooledBytesMax) return allocatePooled(bytes);
  sinceCollectionBytes += bytes;
  if (sinceCollectionBytes > collectAfterBytes) {
    sinceCollectionBytes = 0;
    collectYoung ??= youngCollector();
    collectYoung();
  }
  const buffer = Buffer.allocUnsafeSlow(bytes);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, bytes);
};

export const allocatePooled: Allocate = (bytes) => {
  const buffer = Buffer.allocUnsafe(bytes);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, bytes);
};

/** V8 shows it to new contexts while the flag is set; nobody else gets to see it. Does nothing where V8 has none. */
function youngCollector(): () => void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('globalThis.gc') as ((options: { readonly type: 'minor' }) => void) | undefined;
  setFlagsFromString('--no-expose-gc');
  return () => {
    collect?.({ type: 'minor' });
  };
}
