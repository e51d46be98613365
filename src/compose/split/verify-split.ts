/**
 * The equivalence check behind `intarsia verify`: a model is cut in many ways, the shards run on the named providers, and
 * every answer is compared with the reference, the whole model on the CPU without optimisation.
 */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { SplitReport, SplitRequest } from '#cli/split-report.js';
import { asIntarsiaError, IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import { checkExternalRanges, modelFacts } from '#core/onnx/model-facts.js';
import { readModel } from '#core/onnx/model-reader.js';
import { modelBytesMax } from '#core/onnx/writer.js';
import type { ExecutionProvider, OptimizationLevel } from '#core/provider.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import { chooseCuts } from '#core/split/cut-choices.js';
import { Cutter } from '#core/split/cut.js';
import { compareOutputs, worstOf, type Comparison, type Tolerance } from '#core/split/equivalence.js';
import { readSplitGraph } from '#core/split/graph.js';
import { stateProblem, type StateSpan } from '#core/split/state-spans.js';
import { annotatedCut } from '#core/split/annotations.js';
import { toleranceOf } from '#core/split/tolerance.js';
import type { Executor } from '#ports/executor.js';
import { boundStates, readStates } from './model-states.js';
import { engineTypes, explainDrawing, referenceThreads, runReference, type Reference } from './reference.js';
import { bringSideFiles } from './shard-files.js';
import { ShardChain, type Stage } from './shard-runner.js';

export type StartExecutor = (provider: ExecutionProvider) => Promise<Executor>;

/** Problems and notes kept in a report; the counts are complete. */
const listedMax = 200;
const closeGraceMs = 5_000;

/**
 * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (options), DEVICE_UNAVAILABLE, EXECUTION_FAILED (the whole model does
 * not run on the CPU).
 */
export async function verifySplit(
  request: SplitRequest,
  startExecutor: StartExecutor,
  progress: (share: number, words: string) => void = () => {},
): Promise<SplitReport> {
  const path = resolve(request.model);
  const cutter = await readCutter(path);
  const { spans, notes } = boundStates(cutter.graph, await readStates(path));
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-verify-'));
  const executors = new Map<ExecutionProvider, Executor>();
  try {
    for (const provider of new Set<ExecutionProvider>(['cpu', ...request.devices])) {
      progress(0, `starting ${provider}`);
      executors.set(provider, await startExecutor(provider));
    }
    const check = new Check(request, { path, folder, cutter, spans, executors, progress });
    for (const note of notes) check.note(note);
    return await check.run();
  } finally {
    for (const executor of executors.values()) await executor.close({ graceMs: closeGraceMs });
    await rm(folder, { recursive: true, force: true });
  }
}

/** Reads, judges and sorts a model file. @throws NOT_FOUND, MODEL_INVALID. */
export async function readCutter(path: string): Promise<Cutter> {
  let bytes: Uint8Array;
  try {
    const { size } = await stat(path);
    if (size > modelBytesMax) {
      throw intarsiaError('MODEL_INVALID', `${path} has ${size} bytes; an ONNX file holds at most ${modelBytesMax}`);
    }
    bytes = await readFile(path);
  } catch (error) {
    if (error instanceof IntarsiaError) throw error;
    throw intarsiaError('NOT_FOUND', `model ${path} cannot be read: ${messageOf(error)}`, {}, error);
  }
  try {
    return await cutterOf(bytes, dirname(path));
  } catch (error) {
    const { code, message, details } = asIntarsiaError(error);
    throw intarsiaError(code, `model ${path}: ${message}`, details, error);
  }
}

async function cutterOf(bytes: Uint8Array, folder: string): Promise<Cutter> {
  const model = readModel(bytes);
  const facts = modelFacts(model);
  const sizes = new Map<string, number>();
  for (const { location } of facts.externalTensors) {
    if (sizes.has(location)) continue;
    const found = await stat(join(folder, location)).catch(() => undefined);
    if (found?.isFile() === true) sizes.set(location, found.size);
  }
  checkExternalRanges(facts, sizes);
  return new Cutter(readSplitGraph(model));
}

interface CheckParts {
  readonly path: string;
  readonly folder: string;
  readonly cutter: Cutter;
  /** Nodes that states of a configuration keep together. */
  readonly spans: readonly StateSpan[];
  readonly executors: ReadonlyMap<ExecutionProvider, Executor>;
  readonly progress: (share: number, words: string) => void;
}

class Check {
  readonly #request: SplitRequest;
  readonly #parts: CheckParts;
  /** The cut that the file asks for, where that is to be checked. */
  readonly #annotated: readonly number[] | undefined;
  readonly #notes: string[] = [];
  readonly #impossible: { cut: readonly number[]; reason: string }[] = [];
  readonly #problems: { cut: readonly number[]; problem: string }[] = [];
  #bitExact = 0;
  #close = 0;
  #wrong = 0;
  #worst: Comparison = worstOf([]);

  constructor(request: SplitRequest, parts: CheckParts) {
    this.#request = request;
    this.#parts = parts;
    const { cutter } = parts;
    this.#annotated = request.cuts === 'annotated' ? annotatedCut(cutter.graph) : undefined;
    if (request.cuts === 'annotated' && this.#annotated === undefined) {
      throw intarsiaError('INVALID_ARGUMENT', `${request.model} has no annotations of pipeline stages`);
    }
  }

  get #stages(): number {
    return this.#annotated === undefined ? this.#request.stages : this.#annotated.length + 1;
  }

  async run(): Promise<SplitReport> {
    const { cutter, folder, path, progress } = this.#parts;
    const { graph } = cutter;
    const { optimization } = this.#request;
    const stages = this.#stages;
    const facts = modelFacts(graph.model);
    await bringSideFiles(
      facts.externalTensors.map(({ location }) => location),
      { from: dirname(path), to: folder },
    );
    progress(0.01, 'reference');
    const reference = await runReference({
      cutter,
      path,
      cpu: this.#cpu,
      folders: [this.#request.vectors === '' ? dirname(path) : this.#request.vectors],
      mustHaveVectors: this.#request.vectors !== '',
      seed: this.#request.seed,
    });
    const exact = reference.optimization === 'disabled' && optimization === 'disabled';
    if (reference.unstable !== '') {
      return this.#report('not-repeatable', reference, `${reference.unstable}; ${explainDrawing(graph)}`);
    }
    if (graph.nodes.length < stages) {
      return this.#report(
        'no-legal-cut',
        reference,
        `the graph has ${graph.nodes.length} nodes that its outputs depend on, ${stages} stages need at least ${stages}`,
      );
    }
    progress(0.03, 'types of values');
    const types = await engineTypes(graph, { cpu: this.#cpu, folder, optimization: reference.optimization });
    const tolerance = toleranceOf(graph, types, {
      isUnoptimized: optimization === 'disabled',
      isReferenceEngine: this.#request.devices.every((device) => device === 'cpu'),
    });
    if (!exact && optimization === 'disabled') {
      this.#notes.push(
        `the whole model loads at level ${reference.optimization} only; its shards run at that level too`,
      );
    }
    const level = optimization === 'disabled' ? reference.optimization : optimization;
    const cuts = this.#choose(types);
    for (const [index, cut] of cuts.entries()) {
      progress(0.05 + (0.95 * index) / cuts.length, `cut ${index + 1} of ${cuts.length}`);
      await this.#try(cut, { types, tolerance, reference, level });
    }
    const tried = this.#bitExact + this.#close + this.#wrong;
    if (tried === 0) {
      const [first] = this.#impossible;
      return this.#report(
        'no-legal-cut',
        reference,
        `none of ${this.#impossible.length} cuts into ${stages} stages is possible; the first: ${first?.reason ?? 'there is none'}`,
        tolerance,
      );
    }
    return this.#report(
      this.#wrong === 0 ? 'equal' : 'different',
      reference,
      this.#problems[0]?.problem ?? '',
      tolerance,
    );
  }

  /** All cuts; or so many of those that are legal one by one, with the others named. */
  #choose(types: ValueTypes): readonly (readonly number[])[] {
    const { cutter, spans } = this.#parts;
    const { cuts, seed } = this.#request;
    const stages = this.#stages;
    const { length: nodes } = cutter.graph.nodes;
    if (this.#annotated !== undefined) return [this.#annotated];
    if (stages === 1) return [[]];
    if (cuts === 'all') return chooseCuts({ nodes, stages, cuts, seed });
    const count = cuts === 'annotated' ? 1 : cuts;
    const legal: number[] = [];
    for (let position = 1; position < nodes; position += 1) {
      const problem = cutter.problems(cutter.cut([position]), types)[0] ?? stateProblem(spans, position);
      if (problem === '') legal.push(position);
      else this.#impossible.push({ cut: [position], reason: problem });
    }
    const chosen = chooseCuts({ nodes: legal.length + 1, stages, cuts: count, seed });
    return chosen.map((cut) => cut.map((at) => legal[at - 1] as number));
  }

  async #try(
    cut: readonly number[],
    {
      types,
      tolerance,
      reference,
      level,
    }: {
      readonly types: ValueTypes;
      readonly tolerance: Tolerance;
      readonly reference: Reference;
      readonly level: OptimizationLevel;
    },
  ): Promise<void> {
    const { cutter, spans, folder, executors } = this.#parts;
    const { devices } = this.#request;
    const plan = cutter.cut(cut);
    const stateful = cut.map((position) => stateProblem(spans, position)).filter((text) => text !== '');
    const [problem] = [...cutter.problems(plan, types), ...stateful];
    if (problem !== undefined) {
      this.#impossible.push({ cut, reason: problem });
      return;
    }
    const stages = plan.shards.map(({ index }): Stage => {
      const device = devices[index % devices.length] ?? 'cpu';
      return { device, executor: executors.get(device) as Executor };
    });
    let chain: ShardChain;
    try {
      chain = await ShardChain.load({
        plan,
        types,
        stages,
        optimization: level,
        folder,
        name: 'cut',
        threads: referenceThreads,
      });
    } catch (error) {
      if (isLost(error)) throw error;
      // The CPU took the whole model, so it must take each part; another device may lack an operator or a type.
      const device = error instanceof IntarsiaError ? error.details['device'] : undefined;
      if (device !== undefined && device !== 'cpu') this.#impossible.push({ cut, reason: messageOf(error) });
      else this.#count(cut, failed(messageOf(error)));
      return;
    }
    try {
      for (const note of chain.notes) this.note(`cut [${cut.join(',')}]: ${note}`);
      const comparisons: Comparison[] = [];
      for (const [index, { inputs }] of reference.vectors.entries()) {
        comparisons.push(compareOutputs(await chain.run(inputs), reference.expected[index] ?? [], tolerance));
      }
      this.#count(cut, worstOf(comparisons));
    } catch (error) {
      if (isLost(error)) throw error;
      this.#count(cut, failed(messageOf(error)));
    } finally {
      await chain.unload();
    }
  }

  #count(cut: readonly number[], comparison: Comparison): void {
    this.#worst = worstOf([this.#worst, comparison]);
    if (comparison.bitExact) this.#bitExact += 1;
    else if (comparison.close) this.#close += 1;
    else {
      this.#wrong += 1;
      if (this.#problems.length < listedMax) {
        this.#problems.push({ cut, problem: `cut [${cut.join(',')}]: ${comparison.problem}` });
      }
    }
  }

  note(text: string): void {
    if (this.#notes.length < listedMax) this.#notes.push(text);
  }

  get #cpu(): Executor {
    return this.#parts.executors.get('cpu') as Executor;
  }

  #report(
    verdict: SplitReport['verdict'],
    { vectors, optimization }: Reference,
    reason: string,
    tolerance?: Tolerance,
  ): SplitReport {
    const { model, devices } = this.#request;
    const stages = this.#stages;
    return {
      model,
      stages,
      cutsTried: this.#bitExact + this.#close + this.#wrong,
      bitExact: this.#bitExact,
      close: this.#close,
      wrong: this.#wrong,
      impossible: this.#impossible,
      maxAbsoluteError: this.#worst.maxAbsoluteError,
      maxRelativeError: this.#worst.maxRelativeError,
      verdict,
      reason,
      nodes: this.#parts.cutter.graph.nodes.length,
      devices,
      optimization: this.#request.optimization,
      referenceOptimization: optimization,
      vectors: vectors.map(({ name }) => name),
      toleranceRelative: tolerance?.relative ?? 0,
      toleranceSteps: Object.fromEntries(tolerance?.steps ?? []),
      problems: this.#problems,
      notes: this.#notes,
    };
  }
}

/** An executor never comes back: what is left of the check cannot be done. */
function isLost(error: unknown): boolean {
  return error instanceof IntarsiaError && error.code === 'EXECUTOR_LOST';
}

function failed(problem: string): Comparison {
  return { bitExact: false, close: false, maxAbsoluteError: Infinity, maxRelativeError: Infinity, problem };
}
