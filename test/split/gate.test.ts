/** The gate of deployments on real executor processes: what it cuts, finds and refuses. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { splitGate } from '#compose/split/split-gate.js';
import type { StartExecutor } from '#compose/split/verify-split.js';
import type { ModelManifest } from '#core/grid/records.js';
import { verificationText } from '#core/grid/verification.js';
import { artifactDigest, modelName, modelVersion } from '#core/ids.js';
import { int, ints } from '#core/onnx/attribute.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { RandomStream } from '#core/random.js';
import type { OpenSplit, SplitGate, SplitPlaces } from '#ports/split-gate.js';

const start: StartExecutor = (provider) => startProcessExecutor({ provider, lanes: 1 });

let root: string;
const opened: OpenSplit[] = [];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'intarsia-gate-test-'));
});
afterEach(async () => {
  for (const open of opened.splice(0)) await open.close();
  await rm(root, { recursive: true, force: true });
});

interface World {
  readonly manifest: ModelManifest;
  readonly gate: SplitGate;
  readonly released: () => number;
}

async function world(graph: GraphBuilder, config = '', startExecutor = start): Promise<World> {
  const bytes = encodeModelBytes(graph.model({ opset: 17 }));
  await mkdir(join(root, 'm/1'), { recursive: true });
  await writeFile(join(root, 'm/1/model.onnx'), bytes);
  if (config !== '') await writeFile(join(root, 'm/config.pbtxt'), config);
  const digest = artifactDigest(createHash('sha256').update(bytes).digest('hex'));
  const manifest = {
    format: 1,
    model: modelName('m'),
    version: modelVersion('1'),
    digest,
    memoryBytes: 1,
    files: [],
  } as const;
  let released = 0;
  const gate = splitGate({
    borrow: () =>
      Promise.resolve({
        path: root,
        release: () => {
          released += 1;
          return Promise.resolve();
        },
      }),
    startExecutor,
    providers: new Set(['cpu', 'wasm']),
  });
  return { manifest, gate, released: () => released };
}

async function open({ gate, manifest }: World, places: SplitPlaces): Promise<OpenSplit> {
  const split = await gate.open(manifest, places, { deadlineMs: Infinity, progress: () => {} });
  opened.push(split);
  return split;
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

describe('the gate', () => {
  it('cuts into stages of equal work and finds them equal on the providers that are to serve', async () => {
    const split = await open(await world(perceptron(6), 'max_batch_size: 8'), { kind: 'stages', stages: 3 });
    expect(split.shards).toHaveLength(3);
    expect(split.cuts.map((cut) => Math.ceil(cut / 2))).toEqual([2, 4]);
    // Two layers of 16 × 16 weights, and a quarter more.
    for (const { memoryBytes } of split.shards) expect(memoryBytes).toBeGreaterThan(2 * 256 * 4);
    const findings = await split.verify({ providers: ['cpu', 'wasm', 'cpu'], compression: 'none' });
    expect(findings).toMatchObject({ verdict: 'equal', providers: ['cpu', 'wasm', 'cpu'], batches: true, notes: [] });
    expect(findings.vectors).toEqual(['seed 1', 'seed 2']);
    expect(findings.maxRelativeError).toBeLessThanOrEqual(1e-3);
    expect(verificationText(findings)).toMatch(/^equal .* over 2 vectors, largest error /);
  });

  it('refuses what is out of tolerance with the largest errors', async () => {
    const split = await open(await world(perceptron(4)), { kind: 'cuts', cuts: [2, 4, 6] });
    const findings = await split.verify({ providers: [], compression: 'int8', toleranceRelative: 1e-7 });
    expect(findings.verdict).toBe('different');
    expect(findings.reason).toMatch(
      /output 'y' at \d+ is .*largest error .* absolute, .* relative, and 1e-7 relative passes/,
    );
    expect(findings.maxAbsoluteError).toBeGreaterThan(0);
    const enough = await split.verify({ providers: [], compression: 'fp16', toleranceRelative: 0.1 });
    expect(enough).toMatchObject({ verdict: 'equal', toleranceRelative: 0.1, bitExact: false, reason: '' });
  });

  it('names the operator of a model that answers otherwise each time', async () => {
    const builder = new GraphBuilder('noise');
    const x = builder.input('x', 'FP32', [4]);
    const noise = builder.node('RandomNormalLike', [x]);
    builder.output(builder.node('Add', [x, noise]), 'FP32', [4], 'y');
    const split = await open(await world(builder), { kind: 'cuts', cuts: [1] });
    const findings = await split.verify({ providers: [], compression: 'none' });
    expect(findings.verdict).toBe('not-repeatable');
    expect(findings.reason).toContain('RandomNormalLike draw random numbers');
  });

  it('lets no batches form where a value between the stages has no batch in front', async () => {
    const builder = new GraphBuilder('turned');
    const x = builder.input('x', 'FP32', ['batch', 3]);
    const turned = builder.node('Transpose', [x], { attributes: { perm: ints([1, 0]) } });
    const back = builder.node('Transpose', [builder.node('Neg', [turned])], { attributes: { perm: ints([1, 0]) } });
    builder.output(back, 'FP32', ['batch', 3], 'y');
    const split = await open(await world(builder, 'max_batch_size: 4'), { kind: 'cuts', cuts: [2] });
    const findings = await split.verify({ providers: [], compression: 'none' });
    expect(findings).toMatchObject({ verdict: 'equal', batches: false });
    expect(findings.notes.join()).toMatch(/served one request at a time: '.*' has no batch in front/);
  });

  it('checks on the CPU what this host has no device for, and says so', async () => {
    const split = await open(await world(perceptron(2)), { kind: 'cuts', cuts: [2] });
    const findings = await split.verify({ providers: ['cuda', 'cpu'], compression: 'none' });
    expect(findings).toMatchObject({ verdict: 'equal', providers: ['cpu', 'cpu'] });
    expect(findings.notes).toEqual(['stage 1: this host has no cuda: checked on the CPU instead']);
  });

  it('says why there is no such cut, and frees the files', async () => {
    const made = await world(perceptron(2));
    await expect(open(made, { kind: 'cuts', cuts: [9] })).rejects.toThrow('positions ascend from 1 to 4');
    await expect(open(made, { kind: 'stages', stages: 9 })).rejects.toThrow('8 positions are needed and 4 are legal');
    const other = 'b'.repeat(64);
    await expect(open(made, { kind: 'cuts', cuts: [1], digest: other })).rejects.toThrow(
      /chosen for a model with.*plan again/,
    );
    expect(made.released()).toBe(3);
  });

  it('names the value that cannot cross a cut', async () => {
    const builder = new GraphBuilder('sequence');
    const x = builder.input('x', 'FP32', [4, 2]);
    const parts = builder.node('SplitToSequence', [x], { attributes: { axis: int(0) } });
    builder.output(builder.node('ConcatFromSequence', [parts], { attributes: { axis: int(0) } }), 'FP32', [4, 2], 'y');
    const made = await world(builder);
    await expect(open(made, { kind: 'cuts', cuts: [1] })).rejects.toThrow(
      /the cut \[1\] is not possible: .* is a sequence/,
    );
    await expect(open(made, { kind: 'stages', stages: 3 })).rejects.toThrow(
      /cannot be cut into 3 stages: .*is a sequence/,
    );
  });
});
