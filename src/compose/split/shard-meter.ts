/**
 * Measures shards on real devices for a plan: the whole model, pieces of even work, and the stages of plans that look good.
 * A few runs each, until the time allowed is over; what is measured counts, what is not stays an estimate.
 */
import { randomUUID } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { IntarsiaError, messageOf } from '#core/errors.js';
import { sessionId } from '#core/ids.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter } from '#core/split/cut.js';
import type { LinkTimes } from '#core/split/plan-tables.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { MeasuredShard } from '#core/split/stage-times.js';
import type { Tensor } from '#core/tensor.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import { writeModelFile } from './shard-files.js';
import { runInput } from './shard-runner.js';
import type { ModelValues } from './model-values.js';
import type { PlanDevice } from './plan-devices.js';

const runsMin = 5;
const runsMax = 40;
/** Runs that take longer are repeated less: one to warm up, three that count. */
const longRunMs = 200;
const longRunsMin = 3;
/** Time spent on runs of one shard, ms, once there are enough. */
const shardMs = 400;

export interface MeterParts {
  readonly cutter: Cutter;
  readonly types: ValueTypes;
  readonly values: ModelValues;
  /** By batch size. */
  readonly inputs: ReadonlyMap<number, readonly Tensor[]>;
  readonly startExecutor: (device: PlanDevice) => Promise<Executor>;
  readonly folder: string;
  readonly clock: Clock;
  /** When measuring must end, by the clock. */
  readonly endMs: number;
  /** What was measured before, by devices. */
  readonly stored: (device: PlanDevice) => readonly MeasuredShard[];
}

interface Hop {
  readonly bytes: number;
  readonly ms: number;
}

export class ShardMeter {
  /** What could not be measured and why, and what engines had to change. */
  readonly notes: string[] = [];
  readonly #parts: MeterParts;
  readonly #executors = new Map<string, Executor>();
  readonly #measured = new Map<string, MeasuredShard[]>();
  readonly #failed = new Map<string, string>();
  readonly #hops: Hop[] = [];

  constructor(parts: MeterParts) {
    this.#parts = parts;
  }

  /** What was measured on a kind of device. */
  of(device: { readonly type: string }): readonly MeasuredShard[] {
    return this.#known(device as PlanDevice);
  }

  /** Why a kind of device ran a shard not at all; empty when it did or was not asked. */
  failure({ type }: { readonly type: string }): string {
    return this.#failed.get(kindOf(type)) ?? '';
  }

  get isOver(): boolean {
    return this.#parts.clock.nowMs() >= this.#parts.endMs;
  }

  /** Between executors of this machine: a line through what runs took beside their computation. Undefined without runs. */
  link(): LinkTimes | undefined {
    if (this.#hops.length < 3) return undefined;
    const bytes = mean(this.#hops.map((hop) => hop.bytes));
    const ms = mean(this.#hops.map((hop) => hop.ms));
    let over = 0;
    let under = 0;
    for (const hop of this.#hops) {
      over += (hop.bytes - bytes) * (hop.ms - ms);
      under += (hop.bytes - bytes) ** 2;
    }
    // Bytes are moved into an executor and out of one: twice for each that crosses.
    const msPerByte = under === 0 ? 0 : Math.max(0, over / under);
    const fixedMs = Math.max(0.01, ms - msPerByte * bytes);
    return { fixedMs, msPerByte: 2 * msPerByte, source: 'measured', deviation: 0.3 };
  }

  /**
   * One shard on a device, once. False when it was not measured: known already, no time left, or the device cannot run it.
   */
  async measure(device: PlanDevice, from: number, to: number, batch: number): Promise<boolean> {
    const kind = kindOf(device.type);
    const known = this.#known(device);
    if (device.emulated || this.isOver || this.#failed.has(kind)) return false;
    if (known.some((shard) => shard.from === from && shard.to === to && shard.batch === batch)) return false;
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

  #known(device: PlanDevice): MeasuredShard[] {
    const kind = kindOf(device.type);
    let known = this.#measured.get(kind);
    if (known === undefined) {
      known = [...this.#parts.stored(device)];
      this.#measured.set(kind, known);
    }
    return known;
  }

  async #run(device: PlanDevice, from: number, to: number, batch: number): Promise<MeasuredShard | undefined> {
    const { cutter, types, values, inputs, folder, clock } = this.#parts;
    const given = inputs.get(batch);
    if (given === undefined) return undefined;
    const { length: nodes } = cutter.graph.nodes;
    const plan = cutter.cut([from, to].filter((position) => position > 0 && position < nodes));
    const shard = plan.shards.find((draft) => draft.from === from && draft.to === to);
    if (shard === undefined) return undefined;
    const tensors = await values.values(given, shard.inputs);
    const kind = kindOf(device.type);
    let executor = this.#executors.get(kind);
    if (executor === undefined) {
      executor = await this.#parts.startExecutor(device);
      this.#executors.set(kind, executor);
    }
    const name = randomUUID();
    const session = sessionId(name);
    const path = join(folder, `${name}.onnx`);
    const { digest } = await writeModelFile(path, encodeShard(plan, shard, types));
    try {
      const { notes } = await executor.load({
        session,
        artifact: { digest, path },
        model: { name: 'shard', version: '1' },
        options: { intraOpThreads: device.threads, optimization: 'all' },
      });
      for (const note of notes) this.notes.push(`${device.id}, nodes ${from} to ${to - 1}: ${note}`);
      const request = {
        session,
        inputs: shard.inputs.map((input) => runInput(tensors.get(input), input)),
        outputs: [],
      };
      const sentBytes = request.inputs.reduce((sum, { chunks }) => sum + (chunks[0]?.byteLength ?? 0), 0);
      const times: number[] = [];
      const startMs = clock.nowMs();
      let warmRuns = 2;
      for (let run = 0; run < warmRuns + runsMax; run += 1) {
        const beganMs = clock.nowMs();
        const result = await executor.run(request);
        const wallMs = clock.nowMs() - beganMs;
        const ms = (result.computeInputUs + result.computeInferUs + result.computeOutputUs) / 1000;
        const gotBytes = result.outputs.reduce((sum, { data }) => sum + data.byteLength, 0);
        result.release?.();
        const isLong = wallMs > longRunMs;
        if (isLong) warmRuns = 1;
        if (run < warmRuns) continue;
        times.push(ms);
        this.#hops.push({ bytes: sentBytes + gotBytes, ms: Math.max(0, wallMs - ms) });
        const enough = times.length >= (isLong ? longRunsMin : runsMin);
        if (this.isOver || (enough && clock.nowMs() - startMs > shardMs)) break;
      }
      return { from, to, batch, ...typical(times) };
    } finally {
      await executor.unload(session);
      await unlink(path).catch(() => undefined);
    }
  }
}

/** A memory limit makes another type for the planner, not another silicon. */
function kindOf(type: string): string {
  return type.split(' ').slice(0, 2).join(' ');
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
