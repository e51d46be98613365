/**
 * Proximal policy optimisation (Schulman et al., 2017) for many short decisions in a queueing world.
 *
 * One iteration, read from top to bottom: several arrival sequences, each played several times with sampled choices;
 * advantages against the other plays of the same arrivals; some passes over the decisions with a clipped objective, left
 * early when the policy has moved too far; the price of a miss raised or lowered for each class (dual ascent).
 * There is no value network: the mean over plays of the same arrivals takes its place.
 */
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Random } from '#ports/random.js';
import { Adam } from './adam.js';
import type { AdamState } from './adam.js';
import { shuffle } from './bc.js';
import type { Layer } from '#core/scheduling/network.js';
import type { Batcher, EpisodeOrder, EpisodeRecord, Rollouts } from './environment.js';
import { unflatten } from './layers.js';
import { advantagesOnSameArrivals, missesByClass, rewardsOf } from './returns.js';
import type { RewardOptions } from './returns.js';
import { padBatch, TrainableNetwork } from './trainable-network.js';
import type { RowSets, Scalar } from './trainable-network.js';

export interface PpoOptions {
  readonly iterations: number;
  /** Arrival sequences of an iteration, and plays of each. */
  readonly sequences: number;
  readonly plays: number;
  readonly epochs: number;
  readonly batchSize: number;
  /** Decisions of an iteration that are learned from, drawn from all that were recorded. */
  readonly decisionsMax: number;
  /** Falls to 0 in a line over all iterations. */
  readonly learningRate: number;
  readonly clip: number;
  readonly entropyStart: number;
  readonly entropyEnd: number;
  readonly normMax: number;
  /** Passes end once the mean divergence from the policy that played exceeds this. */
  readonly divergenceMax: number;
  readonly halfLifeMs: number;
  readonly latenessWeight: number;
  readonly energyWeight: number;
  readonly dualRate: number;
  readonly multiplierMax: number;
}

export const ppoDefaults: PpoOptions = {
  iterations: 100,
  sequences: 8,
  plays: 8,
  epochs: 4,
  batchSize: 256,
  decisionsMax: 16_384,
  learningRate: 3e-4,
  clip: 0.2,
  entropyStart: 0.01,
  entropyEnd: 1e-4,
  normMax: 0.5,
  divergenceMax: 0.02,
  halfLifeMs: 2_000,
  latenessWeight: 0.2,
  energyWeight: 0,
  dualRate: 0.05,
  multiplierMax: 200,
};

/** All there is to know between two iterations: kept in checkpoints. */
export interface PpoState {
  readonly iteration: number;
  readonly parameters: Float32Array;
  readonly adam: AdamState;
  /** λ by class. */
  readonly multipliers: readonly number[];
}

export interface PpoWorld<Scenario> {
  readonly shape: readonly Layer[];
  /** How batches are formed meanwhile; absent: as the world says. */
  readonly batching?: Batcher;
  readonly rollouts: Rollouts<Scenario>;
  /** Scenario of a sequence; the trainer's curriculum. */
  readonly scenario: (iteration: number, sequence: number) => Scenario;
  /** Share of a class's requests that may be missed. */
  readonly allowedMisses: readonly number[];
  /** λ never falls below these: the weights of the objective itself. */
  readonly multipliersMin: readonly number[];
}

export interface PpoIteration {
  readonly state: PpoState;
  /** Mean reward of a request, at the multipliers that were in force. */
  readonly meanReward: number;
  readonly meanCost: number;
  readonly missRates: readonly number[];
  readonly entropy: number;
  readonly divergence: number;
  readonly decisions: number;
  readonly steps: number;
}

export function startPpo(layers: readonly Layer[], parameters: Float32Array, multipliers: readonly number[]): PpoState {
  const count = layers.reduce((sum, { weights, bias }) => sum + weights.length + bias.length, 0);
  return { iteration: 0, parameters, adam: new Adam(count).state, multipliers };
}

