/** Shards run one after another in ONNX Runtime in this process: the shortest road from a cut to an answer. */
import * as ort from 'onnxruntime-node';
import { datatypeOfOrt, fromOrtTensor, toOrtTensor } from '#adapters/onnx/tensors.js';
import { withReadableHalves } from '#adapters/onnx/half-floats.js';
import { findValueTypes } from '#compose/split/value-types.js';
import { readModel } from '#core/onnx/model-reader.js';
import type { OptimizationLevel } from '#core/provider.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import { Cutter, type CutPlan } from '#core/split/cut.js';
import { readSplitGraph } from '#core/split/graph.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';

const library = { InferenceSession: ort.InferenceSession, Tensor: withReadableHalves(ort.Tensor) };

export interface Direct {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  run(inputs: readonly Tensor[]): Promise<readonly Tensor[]>;
  release(): Promise<void>;
}

export function join(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

export async function loadBytes(bytes: Uint8Array, optimization: OptimizationLevel = 'disabled'): Promise<Direct> {
  const session = await ort.InferenceSession.create(bytes, {
    graphOptimizationLevel: optimization,
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  const specs = (all: readonly ort.InferenceSession.ValueMetadata[]): TensorSpec[] =>
    all.map((value) => {
      const datatype = value.isTensor ? datatypeOfOrt(value.type) : undefined;
      if (!value.isTensor || datatype === undefined) throw new Error(`${value.name} is no tensor that can be passed`);
      return { name: value.name, datatype, shape: value.shape.map((size) => (typeof size === 'number' ? size : -1)) };
    });
  const outputs = specs(session.outputMetadata);
  return {
    inputs: specs(session.inputMetadata),
    outputs,
    async run(inputs) {
      const feeds = Object.fromEntries(inputs.map((tensor) => [tensor.name, toOrtTensor(library, tensor)]));
      const results = await session.run(feeds);
      return session.outputNames.map((name) => fromOrtTensor(name, results[name] as ort.Tensor));
    },
    release: () => session.release(),
  };
}

/** The lowest level at which a model loads: ONNX Runtime cannot load some without its optimiser. */
export async function lowestLevel(bytes: Uint8Array): Promise<OptimizationLevel> {
  for (const level of ['disabled', 'basic'] as const) {
    try {
      await (await loadBytes(bytes, level)).release();
      return level;
    } catch {
      // The next level.
    }
  }
  return 'all';
}

export interface Prepared {
  readonly cutter: Cutter;
  readonly types: ValueTypes;
}

export async function prepare(bytes: Uint8Array, optimization: OptimizationLevel = 'disabled'): Promise<Prepared> {
  const cutter = new Cutter(readSplitGraph(readModel(bytes)));
  const types = await findValueTypes(cutter.graph, async ({ parts }) => {
    const model = await loadBytes(join(parts), optimization);
    await model.release();
    return model.outputs;
  });
  return { cutter, types };
}

/** Loads all shards of a plan; what comes back runs them in order. */
export async function loadPlan(
  plan: CutPlan,
  types: ValueTypes,
  optimization: OptimizationLevel = 'disabled',
): Promise<Pick<Direct, 'run' | 'release'>> {
  const shards: Direct[] = [];
  for (const shard of plan.shards) {
    shards.push(await loadBytes(join(encodeShard(plan, shard, types).parts), optimization));
  }
  return {
    async run(inputs) {
      const values = new Map(inputs.map((tensor) => [tensor.name, tensor]));
      for (const [index, shard] of shards.entries()) {
        const { inputs: names, outputs } = plan.shards[index]!;
        // A default that the caller overrides goes to every shard that holds it.
        const results = await shard.run(names.map((name) => values.get(name)!));
        for (const [at, tensor] of results.entries()) values.set(outputs[at]!, tensor);
      }
      return plan.graph.outputs.map(({ name }) => values.get(name)!);
    },
    async release() {
      for (const shard of shards) await shard.release();
    },
  };
}
