import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { smallModels } from '#examples/generators/small-models.js';

const repository = join(import.meta.dirname, '../../examples/models');
const modelPath = (name: string): string => join(repository, name, '1/model.onnx');

async function run(name: string, feeds: Record<string, ort.Tensor>): Promise<Readonly<Record<string, ort.Tensor>>> {
  const session = await ort.InferenceSession.create(modelPath(name));
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

describe('small example models', () => {
  it('the committed files are byte for byte what the generator writes', async () => {
    for (const { files } of smallModels()) {
      for (const [path, content] of files) {
        const committed = await readFile(join(repository, path));
        expect(committed.equals(Buffer.from(content)), `${path}: run examples/generators/write-small-models`).toBe(
          true,
        );
      }
    }
  });

  it('identity gives back any number of values', async () => {
    for (const shape of [
      [1, 3],
      [4, 1000],
    ]) {
      const values = Float32Array.from({ length: shape[0]! * shape[1]! }, (_, index) => index / 7);
      const { OUTPUT0 } = await run('identity', { INPUT0: new ort.Tensor('float32', values, shape) });
      expect(OUTPUT0!.dims).toEqual(shape);
      expect(OUTPUT0!.data).toEqual(values);
    }
  });

  it('simple adds and subtracts', async () => {
    const first = Int32Array.from({ length: 16 }, (_, index) => index);
    const second = new Int32Array(16).fill(1);
    const { OUTPUT0, OUTPUT1 } = await run('simple', {
      INPUT0: new ort.Tensor('int32', first, [1, 16]),
      INPUT1: new ort.Tensor('int32', second, [1, 16]),
    });
    expect(OUTPUT0!.data).toEqual(first.map((value) => value + 1));
    expect(OUTPUT1!.data).toEqual(first.map((value) => value - 1));
  });

  it('accumulator adds to the state it is given', async () => {
    const { OUTPUT, SUM_AFTER } = await run('accumulator', {
      INPUT: new ort.Tensor('float32', new Float32Array([1, 2]), [2, 1]),
      SUM_BEFORE: new ort.Tensor('float32', new Float32Array([10, 20]), [2, 1]),
    });
    expect(OUTPUT!.data).toEqual(new Float32Array([11, 22]));
    expect(SUM_AFTER!.data).toEqual(new Float32Array([11, 22]));
  });

  it('words counts words and shouts', async () => {
    const texts = ['one host, many silicon', 'grüße', '  spaces   between '];
    const { COUNT, SHOUTED } = await run('words', { TEXT: new ort.Tensor('string', texts, [3, 1]) });
    expect(COUNT!.data).toEqual(new BigInt64Array([4n, 1n, 2n]));
    expect(SHOUTED!.data).toEqual(texts.map((value) => `${value}!`));
  });
});
