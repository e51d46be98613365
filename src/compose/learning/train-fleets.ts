/**
 * `intarsia train`: reads fleets and traces, starts threads, takes one training step after the other and keeps the run's
 * folder such that a kill at any moment loses at most the step under way.
 */
import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { loadTensorflow } from '#adapters/tfjs/tensorflow.js';
import { parseYaml, readYamlFile } from '#adapters/yaml/read-yaml.js';
import type { TrainProgress, TrainReport, TrainRequest, TrainWatch } from '#cli/train-report.js';
import { intarsiaError } from '#core/errors.js';
import { RandomStream } from '#core/random.js';
import { planSchema } from '#core/scheduling/features.js';
import { encodePolicy, readPolicy } from '#core/scheduling/policy-file.js';
import { batchFallback } from '#policies/learning/batch-player.js';
import { curvesPage, curvesSvg } from '#policies/learning/curves.js';
import { rolloutsHere, type Rollouts } from '#policies/learning/environment.js';
import { rangesOfNetwork } from '#policies/learning/feature-ranges.js';
import { fleetEnvironment, type FleetScenario, type FleetWorldData } from '#policies/learning/fleet-environment.js';
import { fleetTraining, type BeginWith } from '#policies/learning/fleet-training.js';
import { readPlan } from '#policies/learning/plan-file.js';
import { withPlanUnits } from '#policies/learning/rule-network.js';
import { firstState, trainStep } from '#policies/learning/train.js';
import { packState, unpackState } from '#policies/learning/training-state.js';
import {
  fullPlan,
  quickPlan,
  shareDone,
  stepsOf,
  type TrainingPlan,
  type TrainingState,
} from '#policies/learning/training-plan.js';
import type { Clock } from '#ports/clock.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { readTrace } from '#sim/fleet/trace-file.js';
import { packageRoot } from '../package-root.js';
import { readProfiles } from '../profiles.js';
import { version } from '../version.js';
import { filesOfPolicy } from './contenders.js';
import { RolloutThreads } from './rollout-threads.js';
import { RunFolder, runFiles } from './run-folder.js';

/** How devices form batches for rules, and where no network is trained to: the best of the batching rules. */
const batching = batchFallback;

interface DataFile {
  readonly path: string;
  readonly sha256: string;
}

/** What a run was asked for: `run.json`. */
interface RunRecord {
  readonly plan: TrainingPlan;
  readonly fleets: readonly DataFile[];
  readonly traces: readonly DataFile[];
  readonly backend: string;
  /** Networks that it began with; absent for those with rules built in. */
  readonly from?: readonly DataFile[];
}

export async function trainFleets(request: TrainRequest, watch: TrainWatch, clock: Clock): Promise<TrainReport> {
  const isNew = request.resume === '';
  const folder = isNew ? undefined : RunFolder.existing(resolve(request.resume));
  const before = folder === undefined ? undefined : (JSON.parse(folder.read(runFiles.run)) as RunRecord);
  const wanted = (before?.backend as TrainRequest['backend']) ?? request.backend;
  const { tf, backend } = await loadTensorflow(wanted);
  tf.enableProdMode();
  const record = before ?? (await newRecord(request, backend));
  const { world, ranges } = await readWorld(record);
  const begin = await readBegin(record);
  const run = folder ?? (await RunFolder.create(resolve(request.out)));
  if (isNew) await run.write(runFiles.run, `${JSON.stringify(record, undefined, 2)}\n`);

  const { plan } = record;
  const threads = request.workers > 0 ? new RolloutThreads(world, request.workers) : undefined;
  const rollouts: Rollouts<FleetScenario> = threads ?? rolloutsHere(fleetEnvironment(world));
  const tools = {
    tf,
    plan,
    random: new RandomStream(plan.seed),
    world: fleetTraining(world, rollouts, plan.seed, begin),
  };
  try {
    let state = isNew ? firstState() : unpackState(run.read(runFiles.checkpoint), run.at(runFiles.checkpoint));
    const startMs = clock.nowMs();
    const startShare = shareDone(plan, state);
    const isOver = (): boolean =>
      watch.isStopWanted() || (request.minutes !== undefined && clock.nowMs() - startMs > request.minutes * 60_000);
    watch.onStep(progressOf(plan, state, undefined));
    while (state.stage !== 'done' && !isOver()) {
      state = await trainStep(state, tools);
      await run.write(runFiles.checkpoint, packState(state));
      await writeCurves(run, state);
      const done = shareDone(plan, state) - startShare;
      const spentMs = clock.nowMs() - startMs;
      watch.onStep(progressOf(plan, state, (spentMs / done) * (1 - startShare - done)));
    }
    const policySha256 = await writePolicy(run, state, record, ranges, tf.version['tfjs']);
    return {
      folder: run.path,
      isDone: state.stage === 'done',
      policyPath: policySha256 === '' ? '' : run.at(runFiles.policy),
      policySha256,
      teacher: state.teacher,
      fallback: state.fallback,
      gain: state.best?.gain ?? 0,
      bestStage: state.best?.stage ?? '',
      backend,
      steps: state.curves.length,
    };
  } finally {
    await threads?.close();
  }
}

