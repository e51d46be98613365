import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import type { Datatype } from '#core/datatype.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { onnxDataType } from '#core/onnx/data-type.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import type { Shape, Tensor } from '#core/tensor.js';
import { modelBytes, node, tensor as initializer, tensorType, value } from '../core/onnx-bytes.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

interface OddModel {
  readonly name: string;
  readonly model: Uint8Array;
  readonly inputs: readonly Tensor[];
  readonly expected: readonly Tensor[];
}

function tensor(name: string, datatype: Datatype, shape: Shape, values: ArrayBufferView): Tensor {
  return { name, datatype, shape, data: bytesOf(values) };
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function modelOf(name: string, build: (graph: GraphBuilder) => void): Uint8Array {
  const graph = new GraphBuilder(name);
  build(graph);
  return encodeModelBytes(graph.model({ opset: 17 }));
}

const models: readonly OddModel[] = [
  {
    // Triton's protocol has no scalars: clients see one value.
    name: 'scalar',
    model: modelOf('scalar', (graph) => {
      graph.output(graph.node('Neg', [graph.input('x', 'FP32', [])], { output: 'y' }), 'FP32', []);
    }),
    inputs: [tensor('x', 'FP32', [1], Float32Array.of(2.5))],
    expected: [tensor('y', 'FP32', [1], Float32Array.of(-2.5))],
  },
  {
    name: 'no-input',
    model: modelOf('no-input', (graph) => {
      const three = graph.constant('three', [3], BigInt64Array.of(1n, 2n, 3n));
      graph.output(graph.node('Identity', [three], { output: 'y' }), 'INT64', [3]);
    }),
    inputs: [],
    expected: [tensor('y', 'INT64', [3], BigInt64Array.of(1n, 2n, 3n))],
  },
  {
    name: 'nothing-in-it',
    model: modelOf('nothing-in-it', (graph) => {
      graph.output(graph.node('Neg', [graph.input('x', 'FP32', [2, 'n'])], { output: 'y' }), 'FP32', [2, 'n']);
    }),
    inputs: [tensor('x', 'FP32', [2, 0], new Float32Array(0))],
    expected: [tensor('y', 'FP32', [2, 0], new Float32Array(0))],
  },
  {
    name: 'truth',
    model: modelOf('truth', (graph) => {
      graph.output(graph.node('Not', [graph.input('x', 'BOOL', [3])], { output: 'y' }), 'BOOL', [3]);
    }),
    inputs: [tensor('x', 'BOOL', [3], Uint8Array.of(1, 0, 1))],
    expected: [tensor('y', 'BOOL', [3], Uint8Array.of(0, 1, 0))],
  },
  {
    name: 'half',
    model: modelOf('half', (graph) => {
      graph.output(graph.node('Neg', [graph.input('x', 'FP16', [2])], { output: 'y' }), 'FP16', [2]);
    }),
    inputs: [tensor('x', 'FP16', [2], Uint16Array.of(0x3c00, 0xc000))],
    expected: [tensor('y', 'FP16', [2], Uint16Array.of(0xbc00, 0x4000))],
  },
  {
    // An old habit of exporters: weights are listed as inputs too, and clients may leave them out.
    name: 'weight-as-input',
    model: modelBytes({
      nodes: [node('Add', ['x', 'w'], ['y'])],
      initializers: [
        initializer('w', onnxDataType.FLOAT, [2], (writer) => writer.bytes(9, bytesOf(Float32Array.of(10, 20)))),
      ],
      inputs: ['x', 'w'].map((name) => value(name, tensorType(onnxDataType.FLOAT, [2]))),
      outputs: [value('y', tensorType(onnxDataType.FLOAT, [2]))],
    }),
    inputs: [tensor('x', 'FP32', [2], Float32Array.of(1, 2))],
    expected: [tensor('y', 'FP32', [2], Float32Array.of(11, 22))],
  },
  {
    // A step of zero is an error, and so is the canary on zeros.
    name: 'step',
    model: modelOf('step', (graph) => {
      const bounds = ['start', 'limit', 'step'].map((name) => graph.input(name, 'INT64', []));
      graph.output(graph.node('Range', bounds, { output: 'y' }), 'INT64', ['n']);
    }),
    inputs: [
      tensor('start', 'INT64', [1], BigInt64Array.of(3n)),
      tensor('limit', 'INT64', [1], BigInt64Array.of(9n)),
      tensor('step', 'INT64', [1], BigInt64Array.of(3n)),
    ],
    expected: [tensor('y', 'INT64', [2], BigInt64Array.of(3n, 6n))],
  },
  {
    // The sizes of the answer depend on the values asked about; the second output is a text.
    name: 'sizes-from-values',
    model: modelOf('sizes-from-values', (graph) => {
      const found = graph.node('NonZero', [graph.input('x', 'INT32', ['n'])], { output: 'where' });
      graph.output(found, 'INT64', [1, 'found']);
      const texts = graph.node('Cast', [found], { output: 'texts', attributes: { to: int(onnxDataType.STRING) } });
      graph.output(texts, 'BYTES', [1, 'found']);
    }),
    inputs: [tensor('x', 'INT32', [4], Int32Array.of(0, 7, 0, 7))],
    expected: [
      tensor('where', 'INT64', [1, 2], BigInt64Array.of(1n, 3n)),
      tensor('texts', 'BYTES', [1, 2], Uint8Array.of(1, 0, 0, 0, 0x31, 1, 0, 0, 0, 0x33)),
    ],
  },
];

describe('models of odd shapes, without configuration', () => {
  const folder = temporaryFolder();
  let host: HostProcess;
  let client: InferenceClient;

  beforeAll(async () => {
    for (const { name, model } of models) {
      await mkdir(join(folder, name, '1'), { recursive: true });
      await writeFile(join(folder, name, '1/model.onnx'), model);
    }
    host = await startHostProcess(['--repository', folder, '--device', 'cpu:0', '--log-level', 'error']);
    client = connect({ endpoints: host.grpc });
  });
  afterAll(async () => {
    client.close();
    await host.stop();
  });

  it('are all ready', () => {
    const absent = host.facts.models.filter(({ state }) => state !== 'READY');
    expect(absent.map(({ name, reason }) => `${name}: ${reason}`)).toEqual([]);
    expect(host.facts.models).toHaveLength(models.length);
  });

  it.each(models)('answer with the bytes, sizes and types they must: $name', async ({ name, inputs, expected }) => {
    const { outputs } = await client.infer(name, Object.fromEntries(inputs.map((input) => [input.name, input])));
    const plain = (each: Tensor): object => ({
      name: each.name,
      datatype: each.datatype,
      shape: each.shape,
      data: [...each.data],
    });
    expect(outputs.map(plain)).toEqual(expected.map(plain));
  });
});
