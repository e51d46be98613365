/**
 * A slice as three tables, ready to be written: decisions, the candidates of each, outcomes of requests. The feature rows are
 * computed here, away from the hot path, by the one feature builder and from the very figures that the policy saw.
 *
 * Names and meanings of columns are told in docs/decision-log.md; they are stable because logs outlive releases.
 */
import type { ParquetColumn } from '../parquet-column.js';
import {
  expectedMs,
  marginalUsd,
  newDispatchCandidate,
  SHED,
  type DispatchCandidate,
  type DispatchRequest,
} from '../scheduling/dispatch-view.js';
import {
  dispatchSchema,
  featureCount,
  featuresOf,
  planSchema,
  writeRows,
  type DispatchScale,
} from '../scheduling/features.js';
import { sloClasses } from '../scheduling/slo-class.js';
import { figureCount, readFigures, readFleetFigures } from './figures.js';
import {
  decisionIntegers as di,
  decisionNumbers as dn,
  outcomeIntegers as oi,
  outcomeNumbers as on,
  planWidth,
  rowIntegers as ri,
  LogSlice,
} from './log-slice.js';

export const logTables = ['decisions', 'candidates', 'outcomes'] as const;
export type LogTable = (typeof logTables)[number];
export type LogColumns = Readonly<Record<LogTable, readonly ParquetColumn[]>>;

/** `place` of the row of refusing the request. */
export const refusalPlace = -1;

/**
 * @param texts All texts of the run so far.
 * @param firstDecision Number of the slice's first decision in the run.
 * @param wanted The other tables have no columns: features of decisions take most of the time.
 */
export function tablesOf(
  slice: LogSlice,
  texts: readonly string[],
  run: string,
  firstDecision: number,
  wanted: readonly LogTable[] = logTables,
): LogColumns {
  const text = (number: number | undefined): string => texts[number ?? 0] ?? '';
  const ofDecisions = wanted.some((table) => table !== 'outcomes');
  return {
    ...(ofDecisions ? decisionTables(slice, text, run, firstDecision) : { decisions: [], candidates: [] }),
    outcomes: wanted.includes('outcomes') ? outcomeTable(slice, text, run) : [],
  };
}

type Texts = (number: number | undefined) => string;

function decisionTables(
  slice: LogSlice,
  text: Texts,
  run: string,
  first: number,
): Pick<LogColumns, 'decisions' | 'candidates'> {
  const { decisions, decisionNumbers: numbers, decisionIntegers: integers, wallOffsetMs } = slice;
  const number = (decision: number, place: number): number => numbers[decision * dn.width + place] as number;
  const integer = (decision: number, place: number): number => integers[decision * di.width + place] as number;
  const rows = new CandidateRows(slice, text);
  const referenceUsd = new Float64Array(decisions);
  const referenceJoules = new Float64Array(decisions);
  for (let decision = 0; decision < decisions; decision += 1) {
    const request: DispatchRequest = {
      model: text(integer(decision, di.model)),
      items: integer(decision, di.items),
      sloMs: number(decision, dn.sloMs),
      class: sloClasses[integer(decision, di.sloClass)] ?? 'standard',
      nowMs: number(decision, dn.nowMs),
      arrivedMs: number(decision, dn.arrivedMs),
      mayShed: integer(decision, di.mayShed) === 1,
    };
    const scale = rows.add(first + decision, request, {
      fleet: readFleetFigures(numbers, decision * dn.width + dn.fleet),
      rowStart: integer(decision, di.rowStart),
      count: integer(decision, di.rows),
      refusalScore: number(decision, dn.refusalScore),
    });
    referenceUsd[decision] = scale.usd;
    referenceJoules[decision] = scale.joules;
  }
  const each = <Value>(read: (decision: number) => Value): Value[] =>
    Array.from({ length: decisions }, (_, at) => read(at));
  const doubles = (read: (decision: number) => number): Float64Array =>
    Float64Array.from({ length: decisions }, (_, at) => read(at));
  const whole = (read: (decision: number) => number): Int32Array =>
    Int32Array.from({ length: decisions }, (_, at) => read(at));
  const fleet = (name: string, at: number): ParquetColumn => ({
    name,
    type: 'number',
    values: doubles((decision) => number(decision, dn.fleet + at)),
  });
  return {
    decisions: [
      { name: 'run', type: 'text', values: each(() => run) },
      { name: 'decision', type: 'integer32', values: whole((decision) => first + decision) },
      { name: 'request', type: 'integer', values: each((decision) => BigInt(number(decision, dn.request))) },
      { name: 'time', type: 'time', values: each((decision) => number(decision, dn.nowMs) + wallOffsetMs) },
      {
        name: 'schema',
        type: 'text',
        values: each((decision) => (integer(decision, di.hasPlan) === 1 ? planSchema : dispatchSchema)),
      },
      { name: 'model', type: 'text', values: each((decision) => text(integer(decision, di.model))) },
      { name: 'class', type: 'text', values: each((decision) => sloClasses[integer(decision, di.sloClass)] ?? '') },
      { name: 'items', type: 'integer32', values: whole((decision) => integer(decision, di.items)) },
      { name: 'slo_ms', type: 'number', values: doubles((decision) => number(decision, dn.sloMs)) },
      { name: 'now_ms', type: 'number', values: doubles((decision) => number(decision, dn.nowMs)) },
      { name: 'arrived_ms', type: 'number', values: doubles((decision) => number(decision, dn.arrivedMs)) },
      { name: 'may_shed', type: 'boolean', values: each((decision) => integer(decision, di.mayShed) === 1) },
      { name: 'candidates', type: 'integer32', values: whole((decision) => integer(decision, di.rows)) },
      { name: 'chosen', type: 'integer32', values: whole((decision) => integer(decision, di.chosen)) },
      {
        name: 'device',
        type: 'text',
        values: each((decision) => rows.deviceAt(integer(decision, di.rowStart), integer(decision, di.chosen))),
      },
      { name: 'shed', type: 'boolean', values: each((decision) => integer(decision, di.chosen) === SHED) },
      { name: 'propensity', type: 'number', values: doubles((decision) => number(decision, dn.propensity)) },
      { name: 'policy', type: 'text', values: each((decision) => text(integer(decision, di.policy))) },
      { name: 'fallback', type: 'text', values: each((decision) => text(integer(decision, di.fallback))) },
      { name: 'reference_usd', type: 'number', values: referenceUsd },
      { name: 'reference_joules', type: 'number', values: referenceJoules },
      fleet('fleet_load_1s', 0),
      fleet('fleet_load_30s', 1),
      fleet('fleet_burstiness', 2),
      fleet('fleet_interactive_share', 3),
      fleet('fleet_hour_phase', 4),
      fleet('fleet_usd_per_kwh', 5),
    ],
    candidates: rows.columns(run),
  };
}

