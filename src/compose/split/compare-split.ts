/** Runs one cut's shards on their engines, compares their answers with the whole model's, and tries two batch sizes. */
import type { GateFindings } from '#core/grid/verification.js';
import { messageOf } from '#core/errors.js';
import type { OptimizationLevel } from '#core/provider.js';
import { joinBatches } from '#core/split/batch-join.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter, CutPlan } from '#core/split/cut.js';
import { compareOutputs, worstOf, type Comparison, type Tolerance } from '#core/split/equivalence.js';
import { compressedTolerance, toleranceOf } from '#core/split/tolerance.js';
import type { SplitCompression } from '#core/split/split-spec.js';
import type { Tensor } from '#core/tensor.js';
import { explainDrawing, referenceThreads, type Reference } from './reference.js';
import { ShardChain, type Stage } from './shard-runner.js';

export interface CompareRequest {
  readonly cutter: Cutter;
  readonly plan: CutPlan;
  readonly types: ValueTypes;
  readonly reference: Reference;
  /** One for each shard. */
  readonly stages: readonly Stage[];
  /** Level that the shards are served at. */
  readonly optimization: OptimizationLevel;
  /** Where shard files are written; the model's side files lie there. */
  readonly folder: string;
  readonly compression: SplitCompression;
  /** What compression does to a value on its way. */
  readonly carry: (tensor: Tensor) => Tensor;
  readonly toleranceRelative?: number;
  /** Whether the model takes batches, by its configuration. */
  readonly mayBatch: boolean;
  /** What had to be done otherwise before. */
  readonly notes: readonly string[];
}

export async function compareSplit(request: CompareRequest): Promise<GateFindings> {
  const { cutter, plan, types, reference, stages, optimization, folder } = request;
  const level = optimization === 'disabled' ? reference.optimization : optimization;
  const tolerance = toleranceFor(request, level);
  const notes = [...request.notes];
  const common = {
    toleranceRelative: tolerance.relative,
    toleranceSteps: Object.fromEntries(tolerance.steps),
    vectors: reference.vectors.map(({ name }) => name),
    providers: stages.map(({ device }) => device),
    optimization: level,
    referenceOptimization: reference.optimization,
    notes,
  };
  const nothing = { ...common, bitExact: false, batches: false };
  if (reference.unstable !== '') {
    const reason = `${reference.unstable}; ${explainDrawing(cutter.graph)}`;
    return { ...nothing, verdict: 'not-repeatable', reason };
  }
  let chain: ShardChain;
  try {
    chain = await ShardChain.load({
      plan,
      types,
      stages,
      optimization: level,
      folder,
      name: 'gate',
      threads: referenceThreads,
    });
  } catch (error) {
    return { ...nothing, verdict: 'failed', reason: messageOf(error) };
  }
  try {
    notes.push(...chain.notes);
    const comparisons: Comparison[] = [];
    for (const [index, { inputs }] of reference.vectors.entries()) {
      const answers = await chain.run(inputs, request.carry);
      comparisons.push(compareOutputs(answers, reference.expected[index] ?? [], tolerance));
    }
    const worst = worstOf(comparisons);
    const batches = worst.close && request.mayBatch && (await keepsBatches(chain, request, notes));
    const { bitExact, close, maxAbsoluteError, maxRelativeError } = worst;
    return {
      ...common,
      batches,
      bitExact,
      verdict: close ? 'equal' : 'different',
      reason: close ? '' : reasonOf(worst, tolerance),
      ...(Number.isFinite(maxAbsoluteError) ? { maxAbsoluteError } : {}),
      ...(Number.isFinite(maxRelativeError) ? { maxRelativeError } : {}),
    };
  } catch (error) {
    return { ...nothing, verdict: 'failed', reason: messageOf(error) };
  } finally {
    await chain.unload();
  }
}

function toleranceFor(
  { cutter, types, stages, compression, toleranceRelative }: CompareRequest,
  level: string,
): Tolerance {
  const own = toleranceOf(cutter.graph, types, {
    isUnoptimized: level === 'disabled',
    isReferenceEngine: stages.every(({ device }) => device === 'cpu'),
  });
  const tolerance = compressedTolerance(own, compression);
  return toleranceRelative === undefined ? tolerance : { ...tolerance, relative: toleranceRelative };
}

function reasonOf({ problem, maxAbsoluteError, maxRelativeError }: Comparison, { relative }: Tolerance): string {
  return `${problem}; largest error ${maxAbsoluteError} absolute, ${maxRelativeError} relative, and ${relative} relative passes`;
}

/**
 * Whether shards may be served in batches: at two sizes, whatever crosses and whatever comes out has the batch in front,
 * and each item's answer is the one it has alone.
 */
async function keepsBatches(chain: ShardChain, { reference }: CompareRequest, notes: string[]): Promise<boolean> {
  const [first, second = first] = reference.vectors;
  const expected = reference.expected;
  if (first === undefined || second === undefined) return false;
  const joined = joinBatches(first.inputs, second.inputs) ?? joinBatches(first.inputs, first.inputs);
  const isSame = joined === undefined || joinBatches(first.inputs, second.inputs) === undefined || second === first;
  const wanted = joinBatches(expected[0] ?? [], (isSame ? expected[0] : expected[1]) ?? []);
  if (joined === undefined || wanted === undefined) {
    notes.push('served one request at a time: inputs or outputs have no batch in front');
    return false;
  }
  const problems: string[] = [];
  for (const [inputs, size] of [
    [first.inputs, first.inputs[0]?.shape[0]],
    [joined, joined[0]?.shape[0]],
  ] as const) {
    const look = (tensor: Tensor): Tensor => {
      if (tensor.shape[0] !== size) problems.push(`'${tensor.name}' has no batch in front`);
      return tensor;
    };
    let answers: readonly Tensor[];
    try {
      answers = await chain.run(inputs, look);
    } catch (error) {
      problems.push(`a batch of ${size} does not run: ${messageOf(error)}`);
      break;
    }
    answers.forEach(look);
    if (inputs !== joined) continue;
    // An engine may add in another order in a batch: as near as an optimised model must be.
    const { close, problem } = compareOutputs(answers, wanted, { relative: 1e-2, steps: new Map() });
    if (!close) problems.push(`in a batch of ${size} ${problem}`);
  }
  const [problem] = problems;
  if (problem !== undefined) notes.push(`served one request at a time: ${problem}`);
  return problem === undefined;
}
