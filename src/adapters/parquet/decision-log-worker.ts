/** The thread that writes a decision log's files: slices in, by number in memory that both threads see; word of each out. */
import { readlinkSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { LogSlice, type SliceSize } from '#core/decision-log/log-slice.js';
import { LogFolder, type LogFolderCounts, type LogFolderOptions } from './log-folder.js';

export interface LogWorkerData {
  readonly folder: Omit<LogFolderOptions, 'nowMs'>;
  readonly size: SliceSize;
  readonly memories: readonly SharedArrayBuffer[];
}

export type LogOrder =
  | { readonly type: 'slice'; readonly number: number; readonly newTexts: readonly string[] }
  | { readonly type: 'close' };

/** `full`: the file system took no more; nothing is written from then on. */
export type LogWord =
  | { readonly type: 'open' }
  | { readonly type: 'written'; readonly number: number; readonly counts: LogFolderCounts }
  | { readonly type: 'failed'; readonly reason: string }
  | { readonly type: 'closed'; readonly counts: LogFolderCounts };

const port = parentPort;
if (port !== null) {
  yieldToServing();
  const { folder: options, size, memories } = workerData as LogWorkerData;
  const slices = memories.map((memory) => new LogSlice(size, memory));
  const tell = (word: LogWord): void => port.postMessage(word);
  let folder: LogFolder | undefined;
  const attempt = (step: () => void): void => {
    try {
      step();
    } catch (error) {
      folder = undefined;
      tell({ type: 'failed', reason: error instanceof Error ? error.message : String(error) });
    }
  };
  attempt(() => {
    folder = new LogFolder({ ...options, nowMs: () => performance.now() });
    tell({ type: 'open' });
  });
  port.on('message', (order: LogOrder) => {
    attempt(() => {
      if (order.type === 'slice') {
        const slice = slices[order.number];
        if (folder === undefined || slice === undefined) return;
        folder.write(slice, order.newTexts);
        tell({ type: 'written', number: order.number, counts: { ...folder.counts } });
      } else folder?.close();
    });
    if (order.type !== 'close') return;
    tell({ type: 'closed', counts: { bytes: 0, files: 0, removed: 0, held: 0, ...folder?.counts } });
    port.close();
  });
}

/**
 * Lowest priority for this thread alone, where the system has that (Linux): requests go first. Writing that falls behind loses rows
 * of the log; serving that falls behind loses requests.
 */
function yieldToServing(): void {
  try {
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
    if (Number.isInteger(thread)) setPriority(thread, constants.priority.PRIORITY_LOW);
  } catch {
    // Other systems have no such name for a thread: it keeps its priority.
  }
}
