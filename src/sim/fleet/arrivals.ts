/**
 * When requests come, of which model and class, with how many items: columns in order of time, drawn from a seed or taken
 * from a trace. What is drawn depends on the seed alone, never on who decides: policies meet the same requests.
 */
import { intarsiaError } from '#core/errors.js';
import type { Random } from '#ports/random.js';
import { seededRandom } from '../random.js';
import type { ArrivalProcess } from './arrival-process.js';
import type { Fleet, FleetModel } from './fleet.js';
import type { TraceRow } from './trace-file.js';

export interface Arrivals {
  /** Milliseconds from the start, ascending. */
  readonly atMs: Float64Array;
  /** Index of the fleet's model. */
  readonly model: Uint16Array;
  /** Index of the class. */
  readonly sloClass: Uint8Array;
  readonly items: Uint16Array;
  /** Requests whose tokens gave more items than the model takes at once, and were cut to that. */
  readonly capped: number;
}

export interface ArrivalOptions {
  readonly seed: string | number;
  /** Requests. At least 1. */
  readonly requests: number;
  /** Requests a second over the whole; undefined keeps the times as they are. */
  readonly ratePerSecond?: number;
}

/** Draws times from the process, models and classes from the fleet's shares. */
export function drawArrivals(fleet: Fleet, process: ArrivalProcess, options: ArrivalOptions): Arrivals {
  const { requests, ratePerSecond } = options;
  if (!(Number.isInteger(requests) && requests >= 1)) {
    throw intarsiaError('INVALID_ARGUMENT', `arrivals need at least 1 request; asked for ${requests}`);
  }
  const random = seededRandom(options.seed);
  const atMs = process.draw(requests, random.stream('arrival times'));
  if (ratePerSecond !== undefined) retime(atMs, ratePerSecond);
  const draw = new Draw(fleet, random.stream('arrival kinds'));
  const arrivals = emptyArrivals(atMs);
  for (let index = 0; index < requests; index += 1) {
    arrivals.model[index] = draw.model();
    arrivals.sloClass[index] = draw.sloClass();
    arrivals.items[index] = 1;
  }
  return arrivals;
}

/**
 * The requests of a trace: its own times, models, classes and items where it has them, the fleet's shares where it has not.
 * Rows with tokens become items by the model's token rule; where a trace names no model they go to models that have one.
 * @throws INVALID_ARGUMENT naming the line of a row that the fleet cannot take.
 */
export function traceArrivals(
  fleet: Fleet,
  rows: readonly TraceRow[],
  options: Omit<ArrivalOptions, 'requests'> & {
    /** First row, default 0, and how many, default all. */
    readonly from?: number;
    readonly requests?: number;
  },
): Arrivals {
  const from = options.from ?? 0;
  const taken = rows.slice(from, options.requests === undefined ? undefined : from + options.requests);
  const [first] = taken;
  if (first === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `the trace has ${rows.length} rows: none is left from row ${from} on`);
  }
  const atMs = Float64Array.from(taken, (row) => row.atMs - first.atMs);
  if (options.ratePerSecond !== undefined) retime(atMs, options.ratePerSecond);
  const draw = new Draw(fleet, seededRandom(options.seed).stream('arrival kinds'));
  const arrivals = emptyArrivals(atMs);
  let capped = 0;
  for (const [index, row] of taken.entries()) {
    const model = modelOf(fleet, row, draw);
    const { tokens, itemsMax, name } = fleet.models[model] as FleetModel;
    let items = row.items ?? 1;
    if (row.items === undefined && row.contextTokens !== undefined && tokens !== undefined) {
      const work = row.contextTokens + tokens.generatedWeight * (row.generatedTokens ?? 0);
      items = Math.max(1, Math.ceil(work / tokens.tokensPerItem));
      if (items > itemsMax) capped += 1;
      items = Math.min(items, itemsMax);
    }
    if (items > itemsMax) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `trace line ${row.line}: ${items} items; model ${name} takes at most ${itemsMax}`,
        { line: row.line, items, itemsMax },
      );
    }
    arrivals.model[index] = model;
    arrivals.sloClass[index] = row.sloClass ?? draw.sloClass();
    arrivals.items[index] = items;
  }
  return { ...arrivals, capped };
}

/** Requests a second between the first and the last. */
export function meanRate(atMs: Float64Array): number {
  const spanMs = (atMs.at(-1) ?? 0) - (atMs[0] ?? 0);
  return spanMs > 0 ? ((atMs.length - 1) / spanMs) * 1000 : 0;
}

/** Stretches the times so that the mean rate is that many a second; bursts keep their shape. */
export function retime(atMs: Float64Array, ratePerSecond: number): void {
  const rate = meanRate(atMs);
  if (!(ratePerSecond > 0))
    throw intarsiaError('INVALID_ARGUMENT', `a rate must be above 0 a second; it is ${ratePerSecond}`);
  if (rate === 0) return;
  const factor = rate / ratePerSecond;
  const start = atMs[0] ?? 0;
  for (let index = 0; index < atMs.length; index += 1) atMs[index] = ((atMs[index] as number) - start) * factor;
}

function emptyArrivals(atMs: Float64Array): Arrivals {
  const { length } = atMs;
  return {
    atMs,
    model: new Uint16Array(length),
    sloClass: new Uint8Array(length),
    items: new Uint16Array(length),
    capped: 0,
  };
}

function modelOf(fleet: Fleet, row: TraceRow, draw: Draw): number {
  if (row.model === undefined) return row.contextTokens === undefined ? draw.model() : draw.tokenModel();
  const index = fleet.models.findIndex(({ name }) => name === row.model);
  if (index >= 0) return index;
  throw intarsiaError('INVALID_ARGUMENT', `trace line ${row.line}: the fleet has no model ${row.model}`, {
    line: row.line,
    model: row.model,
  });
}

/** Draws by shares. */
class Draw {
  readonly #random: Random;
  readonly #models: readonly number[];
  readonly #tokenModels: readonly number[];
  readonly #classes: readonly number[];

  constructor(fleet: Fleet, random: Random) {
    this.#random = random;
    this.#models = cumulative(fleet.models.map(({ share }) => share));
    const withTokens = fleet.models.map(({ share, tokens }) => (tokens === undefined ? 0 : share));
    this.#tokenModels = withTokens.some((share) => share > 0) ? cumulative(withTokens) : this.#models;
    this.#classes = cumulative(fleet.classShares);
  }

  model(): number {
    return drawn(this.#models, this.#random.next());
  }

  tokenModel(): number {
    return drawn(this.#tokenModels, this.#random.next());
  }

  sloClass(): number {
    return drawn(this.#classes, this.#random.next());
  }
}

function cumulative(shares: readonly number[]): readonly number[] {
  const total = shares.reduce((sum, share) => sum + share, 0);
  let sum = 0;
  return shares.map((share) => (sum += share / total));
}

function drawn(ends: readonly number[], value: number): number {
  for (let index = 0; index < ends.length; index += 1) if (value < (ends[index] as number)) return index;
  // Rounding may leave the last end just below 1.
  let last = ends.length - 1;
  while (last > 0 && ends[last] === ends[last - 1]) last -= 1;
  return last;
}
