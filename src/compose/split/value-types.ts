/**
 * Types of the values between a model's nodes. JavaScript has no shape inference for ONNX, but an engine tells the type of
 * every output: the model is loaded once with its intermediate values among them. Values that no engine hands out make
 * the load fail; they are found by halving, and stay unknown, which is what forbids a cut through them.
 */
import { messageOf } from '#core/errors.js';
import { onnxDataType, onnxDataTypeOf, type OnnxDataTypeName } from '#core/onnx/data-type.js';
import type { Dimension, ValueType } from '#core/onnx/model-view.js';
import type { EncodedModel } from '#core/onnx/writer.js';
import { declaredTypes } from '#core/split/boundary-type.js';
import type { SplitGraph } from '#core/split/graph.js';
import { encodeWithOutputs } from '#core/split/shard-writer.js';
import type { TensorSpec } from '#core/tensor.js';

/** Loads a model without optimisation and tells its outputs; rejects when it cannot be loaded. */
export type DescribeOutputs = (model: Pick<EncodedModel, 'parts' | 'byteLength'>) => Promise<readonly TensorSpec[]>;

/** Loads at most; each value that no engine hands out costs about two by the logarithm of the number of values. */
const loadsMax = 200;

/** Operators whose outputs are sequences or optionals: known without asking. */
const containerOperators: ReadonlyMap<string, ValueType> = new Map<string, ValueType>([
  ['SequenceConstruct', { kind: 'sequence' }],
  ['SequenceEmpty', { kind: 'sequence' }],
  ['SequenceInsert', { kind: 'sequence' }],
  ['SequenceErase', { kind: 'sequence' }],
  ['SequenceMap', { kind: 'sequence' }],
  ['SplitToSequence', { kind: 'sequence' }],
  ['Optional', { kind: 'optional' }],
  ['ai.onnx.ml::ZipMap', { kind: 'sequence' }],
]);

/** What the file declares, completed by the engine. Values that stay unknown are absent. */
export async function findValueTypes(
  graph: SplitGraph,
  describe: DescribeOutputs,
): Promise<ReadonlyMap<string, ValueType>> {
  const types = declaredTypes(graph);
  for (const { operator, defines } of graph.nodes) {
    const type = containerOperators.get(operator);
    if (type === undefined) continue;
    for (const name of defines) types.set(name, type);
  }
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  const asked: string[] = [];
  for (const { defines } of graph.nodes) {
    for (const name of defines) {
      const known = types.get(name);
      if (!outputs.has(name) && (known === undefined || known.kind === 'tensor')) asked.push(name);
    }
  }
  let loads = 0;
  const ask = async (names: readonly string[]): Promise<void> => {
    if (names.length === 0 || loads >= loadsMax) return;
    loads += 1;
    let specs: readonly TensorSpec[];
    try {
      specs = await describe(encodeWithOutputs(graph, names));
    } catch (error) {
      // One of them cannot leave the engine, or the engine refuses the whole model, which its first load says elsewhere.
      const [name] = names;
      if (names.length === 1 && name !== undefined) {
        const type = refusedType(messageOf(error));
        if (type !== undefined) types.set(name, type);
        return;
      }
      const half = Math.ceil(names.length / 2);
      await ask(names.slice(0, half));
      await ask(names.slice(half));
      return;
    }
    for (const spec of specs) types.set(spec.name, typeOf(spec));
  };
  await ask(asked);
  return types;
}

/** The type that an engine names when it refuses to hand a value out. */
function refusedType(message: string): ValueType | undefined {
  const number = /unsupported data type: (\d+)/i.exec(message)?.[1];
  if (number !== undefined) return { kind: 'tensor', dataType: Number(number), shape: undefined };
  const name = /has type (\w+)/.exec(message)?.[1]?.toUpperCase();
  if (name === undefined || !Object.hasOwn(onnxDataType, name)) return undefined;
  return { kind: 'tensor', dataType: onnxDataType[name as OnnxDataTypeName], shape: undefined };
}

function typeOf({ datatype, shape }: TensorSpec): ValueType {
  const dimensions = shape.map((size): Dimension => ({ size, symbol: '' }));
  // ONNX Runtime tells no dimensions both of a scalar and of a value whose rank it does not know.
  return { kind: 'tensor', dataType: onnxDataTypeOf(datatype), shape: shape.length === 0 ? undefined : dimensions };
}
