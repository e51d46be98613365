/**
 * The planner's tables for one model: times, bytes and transfers of all shards between legal cuts, on all devices, in runs
 * of one batch size. Measurements and estimates come from stage-times.ts, sizes from node-work.ts.
 */
import type { NodeWork } from './node-work.js';
import type { PlannerDevice, PlannerProblem } from './plan-problem.js';
import { StageTimes, type ChainWork, type KnownMs, type MeasuredShard, type Silicon } from './stage-times.js';

/** How values get from one device to another. */
export interface LinkTimes {
  /** Of the smallest message, ms. */
  readonly fixedMs: number;
  readonly msPerByte: number;
  readonly source: 'measured' | 'estimated';
  /** Standard deviation by the value. */
  readonly deviation: number;
}

export interface TableSource {
  /** Positions of the legal cuts, ascending. */
  readonly cuts: readonly number[];
  /** Bytes that each of them sends, for one item. */
  readonly cutBytes: readonly number[];
  readonly work: readonly NodeWork[];
  /** Named tensors that each node holds. */
  readonly weights: readonly (readonly (readonly [string, number])[])[];
  readonly devices: readonly PlannerDevice[];
  readonly silicon: (device: PlannerDevice) => Silicon;
  readonly measured: (device: PlannerDevice) => readonly MeasuredShard[];
  /** Milliseconds by node, where they were measured; absent: nowhere. */
  readonly nodeMs?: (device: PlannerDevice) => readonly number[];
  readonly link: (from: PlannerDevice, to: PlannerDevice) => LinkTimes;
}

export interface TableOptions {
  /** Those that plans may use; default: all. */
  readonly devices?: readonly PlannerDevice[];
  readonly stagesMax?: number;
  readonly replicates: boolean;
  /** Whether unlike devices may share a stage. */
  readonly mayShare?: NonNullable<PlannerProblem['mayShare']>;
}

/** A model as the planner sees it. Kept while measurements arrive: `problem` makes tables of what is known now. */
export class PlanTables {
  readonly source: TableSource;
  /** Positions of segments' ends: 0, the cuts, the number of nodes. */
  readonly bounds: readonly number[];
  readonly chain: ChainWork;
  /** By segment: the most that is alive at once in it, for one item. */
  readonly #peaks: Float64Array;
  readonly #weightRows = new Map<number, Float64Array>();
  readonly #nodeBytes: Float64Array;
  readonly #heldBytes: number;