/** Features of every schema: those of the fluid programme are 0 where the policy sees nothing of it. */
const columnNames = featuresOf(planSchema);

interface LoggedDecision {
  readonly fleet: ReturnType<typeof readFleetFigures>;
  readonly rowStart: number;
  readonly count: number;
  readonly refusalScore: number;
}

/** Columns over candidates, filled decision by decision. */
class CandidateRows {
  readonly #slice: LogSlice;
  readonly #text: Texts;
  readonly #decision: number[] = [];
  readonly #place: number[] = [];
  readonly #device: string[] = [];
  readonly #masked: string[] = [];
  readonly #score: (number | null)[] = [];
  readonly #expectedMs: (number | null)[] = [];
  readonly #costUsd: (number | null)[] = [];
  readonly #figures: (Uint8Array | null)[] = [];
  readonly #features: Float32Array[];
  readonly #scale: DispatchScale = { usd: 0, joules: 0 };
  #rows = new Float32Array(featureCount);

  constructor(slice: LogSlice, text: Texts) {
    this.#slice = slice;
    this.#text = text;
    const rowsMax = slice.rows + slice.decisions;
    this.#features = columnNames.map(() => new Float32Array(rowsMax));
  }

  deviceAt(rowStart: number, chosen: number): string {
    return chosen < 0 ? '' : this.#text(this.#slice.rowIntegers[(rowStart + chosen) * ri.width + ri.place]);
  }

