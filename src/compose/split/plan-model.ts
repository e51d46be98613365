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
import { annotatedCut } from '#core/split/annotations.js';
import { nodeWeights, nodeWork, type ValueShapes } from '#core/split/node-work.js';
import { Contention, type MeasuredContention } from '#core/split/contention.js';
import { PlanTables } from '#core/split/plan-tables.js';
import type { MeasuredShard } from '#core/split/stage-times.js';
import type { ProcessorTimes } from '#adapters/hardware/processor-times.js';
import type { Tensor } from '#core/tensor.js';
import type { Clock } from '#ports/clock.js';
import type { Executor } from '#ports/executor.js';
import { CompanyMeter, measuredContention, shareProcessor } from './company-meter.js';
import { ModelPlanner } from './model-planner.js';
import { annotatedOnly, annotationNotes, writeAnnotated } from './plan-annotations.js';
import { boundStates, readStates } from './model-states.js';
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
  /** Of the machine and of so many processes; undefined where the system does not tell, as if it were absent. */
  readonly processorTimes?: (pids: readonly number[]) => ProcessorTimes | undefined;
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
/** Share of the time for measuring that is for devices one by one, where some share a processor. */
const aloneShare = 0.7;
const closeGraceMs = 5_000;

/**
 * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (devices, options), DEVICE_UNAVAILABLE, EXECUTION_FAILED (the whole
 * model does not run on the CPU).
 */
export async function planModel(request: PlanRequest, parts: PlanParts): Promise<PlanReport> {
  const { clock, progress } = parts;
  const path = resolve(request.model);
  const cutter = await readCutter(path);
  const { graph } = cutter;
  const sequences = await readStates(path);
  if (sequences.hasSequences && request.strategy === 'data') {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `${request.model} takes sequences (sequence_batching in its config.pbtxt): their requests are not spread over devices; the strategy may be pipeline or auto`,
    );
  }
  const bound = boundStates(graph, sequences);
  const annotated = annotatedCut(graph);
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
  let company: CompanyMeter | undefined;
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
    const candidates = annotatedOnly(cutCandidates(cutter, types, bound.spans), annotated);
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
    const sharing =
      request.contention !== false &&
      devices.some((a) => a.isHere && devices.some((b) => a !== b && b.isHere && shareProcessor(a, b)));
    const metering = {
      ...{ cutter, types, values, inputs, folder, clock, host, model: digest, precision: precisionOf(graph) },
      startExecutor: parts.startExecutor,
      keep: async (measured: readonly ProfileRecord[]) => {
        links.add(measured);
        try {
          await parts.keep?.(measured);
        } catch (error) {
          // A plan without its record is still a plan.
          if (unkept.length === 0) unkept.push(`what was measured is not kept: ${messageOf(error)}`);
        }
      },
    };
    const metered = new ShardMeter({
      ...metering,
      endMs: startMs + measureMs * (sharing ? aloneShare : 1),
      stored: (device) => storedShards(known, device),
      knowsLink: (device) => links.knows(device),
      peakBytes: (from, to) => work.slice(from, to).reduce((peak, { liveBytes }) => Math.max(peak, liveBytes), 0),
    });
    meter = metered;
    const stored = devices.flatMap((device) => storedContention(known, device));
    const together = new CompanyMeter({
      ...{ ...metering, endMs: startMs + measureMs, stored: new Contention(stored) },
      aloneBefore: ({ device, from, to, batch }) =>
        metered.of(device).find((shard) => shard.from === from && shard.to === to && shard.batch === batch)?.ms,
      ...{ processorTimes: parts.processorTimes ?? (() => undefined), evenBesideOthers: request.contention === true },
    });
    company = together;
    const contention = (): Contention => new Contention([...stored, ...together.measured]);
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
      ...{ devices, tables, meter, company, contention, inputs, clock, progress, startMs, measureMs },
      endBytes: {
        inputs: (inputs.get(1) ?? []).reduce((sum, { data }) => sum + data.byteLength, 0),
        outputs: graph.outputs.reduce((sum, { name }) => sum + sizes(name), 0),
      },
      cores: parts.discovery.host.usableCores,
      hasSequences: sequences.hasSequences,
    });
    const choice = await planner.run();
    progress(1, 'done');
    const written = await writeAnnotated(request.annotatedPath, { choice: choice.choice, cutter, tables });
    return reportPlan(request, {
      digest: artifactDigest(digest),
      cutter,
      devices,
      tables,
      choice,
      meter,
      link,
      contention: contention(),
      notes: [...notes, ...bound.notes, ...annotationNotes(annotated), ...written, ...unkept, ...company.notes],
      ...(facts === undefined ? {} : { models: facts.models }),
      impossible: candidates.filter(({ problem }) => problem !== ''),
      legalCuts: legal.length,
      batches: [...inputs.keys()],
      sizes,
      measuredSeconds: (clock.nowMs() - startMs) / 1000,
    });
  } finally {
    await meter?.close();
    await company?.close();
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

/** What devices of its kind leave it, that of its own last: it counts. */
function storedContention(known: ServiceTable, device: PlanDevice): readonly MeasuredContention[] {
  const { emulated, place, provider, threads } = device;
  if (emulated) return [];
  const silicon = siliconName(device);
  const alike = silicon === '' ? [] : known.contention({ silicon, provider, threads });
  const own = place === undefined ? [] : known.contention({ host: place.host, device: place.device, threads });
  return [...alike, ...own].map(measuredContention);
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
