/** Activations made smaller on their way: what comes back, and what is told of the error. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packTensor, unpackTensor } from '#core/split/activation-codec.js';
import { fp16OfNumber, numberOfFp16 } from '#client/half-float.js';
import type { Tensor } from '#core/tensor.js';

function tensorOf(values: readonly number[], offset = 0): Tensor {
  const floats = Float32Array.from(values);
  // Bytes that do not lie on the grid of their numbers, as they come out of a message.
  const data = new Uint8Array(floats.byteLength + offset).subarray(offset);
  data.set(new Uint8Array(floats.buffer));
  return { name: 'v', datatype: 'FP32', shape: [values.length], data };
}

function valuesOf({ data }: Tensor): number[] {
  return [...new Float32Array(data.slice().buffer)];
}

const floats = fc.array(fc.float({ noNaN: true, min: -65504, max: 65504 }), { minLength: 1, maxLength: 40 });

describe('compression of activations', () => {
  it('packs half precision to the nearest, ties to even, as the plain definition does', () => {
    fc.assert(
      fc.property(floats, fc.integer({ min: 0, max: 3 }), (values, offset) => {
        const packed = packTensor(tensorOf(values, offset), 'fp16');
        expect(packed.data.byteLength).toBe(values.length * 2);
        const slow = values.map((value) => numberOfFp16(fp16OfNumber(value)));
        expect(valuesOf(unpackTensor(packed))).toEqual(slow);
        const largest = Math.max(...values.map((value, index) => Math.abs(value - slow[index]!)));
        expect(packed.packing?.maxError).toBe(largest);
      }),
      { numRuns: 500 },
    );
  });

  it('packs eight bits within half a step, and tells the error', () => {
    fc.assert(
      fc.property(floats, (values) => {
        const packed = packTensor(tensorOf(values), 'int8');
        expect(packed.data.byteLength).toBe(values.length);
        const back = valuesOf(unpackTensor(packed));
        const { step = 0, maxError = 0, maxMagnitude = 0 } = packed.packing ?? {};
        const errors = values.map((value, index) => Math.abs(value - back[index]!));
        expect(Math.max(...errors)).toBe(maxError);
        expect(maxError).toBeLessThanOrEqual(step / 2 + maxMagnitude * 2e-7);
      }),
      { numRuns: 500 },
    );
  });

  it('leaves alone what would lose more than precision: other types, values out of range, what is not finite', () => {
    const whole: Tensor = { name: 'v', datatype: 'INT64', shape: [1], data: new Uint8Array(8) };
    expect(packTensor(whole, 'fp16')).toBe(whole);
    const large = tensorOf([1, 70_000]);
    expect(packTensor(large, 'fp16')).toBe(large);
    const broken = tensorOf([1, NaN]);
    expect(packTensor(broken, 'int8')).toBe(broken);
    expect(packTensor(broken, 'none')).toBe(broken);
    const infinite = unpackTensor(packTensor(tensorOf([Infinity, -Infinity, NaN, -0]), 'fp16'));
    expect(valuesOf(infinite)).toEqual([Infinity, -Infinity, NaN, -0]);
  });
});
