/**
 * Advantage-weighted regression (Peng et al., 2019): a policy learns from decisions that were really made, wherever they
 * turned out better than expected.
 *
 * It never asks what another choice would have brought, so it needs no model of the world and no value for what was not
 * tried. A second small network learns what to expect (V, from the mean row of a decision); each decision is imitated with
 * weight exp((return − V) ÷ temperature), capped. A divergence term holds the policy near the one that is deployed.
 * The decision log gives the data; here it is plain arrays.
 */
import { intarsiaError } from '#core/errors.js';
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Random } from '#ports/random.js';
import { Adam } from './adam.js';
import { shuffle } from './bc.js';
import type { Layer } from '#core/scheduling/network.js';
import { initialLayers } from './layers.js';
import { padBatch, TrainableNetwork } from './trainable-network.js';
import type { RowSets, Scalar } from './trainable-network.js';

/** Decisions of the log: rows that were allowed, the one taken, and the return from that moment on. */
export interface LoggedDecisions extends RowSets {
  readonly choices: Uint16Array;
  readonly returns: Float32Array;
}

export interface AwrOptions {
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  readonly valueLearningRate: number;
  readonly valueEpochs: number;
  /** β: lower trusts the best decisions more. In deviations of the advantage. */
  readonly temperature: number;
  readonly weightMax: number;
  /** Weight of the divergence from the deployed policy. */
  readonly divergenceWeight: number;
  readonly normMax: number;
}

export const awrDefaults: AwrOptions = {
  epochs: 4,
  batchSize: 256,
  learningRate: 3e-4,
  valueLearningRate: 2e-3,
  valueEpochs: 6,
  temperature: 0.7,
  weightMax: 20,
  divergenceWeight: 0.1,
  normMax: 0.5,
};

export interface AwrResult {
  readonly layers: readonly Layer[];
  /** Share of the returns' variance that V explains. */
  readonly explained: number;
  /** (Σ weights)² ÷ Σ weights²: how many decisions the result really rests on. */
  readonly effectiveDecisions: number;
}

/** @throws INVALID_ARGUMENT when there is nothing to learn from, or a number is not finite. */
export function regressOnAdvantages(
  tools: { readonly tf: Tensorflow; readonly random: Random },
  deployed: readonly Layer[],
  logged: LoggedDecisions,
  options: AwrOptions,
  onEpoch: (epoch: { readonly epoch: number; readonly loss: number }) => void,
): AwrResult {
  const { tf, random } = tools;
  const featureCount = deployed[0]?.in ?? 0;
  checkLog(logged, featureCount);
  const order = Uint32Array.from(logged.choices, (_, index) => index);

  // 1. What was to be expected.
  const scale = spreadOf(logged.returns);
  const wanted = logged.returns.map((value) => (value - scale.mean) / scale.deviation);
  const states = meanRows(logged, featureCount);
  const critic = new TrainableNetwork(tf, initialLayers(random.stream('critic'), [featureCount, 32, 1]));
  const criticAdam = new Adam(critic.parameters.length);
  const policy = new TrainableNetwork(tf, deployed);
  const reference = new TrainableNetwork(tf, deployed);
  const adam = new Adam(policy.parameters.length);
  try {
    for (let epoch = 0; epoch < options.valueEpochs; epoch += 1) {
      shuffle(order, random.stream(`critic ${epoch}`));
      for (let first = 0; first < order.length; first += options.batchSize) {
        const members = order.subarray(first, first + options.batchSize);
        const target = Float32Array.from(members, (member) => wanted[member] ?? 0);
        const { gradient } = critic.valueGradient(pickRows(states, members, featureCount), (values) =>
          tf.mean(tf.square(tf.sub(tf.reshape(values, [members.length]), target))),
        );
        const { valueLearningRate: learningRate, normMax } = options;
        criticAdam.step(critic.parameters, gradient, { learningRate, normMax });
        critic.refresh();
      }
    }

    // 2. What was better than expected counts more.
    const expected = critic.values(states);
    const advantages = wanted.map((value, index) => value - (expected[index] ?? 0));
    const remaining = spreadOf(advantages);
    const weights = advantages.map((value) =>
      Math.min(options.weightMax, Math.exp((value - remaining.mean) / (remaining.deviation * options.temperature))),
    );

    // 3. Imitate it, near the deployed policy.
    for (let epoch = 0; epoch < options.epochs; epoch += 1) {
      shuffle(order, random.stream(`policy ${epoch}`));
      let lossSum = 0;
      for (let first = 0; first < order.length; first += options.batchSize) {
        const members = order.subarray(first, first + options.batchSize);
        const batch = padBatch(logged, members, featureCount);
        const before = reference.logProbs(batch);
        const choice = Int32Array.from(members, (member) => logged.choices[member] ?? 0);
        const weight = Float32Array.from(members, (member) => weights[member] ?? 0);
        const { loss, gradient } = policy.gradient(batch, (logProbs) => {
          const chosen = tf.sum(tf.mul(logProbs, tf.oneHot(tf.tensor1d(choice, 'int32'), batch.width)), 1);
          const old = tf.tensor2d(before, [batch.size, batch.width]);
          const divergence = tf.sum(tf.mul(tf.exp(old), tf.sub(old, logProbs)), 1);
          const imitation = tf.neg(tf.mean(tf.mul(chosen, weight)));
          return tf.add<Scalar>(imitation, tf.mul(options.divergenceWeight, tf.mean(divergence)));
        });
        adam.step(policy.parameters, gradient, options);
        policy.refresh();
        lossSum += loss * members.length;
      }
      onEpoch({ epoch, loss: lossSum / order.length });
    }
    const sum = weights.reduce((total, value) => total + value, 0);
    const squares = weights.reduce((total, value) => total + value * value, 0);
    return {
      layers: policy.layers,
      explained: 1 - remaining.deviation ** 2,
      effectiveDecisions: (sum * sum) / squares,
    };
  } finally {
    for (const network of [critic, policy, reference]) network.dispose();
  }
}

