/**
 * Measures what devices of this machine that share its processor leave each other: the shards of a plan run on them all at
 * once, a pipeline as it is served and whole models each with its next run waiting (company-runs.ts), and their pace is held
 * against what each shard takes alone.
 *
 * Other programs at work look like company: what is measured beside them is not counted, unless that is asked for, and never
 * kept. It is tried a few times.
 */
import { othersShare, type ProcessorTimes } from '#adapters/hardware/processor-times.js';
import { messageOf } from '#core/errors.js';
import type { ContentionRecord, ProfileRecord } from '#core/profile/profile-record.js';
import { medianOf, timeFigures, timeStats } from '#core/profile/time-stats.js';
import type { Contention, MeasuredContention } from '#core/split/contention.js';
import { formatMs } from '#core/units.js';
import type { Executor } from '#ports/executor.js';
import { computeMs, handOn, paceOfLoops, paceOfPipe, type CompanyRun, type Paces } from './company-runs.js';
import { openShard, type MeteredShard, type PlacedShard } from './metered-shard.js';
import type { PlanDevice } from './plan-devices.js';
import { recordedOn, type MeterParts } from './shard-meter.js';

export interface CompanyMeterParts extends Pick<
  MeterParts,
  'cutter' | 'types' | 'values' | 'inputs' | 'folder' | 'startExecutor' | 'clock' | 'endMs' | 'keep'
> {
  readonly model: string;
  readonly precision: string;
  readonly host: string;
  /** What was measured before. */
  readonly stored: Contention;
  /** Of the machine and of so many processes; undefined where the system does not tell. */
  readonly processorTimes: (pids: readonly number[]) => ProcessorTimes | undefined;
  /** What a shard took alone when it was measured before, ms; undefined where it was not. */
  readonly aloneBefore: (shard: PlacedShard) => number | undefined;
  /** Counts what was measured while others used the processor, or where nobody knows. */
  readonly evenBesideOthers: boolean;
}

/** Share of the processors that others may use meanwhile, and how often that is tried. */
const othersShareMax = 0.05;
const attemptsMax = 3;
/** A shard that takes so much longer or shorter alone than moments before says that the machine itself changes its speed. */
const driftMax = 1.15;
const aloneRuns = 4;
const warmRuns = 2;
/** Answers of each device, and the time they must span; where runs are long, fewer do after a while. */
const answersMin = 8;
const togetherMs = 1_500;
const longAnswersMin = 4;
const longTogetherMs = 4_000;
const graceMs = 5_000;

/** Whether two devices compute on the processor of one host. */
export function shareProcessor(a: PlanDevice, b: PlanDevice): boolean {
  return isProcessor(a) && isProcessor(b) && a.place?.host === b.place?.host;
}

function isProcessor({ provider, emulated }: PlanDevice): boolean {
  return !emulated && (provider === 'cpu' || provider === 'wasm');
}

/** As records and the planner name what runs beside. */
export function companionKind({ provider, threads }: Pick<PlanDevice, 'provider' | 'threads'>): string {
  return `${provider} ${threads}`;
}

export function measuredContention(record: ContentionRecord): MeasuredContention {
  const { from, to, batch, beside, times, aloneMs, provider, threads } = record;
  return { kind: `${provider} ${threads}`, ...{ beside, from, to, batch, aloneMs, paceMs: timeFigures(times).meanMs } };
}

interface Running {
  readonly placed: PlacedShard;
  readonly executor: Executor;
  readonly shard: MeteredShard;
}

export class CompanyMeter {
  /** What could not be measured, and why. */
  readonly notes: string[] = [];
  readonly #parts: CompanyMeterParts;
  readonly #executors = new Map<string, Executor>();
  readonly #done = new Set<string>();
  readonly #measured: MeasuredContention[] = [];

  constructor(parts: CompanyMeterParts) {
    this.#parts = parts;
  }

  /** What was found here. */
  get measured(): readonly MeasuredContention[] {
    return this.#measured;
  }

