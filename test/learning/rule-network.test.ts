import { describe, expect, it } from 'vitest';
import { featureCount } from '#core/scheduling/features.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchPlayer } from '#policies/learning/dispatch-player.js';
import { rangesOfNetwork } from '#policies/learning/feature-ranges.js';
import { ruleLayers } from '#policies/learning/rule-network.js';
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
    expect(layers[0]?.in).toBe(featureCount);
    const rows = Float32Array.from({ length: featureCount * 50 }, () => 6 * random.next() - 3);
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
});
