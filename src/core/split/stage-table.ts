/** Times of stages and transfers as searches read them: by rows, asked of the problem once where there is room to keep them. */
import type { PlannerDevice, PlannerProblem } from './plan-problem.js';

/** Cells of kept tables: 8 bytes each. Larger ones are cheaper to fill again than to read from memory. */
const keptCellsMax = 4_000_000;

export class StageTable {
  readonly problem: PlannerProblem;
  readonly #kept: Map<string, (Float64Array | undefined)[]> | undefined;
  readonly #scratch: Float64Array;
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

  /** Milliseconds from one device to another, by boundary; 0 at the ends of the chain, where nothing is sent. */
  transfers(from: PlannerDevice, to: PlannerDevice): Float64Array {
    let rows = this.#transfers.get(from.type);
    if (rows === undefined) this.#transfers.set(from.type, (rows = new Map<string, Float64Array>()));
    let row = rows.get(to.type);
    if (row !== undefined) return row;
    const { segments, transferMs } = this.problem;
    row = new Float64Array(segments + 1);
    for (let boundary = 1; boundary < segments; boundary += 1) row[boundary] = transferMs(from, to, boundary);
    rows.set(to.type, row);
    return row;
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
