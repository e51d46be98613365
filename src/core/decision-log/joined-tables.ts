/** The tables of several slices as one, and those of a journal. */
import type { ParquetColumn } from '../parquet-column.js';
import type { JournalContents } from './log-journal.js';
import { logTables, tablesOf, type LogColumns, type LogTable } from './log-tables.js';

/** All that a journal holds, with features. Frames that hold nothing give tables without rows. */
export function tablesOfJournal(
  { frames, texts }: JournalContents,
  run: string,
  wanted: readonly LogTable[] = logTables,
): LogColumns {
  return joined(frames.map(({ slice, firstDecision }) => tablesOf(slice, texts, run, firstDecision, wanted)));
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
