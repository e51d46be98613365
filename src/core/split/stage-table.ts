/** Times of stages and transfers as searches read them: by rows, asked of the problem once where there is room to keep them. */
import type { PlannerDevice, PlannerProblem } from './plan-problem.js';

/** Cells of kept tables: 8 bytes each. Larger ones are cheaper to fill again than to read from memory. */
const keptCellsMax = 4_000_000;

export class StageTable {
  readonly problem: PlannerProblem;
  readonly #kept: Map<string, (Float64Array | undefined)[]> | undefined;
  readonly #scratch: Float64Array;
  #space: SearchRows | undefined;
  readonly #transfers = new Map<string, Map<string, Float64Array>>();

  constructor(problem: PlannerProblem) {
    this.problem = problem;
    const types = new Set(problem.devices.map(({ type }) => type)).size;
    this.#kept = (types * problem.segments ** 2) / 2 <= keptCellsMax ? new Map() : undefined;
    this.#scratch = new Float64Array(problem.segments + 1);
  }

  /** By end less begin, up to an end; infinite where a stage does not fit. Valid until the next call. */
  from(device: PlannerDevice, begin: number, last: number): Float64Array {
    const kept = this.#kept;
    if (kept === undefined) {
      this.#fill(device, begin, last);
      return this.#scratch.subarray(begin);
    }
    let rows = kept.get(device.type);
    if (rows === undefined) kept.set(device.type, (rows = []));
    let row = rows[begin];
    if (row === undefined) {
      this.#fill(device, begin, this.problem.segments);
      rows[begin] = row = this.#scratch.slice(begin);
    }
    return row;
  }

  /** Milliseconds from one device to another, by boundary; what stands at the ends of the chain means nothing. */
  transfers(from: PlannerDevice, to: PlannerDevice): Float64Array {
    let rows = this.#transfers.get(from.type);
    if (rows === undefined) this.#transfers.set(from.type, (rows = new Map<string, Float64Array>()));
    let row = rows.get(to.type);
    if (row !== undefined) return row;
    const { segments, transferMs, fillTransfers } = this.problem;
    row = new Float64Array(segments + 1);
    if (fillTransfers !== undefined) fillTransfers(from, to, row);
    else for (let boundary = 1; boundary < segments; boundary += 1) row[boundary] = transferMs(from, to, boundary);
    rows.set(to.type, row);
    return row;
  }

  /** Room for a search of so many rows, which nobody else makes meanwhile; what it held before is lost. */
  rows(count: number): SearchRows {
    if (this.#space === undefined || this.#space.count < count) {
      this.#space = new SearchRows(Math.max(count, 2 * (this.#space?.count ?? 0)), this.problem.segments + 1);
    }
    this.#space.value.fill(Infinity, 0, count * (this.problem.segments + 1));
    return this.#space;
  }

  #fill(device: PlannerDevice, begin: number, last: number): void {
    const { fillStages, stageBytes, stageMs } = this.problem;
    const into = this.#scratch;
    if (fillStages !== undefined) {
      fillStages(device, begin, last, into);
      return;
    }
    for (let end = begin + 1; end <= last; end += 1) {
      into[end] = stageBytes(begin, end) > device.memoryBytes ? Infinity : stageMs(device, begin, end);
    }
  }
}

/**
 * By row, and in it by end: the best value of a plan up to there whose last stage is the row's, where that stage began, and from
 * what row. One after the other in one piece of memory, since searches are many and most are small.
 */
export class SearchRows {
  readonly count: number;
  readonly value: Float64Array;
  readonly begin: Int32Array;
  readonly before: Int32Array;

  constructor(count: number, width: number) {
    this.count = count;
    this.value = new Float64Array(count * width);
    this.begin = new Int32Array(count * width);
    this.before = new Int32Array(count * width);
  }
}
