/**
 * Adam (Kingma and Ba, 2015) over one flat vector, with the gradient's norm clipped first.
 *
 * TensorFlow.js computes gradients; the step is taken here because its own optimiser forgets digits of its state when that
 * is saved, and training that was killed and resumed must give the same bytes as training that was not.
 */
export interface AdamState {
  readonly steps: number;
  readonly mean: Float64Array;
  readonly square: Float64Array;
}

const meanDecay = 0.9;
const squareDecay = 0.999;
const epsilon = 1e-8;

export class Adam {
  readonly #mean: Float64Array;
  readonly #square: Float64Array;
  #steps: number;

  constructor(parameters: number, state?: AdamState) {
    this.#mean = state === undefined ? new Float64Array(parameters) : state.mean.slice();
    this.#square = state === undefined ? new Float64Array(parameters) : state.square.slice();
    this.#steps = state?.steps ?? 0;
  }

  get state(): AdamState {
    return { steps: this.#steps, mean: this.#mean.slice(), square: this.#square.slice() };
  }

  /** Moves `parameters` down the gradient. `normMax` bounds the gradient's Euclidean norm. Gives back the norm before. */
  step(
    parameters: Float32Array,
    gradient: Float32Array,
    options: { readonly learningRate: number; readonly normMax: number },
  ): number {
    let sum = 0;
    for (const value of gradient) sum += value * value;
    const norm = Math.sqrt(sum);
    const scale = norm > options.normMax ? options.normMax / norm : 1;
    this.#steps += 1;
    const meanBias = 1 - meanDecay ** this.#steps;
    const squareBias = 1 - squareDecay ** this.#steps;
    for (let index = 0; index < parameters.length; index += 1) {
      const slope = (gradient[index] ?? 0) * scale;
      const mean = meanDecay * (this.#mean[index] ?? 0) + (1 - meanDecay) * slope;
      const square = squareDecay * (this.#square[index] ?? 0) + (1 - squareDecay) * slope * slope;
      this.#mean[index] = mean;
      this.#square[index] = square;
      const change = (options.learningRate * (mean / meanBias)) / (Math.sqrt(square / squareBias) + epsilon);
      parameters[index] = (parameters[index] ?? 0) - change;
    }
    return norm;
  }
}
