import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkNetwork, type Network } from '#core/scheduling/network.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { seededRandom } from '#sim/random.js';
import { anyNetwork } from './networks.js';

/** The same by loops in 64 bits. */
function slowScores({ layers }: Network, row: readonly number[]): number[] {
  return layers.reduce<number[]>(
    (values, { out, weights, bias }, index) => {
      const sums = Array.from({ length: out }, (_, output) =>
        values.reduce(
          (sum, value, input) => sum + value * (weights[input * out + output] as number),
          bias[output] as number,
        ),
      );
      return index < layers.length - 1 ? sums.map(Math.tanh) : sums;
    },
    [...row],
  );
}

function rowsOf(count: number, width: number, seed: number): Float32Array {
  const random = seededRandom(seed);
  return Float32Array.from({ length: count * width }, () => random.next() * 6 - 3);
}

describe('SIMD scorer', () => {
  it('scores as loops over layers in 64 bits do, for any widths and counts', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 2, maxLength: 5 }),
        fc.integer({ min: 1, max: 20 }),
        fc.nat({ max: 1000 }),
        (widths, count, seed) => {
          const network = anyNetwork(widths, seed);
          const scorer = new SimdScorer(network);
          const rows = rowsOf(count, scorer.inputs, seed);
          const out = new Float32Array(count * scorer.outputs);
          scorer.score(rows, count, out);
          for (let row = 0; row < count; row += 1) {
            const slow = slowScores(network, [...rows.subarray(row * scorer.inputs, (row + 1) * scorer.inputs)]);
            slow.forEach((value, output) => {
              expect(Math.abs((out[row * scorer.outputs + output] as number) - value)).toBeLessThan(1e-5);
            });
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('follows tanh to 1e-6 over all its range, and keeps NaN', () => {
    const one = (values: number[]): Float32Array => Float32Array.from(values);
    const network: Network = {
      activation: 'tanh',
      layers: [
        { in: 1, out: 1, weights: one([1]), bias: one([0]) },
        { in: 1, out: 1, weights: one([1]), bias: one([0]) },
      ],
    };
    const scorer = new SimdScorer(network);
    const rows = Float32Array.from({ length: 4001 }, (_, index) => (index - 2000) / 100);
    const out = new Float32Array(rows.length);
    scorer.score(rows, rows.length, out);
    rows.forEach((x, index) => {
      expect(Math.abs((out[index] as number) - Math.tanh(x))).toBeLessThan(1e-6);
    });
    scorer.score(one([Number.NaN]), 1, out);
    expect(out[0]).toBeNaN();
  });

  it('grows with decisions larger than any before and keeps its scores', () => {
    const scorer = new SimdScorer(anyNetwork([32, 32, 32, 3], 7));
    const rows = rowsOf(700, 32, 7);
    const few = new Float32Array(30);
    const many = new Float32Array(2100);
    scorer.score(rows, 10, few);
    scorer.score(rows, 700, many);
    expect(many.slice(0, 30)).toEqual(few);
    scorer.score(rows, 0, few);
    expect(many.slice(0, 30)).toEqual(few);
  });

  it('refuses networks whose layers do not fit, that are too large or hold what is not a number', () => {
    const good = anyNetwork([4, 3, 1], 1);
    const [first, second] = good.layers as [Network['layers'][number], Network['layers'][number]];
    const refusals: [Network['layers'], RegExp][] = [
      [[], /has 0 layers/u],
      [[first, { ...second, in: 2, weights: new Float32Array(2) }], /layer 1 takes 2 numbers and gets 3/u],
      [[{ ...first, weights: new Float32Array(3) }, second], /layer 0 of 4 × 3 has 3 weights/u],
      [[first, { ...second, bias: Float32Array.of(Number.NaN) }], /layer 1 holds a number that is not finite/u],
      [[{ ...first, out: 4000 }, second], /4000 outputs and may have 1 to 1024/u],
    ];
    for (const [layers, message] of refusals) {
      expect(() => checkNetwork({ layers, activation: 'tanh' })).toThrow(message);
    }
  });
});
