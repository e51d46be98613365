/** The thread that writes a decision log's journals: slices in, by number in memory that both threads see; word of each out. */
import { parentPort, workerData } from 'node:worker_threads';
import { LogSlice, type SliceSize } from '#core/decision-log/log-slice.js';
import { LogFolder, noFolderCounts, type LogFolderCounts, type LogFolderOptions } from './log-folder.js';

export interface LogWorkerData {
  readonly folder: Omit<LogFolderOptions, 'nowMs'>;
  readonly size: SliceSize;
  readonly memories: readonly SharedArrayBuffer[];
}

export type LogOrder =
  | { readonly type: 'slice'; readonly number: number; readonly newTexts: readonly string[] }
  /** Somebody made tables of journals. */
  | { readonly type: 'changed' }
  | { readonly type: 'close' };

/** `full`: the file system took no more; nothing is written from then on. */
export type LogWord =
  | { readonly type: 'open' }
  | { readonly type: 'written'; readonly number: number; readonly counts: LogFolderCounts }
  | { readonly type: 'looked'; readonly counts: LogFolderCounts }
  | { readonly type: 'failed'; readonly reason: string }
  | { readonly type: 'closed'; readonly counts: LogFolderCounts };

/** A journal is closed at most this long after it is due, ms. */
const tickMs = 5000;

const port = parentPort;
if (port !== null) {
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
      } else if (order.type === 'close') folder?.close();
      else if (folder !== undefined) {
        folder.changed();
        tell({ type: 'looked', counts: { ...folder.counts } });
      }
    });
    if (order.type !== 'close') return;
    clearInterval(ticking);
    tell({ type: 'closed', counts: { ...noFolderCounts, ...folder?.counts } });
    port.close();
  });
  const ticking = setInterval(() => {
    attempt(() => {
      if (folder === undefined) return;
      folder.tick();
      tell({ type: 'looked', counts: { ...folder.counts } });
    });
  }, tickMs);
}
