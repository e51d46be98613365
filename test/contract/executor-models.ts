/** Small ONNX models for the executor contract, written into a folder of the caller's. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Datatype } from '#core/datatype.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { onnxDataType } from '#core/onnx/data-type.js';
import { encodeModel, encodeModelBytes } from '#core/onnx/writer.js';

export const identityDatatypes: readonly Datatype[] = [
  'BOOL',
  'UINT8',
  'UINT16',
  'UINT32',
  'UINT64',
  'INT8',
  'INT16',
  'INT32',
  'INT64',
  'FP16',
  'FP32',
  'FP64',
  'BYTES',
];

const opset = 17;

/** Writes every model and returns the path of each by name. */
export function writeExecutorModels(folder: string): (name: string) => string {
  const pathOf = (name: string): string => join(folder, name, 'model.onnx');
  const write = (name: string, bytes: Uint8Array): void => {
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(pathOf(name), bytes);
  };
  write('affine', affine());
  write('split', sumAndDifference());
  write('join', joinRows());
  write('mlp', perceptron(8));
  write('slow', slow());
  for (const datatype of identityDatatypes) write(`identity-${datatype}`, identity(datatype));
  write(
    'corrupt',
    Uint8Array.from({ length: 500 }, (_, index) => (index * 7919) & 0xff),
  );
  write('unknown-operator', unknownOperator());
  write('int4', int4Output());

  const external = encodeModel(affineDraft(), { location: 'weights.bin', tensorBytesMin: 1 });
  write('external', Buffer.concat(external.parts));
  if (external.external === undefined) throw new Error('the weights stayed inside');
  writeFileSync(join(folder, 'external', 'weights.bin'), Buffer.concat(external.external.parts));
  return pathOf;
}

/** y = 2x + 1, [batch, 4]. */
function affine(): Uint8Array {
  return encodeModelBytes(affineDraft());
}

function affineDraft() {
  const graph = new GraphBuilder('affine');
  const x = graph.input('x', 'FP32', ['batch', 4]);
  const two = graph.constant('two', [4], Float32Array.of(2, 2, 2, 2));
  const one = graph.constant('one', [4], Float32Array.of(1, 1, 1, 1));
  graph.output(graph.node('Add', [graph.node('Mul', [x, two]), one]), 'FP32', ['batch', 4], 'y');
  return graph.model({ opset });
}

/** Two inputs, two outputs: sum = a + b, difference = a - b, [n]. */
function sumAndDifference(): Uint8Array {
  const graph = new GraphBuilder('split');
  const a = graph.input('a', 'FP32', ['n']);
  const b = graph.input('b', 'FP32', ['n']);
  graph.output(graph.node('Add', [a, b]), 'FP32', ['n'], 'sum');
  graph.output(graph.node('Sub', [a, b]), 'FP32', ['n'], 'difference');
  return encodeModelBytes(graph.model({ opset }));
}

/** z = rows of x, then rows of y, [n, 2] and [m, 2]. */
function joinRows(): Uint8Array {
  const graph = new GraphBuilder('join');
  const x = graph.input('x', 'FP32', ['n', 2]);
  const y = graph.input('y', 'FP32', ['m', 2]);
  graph.output(graph.node('Concat', [x, y], { attributes: { axis: int(0) } }), 'FP32', ['k', 2], 'z');
  return encodeModelBytes(graph.model({ opset }));
}

function identity(datatype: Datatype): Uint8Array {
  const graph = new GraphBuilder(`identity ${datatype}`);
  const x = graph.input('x', datatype, ['n']);
  graph.output(graph.node('Identity', [x]), datatype, ['n'], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** y = a few layers of x, [batch, width]: enough arithmetic to compare engines by. */
function perceptron(width: number): Uint8Array {
  const graph = new GraphBuilder('mlp');
  let value = graph.input('x', 'FP32', ['batch', width]);
  for (let layer = 0; layer < 3; layer += 1) {
    const weights = Float32Array.from({ length: width * width }, (_, index) => Math.sin(index * 1.7 + layer) / 2);
    value = graph.node('Tanh', [graph.node('MatMul', [value, graph.constant(`w${layer}`, [width, width], weights)])]);
  }
  graph.output(graph.node('Softmax', [value]), 'FP32', ['batch', width], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** Takes about a second of one core a run: 60 products of 512 × 512 matrices for each of `batch`. */
function slow(): Uint8Array {
  const graph = new GraphBuilder('slow');
  const size = 512;
  let value = graph.input('x', 'FP32', ['batch', size, size]);
  const weights = graph.constant('w', [size, size], new Float32Array(size * size).fill(1 / size));
  for (let layer = 0; layer < 60; layer += 1) value = graph.node('MatMul', [value, weights]);
  graph.output(graph.node('ReduceMax', [value], { attributes: { keepdims: int(0) } }), 'FP32', [], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

function unknownOperator(): Uint8Array {
  const graph = new GraphBuilder('unknown operator');
  const x = graph.input('x', 'FP32', ['n']);
  graph.output(graph.node('Frobnicate', [x]), 'FP32', ['n'], 'y');
  return encodeModelBytes(graph.model({ opset }));
}

/** An output of 4-bit integers: ONNX Runtime loads it, and its binding aborts Node at the first run. */
function int4Output(): Uint8Array {
  const model = {
    opset: 21,
    graph: {
      name: 'int4',
      inputs: [{ name: 'x', dataType: onnxDataType.FLOAT, shape: ['n'] }],
      outputs: [{ name: 'y', dataType: onnxDataType.INT4, shape: ['n'] }],
      nodes: [{ opType: 'Cast', inputs: ['x'], outputs: ['y'], attributes: { to: int(onnxDataType.INT4) } }],
      initializers: [],
    },
  };
  return encodeModelBytes(model);
}
