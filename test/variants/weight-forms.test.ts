import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toChannelBytes, toHalves, transposed } from '#core/variants/weight-forms.js';

const float = fc.float({ noNaN: true });
const bytesOf = (values: readonly number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

/** Every finite half, by IEEE 754's definition, ascending. */
const halves: readonly { readonly bits: number; readonly value: number }[] = Array.from(
  { length: 0x7c00 },
  (_, bits) => {
    const exponent = bits >> 10;
    const fraction = bits & 0x3ff;
    return { bits, value: exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15) };
  },
);

/** The nearest half by looking at all; of two as near the even one. */
function slowHalf(value: number): number {
  const magnitude = Math.min(Math.abs(value), 65_504);
  let best = halves[0] as (typeof halves)[number];
  for (const half of halves) {
    const apart = Math.abs(half.value - magnitude);
    const bestApart = Math.abs(best.value - magnitude);
    if (apart < bestApart || (apart === bestApart && half.bits % 2 === 0)) best = half;
  }
  return best.bits | (value < 0 || Object.is(value, -0) ? 0x8000 : 0);
}

describe('weights as halves', () => {
  it('are the nearest halves by the definition, and what is too large becomes the largest and is counted', () => {
    const near = fc.oneof(float, fc.float({ min: -8, max: 8, noNaN: true }), fc.constantFrom(65_504, 65_519, 2 ** -25));
    fc.assert(
      fc.property(fc.array(near, { maxLength: 8 }), (drawn) => {
        const values = drawn.map(Math.fround).filter(Number.isFinite);
        const { data, clamped, vanished } = toHalves(bytesOf(values));
        const found = [...new Uint16Array(data.buffer)];
        expect(found).toEqual(values.map(slowHalf));
        expect(clamped).toBe(values.filter((value) => Math.abs(value) > 65_504).length);
        expect(vanished).toBe(values.filter((value) => value !== 0 && slowHalf(value) % 0x8000 === 0).length);
      }),
      { numRuns: 60 },
    );
  });

  it('keep infinities and read weights that lie off the grid of four bytes', () => {
    const odd = Buffer.alloc(9);
    odd.writeFloatLE(Infinity, 1);
    odd.writeFloatLE(-1.5, 5);
    const { data, clamped } = toHalves(odd.subarray(1));
    expect([...new Uint16Array(data.buffer)]).toEqual([0x7c00, 0xbe00]);
    expect(clamped).toBe(0);
  });
});

describe('weights as bytes by channel', () => {
  it('are at most half a step from the weight, with the largest of a channel at the end of its range', () => {
    const shapes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 2, maxLength: 4 });
    fc.assert(
      fc.property(
        shapes,
        fc.nat(),
        fc.constantFrom(63, 127),
        fc.infiniteStream(fc.float({ min: -9, max: 9, noNaN: true })),
        (shape, pick, largest, drawn) => {
          const axis = pick % shape.length;
          const count = shape.reduce((product, size) => product * size, 1);
          const values = [...drawn.take(count)].map((value) => (Math.abs(value) < 1e-6 ? 0 : Math.fround(value)));
          const { data, scales } = toChannelBytes(bytesOf(values), { shape, axis, largest });
          // By the definition: coordinates of each element, one channel at a time.
          const coordinate = (index: number): number => {
            let rest = index;
            for (let at = shape.length - 1; at > axis; at -= 1) rest = Math.floor(rest / (shape[at] ?? 1));
            return rest % (shape[axis] ?? 1);
          };
          for (let channel = 0; channel < (shape[axis] ?? 0); channel += 1) {
            const mine = values
              .map((value, index) => ({ value, byte: data[index] ?? 0, index }))
              .filter(({ index }) => coordinate(index) === channel);
            const scale = scales[channel] ?? 0;
            const peak = Math.max(...mine.map(({ value }) => Math.abs(value)));
            expect(scale).toBe(peak === 0 ? 1 : Math.fround(peak / largest));
            for (const { value, byte } of mine)
              expect(Math.abs(byte * scale - value)).toBeLessThanOrEqual(scale * 0.5001);
            expect(Math.max(...mine.map(({ byte }) => Math.abs(byte)))).toBe(peak === 0 ? 0 : largest);
          }
        },
      ),
    );
  });

  it('are refused where a weight is not finite', () => {
    expect(() => toChannelBytes(bytesOf([1, Infinity]), { shape: [2, 1], axis: 0, largest: 127 })).toThrow(
      /weight 1 is Infinity, which eight bits cannot hold/,
    );
  });

  it('are turned as a matrix is', () => {
    expect([...new Float32Array(transposed(bytesOf([1, 2, 3, 4, 5, 6]), 2, 3).buffer)]).toEqual([1, 4, 2, 5, 3, 6]);
  });
});