export async function iteratePpo<Scenario>(
  state: PpoState,
  tools: { readonly tf: Tensorflow; readonly random: Random },
  world: PpoWorld<Scenario>,
  options: PpoOptions,
): Promise<PpoIteration> {
  const { tf } = tools;
  const { iteration, multipliers } = state;
  const random = tools.random.stream(`ppo ${iteration}`);
  const layers = unflatten(world.shape, state.parameters);
  const featureCount = layers[0]?.in ?? 0;
  const share = iteration / Math.max(1, options.iterations);

  const batching = world.batching === undefined ? {} : { batching: world.batching };

  // 1. Play each sequence several times.
  const orders = Array.from({ length: options.sequences }, (_, sequence) => {
    const scenario = world.scenario(iteration, sequence);
    return Array.from({ length: options.plays }, (__, play): EpisodeOrder<Scenario> => {
      const dice = `${iteration} ${sequence} ${play} ${random.stream('dice').next()}`;
      const player = { kind: 'network', layers, choose: 'sample', ...batching } as const;
      return { scenario, player, dice, record: true };
    });
  });
  const records = await world.rollouts.run(orders.flat());

  // 2. What each decision brought, beyond what its arrivals would have brought anyway.
  const rewards = { ...options, multipliers };
  const advantages: Float64Array[] = [];
  for (let first = 0; first < records.length; first += options.plays) {
    advantages.push(...advantagesOnSameArrivals(records.slice(first, first + options.plays), rewards));
  }
  const learned = gather(records, advantages, { random, count: options.decisionsMax, featureCount });

  // 3. Improve the policy, not further than the data can say.
  const network = new TrainableNetwork(tf, layers);
  const adam = new Adam(network.parameters.length, state.adam);
  const learningRate = options.learningRate * (1 - share);
  const entropyWeight = options.entropyStart * (options.entropyEnd / options.entropyStart) ** share;
  const order = Uint32Array.from(learned.choices, (_, index) => index);
  let entropy = 0;
  let divergence = 0;
  let steps = 0;
  try {
    for (let epoch = 0; epoch < options.epochs && divergence <= options.divergenceMax; epoch += 1) {
      shuffle(order, random.stream(`epoch ${epoch}`));
      let divergenceSum = 0;
      let entropySum = 0;
      let batches = 0;
      for (let first = 0; first < order.length; first += options.batchSize) {
        const members = order.subarray(first, first + options.batchSize);
        const batch = padBatch(learned, members, featureCount);
        const pick = (column: ArrayLike<number>): Float32Array =>
          Float32Array.from(members, (member) => column[member] ?? 0);
        const oldLogProbs = pick(learned.logProbs);
        const columns = {
          choice: Int32Array.from(pick(learned.choices)),
          oldLogProbs,
          advantage: pick(learned.advantages),
        };
        const seen = { entropy: 0, divergence: 0 };
        const { gradient } = network.gradient(batch, (logProbs) => {
          const chosen = tf.sum(tf.mul(logProbs, tf.oneHot(tf.tensor1d(columns.choice, 'int32'), batch.width)), 1);
          const ratio = tf.exp(tf.sub(chosen, columns.oldLogProbs));
          const gain = tf.minimum(
            tf.mul(ratio, columns.advantage),
            tf.mul(tf.clipByValue(ratio, 1 - options.clip, 1 + options.clip), columns.advantage),
          );
          const spread = tf.neg(tf.sum(tf.mul(tf.exp(logProbs), logProbs), 1));
          const chosenNow = chosen.dataSync();
          seen.entropy = tf.mean(spread).dataSync()[0] ?? 0;
          seen.divergence = meanDivergence(oldLogProbs, chosenNow);
          return tf.neg<Scalar>(tf.add(tf.mean(gain), tf.mul(entropyWeight, tf.mean(spread))));
        });
        adam.step(network.parameters, gradient, { learningRate, normMax: options.normMax });
        network.refresh();
        steps += 1;
        batches += 1;
        divergenceSum += seen.divergence;
        entropySum += seen.entropy;
      }
      divergence = divergenceSum / Math.max(1, batches);
      entropy = entropySum / Math.max(1, batches);
    }
    // 4. A class that misses more than it may pays more for a miss, and the other way round.
    const { requests, missed } = missesByClass(records, world.allowedMisses.length);
    const missRates = requests.map((count, index) => (count === 0 ? 0 : (missed[index] ?? 0) / count));
    const raised = multipliers.map((old, index) => {
      const allowed = world.allowedMisses[index] ?? 0.01;
      if (requests[index] === 0) return old;
      const change = (options.dualRate * ((missRates[index] ?? 0) - allowed)) / allowed;
      return Math.min(options.multiplierMax, Math.max(world.multipliersMin[index] ?? 0, old + change));
    });
    const all = totals(records, rewards);
    return {
      state: { iteration: iteration + 1, parameters: network.parameters, adam: adam.state, multipliers: raised },
      meanReward: all.reward / all.requests,
      meanCost: all.cost / all.requests,
      missRates,
      entropy,
      divergence,
      decisions: learned.choices.length,
      steps,
    };
  } finally {
    network.dispose();
  }
}

