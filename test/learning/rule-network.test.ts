import { describe, expect, it } from 'vitest';
import { featureCount, planFeatureCount } from '#core/scheduling/features.js';
import type { Layer } from '#core/scheduling/network.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchPlayer } from '#policies/learning/dispatch-player.js';
import { rangesOfNetwork } from '#policies/learning/feature-ranges.js';
import { initialLayers } from '#policies/learning/layers.js';
import { ruleLayers, withPlanUnits } from '#policies/learning/rule-network.js';
import { RandomStream } from '#core/random.js';
import {
  newDispatchCandidate,
  newFleetView,
  SHED,
  type DispatchCandidate,
  type DispatchRequest,
} from '#core/scheduling/dispatch-view.js';
import { interactiveRequest } from '../scheduling/candidates.js';

const random = new RandomStream('rule network');

function player(share: number) {
  return dispatchPlayer({
    player: { kind: 'network', layers: ruleLayers(share), choose: 'best' },
    rule: dispatchByName,
    recorder: undefined,
    teacher: undefined,
    dice: random,
  });
}

function candidate(change: Partial<DispatchCandidate>): DispatchCandidate {
  return { ...newDispatchCandidate(), ...{ soloMs: 10, marginalMs: 10, usdPerHour: 1 }, ...change };
}

function drawn(): DispatchCandidate[] {
  return Array.from({ length: 1 + random.below(8) }, () => {
    const soloMs = 5 + 60 * random.next();
    return candidate({
      ...{ soloMs, serviceMs: soloMs, marginalMs: soloMs * (0.1 + 0.9 * random.next()) },
      ...{ queuedAheadMs: 60 * random.next(), usdPerHour: 0.1 + 3 * random.next() },
    });
  });
}

const choose = (policy: ReturnType<typeof player>, request: DispatchRequest, among: readonly DispatchCandidate[]) =>
  policy.choose(request, among, newFleetView(), random);

describe('a network with cheapest feasible built in', () => {
  it('decides like the rule wherever two candidates are not nearly alike', () => {
    const network = player(0.8);
    const rule = dispatchByName('cheapest-feasible:0.8');
    let agreed = 0;
    for (let round = 0; round < 2_000; round += 1) {
      const among = drawn();
      if (
        choose(network, interactiveRequest, among) === rule.choose(interactiveRequest, among, newFleetView(), random)
      ) {
        agreed += 1;
      }
    }
    expect(agreed / 2_000).toBeGreaterThan(0.85);
  });

  it('takes the cheap one in time before the fast one, the fast one when only it is in time, and refuses when none is', () => {
    const network = player(0.8);
    const cheap = candidate({ serviceMs: 40, usdPerHour: 0.2 });
    const fast = candidate({ serviceMs: 5, usdPerHour: 2 });
    expect(choose(network, interactiveRequest, [fast, cheap])).toBe(1);
    expect(choose(network, interactiveRequest, [fast, { ...cheap, queuedAheadMs: 80 }])).toBe(0);
    const late = { ...fast, queuedAheadMs: 140 };
    expect(choose(network, interactiveRequest, [late, { ...cheap, queuedAheadMs: 140 }])).toBe(SHED);
    const serveLate = { ...interactiveRequest, mayShed: false };
    expect(choose(network, serveLate, [{ ...cheap, queuedAheadMs: 200 }, late])).toBe(1);
  });

  it('is a network of the schema whose scores are finite over all that features may be', () => {
    const layers = ruleLayers(0.9);
    expect(layers[0]?.in).toBe(planFeatureCount);
    const rows = Float32Array.from({ length: planFeatureCount * 50 }, () => 6 * random.next() - 3);
    const scores = new Float32Array(50);
    new SimdScorer({ layers, activation: 'tanh' }).score(rows, 50, scores);
    expect(scores.every(Number.isFinite)).toBe(true);
  });
});

describe('the ranges of a network', () => {
  it('are open for what it gives no weight to, and as seen in training for the rest', () => {
    const layers = [{ in: 3, out: 2, weights: Float32Array.of(0, 1, 0, 0, -2, 0), bias: new Float32Array(2) }];
    const seen = { least: [0, 0, 0], low: [0.1, 0.1, 0.1], high: [0.9, 0.9, 0.9], greatest: [1, 1, 1] };
    expect(rangesOfNetwork(seen, layers)).toEqual({
      least: [0, -3, 0],
      low: [0.1, -3, 0.1],
      high: [0.9, 3, 0.9],
      greatest: [1, 3, 1],
    });
  });

  it('takes questions about the plan to a network of the schema before, which decides as before while there is no plan', () => {
    const before = initialLayers(new RandomStream('before'), [featureCount, 6, 1]);
    const after = withPlanUnits(before);
    const scores = (layers: readonly Layer[], rows: readonly number[][]): Float32Array => {
      const out = new Float32Array(rows.length);
      new SimdScorer({ layers, activation: 'tanh' }).score(Float32Array.from(rows.flat()), rows.length, out);
      return out;
    };
    const rows = Array.from({ length: 20 }, () => Array.from({ length: featureCount }, () => 6 * random.next() - 3));
    const old = scores(before, rows);
    const unplanned = scores(
      after,
      rows.map((row) => [...row, 0, 0, 0, 0]),
    );
    const shift = unplanned[0]! - old[0]!;
    unplanned.forEach((score, index) => expect(score - old[index]!).toBeCloseTo(shift, 4));
    // Whose turn it is comes before who has none.
    const [turn = 0, none = 0] = scores(
      after,
      [
        [0.9, 0.5, 0.4, 1],
        [-1, 0, 0.4, 1],
      ].map((plan) => [...rows[0]!, ...plan]),
    );
    expect(turn).toBeGreaterThan(none + 5);
    expect(withPlanUnits(after)).toEqual(after);
    expect(() => withPlanUnits(initialLayers(new RandomStream(1), [7, 3, 1]))).toThrow('7 to 3, 3 to 1');
  });
});
