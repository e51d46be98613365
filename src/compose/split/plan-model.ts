/**
 * `intarsia plan`: reads a model, finds its legal cuts and its work, measures what is missing on real devices within the
 * time allowed, and plans again until the stages of the plans that look best were measured.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { PlanReport, PlanRequest } from '#cli/plan-report.js';
import type { ClientOptions } from '#client/index.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import { artifactDigest } from '#core/ids.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import { modelFacts } from '#core/onnx/model-facts.js';
import { precisionOf } from '#core/profile/candidate-shards.js';
import type { ProfileRecord } from '#core/profile/profile-record.js';
import { ServiceTable } from '#core/profile/service-table.js';
import { crossingBytes, type ValueTypes } from '#core/split/boundary-type.js';
import { cutCandidates, preferredCuts } from '#core/split/cut-candidates.js';
import { nodeWeights, nodeWork, type ValueShapes } from '#core/split/node-work.js';
import { choosePlan, type BatchProblem, type ChoiceOptions, type PlanChoice } from '#core/split/plan-choice.js';
import { PlanTables } from '#core/split/plan-tables.js';
import type { MeasuredShard } from '#core/split/stage-times.js';
import type { Tensor } from '#core/tensor.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import { inputsOfBatch, ModelValues } from './model-values.js';
import { planDevices, type PlanDevice } from './plan-devices.js';
import { gridDevices, type GridFacts } from './plan-grid.js';
import { PlanLinks } from './plan-links.js';
import { reportPlan, type PlanFindings } from './plan-rows.js';
import { engineTypes, runReference } from './reference.js';
import { bringSideFiles } from './shard-files.js';
import { ShardMeter } from './shard-meter.js';
import { readCutter } from './verify-split.js';

export interface PlanParts {
  readonly startExecutor: (device: Pick<PlanDevice, 'provider' | 'descriptor'>) => Promise<Executor>;
  readonly discovery: DiscoveryReport;
  readonly profiles: ProfileBook;
  readonly clock: Clock;
  readonly progress: (share: number, words: string) => void;
  /** What is known of models on devices already. */
  readonly records: readonly ProfileRecord[];
  /** Takes what is measured for the plan. Absent: it is forgotten. */
  readonly keep?: (records: readonly ProfileRecord[]) => Promise<void>;
  /** Of a grid that the request names. */
  readonly askGrid?: (options: ClientOptions, digest: string) => Promise<GridFacts>;
}

/** Batch sizes looked at, where the model has a dimension for them. */
const batchSizes = [1, 2, 4, 8] as const;
/** Legal cuts that plans are made of; further ones are thinned out evenly. */
const cutsMax = 1000;
/** Pieces of even work that are measured on each device. */
const piecesMax = 5;
/** Times that a plan is made, measured and made again. */
const roundsMax = 6;
const sweepSteps = 16;
const closeGraceMs = 5_000;
/** A split must be better than a plan with fewer devices by more than this. */
const worthwhile = 0.02;

/**
 * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (devices, options), DEVICE_UNAVAILABLE, EXECUTION_FAILED (the whole
 * model does not run on the CPU).
 */
