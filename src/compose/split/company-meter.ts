/**
 * Measures what devices of this machine that share its processor leave each other: the shards of a plan run on them all at
 * once, each device with its next run waiting, and their pace is held against what each shard takes alone. Values go
 * through this process as they do when the plan is served, so that what this costs is in the figures.
 */
import { messageOf } from '#core/errors.js';
import type { ContentionRecord, ProfileRecord } from '#core/profile/profile-record.js';
import { timeFigures, timeStats } from '#core/profile/time-stats.js';
import { pacesTogether } from '#core/split/company-pace.js';
import type { Contention, MeasuredContention } from '#core/split/contention.js';
import type { Executor } from '#ports/executor.js';
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
}

const aloneRuns = 4;
const warmRuns = 2;
/** Runs that wait at each device, the one under way included. */
const inFlight = 2;
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
  const slowdown = timeFigures(times).meanMs / aloneMs;
  return { kind: `${provider} ${threads}`, ...{ beside, from, to, batch, slowdown } };
}

interface Running {
  readonly placed: PlacedShard;
  readonly executor: Executor;
  readonly shard: MeteredShard;
  aloneMs: number;
  /** Moments of answers. */
  readonly answers: number[];
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

  /** The shards of one plan together, once. False when nothing was measured: no two share the processor, or no time is left. */
  async measure(shards: readonly PlacedShard[]): Promise<boolean> {
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
        running.push({ placed, executor, shard, aloneMs: 0, answers: [] });
      }
      for (const each of running) each.aloneMs = await this.#alone(each);
      await this.#together(running);
      return await this.#keep(running);
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

  async #alone({ executor, shard }: Running): Promise<number> {
    const times: number[] = [];
    for (let run = 0; run < warmRuns + aloneRuns && !(this.#isOver && times.length > 0); run += 1) {
      const result = await executor.run(shard.request);
      result.release?.();
      if (run >= warmRuns) times.push((result.computeInputUs + result.computeInferUs + result.computeOutputUs) / 1000);
    }
    return Math.max(1e-3, times.sort((a, b) => a - b)[times.length >> 1] ?? 0);
  }

  /** Until each has answered often enough, and for long enough. */
  async #together(running: readonly Running[]): Promise<void> {
    const { clock } = this.#parts;
    const startMs = clock.nowMs();
    const isEnough = (): boolean => {
      const ms = clock.nowMs() - startMs;
      const least = Math.min(...running.map(({ answers }) => answers.length));
      const wanted = ms >= longTogetherMs ? longAnswersMin : answersMin;
      return this.#isOver || (ms >= togetherMs && least >= wanted);
    };
    const client = async ({ executor, shard, answers }: Running): Promise<void> => {
      while (!isEnough()) {
        const result = await executor.run(shard.request);
        result.release?.();
        answers.push(clock.nowMs());
      }
    };
    await Promise.all(running.flatMap((each) => Array.from({ length: inFlight }, () => client(each))));
  }

  async #keep(running: readonly Running[]): Promise<boolean> {
    const { clock, keep } = this.#parts;
    const paces = pacesTogether(
      running.map(({ answers }) => answers),
      inFlight,
    );
    const records: ProfileRecord[] = [];
    for (const [index, { placed, executor, shard, aloneMs }] of running.entries()) {
      const { device, from, to, batch } = placed;
      const times = timeStats(paces[index] ?? []);
      if (times.count < 2) return false;
      const beside = companyOf(
        placed,
        running.map((each) => each.placed),
      );
      const record: ContentionRecord = {
        ...recordedOn(device, executor.description.engine, this.#parts),
        ...{ type: 'contention', from, to, batch, beside, times, aloneMs },
        ...{ optimization: shard.loaded.optimization, atMs: clock.wallMs() },
      };
      records.push(record);
      this.#measured.push(measuredContention(record));
    }
    await keep(records);
    return true;
  }
}

/** Kinds of the devices that run beside one, sorted. */
function companyOf(one: PlacedShard, all: readonly PlacedShard[]): readonly string[] {
  return all.flatMap((other) => (other === one ? [] : [companionKind(other.device)])).sort();
}
