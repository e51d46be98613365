/**
 * The equivalence gate of deployments: the model is fetched, cut and run in pieces on this host's engines before anybody is
 * served by the pieces. The measure is `intarsia verify`'s; the cut, the providers and the optimisation level are those
 * that will serve.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openRepository } from '#adapters/files/repository.js';
import { datatypeOfOnnx } from '#core/datatype.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { ModelManifest } from '#core/grid/records.js';
import type { GateFindings } from '#core/grid/verification.js';
import { estimateSessionBytes } from '#core/memory-ledger.js';
import { defaultModelFilename, type ModelConfigDraft } from '#core/model-config-draft.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import type { SequenceState } from '#core/model-config.js';
import type { ExecutionProvider, OptimizationLevel } from '#core/provider.js';
import { packTensor, unpackTensor } from '#core/split/activation-codec.js';
import { balancedCut, estimatedWork } from '#core/split/balanced-cut.js';
import { cutCandidates, preferredCuts } from '#core/split/cut-candidates.js';
import { stateProblem, stateSpans, type StateSpan } from '#core/split/state-spans.js';
import { rebalanced, type Rebalanced } from '#core/split/replan.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter, CutPlan, ShardDraft } from '#core/split/cut.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { SplitValue } from '#core/split/split-spec.js';
import type { TensorSpec } from '#core/tensor.js';
import type { Executor } from '#ports/executor.js';
import type { GateOptions, OpenSplit, SplitGate, SplitPlaces, VerifyOptions } from '#ports/split-gate.js';
import { compareSplit } from './compare-split.js';
import { engineTypes, runReference, type Reference } from './reference.js';
import { bringSideFiles } from './shard-files.js';
import { readCutter, type StartExecutor } from './verify-split.js';

export interface SplitGateParts {
  /** The files of a model in a folder of their own: CachedArtifacts.borrow. */
  readonly borrow: (
    manifest: ModelManifest,
    options: { readonly deadlineMs: number },
  ) => Promise<{ readonly path: string; readonly release: () => Promise<void> }>;
  readonly startExecutor: StartExecutor;
  /** Those of this host's devices. The CPU is always there. */
  readonly providers: ReadonlySet<ExecutionProvider>;
}

const closeGraceMs = 5_000;
const seed = 1;

export function splitGate(parts: SplitGateParts): SplitGate {
  return { open: (manifest, places, options) => openSplit(parts, { manifest, places, options }) };
}

interface OpenRequest {
  readonly manifest: ModelManifest;
  readonly places: SplitPlaces;
  readonly options: GateOptions;
}

async function openSplit(parts: SplitGateParts, { manifest, places, options }: OpenRequest): Promise<OpenSplit> {
  const { progress } = options;
  const undo: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    progress(0, 'fetching the files');
    const tree = await parts.borrow(manifest, options);
    undo.push(() => tree.release());
    const found = await findModel(tree.path, manifest);
    undo.push(found.close);
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-gate-'));
    undo.push(() => rm(folder, { recursive: true, force: true }));
    if (places.kind === 'cuts' && places.digest !== undefined && !found.digests.includes(places.digest)) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `the cuts were chosen for a model with SHA-256 ${places.digest}; ${manifest.model} version ${manifest.version} has ${found.digests.join(' or ')}: plan again`,
        { model: manifest.model, version: manifest.version },
      );
    }
    const cutter = await readCutter(found.path);
    await bringSideFiles(found.sideFiles, { from: dirname(found.path), to: folder });
    progress(0.1, 'reference: the whole model on the CPU');
    const executors = new Executors(parts, undo);
    const cpu = await executors.get('cpu');
    const reference = await runReference({
      cutter,
      path: found.path,
      cpu,
      folders: [dirname(found.path), join(tree.path, manifest.model)],
      mustHaveVectors: false,
      seed,
    });
    progress(0.4, 'types of values');
    const types = await engineTypes(cutter.graph, { cpu, folder, optimization: reference.optimization });
    const spans = stateSpans(cutter.graph, found.states);
    const cuts = places.kind === 'cuts' ? places.cuts : balancedCut(cutter, types, places.stages, spans);
    const plan = cutter.cut(cuts);
    const stateful = cuts.map((position) => stateProblem(spans, position)).filter((each) => each !== '');
    const [problem] = [...cutter.problems(plan, types), ...stateful];
    if (problem !== undefined) {
      throw intarsiaError('INVALID_ARGUMENT', `the cut [${cuts.join(',')}] is not possible: ${problem}`, {});
    }
    const optimization = found.config.optimization ?? 'all';
    return new LocalSplit({
      ...found,
      folder,
      cutter,
      plan,
      spans,
      types,
      reference,
      executors,
      optimization,
      progress,
      close,
    });
  } catch (error) {
    await close();
    throw error;
  }
}

interface FoundModel {
  readonly path: string;
  /** Of the artefact, and of its model file alone. */
  readonly digests: readonly string[];
  /** Names of side files, relative to the model file. */
  readonly sideFiles: readonly string[];
  readonly config: Pick<ModelConfigDraft, 'optimization'>;
  /** What the model keeps between requests of a sequence. */
  readonly states: readonly SequenceState[];
  /** Items of the largest batch; 0: the model does not batch. */
  readonly maxBatchSize: number;
  readonly close: () => Promise<void>;
}

