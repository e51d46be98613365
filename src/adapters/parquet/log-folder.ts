/**
 * The folder of a decision log while a gateway writes to it. Each slice is appended to a journal at once, as it lies in memory:
 * that is all that happens while requests are served. A journal that is large or old enough is closed; Parquet files are made of closed ones by
 * whoever has time (`convert-journal.ts`). The folder is bounded: the oldest files go first, whichever run wrote them, and are
 * counted.
 *
 * Blocking on purpose: it lives on a thread of its own.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writevSync,
} from 'node:fs';
import { join } from 'node:path';
import { logFileName, parseLogFileName, type LogFile } from '#core/decision-log/log-files.js';
import { journalFrame, readJournal } from '#core/decision-log/log-journal.js';
import type { LogSlice } from '#core/decision-log/log-slice.js';
import { nameOfPartial } from './convert-journal.js';

export interface LogFolderOptions {
  readonly folder: string;
  /** Name of this run: see `runName`. */
  readonly run: string;
  /** Bytes of the log's files in the folder, those of other runs included. */
  readonly bytesMax: number;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  /** A journal is closed once it holds so many bytes, or its first slice is so old. Default 4 MiB, 60 s. */
  readonly closeBytes?: number;
  readonly closeMs?: number;
}

export interface LogFolderCounts {
  /** Written into journals since the start. */
  bytes: number;
  /** Journals begun. */
  files: number;
  /** Files removed to keep the bound. */
  removed: number;
  /** Bytes of the log in the folder, as last looked at and written since. */
  held: number;
  /** Closed journals in the folder, of all runs, as last looked at and closed since. */
  waiting: number;
}

export const noFolderCounts: LogFolderCounts = { bytes: 0, files: 0, removed: 0, held: 0, waiting: 0 };

interface Journal {
  readonly descriptor: number;
  readonly first: number;
  readonly sinceMs: number;
  bytes: number;
}

/** A journal is at most this share of the folder's bound, so that removing the oldest leaves the rest. */
const journalShare = 1 / 8;
/** Files of others are looked for this often, ms. */
const lookMs = 30_000;
/** Bytes are removed down to this share of the bound, so that it is not looked again at once. */
const keptShare = 0.95;
/** Half-written files older than this, ms, are nobody's. */
const partialMsMax = 60_000;
/** A journal of another run that was not written to for so long, ms, is of one that crashed: running ones are closed sooner. */
const abandonedMs = 300_000;

export class LogFolder {
  readonly counts: LogFolderCounts = { ...noFolderCounts };
  readonly #options: LogFolderOptions;
  readonly #texts: string[] = [];
  #journal: Journal | undefined;
  #lookedMs = -Infinity;
  #slices = 0;
  #decisions = 0;