  /**
   * The shards of one plan together, once. False when nothing was measured: no two share the processor, or no time is left.
   * @param isPipe Each gives its values to those behind it; else each is a plan's by itself.
   */
  async measure(shards: readonly PlacedShard[], isPipe: boolean): Promise<boolean> {
    const sharing = shards.filter(({ device }) => device.isHere && isProcessor(device));
    const key = sharing.map(({ device, from, to, batch }) => `${companionKind(device)} ${from} ${to} ${batch}`).join();
    if (sharing.length < 2 || this.#isOver || this.#done.has(key)) return false;
    const isStored = sharing.every((shard) =>
      this.#parts.stored.has(companionKind(shard.device), companyOf(shard, sharing), shard),
    );
    if (isStored) return false;
    this.#done.add(key);
    const running: Running[] = [];
    try {
      for (const placed of sharing) {
        const executor = await this.#executor(placed.device);
        const shard = await openShard(executor, placed, this.#parts);
        if (shard === undefined) return false;
        running.push({ placed, executor, shard });
      }
      const { runs, letGo } = await handOn(
        running.map(({ executor, shard: { request, outputs } }) => ({ executor, request, outputs })),
      );
      try {
        // Of a pipe that leaves the processor in between this is only a part.
        return await this.#measure(running, runs, isPipe && sharing.length === shards.length);
      } finally {
        letGo();
      }
    } catch (error) {
      this.notes.push(
        `${sharing.map(({ device }) => device.id).join(' and ')} were not measured together: ${messageOf(error)}`,
      );
      return false;
    } finally {
      for (const { shard } of running) await shard.close().catch(() => undefined);
    }
  }

  async close(): Promise<void> {
    for (const executor of this.#executors.values()) await executor.close({ graceMs });
  }

  get #isOver(): boolean {
    return this.#parts.clock.nowMs() >= this.#parts.endMs;
  }

  async #executor(device: PlanDevice): Promise<Executor> {
    const known = this.#executors.get(device.id);
    if (known !== undefined) return known;
    const executor = await this.#parts.startExecutor(device);
    this.#executors.set(device.id, executor);
    return executor;
  }

  /** Until nobody else was at work meanwhile. */
  async #measure(running: readonly Running[], runs: readonly CompanyRun[], isPipe: boolean): Promise<boolean> {
    const { evenBesideOthers } = this.#parts;
    let others: number | undefined = 0;
    for (let attempt = 0; attempt < attemptsMax && !this.#isOver; attempt += 1) {
      const before = this.#times();
      const aloneMs: number[] = [];
      for (const run of runs) aloneMs.push(await this.#alone(run));
      const paces = await this.#together(runs, isPipe);
      const after = this.#times();
      others = before === undefined || after === undefined ? undefined : othersShare(before, after);
      const isQuiet = others !== undefined && others <= othersShareMax;
      if (isQuiet || evenBesideOthers) return await this.#take(running, { aloneMs, paces, isKept: isQuiet });
      if (others === undefined) break;
    }
    // No time was left.
    if (others === 0) return false;
    const names = running.map(({ placed }) => placed.device.id).join(' and ');
    const why =
      others === undefined
        ? 'this system does not say whether other programs are at work'
        : `other programs took ${Math.round(100 * others)} % of the processors meanwhile, more than ${100 * othersShareMax} %`;
    this.notes.push(`what ${names} leave each other does not count: ${why}; see --contention`);
    return false;
  }

  /** Nothing of this machine was busy either time: what is measured now need not be what is served with later. */
  #lookAtDrift(placed: PlacedShard, ms: number): void {
    const beforeMs = this.#parts.aloneBefore(placed) ?? ms;
    const times = Math.max(beforeMs / ms, ms / beforeMs);
    if (!(times > driftMax) || times === Infinity) return;
    const { device, from, to } = placed;
    this.notes.push(
      `${device.id} took ${formatMs(beforeMs)} for nodes ${from} to ${to - 1}, and ${formatMs(ms)} moments later: this machine changes its speed by itself, and figures may be off by as much`,
    );
  }

  #times(): ProcessorTimes | undefined {
    const executors = [...this.#executors.values()].flatMap(({ description: { pid } }) =>
      pid === undefined ? [] : [pid],
    );
    return this.#parts.processorTimes([process.pid, ...executors]);
  }

  async #alone({ executor, request }: CompanyRun): Promise<number> {
    const times: number[] = [];
    for (let run = 0; run < warmRuns + aloneRuns && !(this.#isOver && times.length > 0); run += 1) {
      const result = await executor.run(request);
      result.release?.();
      if (run >= warmRuns) times.push(computeMs(result));
    }
    return Math.max(1e-3, medianOf(times));
  }

  /** Until each has answered often enough, and for long enough. */
  async #together(runs: readonly CompanyRun[], isPipe: boolean): Promise<Paces> {
    const { clock } = this.#parts;
    const startMs = clock.nowMs();
    const isEnough = (answers: number): boolean => {
      const ms = clock.nowMs() - startMs;
      const wanted = ms >= longTogetherMs ? longAnswersMin : answersMin;
      return this.#isOver || (ms >= togetherMs && answers >= wanted);
    };
    return isPipe ? await paceOfPipe(runs, clock, isEnough) : await paceOfLoops(runs, clock, isEnough);
  }

  async #take(
    running: readonly Running[],
    {
      aloneMs,
      paces,
      isKept,
    }: { readonly aloneMs: readonly number[]; readonly paces: Paces; readonly isKept: boolean },
  ): Promise<boolean> {
    const { clock, keep } = this.#parts;
    const records: ProfileRecord[] = [];
    for (const [index, { placed }] of running.entries()) this.#lookAtDrift(placed, aloneMs[index] ?? 0);
    for (const [index, { placed, executor, shard }] of running.entries()) {
      const { device, from, to, batch } = placed;
      const times = timeStats(paces[index] ?? []);
      if (times.count < 2) return false;
      const beside = companyOf(
        placed,
        running.map((each) => each.placed),
      );
      const record: ContentionRecord = {
        ...recordedOn(device, executor.description.engine, this.#parts),
        ...{ type: 'contention', from, to, batch, beside, times, aloneMs: aloneMs[index] ?? 0 },
        ...{ optimization: shard.loaded.optimization, atMs: clock.wallMs() },
      };
      records.push(record);
      this.#measured.push(measuredContention(record));
    }
    if (isKept) await keep(records);
    return true;
  }
}

/** Kinds of the devices that run beside one, sorted. */
function companyOf(one: PlacedShard, all: readonly PlacedShard[]): readonly string[] {
  return all.flatMap((other) => (other === one ? [] : [companionKind(other.device)])).sort();
}
