/**
 * Measures shards on real devices for a plan: the whole model, pieces of even work, and the stages of plans that look good.
 * A few runs each, until the time allowed is over; what is measured counts, what is not stays an estimate.
 */
import { IntarsiaError, messageOf } from '#core/errors.js';
import type { MeasuredShard } from '#core/split/stage-times.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import { profileSchema, type NodesRecord, type ProfileRecord, type ShardRecord } from '#core/profile/profile-record.js';
import { timeStats } from '#core/profile/time-stats.js';
import { measureLink } from '../profile/link-meter.js';
import { openShard, type ShardSource } from './metered-shard.js';
import type { PlanDevice } from './plan-devices.js';

const runsMin = 5;
const runsMax = 40;
/** Runs that take longer are repeated less: one to warm up, three that count. */
const longRunMs = 200;
const longRunsMin = 3;
/** Time spent on runs of one shard, ms, once there are enough. */
const shardMs = 400;

export interface MeterParts extends ShardSource {
  readonly startExecutor: (device: PlanDevice) => Promise<Executor>;
  readonly clock: Clock;
  /** When measuring must end, by the clock. */
  readonly endMs: number;
  /** What was measured before, by devices. */
  readonly stored: (device: PlanDevice) => readonly MeasuredShard[];
  /** Whether the way to the executor of a device is known already. */
  readonly knowsLink: (device: PlanDevice) => boolean;
  /** Takes what was measured, at once. */
  readonly keep: (records: readonly ProfileRecord[]) => Promise<void>;
  /** Of records: the model's digest and its weights' type, this machine, and what a shard holds. */
  readonly model: string;
  readonly precision: string;
  readonly host: string;
  readonly peakBytes: (from: number, to: number) => number;
}

/** Of the way to an executor, measured once. */
const linkRunsMax = 20;
const linkMs = 40;

export class ShardMeter {
  /** What could not be measured and why, and what engines had to change. */
  readonly notes: string[] = [];
  readonly #parts: MeterParts;
  readonly #executors = new Map<string, Executor>();
  readonly #measured = new Map<string, MeasuredShard[]>();
  readonly #failed = new Map<string, string>();
  readonly #stored = new Map<string, readonly MeasuredShard[]>();

  constructor(parts: MeterParts) {
    this.#parts = parts;
  }

