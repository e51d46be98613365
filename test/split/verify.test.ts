/** `intarsia verify` below the command line: real executor processes, pretended faults. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import type { SplitRequest } from '#cli/split-report.js';
import { verifySplit, type StartExecutor } from '#compose/split/verify-split.js';
import { int } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModel, encodeModelBytes } from '#core/onnx/writer.js';
import { RandomStream } from '#core/random.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor } from '#ports/executor.js';

const start: StartExecutor = (provider) => startProcessExecutor({ provider, lanes: 1 });

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'intarsia-verify-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function request(model: string, more: Partial<SplitRequest> = {}): SplitRequest {
  return { model, stages: 2, devices: ['cpu'], cuts: 'all', optimization: 'disabled', vectors: '', seed: 1, ...more };
}

function perceptron(layers: number): GraphBuilder {
  const random = new RandomStream('weights');
  const builder = new GraphBuilder('perceptron');
  let value = builder.input('x', 'FP32', ['batch', 16]);
  for (let layer = 0; layer < layers; layer += 1) {
    const weights = Float32Array.from({ length: 256 }, () => random.next() - 0.5);
    value = builder.node('MatMul', [value, builder.constant(`w${layer}`, [16, 16], weights)]);
    value = builder.node('Tanh', [value]);
  }
  builder.output(value, 'FP32', ['batch', 16], 'y');
  return builder;
}

async function write(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

/** The executor of a provider with something wrong about it. */
function spoiled(change: (executor: Executor) => Partial<Executor>): StartExecutor {
  return async (provider) => {
    const inner = await start(provider);
    const changed = change(inner);
    return {
      description: inner.description,
      load: (load) => inner.load(load),
      run: (run) => inner.run(run),
      unload: (session) => inner.unload(session),
      usage: () => inner.usage(),
      onLost: (listener) => inner.onLost(listener),
      close: (options) => inner.close(options),
      ...changed,
    };
  };
}

