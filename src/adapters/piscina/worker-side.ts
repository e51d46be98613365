/** What a worker thread needs of piscina: its setup, and answers whose buffers are handed over rather than copied. */
import { Piscina } from 'piscina';
import type { WorkerAnswer, WorkerSetup } from './worker-protocol.js';

/** The setup that the pool's owner gave. */
export function workerSetup(): WorkerSetup {
  return Piscina.workerData as WorkerSetup;
}

/** An answer whose buffers are transferred with it: the thread must not touch them afterwards. Repeated ones count once. */
export function transferring<Value>(
  answer: WorkerAnswer<Value>,
  buffers: Iterable<ArrayBufferLike>,
): WorkerAnswer<Value> {
  return Piscina.move({
    [Piscina.transferableSymbol]: [...new Set(buffers)],
    [Piscina.valueSymbol]: answer,
  } as never) as never;
}
