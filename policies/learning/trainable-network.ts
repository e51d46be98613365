/**
 * A scorer in TensorFlow.js while it is trained: rows in, one score a row, gradients of whatever loss a trainer states.
 *
 * Decisions have different numbers of rows: a batch is padded to its widest decision, and what is padding has probability 0.
 * Parameters live in one flat vector here; the tensors are refreshed from it after each step.
 */
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Layer } from '#core/scheduling/network.js';
import { flatten, unflatten } from './layers.js';

export type Matrix = ReturnType<Tensorflow['tensor2d']>;
export type Scalar = ReturnType<Tensorflow['scalar']>;
type Variable = ReturnType<Tensorflow['variable']>;

/** Decisions with their rows, as an environment records them. */
export interface RowSets {
  readonly rows: Float32Array;
  readonly rowStarts: Uint32Array;
}

/** Some decisions, padded to one width: `size` × `width` rows of features, and 1 where a row is real. */
export interface PaddedBatch {
  readonly size: number;
  readonly width: number;
  readonly rows: Float32Array;
  readonly real: Float32Array;
}

/** Score of what is padding: far below any other, yet finite, so that 0 × score stays 0. */
const paddingScore = -1e9;

export function padBatch(sets: RowSets, decisions: ArrayLike<number>, featureCount: number): PaddedBatch {
  const size = decisions.length;
  const start = (at: number): number => sets.rowStarts[decisions[at] ?? 0] ?? 0;
  const count = (at: number): number => (sets.rowStarts[(decisions[at] ?? 0) + 1] ?? 0) - start(at);
  let width = 1;
  for (let at = 0; at < size; at += 1) width = Math.max(width, count(at));
  const rows = new Float32Array(size * width * featureCount);
  const real = new Float32Array(size * width);
  for (let at = 0; at < size; at += 1) {
    const first = start(at) * featureCount;
    rows.set(sets.rows.subarray(first, first + count(at) * featureCount), at * width * featureCount);
    real.fill(1, at * width, at * width + count(at));
  }
  return { size, width, rows, real };
}

export class TrainableNetwork {
  readonly #tf: Tensorflow;
  readonly #shape: readonly Layer[];
  readonly #variables: readonly { readonly weights: Variable; readonly bias: Variable }[];
  /** All parameters. Change them, then call `refresh`. */
  readonly parameters: Float32Array;

  constructor(tf: Tensorflow, layers: readonly Layer[]) {
    this.#tf = tf;
    this.#shape = layers;
    this.parameters = flatten(layers);
    this.#variables = layers.map(({ in: inputs, out: outputs, weights, bias }) => ({
      weights: tf.variable(tf.tensor2d(weights, [inputs, outputs])),
      bias: tf.variable(tf.tensor1d(bias)),
    }));
  }

  get layers(): Layer[] {
    return unflatten(this.#shape, this.parameters);
  }

  /** Takes over what is in `parameters`. */
  refresh(): void {
    const tf = this.#tf;
    for (const [index, { in: inputs, out: outputs, weights, bias }] of this.layers.entries()) {
      const variable = this.#variables[index];
      tf.tidy(() => {
        variable?.weights.assign(tf.tensor2d(weights, [inputs, outputs]));
        variable?.bias.assign(tf.tensor1d(bias));
      });
    }
  }

  /** Loss of a batch, and its slope by every parameter. `loss` is given log-probabilities, `size` × `width`. */
  gradient(
    batch: PaddedBatch,
    loss: (logProbs: Matrix) => Scalar,
  ): { readonly loss: number; readonly gradient: Float32Array } {
    return this.#slope(() => loss(this.#logProbs(batch)));
  }

  /** The same for a network that says one number a row. `loss` is given `rows` × 1 numbers. */
  valueGradient(
    rows: Float32Array,
    loss: (values: Matrix) => Scalar,
  ): { readonly loss: number; readonly gradient: Float32Array } {
    return this.#slope(() => loss(this.#forward(rows)));
  }

  /** Log-probabilities of a batch, `size` × `width`; what is padding is far below. */
  logProbs(batch: PaddedBatch): Float32Array {
    return this.#tf.tidy(() => this.#logProbs(batch).dataSync<'float32'>().slice());
  }

  /** One number a row. */
  values(rows: Float32Array): Float32Array {
    return this.#tf.tidy(() => this.#forward(rows).dataSync<'float32'>().slice());
  }

  dispose(): void {
    for (const { weights, bias } of this.#variables) {
      weights.dispose();
      bias.dispose();
    }
  }

  #slope(loss: () => Scalar): { readonly loss: number; readonly gradient: Float32Array } {
    const tf = this.#tf;
    return tf.tidy(() => {
      const all = this.#variables.flatMap(({ weights, bias }) => [weights, bias]);
      const { value, grads } = tf.variableGrads(loss, all);
      const gradient = new Float32Array(this.parameters.length);
      let offset = 0;
      for (const variable of all) {
        const slope = grads[variable.name];
        if (slope !== undefined) gradient.set(slope.dataSync(), offset);
        offset += variable.size;
      }
      return { loss: value.dataSync()[0] ?? Number.NaN, gradient };
    });
  }

  #logProbs({ rows, real, size, width }: PaddedBatch): Matrix {
    const tf = this.#tf;
    const scores = tf.reshape(this.#forward(rows), [size, width]);
    const padding = tf.tensor2d(real, [size, width]).sub(1).mul(-paddingScore);
    return tf.logSoftmax(tf.add(scores, padding)) as unknown as Matrix;
  }

  #forward(rows: Float32Array): Matrix {
    const tf = this.#tf;
    const inputs = this.#shape[0]?.in ?? 1;
    let value: Matrix = tf.tensor2d(rows, [rows.length / inputs, inputs]);
    for (const [index, { weights, bias }] of this.#variables.entries()) {
      value = tf.add(tf.matMul(value, weights as unknown as Matrix), bias);
      if (index < this.#variables.length - 1) value = tf.tanh(value);
    }
    return value;
  }
}