describe('a check of splits', () => {
  it('every cut on the CPU is bit-exact without optimisation, and the report says so', async () => {
    const model = await write('perceptron.onnx', encodeModelBytes(perceptron(4).model({ opset: 17 })));
    const report = await verifySplit(request(model), start);
    expect(report).toMatchObject({
      model,
      stages: 2,
      cutsTried: 8,
      bitExact: 8,
      close: 0,
      wrong: 0,
      impossible: [],
      maxAbsoluteError: 0,
      maxRelativeError: 0,
      verdict: 'equal',
      reason: '',
      toleranceRelative: 0,
      referenceOptimization: 'disabled',
    });
  });

  it('three stages over cpu and wasm are within 1e-3 of the whole model', async () => {
    const model = await write('perceptron-3.onnx', encodeModelBytes(perceptron(3).model({ opset: 17 })));
    const shares: number[] = [];
    const report = await verifySplit(
      request(model, { stages: 3, devices: ['cpu', 'wasm'], cuts: 6, optimization: 'all' }),
      start,
      (share) => shares.push(share),
    );
    expect(report).toMatchObject({ verdict: 'equal', cutsTried: 6, wrong: 0, toleranceRelative: 1e-3 });
    expect(report.maxRelativeError).toBeLessThan(1e-4);
    expect(shares.length).toBeGreaterThan(6);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
  });

  it('weights in a side file are found by every shard on both engines', async () => {
    const encoded = encodeModel(perceptron(3).model({ opset: 17 }), { location: 'outside.bin', tensorBytesMin: 16 });
    await write('outside.bin', Buffer.concat(encoded.external!.parts));
    const model = await write('outside.onnx', Buffer.concat(encoded.parts));
    const report = await verifySplit(request(model, { devices: ['wasm', 'cpu'], cuts: 3 }), start);
    expect(report).toMatchObject({ verdict: 'equal', cutsTried: 3, wrong: 0 });
    await rm(join(folder, 'outside.bin'));
    await expect(verifySplit(request(model), start)).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining('"outside.bin", which is missing') as string,
    });
  });

  it('a wrong answer of one stage is noticed at every cut', async () => {
    const model = await write('noticed.onnx', encodeModelBytes(perceptron(2).model({ opset: 17 })));
    const report = await verifySplit(
      request(model),
      spoiled((inner) => ({
        run: async (run) => {
          const result = await inner.run(run);
          if (!run.session.endsWith(':1')) return result;
          return { ...result, outputs: result.outputs.map(flipped) };
        },
      })),
    );
    expect(report).toMatchObject({ verdict: 'different', cutsTried: 4, bitExact: 0, wrong: 4 });
    expect(report.problems[0]?.problem).toMatch(/^cut \[1\]: output 'y' at 0 is /);
  });

  it('a lower optimisation level of a shard is told', async () => {
    const model = await write('lowered.onnx', encodeModelBytes(perceptron(2).model({ opset: 17 })));
    const report = await verifySplit(
      request(model, { optimization: 'all', cuts: 1 }),
      spoiled((inner) => ({
        load: async (load) => ({ ...(await inner.load(load)), notes: ['optimisation level all failed'] }),
      })),
    );
    expect(report.notes).toContain(`cut [${[1].join(',')}]: stage 1 on cpu: optimisation level all failed`);
  });

  it('a model that draws random numbers is told apart, with the operator', async () => {
    const builder = new GraphBuilder('drawing');
    const x = builder.input('x', 'FP32', [8]);
    const noise = builder.node('RandomNormalLike', [x]);
    builder.output(builder.node('Add', [x, noise]), 'FP32', [8], 'y');
    const model = await write('drawing.onnx', encodeModelBytes(builder.model({ opset: 17 })));
    const report = await verifySplit(request(model), start);
    expect(report).toMatchObject({ verdict: 'not-repeatable', cutsTried: 0, wrong: 0 });
    expect(report.reason).toContain('RandomNormalLike draw random numbers');
  });

  it('a model with no legal cut is answered with the reason', async () => {
    const builder = new GraphBuilder('sequence');
    const x = builder.input('x', 'FP32', [2]);
    const list = builder.node('SequenceConstruct', [x, x], { output: 'list' });
    const joined = builder.node('ConcatFromSequence', [list], { output: 'y', attributes: { axis: int(0) } });
    builder.output(joined, 'FP32', [4]);
    const model = await write('sequence.onnx', encodeModelBytes(builder.model({ opset: 17 })));
    for (const cuts of ['all', 5] as const) {
      const report = await verifySplit(request(model, { cuts }), start);
      expect(report).toMatchObject({
        verdict: 'no-legal-cut',
        cutsTried: 0,
        impossible: [{ cut: [1], reason: '"list" is a sequence' }],
      });
      expect(report.reason).toContain('"list" is a sequence');
    }
    const more = await verifySplit(request(model, { stages: 3 }), start);
    expect(more.reason).toBe('the graph has 2 nodes that its outputs depend on, 3 stages need at least 3');
  });

  it('files that are missing, no model, or cut short are refused before anything starts', async () => {
    const never: StartExecutor = () => Promise.reject(new Error('nothing should start'));
    await expect(verifySplit(request(join(folder, 'nowhere.onnx')), never)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    const text = await write('text.onnx', Buffer.from('this is not a model'));
    await expect(verifySplit(request(text), never)).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining(`model ${text}: `) as string,
    });
    const whole = encodeModelBytes(perceptron(2).model({ opset: 17 }));
    const short = await write('short.onnx', whole.subarray(0, whole.length - 40));
    await expect(verifySplit(request(short), never)).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  });

  it('an executor that is lost ends the check', async () => {
    const model = await write('lost.onnx', encodeModelBytes(perceptron(2).model({ opset: 17 })));
    let runs = 0;
    const check = verifySplit(
      request(model),
      spoiled((inner) => ({
        run: async (run) => {
          runs += 1;
          if (run.session.startsWith('cut:')) process.kill(inner.description.pid ?? 0, 'SIGKILL');
          return inner.run(run);
        },
      })),
    );
    await expect(check).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    expect(runs).toBe(5);
  });
});

/** The first element with another sign. */
function flipped(tensor: Tensor): Tensor {
  const data = new Uint8Array(tensor.data);
  data[3] = (data[3] ?? 0) ^ 0x80;
  return { ...tensor, data };
}
