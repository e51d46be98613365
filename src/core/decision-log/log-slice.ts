/**
 * A slice of the decision log: what happens in up to half a second, in arrays of fixed size over one block of shared memory,
 * so that the hot path only stores numbers and whoever writes files reads them on another thread without a copy.
 * Texts are numbers here; the list of texts belongs to the recorder.
 */
import { planFeatureNames } from '../scheduling/features.js';
import { figureCount, fleetFigureCount } from './figures.js';

export interface SliceSize {
  readonly decisions: number;
  /** Candidates of all decisions. */
  readonly rows: number;
  readonly outcomes: number;
}

/** Half a second of 8,000 decisions a second among four candidates. 5 MiB. */
export const sliceSizeDefault: SliceSize = { decisions: 4096, rows: 16_384, outcomes: 4096 };

/** Places of a decision's numbers. */
export const decisionNumbers = {
  request: 0,
  nowMs: 1,
  arrivedMs: 2,
  sloMs: 3,
  propensity: 4,
  refusalScore: 5,
  fleet: 6,
  width: 6 + fleetFigureCount,
} as const;
export const decisionIntegers = {
  model: 0,
  sloClass: 1,
  items: 2,
  mayShed: 3,
  rowStart: 4,
  rows: 5,
  chosen: 6,
  policy: 7,
  fallback: 8,
  /** 1 where the policy sees the fluid programme. */
  hasPlan: 9,
  width: 10,
} as const;
/** Numbers of a candidate that the fluid programme gives. */
export const planWidth = planFeatureNames.length;
/** Places of a candidate's integers: its device's text, and its mask's. */
export const rowIntegers = { place: 0, masked: 1, width: 2 } as const;
export const outcomeNumbers = {
  request: 0,
  arrivedMs: 1,
  finishedMs: 2,
  costUsd: 3,
  joules: 4,
  queueUs: 5,
  computeUs: 6,
  linkUs: 7,
  width: 8,
} as const;
export const outcomeIntegers = {
  model: 0,
  sloClass: 1,
  items: 2,
  tenant: 3,
  outcome: 4,
  shed: 5,
  device: 6,
  emulated: 7,
  batchItems: 8,
  width: 9,
} as const;

/** Where in `counts` things stand. */
const decisionsAt = 0;
const rowsAt = 1;
const outcomesAt = 2;

export class LogSlice {
  readonly size: SliceSize;
  readonly memory: SharedArrayBuffer;
  readonly #counts: Int32Array;
  /** Adds to the monotonic clock for milliseconds since 1970. */
  readonly #wallOffset: Float64Array;
  readonly decisionNumbers: Float64Array;
  readonly decisionIntegers: Int32Array;
  /** `figureCount` numbers a candidate. */
  readonly figures: Float64Array;
  /** NaN where the policy gives no scores. */
  readonly scores: Float64Array;
  readonly rowIntegers: Int32Array;
  readonly outcomeNumbers: Float64Array;
  readonly outcomeIntegers: Int32Array;
  /** `planWidth` numbers a candidate; all 0 where the policy sees nothing of the fluid programme. */
  readonly plans: Float32Array;

  constructor(size: SliceSize, memory?: SharedArrayBuffer) {
    this.size = size;
    const { decisions, rows, outcomes } = size;
    const doubles = 1 + decisions * decisionNumbers.width + rows * (figureCount + 1) + outcomes * outcomeNumbers.width;
    const integers =
      4 + decisions * decisionIntegers.width + rows * rowIntegers.width + outcomes * outcomeIntegers.width;
    const singles = rows * planWidth;
    this.memory = memory ?? new SharedArrayBuffer(doubles * 8 + (integers + singles) * 4);
    let at = 0;
    const nextDoubles = (length: number): Float64Array => {
      const view = new Float64Array(this.memory, at, length);
      at += length * 8;
      return view;
    };
    const nextIntegers = (length: number): Int32Array => {
      const view = new Int32Array(this.memory, at, length);
      at += length * 4;
      return view;
    };
    this.#wallOffset = nextDoubles(1);
    this.decisionNumbers = nextDoubles(decisions * decisionNumbers.width);
    this.figures = nextDoubles(rows * figureCount);
    this.scores = nextDoubles(rows);
    this.outcomeNumbers = nextDoubles(outcomes * outcomeNumbers.width);
    this.#counts = nextIntegers(4);
    this.decisionIntegers = nextIntegers(decisions * decisionIntegers.width);
    this.rowIntegers = nextIntegers(rows * rowIntegers.width);
    this.outcomeIntegers = nextIntegers(outcomes * outcomeIntegers.width);
    this.plans = new Float32Array(this.memory, at, singles);
  }

  get decisions(): number {
    return this.#counts[decisionsAt] as number;
  }
  set decisions(count: number) {
    this.#counts[decisionsAt] = count;
  }
  get rows(): number {
    return this.#counts[rowsAt] as number;
  }
  set rows(count: number) {
    this.#counts[rowsAt] = count;
  }
  get outcomes(): number {
    return this.#counts[outcomesAt] as number;
  }
  set outcomes(count: number) {
    this.#counts[outcomesAt] = count;
  }
  get wallOffsetMs(): number {
    return this.#wallOffset[0] as number;
  }

  /** The used part of each array, always in the same order: what a journal holds of it. */
  usedParts(): readonly Uint8Array[] {
    const { decisions, rows, outcomes } = this;
    const part = (array: Float64Array | Float32Array | Int32Array, length: number): Uint8Array =>
      new Uint8Array(this.memory, array.byteOffset, length * array.BYTES_PER_ELEMENT);
    return [
      part(this.decisionNumbers, decisions * decisionNumbers.width),
      part(this.figures, rows * figureCount),
      part(this.scores, rows),
      part(this.outcomeNumbers, outcomes * outcomeNumbers.width),
      part(this.decisionIntegers, decisions * decisionIntegers.width),
      part(this.rowIntegers, rows * rowIntegers.width),
      part(this.outcomeIntegers, outcomes * outcomeIntegers.width),
      part(this.plans, rows * planWidth),
    ];
  }

  /** Empties it; its times are of a clock that is so many ms behind the wall's. */
  begin(wallOffsetMs: number): void {
    this.#counts.fill(0);
    this.#wallOffset[0] = wallOffsetMs;
  }
}
