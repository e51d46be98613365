/**
 * Small random models for property tests: chains that branch, join and skip, weights used twice, sizes computed from
 * tensors, constants, captured names in an If, several outputs, and a file in any order.
 */
import { graph as graphAttribute, int, tensor } from '#core/onnx/attribute.js';
import { GraphBuilder, onnxTensor } from '#core/onnx/builder.js';
import type { NodeDraft } from '#core/onnx/draft.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { RandomStream } from '#core/random.js';
import type { Tensor } from '#core/tensor.js';

export interface RandomModel {
  readonly bytes: Uint8Array;
  readonly inputs: readonly Tensor[];
}

const width = 3;
const rows = 2;

/** The same seed gives the same model. `steps` is how many operations it has, before sizes and constants. */
export function randomModel(seed: number, steps: number): RandomModel {
  const random = new RandomStream(seed);
  const builder = new GraphBuilder('random');
  const values = [builder.input('x', 'FP32', ['rows', width]), builder.input('y', 'FP32', ['rows', width])];
  const weights = Array.from({ length: 3 }, (_, index) =>
    builder.constant(
      `w${index}`,
      [width, width],
      Float32Array.from({ length: width * width }, () => random.next() - 0.5),
    ),
  );
  const axes = builder.constant('axes', [1], BigInt64Array.of(0n));
  const pick = (list: readonly string[]): string => list[random.below(list.length)] as string;
  for (let step = 0; step < steps; step += 1) values.push(addStep(builder, { random, values, weights, axes, pick }));
  const last = values.at(-1) as string;
  builder.output(last, 'FP32', ['rows', width], 'last');
  for (let more = random.below(3); more > 0; more -= 1) builder.output(pick(values), 'FP32', undefined, `more_${more}`);
  // An output that is an input, and one that is a weight.
  const draft = builder.model({ opset: 17 });
  const outputs = [...draft.graph.outputs];
  if (random.below(4) === 0) outputs.push({ name: 'x', dataType: 1, shape: ['rows', width] });
  if (random.below(4) === 0) outputs.push({ name: 'w0', dataType: 1, shape: [width, width] });
  const nodes = random.below(2) === 0 ? draft.graph.nodes : shuffled(draft.graph.nodes, random);
  return {
    bytes: encodeModelBytes({ ...draft, graph: { ...draft.graph, nodes, outputs } }),
    inputs: ['x', 'y'].map((name): Tensor => {
      const data = Float32Array.from({ length: rows * width }, () => random.next() * 4 - 2);
      return { name, datatype: 'FP32', shape: [rows, width], data: new Uint8Array(data.buffer) };
    }),
  };
}

interface StepSources {
  readonly random: RandomStream;
  readonly values: readonly string[];
  readonly weights: readonly string[];
  readonly axes: string;
  readonly pick: (list: readonly string[]) => string;
}

/** Adds nodes that make one more value of the same shape. */
function addStep(builder: GraphBuilder, { random, values, weights, axes, pick }: StepSources): string {
  const value = pick(values);
  switch (random.below(8)) {
    case 0:
      return builder.node('MatMul', [value, pick(weights)]);
    case 1:
      return builder.node('Relu', [value]);
    case 2:
      return builder.node('Add', [value, pick(values)]);
    case 3: {
      // A shape chain: rows of another value, as a Reshape's target.
      const shape = builder.node('Shape', [pick(values)]);
      const first = builder.node('Gather', [shape, axes], { attributes: { axis: int(0) } });
      const rest = builder.node('Constant', [], {
        attributes: { value: tensor(onnxTensor('', [1], BigInt64Array.of(BigInt(width)))) },
      });
      const target = builder.node('Concat', [first, rest], { attributes: { axis: int(0) } });
      return builder.node('Reshape', [value, target]);
    }
    case 4: {
      // A constant chain over a weight.
      const half = builder.node('Constant', [], {
        attributes: { value: tensor(onnxTensor('', [], Float32Array.of(0.5))) },
      });
      return builder.node('MatMul', [value, builder.node('Mul', [pick(weights), half])]);
    }
    case 5: {
      const sum = builder.node('ReduceSum', [pick(values)], { attributes: { keepdims: int(0) } });
      const zero = builder.node('Constant', [], {
        attributes: { value: tensor(onnxTensor('', [], Float32Array.of(0))) },
      });
      const condition = builder.node('Greater', [sum, zero]);
      return builder.node('If', [condition], {
        attributes: {
          then_branch: graphAttribute(branch('then', 'Add', [value, pick(values)])),
          else_branch: graphAttribute(branch('else', 'MatMul', [pick(values), pick(weights)])),
        },
      });
    }
    case 6: {
      // Quantised and back: the integers may cross instead of the floats.
      const scale = builder.node('Constant', [], {
        attributes: { value: tensor(onnxTensor('', [], Float32Array.of(0.05))) },
      });
      const zero = builder.node('Constant', [], {
        attributes: { value: tensor(onnxTensor('', [], Int8Array.of(3))) },
      });
      const small = builder.node('QuantizeLinear', [value, scale, zero]);
      return builder.node('DequantizeLinear', [small, scale, zero]);
    }
    default: {
      const [left, right] = [`split_${values.length}_a`, `split_${values.length}_b`];
      builder.nodeWithOutputs(
        'Split',
        [builder.node('Concat', [value, pick(values)], { attributes: { axis: int(1) } })],
        [left, right],
        {
          attributes: { axis: int(1) },
        },
      );
      return builder.node('Sub', [left, right]);
    }
  }
}

/** A branch that names two values of the graph around it and defines one of its own. */
function branch(name: string, opType: string, inputs: readonly string[]): ReturnType<GraphBuilder['graph']> {
  const builder = new GraphBuilder(name);
  builder.output(builder.node(opType, inputs, { output: `${name}_result` }), 'FP32');
  return builder.graph();
}

function shuffled(nodes: readonly NodeDraft[], random: RandomStream): readonly NodeDraft[] {
  const list = [...nodes];
  for (let at = list.length - 1; at > 0; at -= 1) {
    const other = random.below(at + 1);
    [list[at], list[other]] = [list[other] as NodeDraft, list[at] as NodeDraft];
  }
  return list;
}
