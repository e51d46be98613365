/**
 * What flows through a model: sizes of values where no file and no engine tells them, and the values themselves where a
 * shard must be fed. The model runs once on the CPU, unoptimised, with values in between among its outputs.
 */
import { join } from 'node:path';
import { datatypeBytes } from '#core/datatype.js';
import { sessionId } from '#core/ids.js';
import { crossingProblem, type ValueTypes } from '#core/split/boundary-type.js';
import type { SplitGraph } from '#core/split/graph.js';
import type { ValueShapes } from '#core/split/node-work.js';
import { encodeWithOutputs } from '#core/split/shard-writer.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { Executor } from '#ports/executor.js';
import { referenceThreads, type Reference } from './reference.js';
import { writeModelFile } from './shard-files.js';
import { runInput } from './shard-runner.js';

/** Values asked for in one run: all of them at once may not fit in memory. */
const valuesMax = 64;

/** A model loaded with its values in between as outputs. */
export class ModelValues {
  /** Inputs of the model as the engine tells them; unknown sizes are -1. */
  readonly specs: readonly TensorSpec[];
  readonly #cpu: Executor;
  readonly #session = sessionId('values');
  readonly #outside: ReadonlySet<string>;

  private constructor(cpu: Executor, specs: readonly TensorSpec[], outside: ReadonlySet<string>) {
    this.#cpu = cpu;
    this.specs = specs;
    this.#outside = outside;
  }

  /** @throws what `Executor.load` throws. `folder` holds the model's side files. */
  static async open(
    graph: SplitGraph,
    types: ValueTypes,
    {
      cpu,
      folder,
      optimization,
    }: { readonly cpu: Executor; readonly folder: string } & Pick<Reference, 'optimization'>,
  ): Promise<ModelValues> {
    const outputs = new Set(graph.outputs.map(({ name }) => name));
    const names = [...graph.producers.keys()].filter(
      (name) => !outputs.has(name) && crossingProblem(name, types.get(name)) === '',
    );
    const artifact = await writeModelFile(join(folder, 'values.onnx'), encodeWithOutputs(graph, names));
    const { inputs } = await cpu.load({
      session: sessionId('values'),
      artifact,
      model: { name: 'values', version: '1' },
      options: { intraOpThreads: referenceThreads, optimization },
    });
    return new ModelValues(cpu, inputs, new Set([...outputs, ...names]));
  }

  /** Named values of a run, and the inputs among them. Those that no engine hands out are absent. */
  async values(inputs: readonly Tensor[], names: readonly string[]): Promise<ReadonlyMap<string, Tensor>> {
    const values = new Map(inputs.map((tensor) => [tensor.name, tensor]));
    const asked = names.filter((name) => this.#outside.has(name));
    for (let at = 0; at < asked.length; at += valuesMax) {
      const { outputs } = await this.#cpu.run({
        session: this.#session,
        inputs: inputs.map((tensor) => runInput(tensor, tensor.name)),
        outputs: asked.slice(at, at + valuesMax),
      });
      for (const tensor of outputs) values.set(tensor.name, tensor);
    }
    return values;
  }

  /** Sizes of all values whose sizes `types` leaves open. */
  async shapes(inputs: readonly Tensor[], types: ValueTypes): Promise<ValueShapes> {
    const shapes = new Map(inputs.map(({ name, shape }) => [name, shape]));
    const open = [...this.#outside].filter((name) => {
      const type = types.get(name);
      return type?.kind === 'tensor' && (type.shape === undefined || type.shape.some(({ size }) => size < 0));
    });
    for (let at = 0; at < open.length; at += valuesMax) {
      for (const { name, shape } of (await this.values(inputs, open.slice(at, at + valuesMax))).values()) {
        shapes.set(name, shape);
      }
    }
    return shapes;
  }

  async close(): Promise<void> {
    await this.#cpu.unload(this.#session);
  }
}

/** Inputs of one item, repeated; undefined where the model has no dimension for that. */
export function inputsOfBatch(
  inputs: readonly Tensor[],
  specs: readonly TensorSpec[],
  batch: number,
): readonly Tensor[] | undefined {
  const [first] = inputs;
  const given = first?.shape[0] ?? 0;
  const varies = inputs.every(({ name, datatype, shape }) => {
    const spec = specs.find((candidate) => candidate.name === name);
    return spec?.shape[0] === -1 && shape[0] === given && datatypeBytes(datatype) > 0;
  });
  if (!varies || given < 1) return undefined;
  return inputs.map((tensor) => {
    const item = tensor.data.subarray(0, tensor.data.byteLength / given);
    const data = new Uint8Array(item.byteLength * batch);
    for (let at = 0; at < batch; at += 1) data.set(item, at * item.byteLength);
    return { ...tensor, shape: [batch, ...tensor.shape.slice(1)], data };
  });
}
