/**
 * Goes through one device after another: the whole model in every batch size, pieces between the cuts, times of nodes, the
 * way to the executor. A device that ends is left; what it had not measured is named.
 */
import { readFile, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProfiledLink, ProfiledNodes, ProfiledShard, ProfileReport } from '#cli/profile-report.js';
import { IntarsiaError, messageOf } from '#core/errors.js';
import { nodeTimesOfPrefixes, piecesBetween, type Piece } from '#core/profile/candidate-shards.js';
import { encodeNamedNodes, readNodeTimes } from '#core/profile/named-nodes.js';
import { profileSchema, type NodesRecord, type ProfileRecord, type ShardRecord } from '#core/profile/profile-record.js';
import { LinkTable } from '#core/profile/service-table.js';
import { timeFigures } from '#core/profile/time-stats.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter } from '#core/split/cut.js';
import type { NodeWork } from '#core/split/node-work.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { Tensor } from '#core/tensor.js';
import { MiB } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { Executor, RunEstimate } from '#ports/executor.js';
import type { ProfileStore } from '#ports/profile-store.js';
import type { ModelValues } from '../split/model-values.js';
import type { PlanDevice } from '../split/plan-devices.js';
import { measureLink } from './link-meter.js';
import { timeModel, warmRuns, type TimedRuns, type TimingBounds } from './shard-timer.js';

export interface ModelProfilerParts {
  readonly cutter: Cutter;
  readonly types: ValueTypes;
  readonly values: ModelValues;
  /** By batch size, ascending. */
  readonly inputs: ReadonlyMap<number, readonly Tensor[]>;
  /** By node, of one item. */
  readonly work: readonly NodeWork[];
  readonly weights: readonly (readonly (readonly [string, number])[])[];
  readonly cuts: readonly number[];
  readonly digest: string;
  readonly precision: string;
  readonly host: string;
  readonly runsMax: number;
  readonly shardMs: number;
  readonly folder: string;
  readonly clock: Clock;
  readonly endMs: number;
  readonly store: ProfileStore;
  readonly startExecutor: (device: PlanDevice) => Promise<Executor>;
  readonly progress: (share: number, words: string) => void;
}

const closeGraceMs = 5_000;
const slowestMax = 20;
/** Engines whose code is compiled anew while it runs: slower by ten times until then, for a second or two. */
const compilesLate: ReadonlySet<string> = new Set(['wasm', 'webgpu']);
const warmUpMs = 3_000;
const warmUpRunsMax = 2_000;
/** Runs whose nodes the engine profiles; its file grows with nodes and runs. */
const nodeRunsMax = 10;
const profileBytesMax = 256 * MiB;

/** One thing to be measured on a device. */
interface Step {
  readonly what: string;
  readonly run: () => Promise<void>;
}

export class ModelProfiler {
  readonly notes: string[] = [];
  readonly #parts: ModelProfilerParts;
  readonly #shards: ProfiledShard[] = [];
  readonly #nodeTimes: ProfiledNodes[] = [];
  readonly #links: ProfiledLink[] = [];
  readonly #missing: { readonly device: string; readonly what: string; readonly reason: string }[] = [];
  readonly #lost: string[] = [];
  #records = 0;
  /** Why nothing can be kept; then measuring is in vain. */
  #storeFailure: unknown;

  constructor(parts: ModelProfilerParts) {
    this.#parts = parts;
  }