  /** Makes the folder where there is none, and closes journals that a crash left. @throws what the file system says. */
  constructor(options: LogFolderOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true });
    this.#look();
  }

  /** Appends a slice; `newTexts` are those that the slices before it had not. @throws what the file system says. */
  write(slice: LogSlice, newTexts: readonly string[]): void {
    for (const text of newTexts) this.#texts.push(text);
    this.#slices += 1;
    const isFirst = this.#journal === undefined;
    const journal = (this.#journal ??= this.#begin());
    const frame = journalFrame(slice, isFirst ? this.#texts : newTexts, this.#decisions);
    this.#decisions += slice.decisions;
    append(journal.descriptor, frame);
    const bytes = frame.reduce((sum, { byteLength }) => sum + byteLength, 0);
    journal.bytes += bytes;
    this.counts.bytes += bytes;
    this.counts.held += bytes;
    this.tick();
  }

  /** Closes the journal when it is time, and removes what is too much. To be called now and then. @throws as `write`. */
  tick(): void {
    const { bytesMax, nowMs, closeBytes = 2 ** 22, closeMs = 60_000 } = this.#options;
    const journal = this.#journal;
    const isDue =
      journal !== undefined &&
      (journal.bytes >= Math.min(closeBytes, bytesMax * journalShare) || nowMs() - journal.sinceMs >= closeMs);
    if (isDue) this.close();
    this.#keepBound();
  }

  /** Somebody made Parquet files of journals, or removed files: looks at the folder anew. */
  changed(): void {
    this.#lookedMs = -Infinity;
    this.#keepBound();
  }

  /** Closes the journal, for good or until the next slice. */
  close(): void {
    const journal = this.#journal;
    if (journal === undefined) return;
    this.#journal = undefined;
    closeSync(journal.descriptor);
    const { first } = journal;
    renameSync(this.#pathOf(first, Infinity), this.#pathOf(first, this.#slices));
    this.counts.waiting += 1;
  }

  #begin(): Journal {
    const first = this.#slices;
    const descriptor = openSync(this.#pathOf(first, Infinity), 'ax');
    this.counts.files += 1;
    return { descriptor, first, sinceMs: this.#options.nowMs(), bytes: 0 };
  }

  #pathOf(first: number, last: number): string {
    const { folder, run } = this.#options;
    return join(folder, logFileName({ table: 'journal', run, first, last }));
  }

  #keepBound(): void {
    const { bytesMax, nowMs, folder, run } = this.#options;
    if (this.counts.held <= bytesMax && nowMs() - this.#lookedMs < lookMs) return;
    const files = this.#look();
    if (this.counts.held <= bytesMax) return;
    for (const { file, bytes } of files) {
      if (this.counts.held <= bytesMax * keptShare) return;
      if (file.run === run && file.last === Infinity) continue;
      rmSync(join(folder, file.name), { force: true });
      this.counts.held -= bytes;
      this.counts.removed += 1;
      if (file.table === 'journal') this.counts.waiting -= 1;
    }
  }

  /** The log's files in the folder, oldest first. */
  #look(): readonly { readonly file: LogFile; readonly bytes: number }[] {
    const { folder, nowMs, run } = this.#options;
    this.#lookedMs = nowMs();
    const files: { readonly file: LogFile; readonly bytes: number; readonly changedMs: number }[] = [];
    for (const name of readdirSync(folder)) {
      const partialOf = nameOfPartial(name);
      const file = parseLogFileName(partialOf ?? name);
      const status = file === undefined ? undefined : statSync(join(folder, name), { throwIfNoEntry: false });
      if (file === undefined || status === undefined) continue;
      const ageMs = Date.now() - status.mtimeMs;
      if (partialOf !== undefined) {
        if (ageMs > partialMsMax) rmSync(join(folder, name), { force: true });
        continue;
      }
      const isAbandoned = file.last === Infinity && file.run !== run && ageMs > abandonedMs;
      const found = isAbandoned ? closeAbandoned(folder, file) : file;
      files.push({ file: found, bytes: status.size, changedMs: status.mtimeMs });
    }
    this.counts.held = files.reduce((sum, { bytes }) => sum + bytes, 0);
    this.counts.waiting = files.filter(({ file }) => file.table === 'journal' && file.last < Infinity).length;
    return files.sort((one, other) => one.changedMs - other.changedMs);
  }
}

/** Names the journal of a run that crashed by what it holds. Two gateways may do so at once: the second finds it done. */
function closeAbandoned(folder: string, file: LogFile): LogFile {
  const path = join(folder, file.name);
  try {
    const slices = Math.max(1, readJournal(readFileSync(path)).frames.length);
    const closed = { table: 'journal', run: file.run, first: file.first, last: file.first + slices - 1 } as const;
    const name = logFileName(closed);
    renameSync(path, join(folder, name));
    return { ...closed, name };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return file;
    throw error;
  }
}

/** Appends all of it. @throws what the file system says, or that it took less. */
function append(descriptor: number, pieces: readonly Uint8Array[]): void {
  const wanted = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const written = writevSync(descriptor, pieces);
  if (written < wanted) throw new Error(`ENOSPC: no space left: ${written} of ${wanted} bytes were written`);
}