  constructor(source: TableSource) {
    this.source = source;
    const { cuts, work, weights } = source;
    const nodes = work.length;
    this.bounds = [0, ...cuts, nodes];
    const sums = (of: (node: NodeWork) => number): Float64Array => {
      const total = new Float64Array(nodes + 1);
      for (const [index, node] of work.entries()) total[index + 1] = (total[index] as number) + of(node);
      return total;
    };
    this.#nodeBytes = Float64Array.from(weights, (held) => held.reduce((sum, [, bytes]) => sum + bytes, 0));
    this.chain = {
      nodes,
      flops: sums(({ flops }) => flops),
      activationBytes: sums(({ activationBytes }) => activationBytes),
      operators: sums(() => 1),
      weightBytes: (from, to) => this.weightBytes(from, to),
    };
    this.#peaks = Float64Array.from(this.bounds.slice(1), (to, index) => {
      const nodesOf = work.slice(this.bounds[index], to);
      return nodesOf.reduce((peak, { liveBytes }) => Math.max(peak, liveBytes), 0);
    });
    this.#heldBytes = this.weightBytes(0, nodes);
  }

  /** Bytes of the weights of nodes `from` to `to`; one that several use counts once. */
  weightBytes(from: number, to: number): number {
    return to === from + 1 ? (this.#nodeBytes[from] ?? 0) : (this.#weightRow(from)[to] as number);
  }

  /** Bytes of weights of nodes from one on, by end. */
  #weightRow(from: number): Float64Array {
    let row = this.#weightRows.get(from);
    if (row === undefined) {
      const { weights } = this.source;
      row = new Float64Array(weights.length + 1);
      const seen = new Set<string>();
      let bytes = 0;
      for (let at = from; at < weights.length; at += 1) {
        for (const [name, size] of weights[at] ?? []) {
          if (seen.has(name)) continue;
          seen.add(name);
          bytes += size;
        }
        row[at + 1] = bytes;
      }
      this.#weightRows.set(from, row);
    }
    return row;
  }

  /** Bytes a shard of segments `from` to `to` takes: weights, and what is alive at once in runs of so many items. */
  shardBytes(from: number, to: number, batch: number): number {
    let peak = 0;
    for (let at = from; at < to; at += 1) peak = Math.max(peak, this.#peaks[at] ?? 0);
    return this.weightBytes(this.bounds[from] ?? 0, this.bounds[to] ?? 0) + peak * batch;
  }

  /** Times of a kind of device, as far as they are known now. */
  times(device: PlannerDevice, batch: number): StageTimes {
    const { silicon, measured, nodeMs } = this.source;
    return new StageTimes(this.chain, silicon(device), batch, measured(device), { nodeMs: nodeMs?.(device) ?? [] });
  }

  /** The tables of runs of so many items, of what is known now. */
  problem(
    batch: number,
    { devices = this.source.devices, stagesMax, replicates, mayShare }: TableOptions,
  ): PlannerProblem {
    const { link, cutBytes } = this.source;
    const { bounds } = this;
    const segments = bounds.length - 1;
    const times = new Map<string, StageTimes>();
    for (const device of devices) {
      if (!times.has(device.type)) times.set(device.type, this.times(device, batch));
    }
    const timesOf = (device: PlannerDevice): StageTimes => times.get(device.type) as StageTimes;
    const position = (boundary: number): number => bounds[boundary] as number;
    const links = new Map<PlannerDevice, Map<PlannerDevice, LinkTimes>>();
    const linkOf = (from: PlannerDevice, to: PlannerDevice): LinkTimes => {
      let known = links.get(from);
      if (known === undefined) links.set(from, (known = new Map<PlannerDevice, LinkTimes>()));
      let times = known.get(to);
      if (times === undefined) known.set(to, (times = link(from, to)));
      return times;
    };
    const wholePeak = Math.max(0, ...this.#peaks) * batch;
    return {
      segments,
      devices,
      ...(stagesMax === undefined ? {} : { stagesMax }),
      replicates,
      ...(mayShare === undefined ? {} : { mayShare }),
      stageMs: (device, from, to) => timesOf(device).ms(position(from), position(to)),
      stageBytes: (from, to) => this.shardBytes(from, to, batch),
      transferMs: (from, to, boundary) => transferMs(linkOf(from, to), (cutBytes[boundary - 1] ?? 0) * batch),
      fillTransfers: (from, to, into) => {
        const times = linkOf(from, to);
        for (let boundary = 1; boundary < segments; boundary += 1) {
          into[boundary] = transferMs(times, (cutBytes[boundary - 1] ?? 0) * batch);
        }
      },
      fillStages: (device, from, last, into) => {
        timesOf(device).fill(bounds, { from, last, into });
        if (this.#heldBytes + wholePeak <= device.memoryBytes) return;
        const held = this.#weightRow(position(from));
        const peaks = this.#peaks;
        const { memoryBytes } = device;
        let peak = 0;
        for (let end = from + 1; end <= last; end += 1) {
          const here = peaks[end - 1] as number;
          if (here > peak) peak = here;
          if ((held[bounds[end] as number] as number) + peak * batch > memoryBytes) into[end] = Infinity;
        }
      },
    };
  }
}

/** Milliseconds to send so many bytes. */
export function transferMs({ fixedMs, msPerByte }: LinkTimes, bytes: number): number {
  return fixedMs + msPerByte * bytes;
}

/** A sum of independent times: its deviation by the sum. */
export function sumDeviation(parts: readonly Pick<KnownMs, 'ms' | 'deviation'>[]): number {
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  if (total === 0) return 0;
  return Math.sqrt(parts.reduce((sum, { ms, deviation }) => sum + (ms * deviation) ** 2, 0)) / total;
}
