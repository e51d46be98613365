/** A variant on each device: how near it comes to the exact model, and how long either takes. */
import { artifactDigest, sessionId, type SessionId } from '#core/ids.js';
import { IntarsiaError, messageOf } from '#core/errors.js';
import type { ExecutionProvider, OptimizationLevel } from '#core/provider.js';
import { medianOf } from '#core/profile/time-stats.js';
import type { Tolerance } from '#core/split/equivalence.js';
import type { SplitGraph } from '#core/split/graph.js';
import { comparedNumbers, sampleAttempts, sampleInputs } from '#core/split/sample-inputs.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import { agreementOf, agreementOfAll } from '#core/variants/task-agreement.js';
import type { VariantRecord, VariantRow } from '#core/variants/variant-record.js';
import { variantDifference } from '#core/variants/variant-difference.js';
import type { MadeKind } from '#core/variants/variant-tolerance.js';
import type { Executor } from '#ports/executor.js';
import { referenceThreads, type Reference } from '../split/reference.js';
import { runInput } from '../split/shard-runner.js';
import type { VectorSet } from '../split/test-vectors.js';
import type { MadeVariant } from './make-variant.js';

export interface AssessmentParts {
  readonly kind: MadeKind;
  readonly made: MadeVariant;
  readonly reference: Reference;
  /** What a split of this model may differ by. */
  readonly usual: Tolerance;
  readonly limit: number;
  /** The exact model's file. */
  readonly source: string;
  readonly seed: number;
}

export interface Assessment {
  readonly rows: readonly VariantRow[];
  /** Names of the vectors that were asked. */
  readonly vectors: readonly string[];
}

/** Runs of one timing, and its milliseconds. */
const timedRunsMax = 20;
const timedRunsMin = 3;
const timedMsMax = 500;

/** Never rejects for what the variant does; @throws EXECUTOR_LOST, EXECUTION_FAILED (the exact model). */
export async function assessVariant(
  parts: AssessmentParts,
  graph: SplitGraph,
  devices: ReadonlyMap<ExecutionProvider, Executor>,
): Promise<Assessment> {
  const cpu = devices.get('cpu') as Executor;
  const { vectors, expected } = await questionsOf({ ...parts, shapes: parts.made.shapes }, graph, cpu);
  const rows: VariantRow[] = [];
  for (const [provider, executor] of devices) {
    rows.push(await assessOn(parts, { provider, executor, vectors, expected }));
  }
  return { rows, vectors: vectors.map(({ name }) => name) };
}

/** The reference's own, or of a fixed shape those that fit it; made-up ones where none does. */
export async function questionsOf(
  {
    shapes,
    reference,
    source,
    seed,
  }: Pick<AssessmentParts, 'reference' | 'source' | 'seed'> & { readonly shapes: VariantRecord['shapes'] },
  graph: SplitGraph,
  cpu: Executor,
): Promise<Pick<Reference, 'vectors' | 'expected'>> {
  if (shapes === undefined) return reference;
  const fits = ({ inputs }: VectorSet): boolean =>
    inputs.every(({ name, shape }) => shapes[name]?.join() === shape.join());
  const kept = reference.vectors.flatMap((set, index) => (fits(set) ? [{ set, index }] : []));
  if (kept.length > 0) {
    return {
      vectors: kept.map(({ set }) => set),
      expected: kept.map(({ index }) => reference.expected[index] ?? []),
    };
  }
  const session = sessionId('exact');
  const { inputs } = await load(cpu, session, source, reference.optimization);
  try {
    const specs = inputs.map((spec): TensorSpec => ({ ...spec, shape: shapes[spec.name] ?? spec.shape }));
    const numbers = comparedNumbers(graph);
    let failure: unknown;
    for (let attempt = 0; attempt < sampleAttempts; attempt += 1) {
      const set = { name: `seed ${seed}`, inputs: sampleInputs(specs, { seed, attempt, numbers }) };
      try {
        return { vectors: [set], expected: [await run(cpu, session, set.inputs)] };
      } catch (error) {
        if (isLost(error)) throw error;
        failure ??= error;
      }
    }
    throw failure;
  } finally {
    await cpu.unload(session);
  }
}

