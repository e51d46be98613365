/** Models and inputs of the splitting benchmark: the large ones of the other benchmarks, and two that are made here. */
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GraphBuilder } from '#core/onnx/builder.js';
import type { GraphDraft } from '#core/onnx/draft.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { RandomStream } from '#core/random.js';
import type { Tensor } from '#core/tensor.js';

/** One image of ResNet-50 or MobileNet an item. */
export function images(items: number): readonly Tensor[] {
  return [floats('image', [items, 3, 224, 224])];
}

/** 128 tokens an item. */
export function tokens(items: number): readonly Tensor[] {
  const shape = [items, 128];
  const ones = new Uint8Array(new BigInt64Array(items * 128).fill(1n).buffer);
  return ['input_ids', 'attention_mask', 'token_type_ids'].map((name) => ({
    name,
    datatype: 'INT64',
    shape,
    data: ones,
  }));
}

export function floats(name: string, shape: readonly number[]): Tensor {
  const size = shape.reduce((product, dimension) => product * dimension, 1);
  return { name, datatype: 'FP32', shape, data: new Uint8Array(new Float32Array(size).fill(0.5).buffer) };
}

export const hopStages = 4;

/** Four operators that compute next to nothing, over so many floats: what is left is the price of a hop. */
export async function writeHops(repository: string, name: string, size: number): Promise<void> {
  const graph = new GraphBuilder(name);
  let value = graph.input('x', 'FP32', ['batch', size]);
  for (let step = 0; step < hopStages; step += 1) {
    value = graph.node('Mul', [value, graph.constant(`one${step}`, [1], Float32Array.of(1 + step))]);
  }
  graph.output(value, 'FP32', ['batch', size], 'y');
  await write(repository, name, encodeModelBytes(graph.model({ opset: 17 })), 'x', size, 'y');
}

/** Products in the middle of `writeLongMiddle`, each with the same weights: some milliseconds together. */
const middleProducts = 16;
/** Cuts that give it three stages. */
export const longMiddleCuts: readonly number[] = [1, 1 + middleProducts];

/** Twice its input, then its mean many times, then three times that: of equal inputs six times each. */
export async function writeLongMiddle(repository: string, name: string, size: number): Promise<void> {
  const graph = new GraphBuilder(name);
  const mean = graph.constant('mean', [size, size], new Float32Array(size * size).fill(1 / size));
  let value = graph.node('Mul', [
    graph.input('x', 'FP32', ['batch', size]),
    graph.constant('two', [1], Float32Array.of(2)),
  ]);
  for (let step = 0; step < middleProducts; step += 1) value = graph.node('MatMul', [value, mean]);
  graph.output(
    graph.node('Mul', [value, graph.constant('three', [1], Float32Array.of(3))]),
    'FP32',
    ['batch', size],
    'y',
  );
  await write(repository, name, encodeModelBytes(graph.model({ opset: 17 })), 'x', size, 'y');
}

export interface LargeModel {
  readonly layers: number;
  readonly width: number;
  readonly weightBytes: number;
}

/** Layers of `width`² weights, which lie in a file beside the model, as those of large models do. */
export async function writeLarge(repository: string, name: string, layers: number, width: number): Promise<LargeModel> {
  const layerBytes = 4 * width * width;
  const folder = join(repository, name, '1');
  await mkdir(folder, { recursive: true });
  const file = await open(join(folder, 'weights.bin'), 'w');
  const random = new RandomStream('large');
  const layer = Float32Array.from({ length: width * width }, () => (random.next() - 0.5) / Math.sqrt(width));
  try {
    for (let index = 0; index < layers; index += 1) {
      // The engine would keep equal layers once.
      layer[index] = (index + 1) / layers;
      await file.writeFile(new Uint8Array(layer.buffer));
    }
  } finally {
    await file.close();
  }
  const graph = new GraphBuilder(name);
  let value = graph.input('x', 'FP32', ['batch', width]);
  for (let index = 0; index < layers; index += 1) {
    value = graph.node('Tanh', [graph.node('MatMul', [value, `w${index}`])]);
  }
  graph.output(value, 'FP32', ['batch', width], 'y');
  const model = graph.model({ opset: 17 });
  const initializers: GraphDraft['initializers'] = Array.from({ length: layers }, (_, index) => ({
    name: `w${index}`,
    dataType: 1,
    shape: [width, width],
    data: new Uint8Array(0),
    external: { location: 'weights.bin', offset: index * layerBytes, length: layerBytes },
  }));
  const bytes = encodeModelBytes({ ...model, graph: { ...model.graph, initializers } });
  await write(repository, name, bytes, 'x', width, 'y');
  return { layers, width, weightBytes: layers * layerBytes };
}

async function write(
  repository: string,
  name: string,
  model: Uint8Array,
  input: string,
  size: number,
  output: string,
): Promise<void> {
  const folder = join(repository, name);
  await mkdir(join(folder, '1'), { recursive: true });
  await writeFile(join(folder, '1/model.onnx'), model);
  const value = (one: string): string => `{ name: "${one}" data_type: TYPE_FP32 dims: [ ${size} ] }`;
  await writeFile(
    join(folder, 'config.pbtxt'),
    `name: "${name}"\nbackend: "onnxruntime"\nmax_batch_size: 8\ninput [ ${value(input)} ]\noutput [ ${value(output)} ]\n`,
  );
}
