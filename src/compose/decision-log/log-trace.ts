/** A decision log as data: the requests of a trace for simulations, decisions and outcomes for trainers. */
import { readLogTable, type DamagedFile } from '#adapters/parquet/read-decision-log.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import type { LogData } from '#policies/learning/logged-decisions.js';
import type { TraceRow } from '#sim/fleet/trace-file.js';

export interface ReadLog {
  readonly data: LogData;
  readonly damaged: readonly DamagedFile[];
}

/** All decisions, candidates and outcomes of a log. @throws NOT_FOUND */
export async function readDecisions(folder: string): Promise<ReadLog> {
  // Outcomes last: what ended while the rest was read only adds to what is known.
  const decisions = await readLogTable(folder, 'decisions');
  const candidates = await readLogTable(folder, 'candidates');
  const outcomes = await readLogTable(folder, 'outcomes');
  return {
    data: { decisions, candidates, outcomes },
    damaged: [decisions, candidates, outcomes].flatMap(({ damaged }) => damaged),
  };
}

/** Every request that ended, by its arrival, as the rows of a trace. @throws NOT_FOUND */
export async function readLogTrace(folder: string): Promise<readonly TraceRow[]> {
  const { rows, columns } = await readLogTable(folder, 'outcomes', ['arrived', 'model', 'class', 'items']);
  const arrived = (columns.get('arrived') ?? []) as readonly Date[];
  const models = (columns.get('model') ?? []) as readonly string[];
  const classes = (columns.get('class') ?? []) as readonly string[];
  const items = (columns.get('items') ?? []) as readonly number[];
  const order = Uint32Array.from({ length: rows }, (_, row) => row);
  const atMs = arrived.map((date) => date.getTime());
  order.sort((one, other) => (atMs[one] ?? 0) - (atMs[other] ?? 0));
  return Array.from(order, (row, index): TraceRow => {
    const sloClass = (sloClasses as readonly string[]).indexOf(classes[row] ?? '');
    return {
      line: index + 1,
      atMs: atMs[row] ?? 0,
      model: models[row] ?? '',
      items: items[row] ?? 1,
      ...(sloClass < 0 ? {} : { sloClass }),
    };
  });
}
