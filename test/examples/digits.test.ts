import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { loadTensorflow } from '#adapters/tfjs/tensorflow.js';
import { digitsConfig, digitsLabels } from '#examples/training/digit-files.js';
import { accuracyOf, encodeDigitModel, initialLayers, trainDigitNetwork } from '#examples/training/digit-network.js';
import { drawDigits, imagePixels } from '#examples/training/draw-digits.js';
import { RandomNumbers } from '#examples/training/random-numbers.js';

const folder = join(import.meta.dirname, '../../examples/models/digits');

async function probabilities(model: string | Uint8Array, images: Float32Array): Promise<Float32Array> {
  const session = await ort.InferenceSession.create(model as string);
  try {
    const image = new ort.Tensor('float32', images, [images.length / imagePixels, 1, 28, 28]);
    const results = await session.run({ image });
    return results['probabilities']!.data as Float32Array;
  } finally {
    await session.release();
  }
}

function shareRight(rows: Float32Array, labels: Uint8Array): number {
  let right = 0;
  for (const [index, label] of labels.entries()) {
    const row = Array.from(rows.subarray(index * 10, (index + 1) * 10));
    if (row.indexOf(Math.max(...row)) === label) right += 1;
  }
  return right / labels.length;
}

describe('the digit classifier', () => {
  it('tells at least 97 of 100 unseen drawn digits', async () => {
    const { images, labels } = drawDigits(4000, new RandomNumbers(20_261_121, 7));
    const rows = await probabilities(join(folder, '1/model.onnx'), images);
    expect(shareRight(rows, labels)).toBeGreaterThanOrEqual(0.97);
    for (let row = 0; row < 10; row += 1) {
      expect(rows.subarray(row * 10, (row + 1) * 10).reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
    }
  });

  it('the card names the committed file, which is small, and the other files are as written', async () => {
    const model = await readFile(join(folder, '1/model.onnx'));
    const card = await readFile(join(folder, 'README.md'), 'utf8');
    expect(card).toContain(createHash('sha256').update(model).digest('hex'));
    expect((await stat(join(folder, '1/model.onnx'))).size).toBeLessThanOrEqual(500_000);
    expect(await readFile(join(folder, 'config.pbtxt'), 'utf8')).toBe(digitsConfig);
    expect(await readFile(join(folder, 'labels.txt'), 'utf8')).toBe(digitsLabels);
  });

  it('one seed draws the same pictures everywhere and never the same picture twice', () => {
    const { images } = drawDigits(200, new RandomNumbers(5, 100));
    const digest = createHash('sha256')
      .update(Buffer.from(images.map((value) => Math.round(value * 255))))
      .digest('hex');
    expect(digest).toBe('cf8efe032b229ea4d7259f3834601001b4634a7917165939bc40918456e2197f');
    const seen = new Set<string>();
    for (let index = 0; index < 200; index += 1) {
      seen.add(Buffer.from(images.slice(index * imagePixels, (index + 1) * imagePixels).buffer).toString('base64'));
    }
    expect(seen.size).toBe(200);
    expect(drawDigits(200, new RandomNumbers(5, 101)).images).not.toEqual(images);
  });

  it('training learns, and the same seed gives the same model', { timeout: 120_000 }, async () => {
    const { tf } = await loadTensorflow();
    const train = async (
      seed: number,
    ): Promise<{ first: number; last: number; model: Uint8Array; accuracy: number }> => {
      const losses: number[] = [];
      const layers = await trainDigitNetwork(tf, {
        seed,
        epochs: 2,
        batchSize: 25,
        learningRate: 0.05,
        drawEpoch: (epoch) => drawDigits(1000, new RandomNumbers(seed, 100 + epoch)),
        onEpoch: (_, loss) => losses.push(loss),
      });
      const accuracy = accuracyOf(layers, drawDigits(300, new RandomNumbers(seed, 1_000_000)));
      return { first: losses[0]!, last: losses[1]!, model: encodeDigitModel(layers, {}), accuracy };
    };
    const [once, again, other] = [await train(3), await train(3), await train(4)];
    expect(once.last).toBeLessThan(once.first / 1.5);
    expect(once.accuracy).toBeGreaterThan(0.5);
    expect(Buffer.from(again.model).equals(once.model)).toBe(true);
    expect(Buffer.from(other.model).equals(once.model)).toBe(false);
  });

  it('ONNX Runtime sees what the plain loops see', async () => {
    const layers = initialLayers(11);
    const digits = drawDigits(50, new RandomNumbers(11, 5));
    const rows = await probabilities(encodeDigitModel(layers, {}), digits.images);
    expect(shareRight(rows, digits.labels)).toBe(accuracyOf(layers, digits));
  });
});