export async function planModel(request: PlanRequest, parts: PlanParts): Promise<PlanReport> {
  const { clock, progress } = parts;
  const path = resolve(request.model);
  const cutter = await readCutter(path);
  const { graph } = cutter;
  const digest = createHash('sha256').update(graph.model.bytes).digest('hex');
  const { grid, askGrid } = request.grid === undefined ? {} : { grid: request.grid, askGrid: parts.askGrid };
  const facts = grid === undefined ? undefined : await askGrid?.(grid, digest);
  const { devices, notes } =
    facts === undefined
      ? { devices: planDevices(request, parts.discovery, parts.profiles), notes: [] }
      : gridDevices(request, facts, parts);
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-plan-'));
  progress(0, 'starting cpu');
  const cpu = await parts.startExecutor({ provider: 'cpu', descriptor: undefined });
  let values: ModelValues | undefined;
  let meter: ShardMeter | undefined;
  try {
    await bringSideFiles(
      modelFacts(graph.model).externalTensors.map(({ location }) => location),
      { from: dirname(path), to: folder },
    );
    progress(0.02, 'inputs');
    const folders = request.vectors === '' ? [dirname(path)] : [request.vectors];
    const { vectors, optimization } = await runReference({
      cutter,
      path,
      cpu,
      folders,
      mustHaveVectors: request.vectors !== '',
      seed: 1,
    });
    progress(0.05, 'types and sizes of values');
    const types = await engineTypes(graph, { cpu, folder, optimization });
    values = await ModelValues.open(graph, types, { cpu, folder, optimization });
    const given = vectors[0]?.inputs ?? [];
    const inputs = new Map([[1, inputsOfBatch(given, values.specs, 1) ?? given]]);
    const shapes = await values.shapes(inputs.get(1) ?? [], types);
    await addBatches(inputs, { given, values, names: graph.outputs.map(({ name }) => name) });
    const candidates = cutCandidates(cutter, types);
    const legal = preferredCuts(candidates);
    const cuts = evenly(legal, cutsMax);
    const startMs = clock.nowMs();
    const measureMs = request.measureSeconds * 1000;
    const { hostname: host } = parts.discovery.host;
    const records = [...parts.records, ...(facts?.records ?? [])];
    const known = new ServiceTable(records, { model: digest });
    const links = new PlanLinks({ records, host, ...(facts === undefined ? {} : { roundTripMs: roundTrips(facts) }) });
    const work = nodeWork(graph, types, shapes);
    const unkept: string[] = [];
    const metered = new ShardMeter({
      ...{ cutter, types, values, inputs, folder, clock, host, model: digest, precision: precisionOf(graph) },
      startExecutor: parts.startExecutor,
      endMs: startMs + measureMs,
      stored: (device) => storedShards(known, device),
      knowsLink: (device) => links.knows(device),
      peakBytes: (from, to) => work.slice(from, to).reduce((peak, { liveBytes }) => Math.max(peak, liveBytes), 0),
      keep: async (measured) => {
        links.add(measured);
        try {
          await parts.keep?.(measured);
        } catch (error) {
          // A plan without its record is still a plan.
          if (unkept.length === 0) unkept.push(`what was measured is not kept: ${messageOf(error)}`);
        }
      },
    });
    meter = metered;
    const sizes = sizesOf(types, shapes);
    const link: PlanFindings['link'] = (from, to) => links.between(from as PlanDevice, to as PlanDevice);
    const tables = new PlanTables({
      cuts: cuts.map(({ position }) => position),
      cutBytes: cuts.map(({ values: names }) => names.reduce((sum, name) => sum + sizes(name), 0)),
      work,
      weights: nodeWeights(graph),
      devices,
      silicon: (device) => (device as PlanDevice).silicon,
      measured: (device) => metered.of(device),
      nodeMs: (device) => storedNodes(known, device as PlanDevice),
      link,
    });
    const planner = new ModelPlanner(request, {
      ...{ devices, tables, meter, inputs, clock, progress, startMs, measureMs },
    });
    const choice = await planner.run();
    progress(1, 'done');
    return reportPlan(request, {
      digest: artifactDigest(digest),
      cutter,
      devices,
      tables,
      choice,
      meter,
      link,
      notes: [...notes, ...unkept],
      ...(facts === undefined ? {} : { models: facts.models }),
      impossible: candidates.filter(({ problem }) => problem !== ''),
      legalCuts: legal.length,
      batches: [...inputs.keys()],
      sizes,
      measuredSeconds: (clock.nowMs() - startMs) / 1000,
    });
  } finally {
    await meter?.close();
    await values?.close();
    await cpu.close({ graceMs: closeGraceMs });
    await rm(folder, { recursive: true, force: true });
  }
}

/** What was measured on the device itself, then on others of its kind. */
function storedShards(known: ServiceTable, device: PlanDevice): readonly MeasuredShard[] {
  const { emulated, place, provider, threads } = device;
  if (emulated) return [];
  const own = place === undefined ? [] : known.measured({ host: place.host, device: place.device, threads });
  const silicon = siliconName(device);
  const alike = silicon === '' ? [] : known.measured({ silicon, provider, threads });
  const keyOf = ({ from, to, batch }: MeasuredShard): string => `${from} ${to} ${batch}`;
  const seen = new Set(own.map(keyOf));
  return [...own, ...alike.filter((shard) => !seen.has(keyOf(shard)))];
}