async function newRecord(request: TrainRequest, backend: string): Promise<RunRecord> {
  const base = request.quick ? quickPlan : fullPlan;
  const config = request.configPath === '' ? undefined : await readYamlFile(request.configPath);
  const plan = readPlan(base, config, request.configPath);
  const fleets = request.fleets.length > 0 ? request.fleets : await ownFleets();
  return {
    plan: request.seed === undefined ? plan : { ...plan, seed: request.seed },
    fleets: await Promise.all(fleets.map(digestOf)),
    traces: await Promise.all(request.traces.map(digestOf)),
    backend,
    ...(request.from === '' ? {} : { from: await Promise.all(filesOfPolicy(request.from).map(digestOf)) }),
  };
}

/** The fleets that come with the product. */
async function ownFleets(): Promise<string[]> {
  const folder = join(packageRoot, 'policies/fleets');
  const names = (await readdir(folder)).filter((name) => name.endsWith('.yaml')).sort();
  return names.map((name) => join(folder, name));
}

async function digestOf(path: string): Promise<DataFile> {
  return { path: resolve(path), sha256: sha256(await readData(path)) };
}

async function readData(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? 'unreadable';
    throw intarsiaError('NOT_FOUND', `cannot read ${path}: ${reason}`, { path, reason }, error);
  }
}

async function readUnchanged({ path, sha256: expected }: DataFile): Promise<Uint8Array> {
  const bytes = await readData(path);
  if (sha256(bytes) === expected) return bytes;
  throw intarsiaError('FAILED_PRECONDITION', `${path} has changed since the run began; start a new run`, { path });
}

/** Reads what the run learns from. @throws FAILED_PRECONDITION when a file is not what it was when the run began. */
async function readWorld(record: RunRecord): Promise<{ readonly world: FleetWorldData; readonly ranges: FleetRanges }> {
  const text = async (file: DataFile): Promise<string> => new TextDecoder().decode(await readUnchanged(file));
  const profiles = await readProfiles('');
  const fleets = [];
  for (const file of record.fleets) {
    fleets.push(readFleet(parseYaml(await text(file), file.path), basename(file.path), profiles));
  }
  const traces = [];
  for (const file of record.traces) {
    const name = basename(file.path);
    traces.push({ name, rows: readTrace(await text(file), name) });
  }
  const devices = fleets.map((fleet) => fleet.devices.length);
  const models = fleets.map((fleet) => fleet.models.length);
  return {
    world: { fleets, traces, batching, planShare: record.plan.planShare },
    ranges: {
      names: fleets.map(({ name }) => name),
      devices: [Math.min(...devices), Math.max(...devices)],
      models: [Math.min(...models), Math.max(...models)],
    },
  };
}

