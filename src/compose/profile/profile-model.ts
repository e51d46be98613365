/**
 * `intarsia profile`: measures a model, pieces of it and the way to them on each device's own executor, and writes what was
 * measured into the profile database at once, so that a device or a process that ends takes nothing with it.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { ProfileReport, ProfileRequest } from '#cli/profile-report.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import { modelFacts } from '#core/onnx/model-facts.js';
import { evenCuts, precisionOf } from '#core/profile/candidate-shards.js';
import { profileColumns } from '#core/profile/profile-columns.js';
import { cutCandidates, preferredCuts } from '#core/split/cut-candidates.js';
import { nodeWeights, nodeWork } from '#core/split/node-work.js';
import type { Tensor } from '#core/tensor.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import type { ProfileStore } from '#ports/profile-store.js';
import { writeParquet } from '#adapters/parquet/write-parquet.js';
import { inputsOfBatch, ModelValues } from '../split/model-values.js';
import { planDevices, type PlanDevice } from '../split/plan-devices.js';
import { engineTypes, runReference } from '../split/reference.js';
import { bringSideFiles } from '../split/shard-files.js';
import { readCutter } from '../split/verify-split.js';
import { ModelProfiler } from './model-profiler.js';

export interface ProfileParts {
  readonly startExecutor: (device: PlanDevice) => Promise<Executor>;
  readonly discovery: DiscoveryReport;
  readonly profiles: ProfileBook;
  readonly store: ProfileStore;
  /** Where the store is, for people. */
  readonly storePath: string;
  readonly clock: Clock;
  readonly progress: (share: number, words: string) => void;
}

const closeGraceMs = 5_000;

/**
 * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (devices, options), DEVICE_UNAVAILABLE, EXECUTION_FAILED (the whole
 * model does not run on the CPU), STORAGE_FULL.
 */
export async function profileModel(request: ProfileRequest, parts: ProfileParts): Promise<ProfileReport> {
  const { clock, progress, store, storePath } = parts;
  const endMs = clock.nowMs() + request.seconds * 1000;
  const path = resolve(request.model);
  const cutter = await readCutter(path);
  const { graph } = cutter;
  const devices = planDevices(
    { devices: request.devices, providers: [], memoryBytes: new Map() },
    parts.discovery,
    parts.profiles,
  );
  const digest = createHash('sha256').update(graph.model.bytes).digest('hex');
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-profile-'));
  progress(0, 'starting cpu');
  const cpu = await parts.startExecutor(referenceDevice(devices, parts));
  let values: ModelValues | undefined;
  try {
    await bringSideFiles(
      modelFacts(graph.model).externalTensors.map(({ location }) => location),
      { from: dirname(path), to: folder },
    );
    progress(0.01, 'inputs, types and sizes of values');
    const { vectors, optimization } = await runReference({
      ...{ cutter, path, cpu, seed: 1 },
      folders: [request.vectors === '' ? dirname(path) : request.vectors],
      mustHaveVectors: request.vectors !== '',
    });
    const types = await engineTypes(graph, { cpu, folder, optimization });
    values = await ModelValues.open(graph, types, { cpu, folder, optimization });
    const given = vectors[0]?.inputs ?? [];
    const single = inputsOfBatch(given, values.specs, 1) ?? given;
    const shapes = await values.shapes(single, types);
    const { inputs, refused } = await batchInputs(request.batches, {
      ...{ given, single, values },
      names: graph.outputs.map(({ name }) => name),
    });
    const work = nodeWork(graph, types, shapes);
    const legal = preferredCuts(cutCandidates(cutter, types)).map(({ position }) => position);
    const cuts = evenCuts(legal, work, request.cuts);
    const profiler = new ModelProfiler({
      ...{ cutter, types, values, inputs, work, weights: nodeWeights(graph), folder, clock, endMs, store, progress },
      ...{ digest, cuts, precision: precisionOf(graph), runsMax: request.repeat, shardMs: request.shardMs },
      host: request.host === '' ? parts.discovery.host.hostname : request.host,
      startExecutor: parts.startExecutor,
    });
    for (const [index, device] of devices.entries()) await profiler.measure(device, index, devices.length);
    const exported = request.exportPath === '' ? 0 : await exportRecords(store, digest, request.exportPath);
    progress(1, 'done');
    const problems = (await store.read({ model: digest })).problems;
    return {
      model: request.model,
      ...{ digest, nodes: graph.nodes.length, precision: precisionOf(graph), cuts },
      ...profiler.result(),
      ...{ store: storePath, exported, exportPath: request.exportPath },
      notes: [...refused, ...profiler.notes, ...problems],
    };
  } finally {
    await values?.close().catch(() => undefined);
    await cpu.close({ graceMs: closeGraceMs });
    await rm(folder, { recursive: true, force: true });
  }
}

/** A processor for the reference, whatever devices are profiled. */
function referenceDevice(devices: readonly PlanDevice[], { discovery, profiles }: ProfileParts): PlanDevice {
  const known = devices.find(({ provider, emulated }) => provider === 'cpu' && !emulated);
  if (known !== undefined) return known;
  const [cpu] = planDevices({ devices: ['cpu'], providers: [], memoryBytes: new Map() }, discovery, profiles);
  return cpu as PlanDevice;
}

/** Inputs by batch size; sizes that the model does not take are named. */
async function batchInputs(
  batches: readonly number[],
  {
    given,
    single,
    values,
    names,
  }: {
    readonly given: readonly Tensor[];
    readonly single: readonly Tensor[];
    readonly values: ModelValues;
    readonly names: readonly string[];
  },
): Promise<{ readonly inputs: ReadonlyMap<number, readonly Tensor[]>; readonly refused: readonly string[] }> {
  const inputs = new Map<number, readonly Tensor[]>();
  const refused: string[] = [];
  for (const batch of [...new Set(batches)].sort((a, b) => a - b)) {
    const several = batch === 1 ? single : inputsOfBatch(given, values.specs, batch);
    if (several === undefined) refused.push(`batch ${batch}: the model has no dimension for it`);
    else if (await runs(several, values, names)) inputs.set(batch, several);
    else refused.push(`batch ${batch}: the model does not run so`);
  }
  if (inputs.size === 0) inputs.set(1, single);
  return { inputs, refused };
}

async function runs(inputs: readonly Tensor[], values: ModelValues, names: readonly string[]): Promise<boolean> {
  try {
    await values.values(inputs, names);
    return true;
  } catch {
    // A fixed size somewhere inside: the answer is the caller's to name.
    return false;
  }
}

/** Rows of the file. */
async function exportRecords(store: ProfileStore, model: string, path: string): Promise<number> {
  const { records } = await store.read({ model });
  const columns = profileColumns(records);
  await writeParquet(resolve(path), columns);
  return columns[0]?.values.length ?? 0;
}