/** Times of nodes on its kind, of one item. */
function storedNodes(known: ServiceTable, device: PlanDevice): readonly number[] {
  const { emulated, place, provider, threads } = device;
  if (emulated) return [];
  const own = place === undefined ? undefined : known.nodeMs({ host: place.host, device: place.device }, 1);
  const silicon = siliconName(device);
  const record = own ?? (silicon === '' ? undefined : known.nodeMs({ silicon, provider, threads }, 1));
  return record?.nodeMs ?? [];
}

/** As records name it. */
function siliconName({ kind, place, descriptor, name }: PlanDevice): string {
  if (place === undefined) return descriptor?.profile ?? name;
  return kind.slice(0, kind.lastIndexOf(' ', kind.lastIndexOf(' ') - 1));
}

function roundTrips({ hosts }: GridFacts): (host: string) => number {
  const known = new Map(hosts.map(({ host, roundTripMs }) => [host, roundTripMs]));
  return (host) => known.get(host) ?? 0;
}

/** Batch sizes that the model takes and answers. */
async function addBatches(
  inputs: Map<number, readonly Tensor[]>,
  {
    given,
    values,
    names,
  }: {
    readonly given: readonly Tensor[];
    readonly values: ModelValues;
    readonly names: readonly string[];
  },
): Promise<void> {
  for (const batch of batchSizes) {
    if (batch === 1) continue;
    const several = inputsOfBatch(given, values.specs, batch);
    if (several === undefined) return;
    if (batch === 2) {
      // Whether answers grow with the batch says whether it is one.
      const answers = await values.values(several, names).catch(() => undefined);
      if (answers === undefined || !names.every((name) => answers.get(name)?.shape[0] === batch)) return;
    }
    inputs.set(batch, several);
  }
}

interface PlannerParts {
  readonly devices: readonly PlanDevice[];
  readonly tables: PlanTables;
  readonly meter: ShardMeter;
  readonly inputs: ReadonlyMap<number, unknown>;
  readonly clock: Clock;
  readonly progress: (share: number, words: string) => void;
  readonly startMs: number;
  readonly measureMs: number;
}

/** Plans and measures in turns. */
class ModelPlanner {
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
      const measured = await this.#measureStages(choice);
      if (measured === 0) break;
      choice = this.#choose();
    }
    return choice;
  }

  #choose(): PlanChoice {
    const { goal, items, strategy, sloMs = Infinity, frontierMax, stagesMax } = this.#request;
    const { tables, devices, meter } = this.#parts;
    const usable = devices.filter((device) => meter.failure(device) === '');
    if (usable.length === 0) {
      throw intarsiaError('DEVICE_UNAVAILABLE', `no device runs the model: ${meter.notes.slice(0, 3).join('; ')}`);
    }
    const options: ChoiceOptions = {
      ...{ goal, items, frontierMax, sweepSteps, worthwhile },
      latencyMsMax: sloMs,
      strategies: strategy === 'auto' ? ['whole', 'pipeline', 'data'] : ['whole', strategy],
    };
    const problems = this.#batches.map((batch): BatchProblem => {
      const table = { devices: usable, replicates: true, ...(stagesMax === undefined ? {} : { stagesMax }) };
      const apart = usable.flatMap(({ alone }) => (alone === undefined ? [] : [alone])).slice(0, 1);
      return {
        ...{ batch, problem: tables.problem(batch, table) },
        ...(apart.length === 0 ? {} : { apart: tables.problem(batch, { devices: apart, replicates: false }) }),
      };
    });
    return choosePlan(problems, options);
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
    const ends = pieceEnds(tables, piecesMax);
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

  #tell(words: string): void {
    const { clock, progress, startMs, measureMs } = this.#parts;
    if (measureMs > 0) progress(0.1 + 0.9 * Math.min(1, (clock.nowMs() - startMs) / measureMs), words);
  }
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

/** Bytes of a value for one item: as in a run where types leave it open. */
function sizesOf(types: ValueTypes, shapes: ValueShapes): (name: string) => number {
  return (name) => {
    const type = types.get(name);
    const shape = shapes.get(name);
    const sized =
      type?.kind === 'tensor' && shape !== undefined
        ? { ...type, shape: shape.map((size) => ({ size, symbol: '' })) }
        : type;
    return crossingBytes(sized) ?? 0;
  };
}

function evenly<Item>(items: readonly Item[], max: number): readonly Item[] {
  if (items.length <= max) return items;
  return Array.from({ length: max }, (_, index) => items[Math.floor((index * items.length) / max)] as Item);
}