  /** Answers what the decision's costs are measured by; the same object each time. */
  add(
    decision: number,
    request: DispatchRequest,
    { fleet, rowStart, count, refusalScore }: LoggedDecision,
  ): DispatchScale {
    const slice = this.#slice;
    const candidates: DispatchCandidate[] = [];
    for (let index = 0; index < count; index += 1) {
      const candidate = newDispatchCandidate();
      const row = rowStart + index;
      const masked = this.#text(slice.rowIntegers[row * ri.width + ri.masked]);
      readFigures(slice.figures, row * figureCount, masked, candidate);
      candidates.push(candidate);
    }
    const needed = (count + 1) * featureCount;
    if (this.#rows.length < needed) this.#rows = new Float32Array(needed);
    const written = writeRows(request, candidates, fleet, this.#scale, this.#rows);
    for (let index = 0; index < written; index += 1) {
      const candidate = candidates[index];
      const row = rowStart + index;
      for (const [feature, column] of this.#features.entries()) {
        column[this.#decision.length] = (
          feature < featureCount
            ? this.#rows[index * featureCount + feature]
            : candidate === undefined
              ? 0
              : slice.plans[row * planWidth + feature - featureCount]
        ) as number;
      }
      this.#decision.push(decision);
      this.#place.push(candidate === undefined ? refusalPlace : index);
      this.#device.push(candidate === undefined ? '' : this.#text(slice.rowIntegers[row * ri.width + ri.place]));
      this.#masked.push(candidate?.masked ?? '');
      this.#score.push(known(candidate === undefined ? refusalScore : (slice.scores[row] as number)));
      this.#expectedMs.push(candidate === undefined ? null : known(expectedMs(candidate)));
      this.#costUsd.push(candidate === undefined ? null : known(marginalUsd(candidate, fleet)));
      const from = row * figureCount;
      const own = candidate === undefined ? undefined : slice.figures.slice(from, from + figureCount);
      this.#figures.push(own === undefined ? null : new Uint8Array(own.buffer));
    }
    return this.#scale;
  }

  columns(run: string): readonly ParquetColumn[] {
    const count = this.#decision.length;
    return [
      { name: 'run', type: 'text', values: this.#decision.map(() => run) },
      { name: 'decision', type: 'integer32', values: Int32Array.from(this.#decision) },
      { name: 'place', type: 'integer32', values: Int32Array.from(this.#place) },
      { name: 'device', type: 'text', values: this.#device },
      { name: 'masked', type: 'text', values: this.#masked },
      { name: 'score', type: 'number', values: this.#score },
      { name: 'expected_ms', type: 'number', values: this.#expectedMs },
      { name: 'cost_usd', type: 'number', values: this.#costUsd },
      ...columnNames.map((name, feature): ParquetColumn => ({
        name,
        type: 'single',
        values: (this.#features[feature] as Float32Array).subarray(0, count),
      })),
      { name: 'figures', type: 'bytes', values: this.#figures },
    ];
  }
}

function outcomeTable(slice: LogSlice, text: Texts, run: string): readonly ParquetColumn[] {
  const { outcomes, outcomeNumbers: numbers, outcomeIntegers: integers, wallOffsetMs } = slice;
  const number = (at: number, place: number): number => numbers[at * on.width + place] as number;
  const integer = (at: number, place: number): number => integers[at * oi.width + place] as number;
  const each = <Value>(read: (at: number) => Value): Value[] => Array.from({ length: outcomes }, (_, at) => read(at));
  const whole = (place: number): Int32Array => Int32Array.from({ length: outcomes }, (_, at) => integer(at, place));
  const some = (place: number): (number | null)[] => each((at) => known(number(at, place)));
  const words = (place: number): string[] => each((at) => text(integer(at, place)));
  return [
    { name: 'run', type: 'text', values: each(() => run) },
    { name: 'request', type: 'integer', values: each((at) => BigInt(number(at, on.request))) },
    { name: 'arrived', type: 'time', values: each((at) => number(at, on.arrivedMs) + wallOffsetMs) },
    { name: 'arrived_ms', type: 'number', values: each((at) => number(at, on.arrivedMs)) },
    { name: 'duration_ms', type: 'number', values: each((at) => number(at, on.finishedMs) - number(at, on.arrivedMs)) },
    { name: 'model', type: 'text', values: words(oi.model) },
    { name: 'class', type: 'text', values: each((at) => sloClasses[integer(at, oi.sloClass)] ?? '') },
    { name: 'items', type: 'integer32', values: whole(oi.items) },
    { name: 'tenant', type: 'text', values: words(oi.tenant) },
    { name: 'outcome', type: 'text', values: words(oi.outcome) },
    { name: 'shed', type: 'boolean', values: each((at) => integer(at, oi.shed) === 1) },
    { name: 'device', type: 'text', values: words(oi.device) },
    { name: 'emulated', type: 'boolean', values: each((at) => integer(at, oi.emulated) === 1) },
    { name: 'batch_items', type: 'integer32', values: whole(oi.batchItems) },
    { name: 'queue_us', type: 'number', values: some(on.queueUs) },
    { name: 'compute_us', type: 'number', values: some(on.computeUs) },
    { name: 'link_us', type: 'number', values: some(on.linkUs) },
    { name: 'cost_usd', type: 'number', values: some(on.costUsd) },
    { name: 'joules', type: 'number', values: some(on.joules) },
  ];
}

function known(value: number): number | null {
  return Number.isNaN(value) ? null : value;
}

/** The columns of a table and their types, without rows. */
export function emptyTable(table: LogTable): readonly ParquetColumn[] {
  return tablesOf(new LogSlice({ decisions: 1, rows: 1, outcomes: 1 }), [], '', 0)[table];
}