async function findModel(root: string, { model, version }: ModelManifest): Promise<FoundModel> {
  const files = await openRepository({ roots: [root], copyArtifacts: false, allowHardLinks: true });
  const folder = await files.open(model);
  const { configText } = folder;
  const config = configText === undefined ? undefined : modelConfigFromPbtxt(configText, 'config.pbtxt');
  const artifact = await folder.artifact(version, config?.defaultModelFilename ?? defaultModelFilename);
  return {
    path: artifact.path,
    digests: [...new Set([artifact.digest, ...artifact.files.slice(0, 1).map(({ sha256 }) => sha256)])],
    sideFiles: artifact.facts.externalTensors.map(({ location }) => location),
    config: config ?? {},
    states: config?.sequenceBatching?.value.states ?? [],
    maxBatchSize: config?.maxBatchSize?.value ?? 0,
    close: async () => {
      await artifact.release();
      await folder.close();
      await files.close();
    },
  };
}

/** Executors by provider, started when the first stage wants one. */
class Executors {
  readonly #parts: SplitGateParts;
  readonly #undo: (() => Promise<void>)[];
  readonly #started = new Map<ExecutionProvider, Executor>();

  constructor(parts: SplitGateParts, undo: (() => Promise<void>)[]) {
    this.#parts = parts;
    this.#undo = undo;
  }

  async get(provider: ExecutionProvider): Promise<Executor> {
    const known = this.#started.get(provider);
    if (known !== undefined) return known;
    const executor = await this.#parts.startExecutor(provider);
    this.#undo.push(() => executor.close({ graceMs: closeGraceMs }));
    this.#started.set(provider, executor);
    return executor;
  }

  /** The provider where this host has it, the CPU otherwise, with why. */
  async stage(provider: string): Promise<{ provider: ExecutionProvider; executor: Executor; note: string }> {
    const own = [...this.#parts.providers].find((one) => one === provider);
    let note = '';
    if (own !== undefined || provider === 'cpu') {
      try {
        return { provider: own ?? 'cpu', executor: await this.get(own ?? 'cpu'), note };
      } catch (error) {
        note = `${provider} does not start here (${messageOf(error)}): checked on the CPU instead`;
      }
    } else note = `this host has no ${provider}: checked on the CPU instead`;
    return { provider: 'cpu', executor: await this.get('cpu'), note };
  }
}

interface LocalSplitParts extends Pick<FoundModel, 'maxBatchSize'> {
  readonly folder: string;
  readonly cutter: Cutter;
  readonly plan: CutPlan;
  readonly spans: readonly StateSpan[];
  readonly types: ValueTypes;
  readonly reference: Reference;
  readonly executors: Executors;
  readonly optimization: OptimizationLevel;
  readonly progress: GateOptions['progress'];
  readonly close: () => Promise<void>;
}

class LocalSplit implements OpenSplit {
  readonly cuts: readonly number[];
  readonly shards: OpenSplit['shards'];
  readonly values: OpenSplit['values'];
  readonly #parts: LocalSplitParts;

  constructor(parts: LocalSplitParts) {
    this.#parts = parts;
    this.cuts = parts.plan.cuts;
    this.shards = parts.plan.shards.map((shard) => ({
      memoryBytes: shardBytes(parts, shard),
      nodes: shard.nodes.length,
    }));
    this.values = crossingValues(parts);
  }

  rebalance(stageMs: readonly number[]): Rebalanced | undefined {
    const { cutter, types, spans } = this.#parts;
    const legal = preferredCuts(cutCandidates(cutter, types, spans)).map(({ position }) => position);
    return rebalanced({ work: estimatedWork(cutter.graph, types), legal, cuts: this.cuts, stageMs });
  }

  async verify({ providers, compression, toleranceRelative }: VerifyOptions): Promise<GateFindings> {
    const { executors, progress, plan, maxBatchSize } = this.#parts;
    progress(0.6, 'comparing the pieces with the whole');
    const stages = [];
    const notes: string[] = [];
    for (const { index } of plan.shards) {
      const wanted = providers[index] ?? 'cpu';
      const { provider, executor, note } = await executors.stage(wanted);
      if (note !== '') notes.push(`stage ${index + 1}: ${note}`);
      stages.push({ device: provider, executor });
    }
    return compareSplit({
      ...this.#parts,
      stages,
      notes,
      compression,
      carry: (tensor) => unpackTensor(packTensor(tensor, compression)),
      mayBatch: maxBatchSize > 0,
      ...(toleranceRelative === undefined ? {} : { toleranceRelative }),
    });
  }

  async close(): Promise<void> {
    await this.#parts.close();
  }
}

/** What hosts must know to write the shards: those of outputs are in the file. */
function crossingValues({ plan, types }: LocalSplitParts): OpenSplit['values'] {
  const values: [string, SplitValue][] = [];
  for (const { name } of plan.crossings) {
    const type = types.get(name);
    if (type?.kind !== 'tensor') continue;
    const { dataType, shape } = type;
    values.push([name, { dataType, ...(shape === undefined ? {} : { shape: shape.map(({ size }) => size) }) }]);
  }
  return Object.fromEntries(values);
}

/** As a whole model's memory is estimated: by weights and by what goes in and out. */
function shardBytes({ plan, types, maxBatchSize }: LocalSplitParts, shard: ShardDraft): number {
  const { weightBytes } = encodeShard(plan, shard, types);
  return estimateSessionBytes({
    weightBytes,
    inputs: specsOf(shard.inputs, types),
    outputs: specsOf(shard.outputs, types),
    items: maxBatchSize,
  });
}

function specsOf(names: readonly string[], types: ValueTypes): readonly TensorSpec[] {
  return names.flatMap((name) => {
    const type = types.get(name);
    const datatype = type?.kind === 'tensor' ? datatypeOfOnnx.get(type.dataType) : undefined;
    if (type?.kind !== 'tensor' || datatype === undefined) return [];
    return [{ name, datatype, shape: (type.shape ?? []).map(({ size }) => size) }];
  });
}