  result(): Pick<ProfileReport, 'shards' | 'nodeTimes' | 'links' | 'missing' | 'lostDevices' | 'records'> {
    return {
      ...{ shards: this.#shards, nodeTimes: this.#nodeTimes, links: this.#links },
      ...{ missing: this.#missing, lostDevices: this.#lost, records: this.#records },
    };
  }

  /** Everything on one device. @throws when the store cannot be written; devices that fail are named in the result. */
  async measure(device: PlanDevice, index: number, devices: number): Promise<void> {
    const { clock, endMs, progress } = this.#parts;
    let executor: Executor;
    try {
      executor = await this.#parts.startExecutor(device);
    } catch (error) {
      this.#miss(device, 'everything', messageOf(error));
      this.#lost.push(device.id);
      return;
    }
    const steps = this.#steps(device, executor);
    try {
      for (const [at, { what, run }] of steps.entries()) {
        progress(0.03 + 0.97 * ((index + at / steps.length) / devices), `${device.id}: ${what}`);
        if (clock.nowMs() >= endMs) {
          this.#miss(device, what, 'the time for measuring was over');
          continue;
        }
        try {
          await run();
        } catch (error) {
          if (error === this.#storeFailure) throw error;
          this.#miss(device, what, messageOf(error));
          if (!(error instanceof IntarsiaError) || error.code !== 'EXECUTOR_LOST') continue;
          this.#lost.push(device.id);
          for (const rest of steps.slice(at + 1)) this.#miss(device, rest.what, 'the device was gone');
          return;
        }
      }
    } finally {
      await executor.close({ graceMs: closeGraceMs });
    }
  }

  #steps(device: PlanDevice, executor: Executor): readonly Step[] {
    const { cutter, cuts, inputs } = this.#parts;
    const { length: nodes } = cutter.graph.nodes;
    const steps: Step[] = [];
    const shard = (piece: Piece, batch: number): Step => ({
      what: `${named(piece, nodes)}, batch ${batch}`,
      run: () => this.#shard(device, executor, piece, batch),
    });
    const whole = { from: 0, to: nodes };
    const [first = 1] = inputs.keys();
    if (!device.emulated) steps.push({ what: 'link', run: () => this.#link(device, executor) });
    if (compilesLate.has(device.provider)) {
      steps.push({ what: 'warm-up', run: () => this.#warmUp(device, executor, first) });
    }
    for (const batch of inputs.keys()) steps.push(shard(whole, batch));
    const pieces = cuts.length === 0 ? [] : piecesBetween(cuts, nodes);
    for (const piece of pieces) steps.push(shard(piece, first));
    if (isProfiledByEngine(executor)) {
      steps.push({ what: 'nodes', run: () => this.#nodes(device, executor, first) });
    } else if (!device.emulated && cuts.length > 0) {
      for (const to of cuts.slice(1)) steps.push(shard({ from: 0, to }, first));
      steps.push({ what: 'nodes', run: () => this.#nodesOfPrefixes(device, executor, first) });
    }
    for (const batch of [...inputs.keys()].slice(1)) for (const piece of pieces) steps.push(shard(piece, batch));
    return steps;
  }

  /** Runs the whole model until the engine has compiled what runs often. */
  async #warmUp(device: PlanDevice, executor: Executor, batch: number): Promise<void> {
    const { cutter, types, inputs, folder } = this.#parts;
    const plan = cutter.cut([]);
    const [whole] = plan.shards;
    if (whole === undefined) return;
    const given = new Map((inputs.get(batch) ?? []).map((tensor) => [tensor.name, tensor]));
    await timeModel(
      executor,
      {
        ...{ encoded: encodeShard(plan, whole, types), folder },
        inputs: whole.inputs.map((name) => given.get(name)).filter((tensor) => tensor !== undefined),
        options: { intraOpThreads: device.threads, optimization: 'all' },
      },
      { ...this.#bounds, runsMax: warmUpRunsMax, shardMs: warmUpMs },
    );
  }

  async #shard(device: PlanDevice, executor: Executor, { from, to }: Piece, batch: number): Promise<void> {
    const { cutter, types, values, inputs, folder } = this.#parts;
    const { length: nodes } = cutter.graph.nodes;
    const plan = cutter.cut([from, to].filter((position) => position > 0 && position < nodes));
    const draft = plan.shards.find((shard) => shard.from === from && shard.to === to);
    if (draft === undefined) return;
    const given = inputs.get(batch) ?? [];
    const tensors = await values.values(given, [...draft.inputs, ...draft.outputs]);
    const shardInputs = draft.inputs.map((name) => tensors.get(name)).filter((tensor) => tensor !== undefined);
    const encoded = encodeShard(plan, draft, types);
    const timed = await timeModel(
      executor,
      {
        ...{ encoded, inputs: shardInputs, folder, estimate: this.#estimate(from, to, encoded.weightBytes) },
        options: { intraOpThreads: device.threads, optimization: 'all' },
      },
      this.#bounds,
    );
    const bytesOf = (names: readonly string[]): number =>
      names.reduce((sum, name) => sum + (tensors.get(name)?.data.byteLength ?? 0), 0);
    const record: ShardRecord = {
      type: 'shard',
      ...this.#measuredOn(device, executor, { batch, optimization: timed.optimization }),
      ...{ from, to, source: 'profiled', times: timed.times, weightBytes: encoded.weightBytes },
      peakActivationBytes: this.#peakBytes(from, to) * batch,
      loadedBytes: Math.round(timed.loadedBytes),
      ...{ inputBytes: bytesOf(draft.inputs), outputBytes: bytesOf(draft.outputs) },
    };
    await this.#keep([record]);
    this.#noteAll(device, named({ from, to }, nodes), timed);
    const { provider, engine, emulated, weightBytes, peakActivationBytes, loadedBytes, inputBytes, outputBytes } =
      record;
    const { count, meanMs, p50Ms, p95Ms, minMs, spread } = timeFigures(record.times);
    this.#shards.push({
      ...{ device: device.id, provider, engine, emulated, from, to, batch },
      ...{ count, meanMs, p50Ms, p95Ms, minMs, spread },
      ...{ weightBytes, peakActivationBytes, loadedBytes, inputBytes, outputBytes },
    });
  }

  /** By the engine's own profile of a copy whose nodes are named by their places. */
  async #nodes(device: PlanDevice, executor: Executor, batch: number): Promise<void> {
    const { cutter, folder, inputs } = this.#parts;
    const { graph } = cutter;
    const prefix = `nodes-${device.id.replaceAll(/[^A-Za-z0-9]/g, '-')}`;
    const bounds = { ...this.#bounds, runsMax: Math.min(nodeRunsMax, this.#bounds.runsMax) };
    const timed = await timeModel(
      executor,
      {
        ...{ encoded: encodeNamedNodes(graph), inputs: inputs.get(batch) ?? [], folder },
        options: { intraOpThreads: device.threads, optimization: 'all', profilePrefix: join(folder, prefix) },
      },
      bounds,
    );
    const files = (await readdir(folder)).filter((name) => name.startsWith(prefix) && name.endsWith('.json'));
    const times = { nodes: graph.nodes.length, runs: timed.runs, skip: warmRuns };
    try {
      for (const name of files) {
        const path = join(folder, name);
        const { size } = await stat(path);
        if (size > profileBytesMax) {
          this.#miss(device, 'nodes', `the engine's profile has ${size} bytes; ${profileBytesMax} are read`);
          continue;
        }
        const { nodeMs, otherMs } = readNodeTimes(await readFile(path, 'utf8'), times);
        if (nodeMs.every((ms) => ms === 0)) continue;
        if (otherMs > 0) {
          this.notes.push(`${device.id}: ${otherMs.toFixed(3)} ms a run are in operators that the optimiser put in`);
        }
        await this.#keepNodes(device, executor, { batch, nodeMs, method: 'engine', optimization: timed.optimization });
        return;
      }
      this.#miss(device, 'nodes', 'the engine wrote no times of nodes');
    } finally {
      for (const name of files) await rm(join(folder, name), { force: true });
    }
  }

  /** Where the engine has no profile: what each shard from the first node on takes more than the one before. */
  async #nodesOfPrefixes(device: PlanDevice, executor: Executor, batch: number): Promise<void> {
    const prefixes = this.#shards
      .filter((shard) => shard.device === device.id && shard.from === 0 && shard.batch === batch)
      .map(({ to, p50Ms }) => ({ to, ms: p50Ms }));
    const nodeMs = nodeTimesOfPrefixes(prefixes);
    if (nodeMs.length !== this.#parts.cutter.graph.nodes.length) {
      this.#miss(device, 'nodes', 'the whole model was not measured');
      return;
    }
    await this.#keepNodes(device, executor, { batch, nodeMs, method: 'prefixes', optimization: 'all' });
  }

  async #keepNodes(
    device: PlanDevice,
    executor: Executor,
    { nodeMs, method, ...key }: Pick<NodesRecord, 'nodeMs' | 'method' | 'batch' | 'optimization'>,
  ): Promise<void> {
    const { nodes } = this.#parts.cutter.graph;
    await this.#keep([{ type: 'nodes', ...this.#measuredOn(device, executor, key), method, nodeMs }]);
    const slowest = nodeMs
      .map((ms, node) => ({ node, operator: nodes[node]?.operator ?? '', ms }))
      .sort((a, b) => b.ms - a.ms)
      .slice(0, slowestMax);
    const totalMs = nodeMs.reduce((sum, ms) => sum + ms, 0);
    this.#nodeTimes.push({ device: device.id, batch: key.batch, method, slowest, totalMs });
  }

  async #link(device: PlanDevice, executor: Executor): Promise<void> {
    const { host, folder, clock } = this.#parts;
    const options = { host, device: device.id, threads: device.threads, folder, bounds: this.#bounds };
    const records = await measureLink(executor, { ...options, wallMs: clock.wallMs() });
    await this.#keep(records);
    const figures = new LinkTable(records).figures({ host, device: '' }, { host, device: device.id });
    if (figures === undefined) return;
    const { roundTripMs, bytesPerSecond } = figures;
    this.#links.push({ device: device.id, roundTripMs, bytesPerSecond });
  }

  #measuredOn(
    device: PlanDevice,
    executor: Executor,
    { batch, optimization }: Pick<ShardRecord, 'batch' | 'optimization'>,
  ) {
    const { host, digest, cutter, precision, clock } = this.#parts;
    const driver = device.descriptor?.facts['driver'];
    const { engine } = executor.description;
    return {
      ...{ schema: profileSchema, model: digest, nodes: cutter.graph.nodes.length },
      ...{ host, device: device.id, silicon: device.descriptor?.profile ?? device.name, provider: device.provider },
      ...{ engine: driver === undefined ? engine : `${engine}, driver ${String(driver)}`, threads: device.threads },
      ...{ emulated: device.emulated, precision, optimization, batch, atMs: clock.wallMs() },
    };
  }

  #estimate(from: number, to: number, weightBytes: number): RunEstimate {
    const work = this.#parts.work.slice(from, to);
    return {
      flopsPerItem: work.reduce((sum, { flops }) => sum + flops, 0),
      weightBytes,
      activationBytesPerItem: work.reduce((sum, { activationBytes }) => sum + activationBytes, 0),
      operators: to - from,
    };
  }

  /** Of one item: the most that is alive while one of its nodes runs. */
  #peakBytes(from: number, to: number): number {
    return this.#parts.work.slice(from, to).reduce((peak, { liveBytes }) => Math.max(peak, liveBytes), 0);
  }

  get #bounds(): TimingBounds {
    const { runsMax, shardMs, clock, endMs } = this.#parts;
    return { runsMax, shardMs, clock, endMs };
  }

  async #keep(records: readonly ProfileRecord[]): Promise<void> {
    try {
      await this.#parts.store.append(records);
    } catch (error) {
      this.#storeFailure = error;
      throw error;
    }
    this.#records += records.length;
  }

  #noteAll(device: PlanDevice, what: string, { notes }: TimedRuns): void {
    for (const note of notes) this.notes.push(`${device.id}, ${what}: ${note}`);
  }

  #miss(device: PlanDevice, what: string, reason: string): void {
    this.#missing.push({ device: device.id, what, reason });
  }
}

/** ONNX Runtime tells true times of nodes on the CPU only: elsewhere a node's time is that of handing it over. */
function isProfiledByEngine({ description }: Executor): boolean {
  return description.provider === 'cpu' && !description.emulated && description.engine.startsWith('onnxruntime-node');
}

function named({ from, to }: Piece, nodes: number): string {
  return from === 0 && to === nodes ? 'whole model' : `nodes ${from} to ${to - 1}`;
}
