/**
 * The folder of a decision log. Each slice becomes complete Parquet files at once, written beside their names and renamed, so
 * that a crash leaves nothing half-written behind; small ones are joined into larger ones from what is still in memory.
 * The folder is bounded: the oldest files go first, whichever run wrote them, and are counted.
 *
 * Blocking on purpose: it lives on a thread of its own.
 */
import { mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { logFileName, parseLogFileName } from '#core/decision-log/log-files.js';
import type { LogSlice } from '#core/decision-log/log-slice.js';
import { logTables, tablesOf, type LogColumns, type LogTable } from '#core/decision-log/log-tables.js';
import type { ParquetColumn } from '#core/parquet-column.js';
import { encodeParquet } from './write-parquet.js';

export interface LogFolderOptions {
  readonly folder: string;
  /** Name of this run: see `runName`. */
  readonly run: string;
  /** Bytes of the log's files in the folder, those of other runs included. */
  readonly bytesMax: number;
  /** Monotonic milliseconds. */
  readonly nowMs: () => number;
  /** Files are joined once they hold so many bytes, or the first is so old. Default 2 MiB, 60 s. */
  readonly joinBytes?: number;
  readonly joinMs?: number;
}

export interface LogFolderCounts {
  /** Written since the start, joined ones not counted again. */
  bytes: number;
  files: number;
  /** Files removed to keep the bound. */
  removed: number;
  /** Bytes of the log in the folder, as last looked at and written since. */
  held: number;
}

interface Pending {
  readonly number: number;
  readonly tables: LogColumns;
  readonly bytes: number;
}

/** A slice this large stays as it is: to write it twice would cost more than its readers gain. */
const aloneBytes = 2 ** 16;
/** Files of others are looked for this often, ms. */
const lookMs = 30_000;
/** Bytes are removed down to this share of the bound, so that it is not looked again at once. */
const keptShare = 0.95;
const partialEnding = '.partial';
/** Half-written files older than this, ms, are nobody's. */
const partialMsMax = 60_000;

export class LogFolder {
  readonly counts: LogFolderCounts = { bytes: 0, files: 0, removed: 0, held: 0 };
  readonly #options: LogFolderOptions;
  readonly #texts: string[] = [];
  #pending: Pending[] = [];
  #pendingSinceMs = 0;
  #lookedMs = -Infinity;
  #slices = 0;
  #decisions = 0;

  /** Makes the folder where there is none. @throws what the file system says. */
  constructor(options: LogFolderOptions) {
    this.#options = options;
    mkdirSync(options.folder, { recursive: true });
    this.#look();
  }

  /** Writes a slice; `newTexts` are those that the slices before it had not. @throws what the file system says. */
  write(slice: LogSlice, newTexts: readonly string[]): void {
    for (const text of newTexts) this.#texts.push(text);
    const { run, nowMs, joinBytes = 2 ** 21, joinMs = 60_000 } = this.#options;
    const tables = tablesOf(slice, this.#texts, run, this.#decisions);
    this.#decisions += slice.decisions;
    this.#slices += 1;
    const number = this.#slices;
    const bytes = this.#put(tables, number, number);
    this.counts.bytes += bytes;
    if (bytes >= aloneBytes) {
      this.#join();
      this.#keepBound();
      return;
    }
    if (this.#pending.length === 0) this.#pendingSinceMs = nowMs();
    this.#pending.push({ number, tables, bytes });
    const held = this.#pending.reduce((sum, each) => sum + each.bytes, 0);
    if (held >= joinBytes || nowMs() - this.#pendingSinceMs >= joinMs) this.#join();
    this.#keepBound();
  }

  /** Joins what is left. */
  close(): void {
    this.#join();
  }

  #join(): void {
    const pending = this.#pending;
    this.#pending = [];
    const [first] = pending;
    const last = pending.at(-1);
    if (first === undefined || last === undefined || first === last) return;
    this.#put(joined(pending.map(({ tables }) => tables)), first.number, last.number);
    for (const { number, tables } of pending) {
      for (const table of logTables) {
        if (rowsOf(tables[table]) > 0) this.#remove(this.#nameOf(table, number, number));
      }
    }
  }

  /** Writes the tables that have rows; answers their bytes. */
  #put(tables: LogColumns, first: number, last: number): number {
    let total = 0;
    for (const table of logTables) {
      if (rowsOf(tables[table]) === 0) continue;
      // What is written while it happens is written fast; what is joined may take its time.
      const bytes = encodeParquet(tables[table], { statistics: false, compressed: first < last });
      const path = join(this.#options.folder, this.#nameOf(table, first, last));
      try {
        writeFileSync(`${path}${partialEnding}`, bytes);
        renameSync(`${path}${partialEnding}`, path);
      } catch (error) {
        rmSync(`${path}${partialEnding}`, { force: true });
        throw error;
      }
      total += bytes.byteLength;
      this.counts.files += 1;
    }
    this.counts.held += total;
    return total;
  }

  #nameOf(table: LogTable, first: number, last: number): string {
    return logFileName({ table, run: this.#options.run, first, last });
  }

  #remove(name: string): void {
    const path = join(this.#options.folder, name);
    const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    rmSync(path, { force: true });
    this.counts.held -= bytes;
  }

  #keepBound(): void {
    const { bytesMax, nowMs } = this.#options;
    if (this.counts.held <= bytesMax && nowMs() - this.#lookedMs < lookMs) return;
    const files = this.#look();
    if (this.counts.held <= bytesMax) return;
    for (const { name } of files) {
      if (this.counts.held <= bytesMax * keptShare) return;
      this.#remove(name);
      this.counts.removed += 1;
    }
  }

  /** The log's files in the folder, oldest first. */
  #look(): readonly { readonly name: string; readonly bytes: number }[] {
    const { folder, nowMs } = this.#options;
    this.#lookedMs = nowMs();
    const files: { readonly name: string; readonly bytes: number; readonly changedMs: number }[] = [];
    for (const name of readdirSync(folder)) {
      const isPartial = name.endsWith(partialEnding);
      if (parseLogFileName(isPartial ? name.slice(0, -partialEnding.length) : name) === undefined) continue;
      const status = statSync(join(folder, name), { throwIfNoEntry: false });
      if (status === undefined) continue;
      if (!isPartial) files.push({ name, bytes: status.size, changedMs: status.mtimeMs });
      else if (Date.now() - status.mtimeMs > partialMsMax) rmSync(join(folder, name), { force: true });
    }
    this.counts.held = files.reduce((sum, { bytes }) => sum + bytes, 0);
    return files.sort((one, other) => one.changedMs - other.changedMs);
  }
}

function rowsOf(columns: readonly ParquetColumn[]): number {
  return columns[0]?.values.length ?? 0;
}

/** The tables of several slices, one after another. */
function joined(all: readonly LogColumns[]): LogColumns {
  const of = (table: LogTable): readonly ParquetColumn[] =>
    (all[0]?.[table] ?? []).map((column, index) => {
      const parts = all.map((tables) => tables[table][index]?.values ?? []);
      return { ...column, values: joinedValues(parts) } as ParquetColumn;
    });
  return { decisions: of('decisions'), candidates: of('candidates'), outcomes: of('outcomes') };
}

function joinedValues(parts: readonly ParquetColumn['values'][]): unknown {
  const [first] = parts;
  if (first instanceof Float64Array || first instanceof Float32Array || first instanceof Int32Array) {
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    const whole =
      first instanceof Float64Array
        ? new Float64Array(length)
        : first instanceof Float32Array
          ? new Float32Array(length)
          : new Int32Array(length);
    let at = 0;
    for (const part of parts) {
      whole.set(part as ArrayLike<number>, at);
      at += part.length;
    }
    return whole;
  }
  return parts.flatMap((part) => Array.from<unknown>(part as ArrayLike<unknown>));
}
