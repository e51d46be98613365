/** `intarsia optimize` below the command line: real executor processes, real files. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { OptimizeReport, OptimizeRequest } from '#cli/variant-report.js';
import { optimizeModel } from '#compose/variants/optimize-model.js';
import { graph, int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import type { ExecutionProvider } from '#core/provider.js';
import { RandomStream } from '#core/random.js';
import { parseVariantRecord } from '#core/variants/variant-record.js';
import type { Executor } from '#ports/executor.js';

/** One process a provider for all tests: what is compared here is variants, not executors. */
const shared = new Map<ExecutionProvider, Executor>();
const start = async (provider: ExecutionProvider): Promise<Executor> => {
  const known = shared.get(provider) ?? (await startProcessExecutor({ provider, lanes: 1 }));
  shared.set(provider, known);
  return {
    description: known.description,
    load: (load) => known.load(load),
    run: (run) => known.run(run),
    unload: (session) => known.unload(session),
    usage: () => known.usage(),
    onLost: (listener) => known.onLost(listener),
    close: () => Promise.resolve(),
  };
};

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-variants-test-'));
});
afterAll(async () => {
  for (const executor of shared.values()) await executor.close({ graceMs: 5000 });
  await rm(folder, { recursive: true, force: true });
});

let made = 0;
async function optimize(model: string, more: Partial<OptimizeRequest> = {}): Promise<OptimizeReport> {
  made += 1;
  const out = join(folder, `out-${made}`);
  const variants = ['fp16', 'int8', 'fixed', 'ort'] as const;
  const base = { out, vectors: '', shapes: new Map(), devices: ['cpu' as const], keep: [], seed: 1, variants };
  return optimizeModel({ model, ...base, ...more }, start);
}