  /** What was measured on a kind of device. */
  of(device: { readonly type: string }): readonly MeasuredShard[] {
    const { kind, id } = device as PlanDevice;
    let stored = this.#stored.get(`${id} ${kind}`);
    if (stored === undefined) {
      stored = this.#parts.stored(device as PlanDevice);
      this.#stored.set(`${id} ${kind}`, stored);
    }
    return [...stored, ...(this.#measured.get(kind) ?? [])];
  }

  /** Why a kind of device ran a shard not at all; empty when it did or was not asked. */
  failure(device: { readonly type: string }): string {
    return this.#failed.get((device as PlanDevice).kind) ?? '';
  }

  get isOver(): boolean {
    return this.#parts.clock.nowMs() >= this.#parts.endMs;
  }

  /**
   * One shard on a device, once. False when it was not measured: known already, no time left, or the device cannot run it.
   */
  async measure(device: PlanDevice, from: number, to: number, batch: number): Promise<boolean> {
    const { kind } = device;
    if (!device.isHere || this.isOver || this.#failed.has(kind)) return false;
    const known = this.#measured.get(kind) ?? [];
    this.#measured.set(kind, known);
    if (this.of(device).some((shard) => shard.from === from && shard.to === to && shard.batch === batch)) return false;
    try {
      const shard = await this.#run(device, from, to, batch);
      if (shard !== undefined) known.push(shard);
      return shard !== undefined;
    } catch (error) {
      const reason = `${device.id} did not run nodes ${from} to ${to - 1}: ${messageOf(error)}`;
      this.notes.push(reason);
      if (error instanceof IntarsiaError && error.code === 'EXECUTOR_LOST') this.#executors.delete(kind);
      if (from === 0 && to === this.#parts.cutter.graph.nodes.length) this.#failed.set(kind, reason);
      else known.push({ from, to, batch, ms: Infinity, relativeError: 0 });
      return false;
    }
  }

  async close(): Promise<void> {
    for (const executor of this.#executors.values()) await executor.close({ graceMs: 5_000 });
  }

  async #run(device: PlanDevice, from: number, to: number, batch: number): Promise<MeasuredShard | undefined> {
    const { clock } = this.#parts;
    const { kind } = device;
    let executor = this.#executors.get(kind);
    if (executor === undefined) {
      executor = await this.#parts.startExecutor(device);
      this.#executors.set(kind, executor);
      await this.#link(device, executor);
    }
    const shard = await openShard(executor, { device, from, to, batch }, this.#parts);
    if (shard === undefined) return undefined;
    const { request, loaded, weightBytes, inputBytes, outputBytes } = shard;
    try {
      const { notes, optimization, memoryBytes } = loaded;
      for (const note of notes) this.notes.push(`${device.id}, nodes ${from} to ${to - 1}: ${note}`);
      const times: number[] = [];
      const startMs = clock.nowMs();
      let warmRuns = 2;
      for (let run = 0; run < warmRuns + runsMax; run += 1) {
        const beganMs = clock.nowMs();
        const result = await executor.run(request);
        const wallMs = clock.nowMs() - beganMs;
        const ms = (result.computeInputUs + result.computeInferUs + result.computeOutputUs) / 1000;
        result.release?.();
        const isLong = wallMs > longRunMs;
        if (isLong) warmRuns = 1;
        if (run < warmRuns) continue;
        times.push(ms);
        const enough = times.length >= (isLong ? longRunsMin : runsMin);
        if (this.isOver || (enough && clock.nowMs() - startMs > shardMs)) break;
      }
      await this.#keep(device, executor, {
        ...{ from, to, batch, optimization, times: timeStats(times), weightBytes, inputBytes, outputBytes },
        ...{ loadedBytes: Math.round(memoryBytes), peakActivationBytes: this.#parts.peakBytes(from, to) * batch },
      });
      return { from, to, batch, ...typical(times) };
    } finally {
      await shard.close();
    }
  }

  /** The way there and back, where nobody measured it before. */
  async #link(device: PlanDevice, executor: Executor): Promise<void> {
    const { clock, endMs, folder, host, keep, knowsLink } = this.#parts;
    if (knowsLink(device)) return;
    const bounds = { runsMax: linkRunsMax, shardMs: linkMs, clock, endMs };
    const { threads, descriptor, id } = device;
    const options = { host, device: descriptor?.id ?? id, threads, folder, bounds, wallMs: clock.wallMs() };
    try {
      await keep(await measureLink(executor, options));
    } catch (error) {
      this.notes.push(`the way to ${id} was not measured: ${messageOf(error)}`);
    }
  }

  async #keep(
    device: PlanDevice,
    { description }: Executor,
    run: Pick<ShardRecord, 'from' | 'to' | 'batch' | 'optimization' | 'times' | 'weightBytes' | 'loadedBytes'> &
      Pick<ShardRecord, 'peakActivationBytes' | 'inputBytes' | 'outputBytes'>,
  ): Promise<void> {
    const { keep, clock } = this.#parts;
    await keep([
      {
        ...{ type: 'shard', source: 'profiled', atMs: clock.wallMs() },
        ...recordedOn(device, description.engine, this.#parts),
        ...run,
      },
    ]);
  }
}

/** What every record says of its model and its device. */
export function recordedOn(
  { id, name, provider, threads, descriptor }: PlanDevice,
  engine: string,
  { model, precision, host, cutter }: Pick<MeterParts, 'model' | 'precision' | 'host' | 'cutter'>,
): Omit<NodesRecord, 'type' | 'method' | 'nodeMs' | 'optimization' | 'batch' | 'atMs'> {
  const driver = descriptor?.facts['driver'];
  return {
    ...{ schema: profileSchema, model, precision, nodes: cutter.graph.nodes.length },
    ...{ host, device: descriptor?.id ?? id, silicon: descriptor?.profile ?? descriptor?.name ?? name },
    ...{ provider, threads, emulated: false },
    engine: driver === undefined ? engine : `${engine}, driver ${String(driver)}`,
  };
}

/** The middle half's mean, and its standard error by it: a pause of the machine is no property of the model. */
function typical(times: readonly number[]): { readonly ms: number; readonly relativeError: number } {
  const sorted = [...times].sort((a, b) => a - b);
  // One run says nothing of how much runs differ.
  if (sorted.length === 1) return { ms: Math.max(1e-3, sorted[0] ?? 0), relativeError: 0.2 };
  const cut = Math.floor(sorted.length / 4);
  const kept = sorted.slice(cut, sorted.length - cut);
  const ms = Math.max(1e-3, mean(kept));
  const variance = kept.reduce((sum, time) => sum + (time - ms) ** 2, 0) / Math.max(1, kept.length - 1);
  return { ms, relativeError: Math.sqrt(variance / kept.length) / ms };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
