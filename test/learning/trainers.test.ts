import { beforeAll, describe, expect, it } from 'vitest';
import { loadTensorflow, type Tensorflow } from '#adapters/tfjs/tensorflow.js';
import { RandomStream } from '#core/random.js';
import { bcDefaults, cloneBehaviour } from '#policies/learning/bc.js';
import { cemDefaults, iterateCem, startCem } from '#policies/learning/cem.js';
import type { Layer } from '#core/scheduling/network.js';
import { rolloutsHere } from '#policies/learning/environment.js';
import { flatten, initialLayers, unflatten } from '#policies/learning/layers.js';
import { iteratePpo, ppoDefaults, startPpo, type PpoState } from '#policies/learning/ppo.js';
import { featuresOfServers, meanCost, threeServers, type ThreeServers } from './three-servers.js';

const judged: readonly ThreeServers[] = [1, 2, 3, 4].map((seed) => ({
  seed: 9_000 + seed,
  requests: 4_000,
  load: 0.7,
}));
const shape = [featuresOfServers, 8, 1];
let tf: Tensorflow;
let shortest: number;
let roundRobin: number;

const network = (layers: readonly Layer[]) => ({ kind: 'network', layers, choose: 'best' }) as const;

beforeAll(async () => {
  ({ tf } = await loadTensorflow('cpu'));
  shortest = await meanCost({ kind: 'rule', name: 'shortest' }, judged);
  roundRobin = await meanCost({ kind: 'rule', name: 'round-robin' }, judged);
});

describe('trainers on three unlike servers', () => {
  it('the world is one in which choosing matters', () => {
    expect(roundRobin).toBeGreaterThan(3 * shortest);
  });

  it('imitation agrees with its teacher on decisions it has not seen', async () => {
    const { decisions } = await threeServers.runEpisode({
      scenario: { seed: 1, requests: 6_000, load: 0.7 },
      player: { kind: 'rule', name: 'random' },
      dice: 'any',
      teacher: 'shortest',
      record: true,
    });
    const random = new RandomStream(1);
    const start = initialLayers(random, shape);
    const result = cloneBehaviour({ tf, random }, start, decisions!, { ...bcDefaults, learningRate: 0.01 }, () => {});
    expect(result.agreement).toBeGreaterThan(0.95);
    expect(await meanCost(network(result.layers), judged)).toBeLessThan(1.1 * shortest);
  });

  it('the cross-entropy method finds a policy as good as the shortest expected delay', async () => {
    const random = new RandomStream(2);
    const start = initialLayers(random, [featuresOfServers, 1]);
    const options = { ...cemDefaults, deviationStart: 1 };
    let state = startCem(flatten(start), options);
    for (let iteration = 0; iteration < 12; iteration += 1) {
      const scenarios = [{ seed: 100 + iteration, requests: 1_000, load: 0.7 }];
      const evaluate = (vectors: readonly Float32Array[]) =>
        Promise.all(vectors.map((vector) => meanCost(network(unflatten(start, vector)), scenarios)));
      ({ state } = await iterateCem(state, options, random, evaluate));
    }
    const found = await meanCost(network(unflatten(start, Float32Array.from(state.mean))), judged);
    expect(found).toBeLessThan(1.05 * shortest);
    expect(found).toBeLessThan(roundRobin / 3);
  });

  it('policy optimisation finds, from nothing, a policy near the shortest expected delay', async () => {
    const state = await optimise(30, start(3));
    const found = await meanCost(
      network(unflatten(initialLayers(new RandomStream(3), shape), state.parameters)),
      judged,
    );
    expect(found).toBeLessThan(1.15 * shortest);
    expect(found).toBeLessThan(roundRobin / 2.5);
  }, 120_000);

  it('the same seed gives the same parameters, and continuing from a saved state changes nothing', async () => {
    const straight = await optimise(4, start(4));
    const half = await optimise(2, start(4));
    const saved = structuredClone(half);
    const resumed = await optimise(2, saved);
    expect(resumed.parameters).toEqual(straight.parameters);
    expect(resumed.multipliers).toEqual(straight.multipliers);
    expect((await optimise(4, start(5))).parameters).not.toEqual(straight.parameters);
  });
});

function start(seed: number): PpoState {
  const layers = initialLayers(new RandomStream(seed), shape);
  return startPpo(layers, flatten(layers), [1, 1]);
}

async function optimise(iterations: number, from: PpoState): Promise<PpoState> {
  const options = {
    ...ppoDefaults,
    ...{ iterations: 30, sequences: 3, plays: 6, decisionsMax: 2_048, epochs: 4, batchSize: 256 },
    ...{ learningRate: 0.01, halfLifeMs: 200, divergenceMax: 0.05 },
  };
  const world = {
    shape: initialLayers(new RandomStream(3), shape),
    rollouts: rolloutsHere(threeServers),
    scenario: (iteration: number, sequence: number) => ({
      seed: 1_000 + 10 * iteration + sequence,
      requests: 400,
      load: 0.7,
    }),
    allowedMisses: [0.01, 0.02],
    multipliersMin: [1, 1],
  };
  let state = from;
  for (let count = 0; count < iterations; count += 1) {
    ({ state } = await iteratePpo(state, { tf, random: new RandomStream(3) }, world, options));
  }
  return state;
}