/** The networks that training begins with. @throws FAILED_PRECONDITION for files that have changed, MODEL_INVALID, INVALID_ARGUMENT. */
async function readBegin({ from = [] }: RunRecord): Promise<BeginWith | undefined> {
  const [policy, batching] = await Promise.all(from.map(readUnchanged));
  if (policy === undefined) return undefined;
  return {
    layers: withPlanUnits(readPolicy(policy).network.layers),
    batchLayers: batching === undefined ? [] : readPolicy(batching).network.layers,
  };
}

interface FleetRanges {
  readonly names: readonly string[];
  readonly devices: readonly number[];
  readonly models: readonly number[];
}

async function writeCurves(run: RunFolder, { curves, best, teacher }: TrainingState): Promise<void> {
  const facts = {
    teacher,
    'best network': best === undefined ? 'none yet' : `${best.stage} ${best.step + 1}`,
    'objective against the best rule in hindsight':
      best === undefined ? '' : `${(100 * best.gain).toFixed(2)} % on validation scenarios`,
  };
  await run.write(runFiles.curves, `${JSON.stringify(curves)}\n`);
  await run.write(runFiles.picture, curvesSvg(curves));
  await run.write(runFiles.page, curvesPage(curves, 'Training of a dispatch policy', facts));
}

/** Writes the best network so far and its manifest; answers the policy's digest, empty when there is no network yet. */
async function writePolicy(
  run: RunFolder,
  state: TrainingState,
  record: RunRecord,
  fleets: FleetRanges,
  tensorflow: string,
): Promise<string> {
  const { best, ranges } = state;
  if (best === undefined || ranges === undefined) return '';
  const data = (files: readonly DataFile[]): readonly { readonly name: string; readonly sha256: string }[] =>
    files.map(({ path, sha256: digest }) => ({ name: basename(path), sha256: digest }));
  const made = {
    intarsia: version,
    schema: planSchema,
    seed: record.plan.seed,
    backend: record.backend,
    tensorflow,
    batching,
    teacher: state.teacher,
    fallback: state.fallback,
    steps: state.curves.length,
    best: { stage: best.stage, step: best.step, validationGain: best.gain },
    ...(record.from === undefined ? {} : { from: data(record.from) }),
    fleets: data(record.fleets),
    traces: data(record.traces),
    ranges: fleets,
    plan: record.plan,
  };
  const policy = encodePolicy({
    name: `dispatch-${record.plan.seed}`,
    decides: 'dispatch',
    network: { layers: best.layers, activation: 'tanh' },
    ranges: rangesOfNetwork(ranges, best.layers),
    fallback: state.fallback,
    notes: { 'training.manifest': JSON.stringify(made) },
  });
  const policySha256 = sha256(policy);
  await run.write(runFiles.policy, policy);
  const batchSha256 = await writeBatchPolicy(run, state, record);
  const digests = { policySha256, ...(batchSha256 === '' ? {} : { batchSha256 }) };
  await run.write(runFiles.manifest, `${JSON.stringify({ ...made, ...digests }, undefined, 2)}\n`);
  return policySha256;
}

/** Writes the network that forms batches beside the other; answers its digest, empty where a rule forms them. */
async function writeBatchPolicy(run: RunFolder, state: TrainingState, { plan }: RunRecord): Promise<string> {
  const layers = state.best?.batchLayers ?? [];
  const { batchRanges } = state;
  if (layers.length === 0 || batchRanges === undefined) return '';
  const policy = encodePolicy({
    name: `batching-${plan.seed}`,
    decides: 'batching',
    network: { layers, activation: 'tanh' },
    ranges: rangesOfNetwork(batchRanges, layers),
    fallback: batchFallback,
    notes: { with: `dispatch-${plan.seed}` },
  });
  await run.write(runFiles.batchPolicy, policy);
  return sha256(policy);
}

function progressOf(plan: TrainingPlan, state: TrainingState, leftMs: number | undefined): TrainProgress {
  const { stage, step, best } = state;
  return { share: shareDone(plan, state), stage, step, steps: stepsOf(plan, stage), leftMs, gain: best?.gain };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