function checkLog({ rows, rowStarts, choices, returns }: LoggedDecisions, featureCount: number): void {
  const decisions = choices.length;
  if (decisions === 0 || rowStarts.length !== decisions + 1 || returns.length !== decisions) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `logged decisions need a row start more than choices, and a return each; got ${rowStarts.length} starts, ${decisions} choices, ${returns.length} returns`,
    );
  }
  const expected = (rowStarts[decisions] ?? 0) * featureCount;
  if (rows.length !== expected) {
    throw intarsiaError('INVALID_ARGUMENT', `logged rows have ${rows.length} numbers; the row starts say ${expected}`);
  }
  const strange = returns.findIndex((value) => !Number.isFinite(value));
  if (strange >= 0) throw intarsiaError('INVALID_ARGUMENT', `return of logged decision ${strange} is not finite`);
  for (let index = 0; index < decisions; index += 1) {
    const count = (rowStarts[index + 1] ?? 0) - (rowStarts[index] ?? 0);
    if ((choices[index] ?? 0) >= count) {
      throw intarsiaError('INVALID_ARGUMENT', `logged decision ${index} chose row ${choices[index]} of ${count}`);
    }
  }
}

/** The mean of each decision's rows. */
function meanRows({ rows, rowStarts }: RowSets, featureCount: number): Float32Array {
  const decisions = rowStarts.length - 1;
  const means = new Float32Array(decisions * featureCount);
  for (let decision = 0; decision < decisions; decision += 1) {
    const first = rowStarts[decision] ?? 0;
    const end = rowStarts[decision + 1] ?? 0;
    for (let feature = 0; feature < featureCount; feature += 1) {
      let sum = 0;
      for (let row = first; row < end; row += 1) sum += rows[row * featureCount + feature] ?? 0;
      means[decision * featureCount + feature] = sum / (end - first);
    }
  }
  return means;
}

function pickRows(rows: Float32Array, members: Uint32Array, width: number): Float32Array {
  const picked = new Float32Array(members.length * width);
  for (const [at, member] of members.entries()) {
    picked.set(rows.subarray(member * width, (member + 1) * width), at * width);
  }
  return picked;
}

function spreadOf(values: Float32Array): { readonly mean: number; readonly deviation: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: Math.max(1e-6, Math.sqrt(squares / values.length)) };
}