interface Learned extends RowSets {
  readonly choices: Uint16Array;
  readonly logProbs: Float32Array;
  readonly advantages: Float32Array;
}

/** At most `count` decisions of all plays; those with one choice teach nothing and are left out. */
function gather(
  records: readonly EpisodeRecord[],
  advantages: readonly Float64Array[],
  options: { readonly random: Random; readonly count: number; readonly featureCount: number },
): Learned {
  const places: { readonly play: number; readonly at: number }[] = [];
  for (const [play, { decisions }] of records.entries()) {
    if (decisions === undefined) continue;
    for (let at = 0; at < decisions.choices.length; at += 1) {
      if ((decisions.rowStarts[at + 1] ?? 0) - (decisions.rowStarts[at] ?? 0) > 1) places.push({ play, at });
    }
  }
  const order = Uint32Array.from(places, (_, index) => index);
  shuffle(order, options.random.stream('decisions'));
  const kept = [...order.subarray(0, options.count)].map((index) => places[index] ?? { play: 0, at: 0 });

  const rowStarts = new Uint32Array(kept.length + 1);
  for (const [index, { play, at }] of kept.entries()) {
    const starts = records[play]?.decisions?.rowStarts;
    rowStarts[index + 1] = (rowStarts[index] ?? 0) + (starts?.[at + 1] ?? 0) - (starts?.[at] ?? 0);
  }
  const rows = new Float32Array((rowStarts[kept.length] ?? 0) * options.featureCount);
  for (const [index, { play, at }] of kept.entries()) {
    const decisions = records[play]?.decisions;
    if (decisions === undefined) continue;
    const first = (decisions.rowStarts[at] ?? 0) * options.featureCount;
    const end = (decisions.rowStarts[at + 1] ?? 0) * options.featureCount;
    rows.set(decisions.rows.subarray(first, end), (rowStarts[index] ?? 0) * options.featureCount);
  }
  return {
    rows,
    rowStarts,
    choices: Uint16Array.from(kept, ({ play, at }) => records[play]?.decisions?.choices[at] ?? 0),
    logProbs: Float32Array.from(kept, ({ play, at }) => records[play]?.decisions?.logProbs[at] ?? 0),
    advantages: Float32Array.from(kept, ({ play, at }) => advantages[play]?.[at] ?? 0),
  };
}

/** Estimate of the mean divergence from the old policy, never negative (Schulman: mean of r - 1 - log r). */
function meanDivergence(before: Float32Array, now: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < before.length; index += 1) {
    const change = (now[index] ?? 0) - (before[index] ?? 0);
    sum += Math.exp(change) - 1 - change;
  }
  return sum / Math.max(1, before.length);
}

function totals(
  records: readonly EpisodeRecord[],
  options: RewardOptions,
): { readonly reward: number; readonly cost: number; readonly requests: number } {
  let reward = 0;
  let cost = 0;
  let requests = 0;
  for (const { outcomes } of records) {
    for (const value of rewardsOf(outcomes, options)) reward += value;
    for (const value of outcomes.cost) cost += value;
    requests += outcomes.cost.length;
  }
  return { reward, cost, requests: Math.max(1, requests) };
}