async function assessOn(
  { kind, made, usual, limit, source }: AssessmentParts,
  {
    provider,
    executor,
    vectors,
    expected,
  }: { readonly provider: ExecutionProvider; readonly executor: Executor } & Pick<Reference, 'vectors' | 'expected'>,
): Promise<VariantRow> {
  const { engine } = executor.description;
  const session = sessionId('variant');
  const first = vectors[0]?.inputs ?? [];
  try {
    // What ONNX Runtime has optimised is not optimised again.
    await load(executor, session, made.path, kind === 'ort' ? 'disabled' : 'all');
    const answers: (readonly Tensor[])[] = [];
    for (const { inputs } of vectors) answers.push(await run(executor, session, inputs));
    const questions = vectors.map(({ inputs }, index) => ({ inputs, expected: expected[index] ?? [] }));
    const agreement = agreementOfAll(answers.map((outputs, index) => agreementOf(outputs, expected[index] ?? [])));
    const difference = variantDifference({ kind, limit, usual, questions }, answers);
    const { maxAbsoluteError, maxRelativeError, errorShare, close, text, problem } = difference;
    const runMs = await time(executor, session, first);
    await executor.unload(session);
    return {
      provider,
      engine,
      verdict: close ? 'equal' : 'different',
      reason: close ? '' : `${text}: ${problem}`,
      maxAbsoluteError,
      maxRelativeError,
      errorShare,
      argMaxAgreement: agreement.argMax,
      cosine: agreement.cosine,
      runMs,
      ...(await exactTime(executor, { source, first })),
    };
  } catch (error) {
    if (isLost(error)) throw error;
    return {
      provider,
      engine,
      verdict: 'fails',
      reason: messageOf(error),
      maxAbsoluteError: Infinity,
      maxRelativeError: Infinity,
      errorShare: Infinity,
      argMaxAgreement: 0,
      cosine: 0,
    };
  } finally {
    await executor.unload(session);
  }
}

/** The exact model on the same device; absent where it does not run there. */
async function exactTime(
  executor: Executor,
  { source, first }: { readonly source: string; readonly first: readonly Tensor[] },
): Promise<{ readonly exactRunMs?: number }> {
  const session = sessionId('exact');
  try {
    await load(executor, session, source, 'all');
    return { exactRunMs: await time(executor, session, first) };
  } catch (error) {
    if (isLost(error)) throw error;
    return {};
  } finally {
    await executor.unload(session);
  }
}

async function load(
  executor: Executor,
  session: SessionId,
  path: string,
  optimization: OptimizationLevel,
): ReturnType<Executor['load']> {
  return executor.load({
    session,
    // Nobody caches by it here.
    artifact: { digest: artifactDigest('0'.repeat(64)), path },
    model: { name: 'variant', version: '1' },
    options: { intraOpThreads: referenceThreads, optimization },
  });
}

async function run(executor: Executor, session: SessionId, inputs: readonly Tensor[]): Promise<readonly Tensor[]> {
  const { outputs } = await executor.run({
    session,
    inputs: inputs.map((tensor) => runInput(tensor, tensor.name)),
    outputs: [],
  });
  return outputs;
}

/** Median milliseconds of a run on one thread, after two that warm up. */
async function time(executor: Executor, session: SessionId, inputs: readonly Tensor[]): Promise<number> {
  await run(executor, session, inputs);
  await run(executor, session, inputs);
  const times: number[] = [];
  let total = 0;
  while (times.length < timedRunsMin || (times.length < timedRunsMax && total < timedMsMax)) {
    const request = { session, inputs: inputs.map((tensor) => runInput(tensor, tensor.name)), outputs: [] };
    const { computeInferUs } = await executor.run(request);
    times.push(computeInferUs / 1000);
    total += computeInferUs / 1000;
  }
  return medianOf(times);
}

/** An executor never comes back. */
function isLost(error: unknown): boolean {
  return error instanceof IntarsiaError && error.code === 'EXECUTOR_LOST';
}
