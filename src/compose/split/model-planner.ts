/** Plans and measures in turns: what the plans that look best are made of is measured, and then they are made again. */
import type { PlanRequest } from '#cli/plan-report.js';
import { intarsiaError } from '#core/errors.js';
import { withCarrying } from '#core/split/carrying.js';
import type { Contention } from '#core/split/contention.js';
import { choosePlan, type BatchProblem, type ChoiceOptions, type PlanChoice } from '#core/split/plan-choice.js';
import type { PlannerDevice, PlannerProblem } from '#core/split/plan-problem.js';
import type { PlanTables } from '#core/split/plan-tables.js';
import type { Clock } from '#ports/clock.js';
import { companionKind, shareProcessor, type CompanyMeter } from './company-meter.js';
import type { PlanDevice } from './plan-devices.js';
import type { ShardMeter } from './shard-meter.js';

/** Pieces of even work that are measured on each device. */
const piecesMax = 5;
/** Times that a plan is made, measured and made again. */
const roundsMax = 6;
const sweepSteps = 16;
/** A split must be better than a plan with fewer devices by more than this. */
const worthwhile = 0.02;

export interface PlannerParts {
  readonly devices: readonly PlanDevice[];
  readonly tables: PlanTables;
  readonly meter: ShardMeter;
  readonly company: CompanyMeter;
  /** As far as it is known now. */
  readonly contention: () => Contention;
  readonly inputs: ReadonlyMap<number, unknown>;
  /** Bytes of the model's own inputs and outputs, for one item. */
  readonly endBytes: { readonly inputs: number; readonly outputs: number };
  /** Cores of this machine. */
  readonly cores: number;
  /** Requests belong to sequences, which stay on the devices where they began: they are not spread. */
  readonly hasSequences: boolean;
  readonly clock: Clock;
  readonly progress: (share: number, words: string) => void;
  readonly startMs: number;
  readonly measureMs: number;
}

export class ModelPlanner {
  readonly #request: PlanRequest;
  readonly #parts: PlannerParts;

  constructor(request: PlanRequest, parts: PlannerParts) {
    this.#request = request;
    this.#parts = parts;
  }

  async run(): Promise<PlanChoice> {
    await this.#measureBasics();
    let choice = this.#choose();
    for (let round = 0; round < roundsMax; round += 1) {
      const measured = (await this.#measureStages(choice)) + (await this.#measureTogether(choice));
      if (measured === 0) break;
      choice = this.#choose();
    }
    return choice;
  }

  #choose(): PlanChoice {
    const { goal, items, strategy, sloMs = Infinity, frontierMax, stagesMax } = this.#request;
    const { tables, devices, meter, hasSequences } = this.#parts;
    const usable = devices.filter((device) => meter.failure(device) === '');
    if (usable.length === 0) {
      throw intarsiaError('DEVICE_UNAVAILABLE', `no device runs the model: ${meter.notes.slice(0, 3).join('; ')}`);
    }
    const options: ChoiceOptions = {
      ...{ goal, items, frontierMax, sweepSteps, worthwhile },
      latencyMsMax: sloMs,
      strategies:
        strategy === 'auto' ? ['whole', 'pipeline', ...(hasSequences ? [] : (['data'] as const))] : ['whole', strategy],
    };
    const problems = this.#batches.map((batch): BatchProblem => {
      const table = { devices: usable, replicates: true, mayShare, ...(stagesMax === undefined ? {} : { stagesMax }) };
      const apart = usable.flatMap(({ alone }) => (alone === undefined ? [] : [alone])).slice(0, 1);
      return {
        ...{ batch, problem: this.#inCompany(tables.problem(batch, table), batch) },
        ...(apart.length === 0
          ? {}
          : { apart: this.#carried(tables.problem(batch, { devices: apart, replicates: false }), batch) }),
      };
    });
    return choosePlan(problems, options);
  }

  /** With what carrying values costs a full pipe; or, where that was measured, all that devices cost each other. */
  #inCompany(problem: PlannerProblem, batch: number): PlannerProblem {
    const carried = this.#carried(problem, batch);
    const contention = this.#parts.contention();
    if (this.#request.contention === false || contention.isEmpty) return carried;
    const { bounds } = this.#parts.tables;
    return {
      ...problem,
      slowdown: (device, others) => {
        const beside = others.filter((other) => shareProcessor(device as PlanDevice, other as PlanDevice));
        const kinds = beside.map((other) => companionKind(other as PlanDevice));
        const inCompany = contention.beside(companionKind(device as PlanDevice), kinds);
        const carrying = carried.slowdown?.(device, others) ?? (() => 1);
        return (from, to, ms) => {
          const { factor, isMeasured } = inCompany({ from: bounds[from] ?? 0, to: bounds[to] ?? 0, batch }, ms);
          // What was measured of devices together has the carrying in it.
          return isMeasured && beside.length > 0 ? factor : carrying(from, to, ms);
        };
      },
    };
  }

  #carried(problem: PlannerProblem, batch: number): PlannerProblem {
    const { tables, endBytes, cores } = this.#parts;
    const { cutBytes, link } = tables.source;
    return withCarrying(problem, {
      bytes: [endBytes.inputs, ...cutBytes, endBytes.outputs].map((bytes) => bytes * batch),
      way: (device) => {
        const times = link(device, device);
        return (device as PlanDevice).emulated || times.source === 'estimated' ? undefined : times;
      },
      isFull: (device, others) => {
        const { isHere, threads } = device as PlanDevice;
        const beside = others.filter((other) => shareProcessor(device as PlanDevice, other as PlanDevice));
        return isHere && beside.reduce((sum, other) => sum + (other as PlanDevice).threads, threads) >= cores;
      },
    });
  }

