import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { float, floats, graph, int, ints, tensor, text, texts } from '#core/onnx/attribute.js';
import { GraphBuilder, onnxTensor } from '#core/onnx/builder.js';
import { encodeModel, encodeModelBytes } from '#core/onnx/writer.js';
import { IntarsiaError } from '#core/errors.js';

async function run(
  bytes: Uint8Array,
  feeds: Record<string, ort.Tensor>,
): Promise<Readonly<Record<string, ort.Tensor>>> {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

const small = fc.integer({ min: -8, max: 8 });

describe('ONNX builder and ONNX Runtime', () => {
  it('a chain of element-wise operators computes what plain loops compute', async () => {
    const step = fc.record({ op: fc.constantFrom('Add', 'Sub', 'Mul', 'Max', 'Relu', 'Neg'), value: small });
    const cases = fc.record({
      steps: fc.array(step, { minLength: 1, maxLength: 6 }),
      values: fc.array(small, { minLength: 1, maxLength: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ steps, values }) => {
        const builder = new GraphBuilder('chain');
        let value = builder.input('x', 'FP32', ['n']);
        const expected = Float32Array.from(values);
        for (const [index, { op, value: operand }] of steps.entries()) {
          const isUnary = op === 'Relu' || op === 'Neg';
          const other = isUnary ? [] : [builder.constant(`c${index}`, [], new Float32Array([operand]))];
          value = builder.node(op, [value, ...other]);
          for (let at = 0; at < expected.length; at += 1) expected[at] = elementwise(op, expected[at]!, operand);
        }
        builder.output(value, 'FP32', ['n'], 'y');
        const feeds = { x: new ort.Tensor('float32', Float32Array.from(values), [values.length]) };
        const { y } = await run(encodeModelBytes(builder.model({ opset: 17 })), feeds);
        // Adding zero makes -0 into 0.
        expect(Array.from(y!.data as Float32Array, (number) => number + 0)).toEqual(
          Array.from(expected, (number) => number + 0),
        );
      }),
      { numRuns: 40 },
    );
  });

  it('Gemm and Conv with attributes compute what nested loops compute', async () => {
    const cases = fc.record({
      size: fc.integer({ min: 3, max: 6 }),
      pad: fc.integer({ min: 0, max: 2 }),
      stride: fc.integer({ min: 1, max: 2 }),
      seed: fc.integer({ min: 1, max: 1000 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ size, pad, stride, seed }) => {
        const image = sequence(size * size, seed);
        const kernel = sequence(9, seed + 1);
        const out = Math.floor((size + 2 * pad - 3) / stride) + 1;
        const weights = sequence(out * out * 2, seed + 2);
        const builder = new GraphBuilder('conv-gemm');
        const x = builder.input('x', 'FP32', ['batch', 1, size, size]);
        const convolved = builder.node('Conv', [x, builder.constant('kernel', [1, 1, 3, 3], kernel)], {
          attributes: { pads: ints([pad, pad, pad, pad]), strides: ints([stride, stride]), kernel_shape: ints([3, 3]) },
        });
        const flat = builder.node('Flatten', [convolved], { attributes: { axis: int(1) } });
        const gemm = builder.node('Gemm', [flat, builder.constant('w', [2, out * out], weights)], {
          attributes: { alpha: float(0.5), transB: int(1) },
        });
        builder.output(gemm, 'FP32', ['batch', 2], 'y');
        const feeds = { x: new ort.Tensor('float32', image, [1, 1, size, size]) };
        const { y } = await run(encodeModelBytes(builder.model({ opset: 17 })), feeds);
        const planes = slowConvolution(image, kernel, { size, pad, stride, out });
        for (let row = 0; row < 2; row += 1) {
          let sum = 0;
          for (let at = 0; at < out * out; at += 1) sum += planes[at]! * weights[row * out * out + at]!;
          expect((y!.data as Float32Array)[row]).toBeCloseTo(0.5 * sum, 3);
        }
      }),
      { numRuns: 25 },
    );
  });

  it('subgraphs, tensor attributes, strings and several outputs are accepted and right', async () => {
    const branch = (name: string, value: number) => {
      const body = new GraphBuilder(name);
      // `x` is a name of the outer graph.
      const shifted = body.node('Add', ['x', body.constant(`${name}_shift`, [], new Float32Array([value]))], {
        output: `${name}_result`,
      });
      body.output(shifted, 'FP32', ['n']);
      return graph(body.graph());
    };
    const builder = new GraphBuilder('control');
    builder.input('x', 'FP32', ['n']);
    const flag = builder.input('flag', 'BOOL', []);
    const words = builder.input('words', 'BYTES', ['m']);
    const chosen = builder.node('If', [flag], {
      attributes: { then_branch: branch('yes', 10), else_branch: branch('no', -10) },
    });
    builder.output(chosen, 'FP32', ['n'], 'chosen');
    const fill = builder.node('ConstantOfShape', [builder.constant('two', [1], new BigInt64Array([2n]))], {
      attributes: { value: tensor(onnxTensor('', [1], new BigInt64Array([-7n]))) },
    });
    builder.output(fill, 'INT64', [2], 'fill');
    builder.nodeWithOutputs('TopK', ['x', builder.constant('k', [1], new BigInt64Array([1n]))], ['best', 'at'], {
      attributes: { axis: int(-1), largest: int(1) },
    });
    builder.output('best', 'FP32', [1]);
    builder.output('at', 'INT64', [1]);
    const upper = builder.node('StringNormalizer', [words], {
      attributes: { case_change_action: text('UPPER'), locale: text('C') },
    });
    builder.output(upper, 'BYTES', ['m'], 'upper');
    const bytes = encodeModelBytes(builder.model({ opset: 17, metadata: { made: 'by a test' } }));
    for (const [given, shift] of [
      [1, 10],
      [0, -10],
    ] as const) {
      const results = await run(bytes, {
        x: new ort.Tensor('float32', new Float32Array([1, 5, 3]), [3]),
        flag: new ort.Tensor('bool', new Uint8Array([given]), []),
        words: new ort.Tensor('string', ['one', 'two'], [2]),
      });
      expect(Array.from(results['chosen']!.data as Float32Array)).toEqual([1 + shift, 5 + shift, 3 + shift]);
      expect(Array.from(results['fill']!.data as BigInt64Array)).toEqual([-7n, -7n]);
      expect(Array.from(results['best']!.data as Float32Array)).toEqual([5]);
      expect(Array.from(results['at']!.data as BigInt64Array)).toEqual([1n]);
      expect(results['upper']!.data).toEqual(['ONE', 'TWO']);
    }
  });

  it('operators of other domains and lists of texts and numbers are accepted and right', async () => {
    const builder = new GraphBuilder('labels');
    const x = builder.input('x', 'BYTES', ['n']);
    const encoded = builder.node('LabelEncoder', [x], {
      domain: 'ai.onnx.ml',
      attributes: {
        keys_strings: texts(['grün', 'rot']),
        values_floats: floats([1.5, -2.25]),
        default_float: float(9),
      },
    });
    builder.output(encoded, 'FP32', ['n'], 'y');
    const bytes = encodeModelBytes(builder.model({ opset: 17, domains: { 'ai.onnx.ml': 3 } }));
    const { y } = await run(bytes, { x: new ort.Tensor('string', ['rot', 'blau', 'grün'], [3]) });
    expect(Array.from(y!.data as Float32Array)).toEqual([-2.25, 9, 1.5]);
  });

  it('weights in a side file are found at aligned offsets and give the same numbers', async () => {
    const builder = new GraphBuilder('external');
    const x = builder.input('x', 'FP32', [1, 40]);
    const first = builder.node('MatMul', [x, builder.constant('a', [40, 40], sequence(1600, 3))]);
    const second = builder.node('MatMul', [first, builder.constant('b', [40, 40], sequence(1600, 4))]);
    builder.output(builder.node('Add', [second, builder.constant('c', [1], sequence(1, 5))]), 'FP32', [1, 40], 'y');
    const draft = builder.model({ opset: 17 });
    const split = encodeModel(draft, { location: 'weights.bin' });
    expect(split.external?.byteLength).toBe(8192 + 6400);
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-external-'));
    try {
      await writeFile(join(folder, 'model.onnx'), Buffer.concat(split.parts));
      await writeFile(join(folder, 'weights.bin'), Buffer.concat(split.external!.parts));
      const session = await ort.InferenceSession.create(join(folder, 'model.onnx'));
      const feeds = { x: new ort.Tensor('float32', sequence(40, 9), [1, 40]) };
      const { y } = await session.run(feeds);
      await session.release();
      const whole = await run(encodeModelBytes(draft), feeds);
      expect(Array.from(y!.data as Float32Array)).toEqual(Array.from(whole['y']!.data as Float32Array));
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('the same draft gives the same bytes, and large weights are not copied', () => {
    const values = sequence(4096, 1);
    const builder = new GraphBuilder('g');
    builder.output(builder.node('Identity', [builder.constant('w', [4096], values)]), 'FP32', [4096]);
    const draft = builder.model({ opset: 17 });
    expect(encodeModelBytes(draft)).toEqual(encodeModelBytes(draft));
    expect(encodeModel(draft).parts.some((part) => part.buffer === values.buffer)).toBe(true);
  });

  it('a value that is defined twice is refused with its name', () => {
    const builder = new GraphBuilder('g');
    builder.input('x', 'FP32', [1]);
    expect(() => builder.node('Neg', ['x'], { output: 'x' })).toThrow(/defines the value 'x' twice/u);
    const node = { opType: 'Neg', inputs: ['x'], outputs: ['y'] };
    const empty = { name: 'g', nodes: [node, node], inputs: [], outputs: [], initializers: [] };
    expect(() => encodeModelBytes({ graph: empty, opset: 17 })).toThrow(IntarsiaError);
  });
});

function elementwise(op: string, left: number, right: number): number {
  switch (op) {
    case 'Add':
      return left + right;
    case 'Sub':
      return left - right;
    case 'Mul':
      return left * right;
    case 'Max':
      return Math.max(left, right);
    case 'Relu':
      return Math.max(left, 0);
    default:
      return -left;
  }
}

function sequence(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, index) => Math.sin(seed * 12.9898 + index * 78.233));
}

function slowConvolution(
  image: Float32Array,
  kernel: Float32Array,
  { size, pad, stride, out }: { size: number; pad: number; stride: number; out: number },
): number[] {
  const result: number[] = [];
  for (let row = 0; row < out; row += 1) {
    for (let column = 0; column < out; column += 1) {
      let sum = 0;
      for (let dy = 0; dy < 3; dy += 1) {
        for (let dx = 0; dx < 3; dx += 1) {
          const y = row * stride + dy - pad;
          const x = column * stride + dx - pad;
          if (y >= 0 && y < size && x >= 0 && x < size) sum += image[y * size + x]! * kernel[dy * 3 + dx]!;
        }
      }
      result.push(sum);
    }
  }
  return result;
}