async function write(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

const states = ({ variants }: OptimizeReport): readonly string[] =>
  variants.map(({ kind, state }) => `${kind} ${state}`);
const random = new RandomStream('variants');
const weights = (count: number): Float32Array => Float32Array.from({ length: count }, () => random.next() - 0.5);

/** Convolution, matrix products, a Gemm that is turned, and a body that captures values of the graph around it. */
function mixed(): GraphBuilder {
  const builder = new GraphBuilder('mixed');
  const x = builder.input('x', 'FP32', ['batch', 3, 8, 8]);
  const kernel = builder.constant('kernel', [8, 3, 3, 3], weights(216));
  const conv = builder.node('Conv', [x, kernel], { attributes: { kernel_shape: { kind: 'ints', value: [3, 3] } } });
  const flat = builder.node('Flatten', [builder.node('Relu', [conv])]);
  const wide = builder.node('MatMul', [flat, builder.constant('wide', [288, 32], weights(288 * 32))]);
  const body = (name: string, opType: string): GraphBuilder => {
    const inner = new GraphBuilder(name);
    inner.output(inner.node(opType, [wide], { output: `${name}_out` }), 'FP32', undefined);
    return inner;
  };
  const isLarge = builder.node('Greater', [
    builder.node('ReduceMax', [wide], { attributes: { keepdims: int(0) } }),
    builder.constant('limit', [], Float32Array.of(0)),
  ]);
  const chosen = builder.node('If', [isLarge], {
    attributes: { then_branch: graph(body('yes', 'Tanh').graph()), else_branch: graph(body('no', 'Sigmoid').graph()) },
  });
  const gemm = builder.node(
    'Gemm',
    [chosen, builder.constant('turned', [10, 32], weights(320)), builder.constant('bias', [10], weights(10))],
    { attributes: { transB: int(1) } },
  );
  builder.output(gemm, 'FP32', ['batch', 10], 'scores');
  return builder;
}

describe('variants of a model', () => {
  it('each kind is written, loads, and comes within its tolerance', async () => {
    const model = await write('mixed.onnx', encodeModelBytes(mixed().model({ opset: 17 })));
    const report = await optimize(model, { batch: 2 });
    expect(report.variants.map(({ reason }) => reason)).toEqual(['', '', '', '']);
    expect(states(report)).toEqual(['fp16 written', 'int8 written', 'fixed written', 'ort written']);
  });

  it('the digits example passes the gate in every kind, with smaller files for fewer bits', async () => {
    const report = await optimize('examples/models/digits/1/model.onnx');
    expect(states(report)).toEqual(['fp16 written', 'int8 written', 'fixed written', 'ort written']);
    const [half, bytes] = report.variants;
    expect(half?.bytes).toBeLessThan(0.6 * report.bytes);
    expect(bytes?.bytes).toBeLessThan(0.4 * report.bytes);
    for (const { rows } of report.variants) {
      expect(rows).toMatchObject([{ provider: 'cpu', verdict: 'equal', argMaxAgreement: 1 }]);
    }
    const { record, path } = half ?? {};
    const written = await readFile(join(path ?? '', '..', 'variant.json'), 'utf8');
    expect(parseVariantRecord(written, 'variant.json')).toEqual(record);
  });

  it('what is out of its tolerance is refused with the numbers, and eight bits fall back to the weights alone', async () => {
    const report = await optimize('examples/models/digits/1/model.onnx', {
      variants: ['fp16', 'int8'],
      tolerance: 1e-6,
    });
    expect(states(report)).toEqual(['fp16 refused', 'int8 refused']);
    const [half, bytes] = report.variants;
    expect(half?.reason).toMatch(
      /^cpu: largest error 0.000\d+ of the output’s largest value, 0.000001 passes: output 'probabilities'/,
    );
    expect(bytes?.notes.join()).toMatch(
      /whole-number arithmetic is refused: .*0 nodes multiply whole numbers, 3 have weights/,
    );
    expect(existsSync(join(folder, `out-${made}`))).toBe(false);
  });

  it('a model without weights in single precision, one quantised already, and one whose sizes are fixed are refused with the reason', async () => {
    const builder = new GraphBuilder('bytes');
    const x = builder.input('x', 'UINT8', [4]);
    const scale = builder.constant('scale', [], Float32Array.of(0.5));
    const floats = builder.node('DequantizeLinear', [x, scale]);
    builder.output(builder.node('QuantizeLinear', [floats, scale]), 'UINT8', [4], 'y');
    const model = await write('bytes.onnx', encodeModelBytes(builder.model({ opset: 17 })));
    const report = await optimize(model, { variants: ['fp16', 'int8', 'fixed'] });
    expect(report.variants.map(({ reason }) => reason)).toEqual([
      'nothing to put into halves: all of its operators on single precision have to stay there',
      'nothing to put into eight bits: the model is quantised already and no MatMul, Gemm or Conv has constant weights of at least 64 elements in single precision',
      'nothing to fix: every size of every input is fixed in the model',
    ]);
  });

  it('weights beyond the range of halves are set to the largest and counted', async () => {
    const builder = new GraphBuilder('large');
    const x = builder.input('x', 'FP32', [4]);
    const large = builder.constant('large', [4], Float32Array.of(1e30, -1e30, 1, 2));
    builder.output(builder.node('Greater', [x, large]), 'BOOL', [4], 'y');
    const model = await write('large.onnx', encodeModelBytes(builder.model({ opset: 17 })));
    const report = await optimize(model, { variants: ['fp16'] });
    expect(report.variants).toMatchObject([
      { state: 'written', notes: [expect.any(String), '2 weights beyond ±65504 were set to it'] },
    ]);
  });

  it('sizes that contradict the model are refused with both', async () => {
    const model = await write('sizes.onnx', encodeModelBytes(mixed().model({ opset: 17 })));
    const report = await optimize(model, { variants: ['fixed'], shapes: new Map([['x', [2, 4, 8, 8]]]) });
    expect(report.variants[0]?.reason).toBe('dimension 1 of input "x" is 3 in the model, not 4');
  });

  const mnist = '../shared/models/mnist/model.onnx';
  it.skipIf(!existsSync(mnist))(
    'MNIST of the ONNX model zoo, asked with its own vectors (skipped without ../shared/models)',
    async () => {
      const report = await optimize(mnist, { variants: ['fp16', 'ort'] });
      expect(report.vectors).toEqual(['test_data_set_0', 'test_data_set_1', 'test_data_set_2']);
      expect(report.variants.map(({ reason }) => reason)).toEqual(['', '']);
    },
  );
});
