import { mkdtemp, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { benchModels, ensureModel } from '#bench/models/ensure-model.js';

describe('benchmark models', () => {
  it('have the parameters of the published networks', () => {
    const counts = Object.entries(benchModels).map(([kind, { build }]) => [kind, build(true).parameters]);
    expect(Object.fromEntries(counts)).toEqual({
      mlp: 8 * (1024 * 1024 + 1024),
      // torchvision: mobilenet_v2 and resnet50; transformers: bert-base-uncased with pooler.
      mobilenet_v2: 3_504_872,
      resnet50: 25_557_032,
      bert_base: 109_482_240,
    });
  });

  it('keep normalisation, and as many layers as the published networks', () => {
    const operators = (kind: keyof typeof benchModels): ReadonlyMap<string, number> => {
      const counts = new Map<string, number>();
      for (const { opType } of benchModels[kind].build(true).graph.graph().nodes) {
        counts.set(opType, (counts.get(opType) ?? 0) + 1);
      }
      return counts;
    };
    expect([operators('resnet50').get('Conv'), operators('resnet50').get('BatchNormalization')]).toEqual([53, 53]);
    expect([operators('mobilenet_v2').get('Conv'), operators('mobilenet_v2').get('BatchNormalization')]).toEqual([
      52, 52,
    ]);
    expect([operators('bert_base').get('LayerNormalization'), operators('bert_base').get('Softmax')]).toEqual([25, 12]);
  });

  it('are built once, with the digest that is written down, and mended when the file is damaged', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-bench-models-'));
    try {
      const first = await ensureModel('mobilenet_v2', folder);
      expect(first.built).toBe(true);
      expect(first.digest).toBe(benchModels.mobilenet_v2.digest);
      expect((await ensureModel('mobilenet_v2', folder)).built).toBe(false);
      await truncate(first.path, 1000);
      expect((await ensureModel('mobilenet_v2', folder)).built).toBe(true);
      expect((await readFile(first.path)).length).toBe(first.bytes);
      const session = await ort.InferenceSession.create(first.path);
      const image = Float32Array.from({ length: 2 * 3 * 224 * 224 }, (_, index) => Math.sin(index / 10));
      const { logits } = await session.run({ image: new ort.Tensor('float32', image, [2, 3, 224, 224]) });
      await session.release();
      const values = logits!.data as Float32Array;
      expect(values.length).toBe(2000);
      expect(values.every((value) => Number.isFinite(value))).toBe(true);
      expect(new Set(values).size).toBeGreaterThan(1000);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