  get #batches(): readonly number[] {
    const { items } = this.#request;
    return [...this.#parts.inputs.keys()].filter((batch) => items === 1 || batch <= Math.max(items, 1));
  }

  /** The whole model in all batch sizes, then pieces of even work. */
  async #measureBasics(): Promise<void> {
    const { devices, tables, meter } = this.#parts;
    const real = kinds(devices);
    const apart = devices.flatMap(({ alone }) => (alone === undefined ? [] : [alone]));
    const nodes = tables.chain.nodes;
    const wholes = async (measured: readonly PlanDevice[], batch: number): Promise<void> => {
      for (const device of measured) {
        this.#tell(`${device.id}: whole model, batch ${batch}`);
        if (tables.shardBytes(0, tables.bounds.length - 1, batch) > device.memoryBytes) continue;
        await meter.measure(device, 0, nodes, batch);
      }
    };
    const first = this.#batches[0] ?? 1;
    await wholes([...real, ...apart], first);
    // Of whole models on several devices pieces say nothing.
    const ends = this.#request.strategy === 'data' ? [] : pieceEnds(tables, piecesMax);
    for (const [index, to] of ends.entries()) {
      for (const device of real) {
        this.#tell(`${device.id}: piece ${index + 1} of ${ends.length}`);
        await meter.measure(device, ends[index - 1] ?? 0, to, first);
      }
    }
    // The largest first: sizes between two measured ones lie about on the line.
    for (const batch of [...this.#batches].reverse()) await wholes([...real, ...apart], batch);
  }

  /** Stages of the plans that look best which nobody measured yet; how many were. */
  async #measureStages(choice: PlanChoice): Promise<number> {
    const { tables, meter } = this.#parts;
    const plans = [choice.choice, choice.bestOf.pipeline].filter((plan) => plan !== undefined);
    let count = 0;
    for (const { stages, batch } of plans) {
      for (const { device, from, to } of stages) {
        this.#tell(`${device.id}: a stage of the plan`);
        const [begin = 0, end = 0] = [tables.bounds[from], tables.bounds[to]];
        if (await meter.measure(device as PlanDevice, begin, end, batch)) count += 1;
      }
    }
    return count;
  }

  /** The same plans and the best of whole models with all devices busy; how many were measured. */
  async #measureTogether({ choice, bestOf }: PlanChoice): Promise<number> {
    if (this.#request.contention === false) return 0;
    const { tables, company } = this.#parts;
    const plans = new Set([choice, bestOf.pipeline, bestOf.data]);
    let count = 0;
    for (const plan of plans) {
      if (plan === undefined) continue;
      const { stages, batch, strategy } = plan;
      const isPipe = strategy === 'pipeline' && stages.every(({ devices }) => devices.length === 1);
      const shards = stages.flatMap(({ devices, from, to }) => {
        const range = { from: tables.bounds[from] ?? 0, to: tables.bounds[to] ?? 0, batch };
        return devices.map((device) => ({ device: device as PlanDevice, ...range }));
      });
      this.#tell(`${shards.map(({ device }) => device.id).join(' and ')} together`);
      if (await company.measure(shards, isPipe)) count += 1;
    }
    return count;
  }

  #tell(words: string): void {
    const { clock, progress, startMs, measureMs } = this.#parts;
    if (measureMs > 0) progress(0.1 + 0.9 * Math.min(1, (clock.nowMs() - startMs) / measureMs), words);
  }
}

/** Whether one stage can be meant for these devices: its constraints name hosts and devices, and mean every pair of them. */
function mayShare(devices: readonly PlannerDevice[]): boolean {
  const all = (devices as readonly PlanDevice[]).map(({ constraints }) => constraints);
  if (all.some((constraints) => constraints.devices === undefined)) return false;
  const hosts = new Set(all.flatMap((constraints) => constraints.hosts ?? ['']));
  const names = new Set(all.flatMap((constraints) => constraints.devices ?? []));
  return hosts.size * names.size === devices.length;
}

/** The first device of each kind that can be measured here. */
function kinds(devices: readonly PlanDevice[]): readonly PlanDevice[] {
  const first = new Map<string, PlanDevice>();
  for (const device of devices) if (device.isHere && !first.has(device.kind)) first.set(device.kind, device);
  return [...first.values()];
}

/** Positions behind pieces of about even work, legal cuts but for the last. */
function pieceEnds({ bounds, chain }: PlanTables, pieces: number): readonly number[] {
  const { flops, activationBytes, nodes } = chain;
  const work = (at: number): number => (flops[at] as number) + (activationBytes[at] as number) * 4 + at;
  const ends = new Set<number>();
  for (let piece = 1; piece < pieces; piece += 1) {
    const wanted = (work(nodes) * piece) / pieces;
    const inside = bounds.slice(1, -1);
    const [first] = inside;
    if (first === undefined) break;
    ends.add(inside.reduce((a, b) => (Math.abs(work(b) - wanted) < Math.abs(work(a) - wanted) ? b : a), first));
  }
  return [...[...ends].sort((a, b) => a - b), nodes];
}
