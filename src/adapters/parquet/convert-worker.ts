/**
 * A thread that makes tables of journals, at the lowest priority, and ends: of one journal while requests are served, of all of them
 * within a time when the log is closed. Its word is how many it made.
 */
import { readlinkSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '#core/errors.js';
import { convertOldest } from './convert-journal.js';

export interface ConvertOrder {
  readonly folder: string;
  readonly journalsMax: number;
  /** None is begun after so long, ms. */
  readonly msMax: number;
}

export interface ConvertWord {
  readonly made: number;
  /** Why it ended early; empty when it did not. */
  readonly failure: string;
}

if (parentPort !== null) {
  yieldToServing();
  parentPort.postMessage(convert(workerData as ConvertOrder));
}

function convert({ folder, journalsMax, msMax }: ConvertOrder): ConvertWord {
  const untilMs = performance.now() + msMax;
  let made = 0;
  try {
    while (made < journalsMax && performance.now() < untilMs && convertOldest(folder)) made += 1;
    return { made, failure: '' };
  } catch (error) {
    return { made, failure: messageOf(error) };
  }
}

/** Lowest priority for this thread alone, where the system has that (Linux): requests go first, and so do journals. */
function yieldToServing(): void {
  try {
    const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1));
    if (Number.isInteger(thread)) setPriority(thread, constants.priority.PRIORITY_LOW);
  } catch {
    // Other systems have no such name for a thread: it keeps its priority.
  }
}
