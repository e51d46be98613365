/**
 * The reference that splits are judged by: the whole model on the CPU, without the optimiser, asked with its test vectors
 * or with made-up inputs, twice, because a model that answers otherwise the second time can be compared with nothing.
 */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';
import { artifactDigest, sessionId, type SessionId } from '#core/ids.js';
import type { OptimizationLevel } from '#core/provider.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter } from '#core/split/cut.js';
import { compareOutputs } from '#core/split/equivalence.js';
import type { SplitGraph } from '#core/split/graph.js';
import { drawingOperators } from '#core/split/node-kinds.js';
import { comparedNumbers, sampleAttempts, sampleInputs } from '#core/split/sample-inputs.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { Executor, LoadedSession } from '#ports/executor.js';
import { writeModelFile } from './shard-files.js';
import { runInput } from './shard-runner.js';
import { readVectorSets, type VectorSet } from './test-vectors.js';
import { findValueTypes } from './value-types.js';

/** One thread: the same order of additions in a shard as in the whole model. */
export const referenceThreads = 1;

export interface Reference {
  readonly vectors: readonly VectorSet[];
  /** Answers, by vector. */
  readonly expected: readonly (readonly Tensor[])[];
  /** Outputs that came out otherwise the second time; empty when all are the same. */
  readonly unstable: string;
  /** `disabled`, or what the model loads with at the least. */
  readonly optimization: OptimizationLevel;
}

export interface ReferenceOptions {
  readonly cutter: Cutter;
  /** The model file, its side files beside it. */
  readonly path: string;
  readonly cpu: Executor;
  /** Looked through for `test_data_set_N`; the first that has any is taken. */
  readonly folders: readonly string[];
  /** Whether inputs must not be made up. */
  readonly mustHaveVectors: boolean;
  readonly seed: number;
}

/** @throws NOT_FOUND (no vectors where they must be), EXECUTION_FAILED (the whole model does not run). */
export async function runReference(options: ReferenceOptions): Promise<Reference> {
  const { cpu } = options;
  const session = sessionId('whole');
  const loaded = await loadWhole(options, session);
  try {
    const { vectors, first } = await chooseVectors(options, loaded.inputs, session);
    const expected = [first];
    for (const { inputs } of vectors.slice(1)) expected.push(await runWhole(cpu, session, inputs));
    const unstable: string[] = [];
    for (const [index, { name, inputs }] of vectors.entries()) {
      const exact = { relative: 0, steps: new Map<string, number>() };
      const { problem, bitExact } = compareOutputs(await runWhole(cpu, session, inputs), expected[index] ?? [], exact);
      if (!bitExact) unstable.push(`${name}: ${problem} when the whole model runs a second time`);
    }
    return { vectors, expected, unstable: unstable[0] ?? '', optimization: loaded.optimization };
  } finally {
    await cpu.unload(session);
  }
}

/** Why answers differ from run to run, as far as the graph tells. */
export function explainDrawing(graph: SplitGraph): string {
  const operators = drawingOperators(graph);
  return operators.length === 0
    ? 'no known operator of it draws random numbers, so an operator keeps a state from run to run'
    : `${operators.join(', ')} draw random numbers, so that answers cannot be compared`;
}

/** Types of a graph's values, from the file and from the CPU's engine. `folder` holds the model's side files. */
export async function engineTypes(
  graph: SplitGraph,
  {
    cpu,
    folder,
    optimization,
  }: { readonly cpu: Executor; readonly folder: string; readonly optimization: OptimizationLevel },
): Promise<ValueTypes> {
  return findValueTypes(graph, async (encoded) => {
    const session = sessionId('types');
    const artifact = await writeModelFile(join(folder, 'types.onnx'), encoded);
    const model = { name: 'types', version: '1' };
    const loaded = await cpu.load({
      session,
      artifact,
      model,
      options: { intraOpThreads: referenceThreads, optimization },
    });
    await cpu.unload(session);
    return loaded.outputs;
  });
}

/** Without the optimiser where that is possible; a few models load only with it. */
async function loadWhole({ cutter, path, cpu }: ReferenceOptions, session: SessionId): Promise<LoadedSession> {
  const digest = artifactDigest(createHash('sha256').update(cutter.graph.model.bytes).digest('hex'));
  const model = { name: basename(path), version: '1' };
  let failure: unknown;
  for (const optimization of ['disabled', 'basic', 'all'] as const) {
    try {
      const options = { intraOpThreads: referenceThreads, optimization };
      return await cpu.load({ session, artifact: { digest, path }, model, options });
    } catch (error) {
      failure ??= error;
    }
  }
  throw failure;
}

/** Test vectors of the folders or made-up ones; with the answers to the first. */
async function chooseVectors(
  { cutter, cpu, folders, mustHaveVectors, seed }: ReferenceOptions,
  specs: readonly TensorSpec[],
  session: SessionId,
): Promise<{ readonly vectors: readonly VectorSet[]; readonly first: readonly Tensor[] }> {
  const names = cutter.graph.inputs.map(({ name }) => name);
  for (const folder of folders) {
    const sets = await readVectorSets(folder, names);
    const [given] = sets;
    if (given !== undefined) return { vectors: sets, first: await runWhole(cpu, session, given.inputs) };
  }
  if (mustHaveVectors) {
    throw intarsiaError('NOT_FOUND', `${folders.join(', ')} holds no test vectors (test_data_set_N/input_0.pb)`);
  }
  const numbers = comparedNumbers(cutter.graph);
  let failure: unknown;
  for (let attempt = 0; attempt < sampleAttempts; attempt += 1) {
    const inputs = sampleInputs(specs, { seed, attempt, numbers });
    try {
      const first = await runWhole(cpu, session, inputs);
      const more = { name: `seed ${seed + 1}`, inputs: sampleInputs(specs, { seed: seed + 1, attempt, numbers }) };
      return { vectors: [{ name: `seed ${seed}`, inputs }, more], first };
    } catch (error) {
      failure ??= error;
    }
  }
  throw intarsiaError(
    'EXECUTION_FAILED',
    `the whole model refuses made-up inputs; give test vectors: ${messageOf(failure)}`,
    { attempts: sampleAttempts },
    failure,
  );
}

async function runWhole(executor: Executor, session: SessionId, inputs: readonly Tensor[]): Promise<readonly Tensor[]> {
  const { outputs } = await executor.run({
    session,
    inputs: inputs.map((tensor) => runInput(tensor, tensor.name)),
    outputs: [],
  });
  return outputs;
}
