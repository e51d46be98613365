/** A variant answers for itself on the device that loads it, before anybody is served by it. */
import { describe, expect, it } from 'vitest';
import type { VariantExam } from '#core/variants/variant-difference.js';
import type { Tensor } from '#core/tensor.js';
import { DeviceWorld, doubler, modelConfig } from './device-world.js';

const floats = (name: string, ...values: number[]): Tensor => ({
  ...{ name, datatype: 'FP32', shape: [1, values.length] },
  data: new Uint8Array(Float32Array.from(values).buffer),
});

/** Gives ten times what it takes; where it is wrong, a little more of the first. */
const tenfold = (more: number) =>
  doubler({
    inputs: [{ name: 'X', datatype: 'FP32', shape: [-1, 2] }],
    outputs: [{ name: 'Y', datatype: 'FP32', shape: [-1, 2] }],
    compute: ([x]) => {
      const [first = 0, second = 0] = new Float32Array(x!.data.slice().buffer);
      return [floats('Y', first * (10 + more), second * 10)];
    },
  });

const exam: VariantExam = {
  ...{ kind: 'int8', limit: 0.05, usual: { relative: 1e-3, steps: new Map() } },
  questions: [
    { inputs: [floats('X', 1, 2)], expected: [floats('Y', 10, 20)] },
    { inputs: [floats('X', 3, -4)], expected: [floats('Y', 30, -40)] },
  ],
};

async function load(more: number, placement: { readonly exam?: VariantExam }) {
  const world = new DeviceWorld({ models: { a: tenfold(more) } });
  const outcome = await world.load('a', modelConfig('m', { maxBatchSize: 0 }), { variant: 'int8', ...placement });
  return { world, outcome };
}

describe('a variant that a device loads', () => {
  it('is ready once its answers there are near enough, and what they gave is told', async () => {
    // 0.6 of 40: 1.5 % of the largest value.
    const { world, outcome } = await load(0.2, { exam });
    expect(outcome).toMatchObject({ ok: true });
    expect(outcome.ok && outcome.notes).toEqual([
      'variant int8 on cpu here: largest error 0.0150 of the output’s largest value, 0.05 passes',
    ]);
    // A trial run, then the questions.
    expect(world.executors.runs).toHaveLength(3);
  });

  it('is refused with the numbers where they are too far off, and takes no memory any more', async () => {
    const { world, outcome } = await load(1, { exam });
    expect(outcome).toMatchObject({ ok: false, error: { code: 'FAILED_PRECONDITION' } });
    expect(!outcome.ok && outcome.error.message).toBe(
      "variant int8 on cpu here is not near enough to model 'm' version 1: largest error 0.0750 of the output’s largest value, 0.05 passes: output 'Y' at 0 is 33, the reference 30",
    );
    expect(world.executors.current.sessions.size).toBe(0);
  });

  it('is believed where nobody can say what the exact model answers', async () => {
    const { world, outcome } = await load(1, {});
    expect(outcome).toMatchObject({ ok: true, notes: [] });
    expect(world.executors.runs).toHaveLength(1);
  });
});
