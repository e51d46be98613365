/**
 * Behaviour cloning: the network learns to choose as a teacher chose, by cross-entropy with softened targets.
 *
 * It gives later stages a policy that is as good as the best rule, instead of one that must first discover queueing.
 * Soft targets keep part of the weight on other choices, so that the network stays uncertain and can still be moved.
 */
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Random } from '#ports/random.js';
import { Adam } from './adam.js';
import type { Layer } from '#core/scheduling/network.js';
import type { Decisions } from './environment.js';
import { padBatch, TrainableNetwork } from './trainable-network.js';
import type { Scalar } from './trainable-network.js';

export interface BcOptions {
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  /** Share of the weight that is spread over all allowed choices evenly, 0 to 1. */
  readonly softening: number;
  readonly normMax: number;
}

export const bcDefaults: BcOptions = {
  epochs: 8,
  batchSize: 256,
  learningRate: 2e-3,
  softening: 0.05,
  normMax: 5,
};

export interface BcResult {
  readonly layers: readonly Layer[];
  /** Share of decisions in which the network's best choice is the teacher's; decisions with one choice left out. */
  readonly agreement: number;
}

export interface BcEpoch {
  readonly epoch: number;
  readonly loss: number;
  readonly agreement: number;
}

/** Trains on all decisions but the last tenth, which measures the agreement. */
export function cloneBehaviour(
  tools: { readonly tf: Tensorflow; readonly random: Random },
  start: readonly Layer[],
  decisions: Decisions,
  options: BcOptions,
  onEpoch: (epoch: BcEpoch) => void,
): BcResult {
  const { tf, random } = tools;
  const featureCount = start[0]?.in ?? 0;
  const network = new TrainableNetwork(tf, start);
  const adam = new Adam(network.parameters.length);
  const all = decisions.choices.length;
  const order = Uint32Array.from({ length: Math.max(1, Math.floor(all * 0.9)) }, (_, index) => index);
  const held = Uint32Array.from({ length: all - order.length }, (_, index) => order.length + index);
  const steps = Math.max(1, Math.floor(order.length / options.batchSize));
  let agreement = 0;
  try {
    for (let epoch = 0; epoch < options.epochs; epoch += 1) {
      shuffle(order, random.stream(`epoch ${epoch}`));
      let lossSum = 0;
      for (let step = 0; step < steps; step += 1) {
        const members = order.subarray(step * options.batchSize, (step + 1) * options.batchSize);
        const batch = padBatch(decisions, members, featureCount);
        const target = softTargets(decisions, members, batch, options.softening);
        const { loss, gradient } = network.gradient(batch, (logProbs) => {
          const wanted = tf.tensor2d(target, [batch.size, batch.width]);
          return tf.neg<Scalar>(tf.div(tf.sum(tf.mul(wanted, logProbs)), batch.size));
        });
        const learningRate = options.learningRate * (1 - (0.9 * (epoch * steps + step)) / (options.epochs * steps));
        adam.step(network.parameters, gradient, { learningRate, normMax: options.normMax });
        network.refresh();
        lossSum += loss;
      }
      agreement = agreementOf(network, decisions, held.length > 0 ? held : order);
      onEpoch({ epoch, loss: lossSum / steps, agreement });
    }
    return { layers: network.layers, agreement };
  } finally {
    network.dispose();
  }
}

function softTargets(
  decisions: Decisions,
  members: Uint32Array,
  batch: { readonly size: number; readonly width: number; readonly real: Float32Array },
  softening: number,
): Float32Array {
  const target = new Float32Array(batch.size * batch.width);
  for (const [at, member] of members.entries()) {
    const count = (decisions.rowStarts[member + 1] ?? 0) - (decisions.rowStarts[member] ?? 0);
    target.fill(softening / count, at * batch.width, at * batch.width + count);
    const wanted = at * batch.width + (decisions.teacherChoices[member] ?? 0);
    target[wanted] = (target[wanted] ?? 0) + 1 - softening;
  }
  return target;
}

function agreementOf(network: TrainableNetwork, decisions: Decisions, members: Uint32Array): number {
  const featureCount = decisions.rows.length / Math.max(1, decisions.rowStarts[decisions.rowStarts.length - 1] ?? 1);
  let asked = 0;
  let agreed = 0;
  for (let first = 0; first < members.length; first += 1024) {
    const some = members.subarray(first, first + 1024);
    const batch = padBatch(decisions, some, featureCount);
    const logProbs = network.logProbs(batch);
    for (const [at, member] of some.entries()) {
      const count = (decisions.rowStarts[member + 1] ?? 0) - (decisions.rowStarts[member] ?? 0);
      if (count < 2) continue;
      asked += 1;
      const wanted = logProbs[at * batch.width + (decisions.teacherChoices[member] ?? 0)] ?? -Infinity;
      const row = logProbs.subarray(at * batch.width, at * batch.width + count);
      // A tie counts: equal rows (two idle devices of one kind) get equal scores, and either choice is the teacher's.
      if (row.every((value) => value <= wanted)) agreed += 1;
    }
  }
  return asked === 0 ? 1 : agreed / asked;
}

/** Fisher and Yates. */
export function shuffle(order: Uint32Array, random: Random): void {
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = random.below(last + 1);
    const kept = order[last] ?? 0;
    order[last] = order[other] ?? 0;
    order[other] = kept;
  }
}
