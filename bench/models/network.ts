/**
 * Layers of the benchmark networks over the ONNX builder: convolution, normalisation, dense layers, with seeded weights.
 *
 * Weights are uniform with the spread that keeps a signal's size (He for ReLU, Xavier for the rest), made from a seed by
 * exact arithmetic: the same file everywhere. A network that is only counted makes no weights at all.
 */
import { float, int, ints } from '#core/onnx/attribute.js';
import { GraphBuilder, type TensorValues } from '#core/onnx/builder.js';
import { elementCount, type Shape } from '#core/tensor.js';
import { RandomNumbers } from '#examples/training/random-numbers.js';

export interface NetworkOptions {
  readonly name: string;
  readonly seed: number;
  /** Count parameters, make no weights: the graph cannot be written then. */
  readonly countOnly: boolean;
}

export interface ConvolutionOptions {
  readonly inputs: number;
  readonly outputs: number;
  readonly kernel: number;
  readonly stride?: number;
  readonly groups?: number;
}

export class Network {
  readonly graph: GraphBuilder;
  /** Parameters that training would learn; running statistics of normalisations are not among them. */
  parameters = 0;
  readonly #random: RandomNumbers;
  readonly #countOnly: boolean;
  readonly #shared = new Set<string>();
  #made = 0;

  constructor({ name, seed, countOnly }: NetworkOptions) {
    this.graph = new GraphBuilder(name);
    this.#random = new RandomNumbers(seed);
    this.#countOnly = countOnly;
  }

  /** Learned weights, uniform in ±bound. */
  weights(shape: Shape, bound: number): string {
    const values = this.#allocate(shape);
    for (let index = 0; index < values.length; index += 1) values[index] = this.#random.between(-bound, bound);
    return this.#learned('weight', shape, values);
  }

  /** Learned weights that begin as one number. */
  filled(shape: Shape, value: number): string {
    return this.#learned('weight', shape, this.#allocate(shape).fill(value));
  }

  /** A constant that many places use, made once; neither learned nor counted. */
  shared(name: string, shape: Shape, values: TensorValues): string {
    if (!this.#shared.has(name)) this.graph.constant(name, shape, values);
    this.#shared.add(name);
    return name;
  }

  /** A convolution without bias, padded so that stride 1 keeps the size. */
  convolution(input: string, { inputs, outputs, kernel, stride = 1, groups = 1 }: ConvolutionOptions): string {
    const fanIn = (inputs / groups) * kernel * kernel;
    const weights = this.weights([outputs, inputs / groups, kernel, kernel], Math.sqrt(6 / fanIn));
    const pad = (kernel - 1) / 2;
    return this.graph.node('Conv', [input, weights], {
      attributes: {
        dilations: ints([1, 1]),
        group: int(groups),
        kernel_shape: ints([kernel, kernel]),
        pads: ints([pad, pad, pad, pad]),
        strides: ints([stride, stride]),
      },
    });
  }

  /** Batch normalisation as a trained network has it. A small `scale` tames the sums of residual networks. */
  batchNormalization(input: string, channels: number, scale = 1): string {
    const learned = [this.filled([channels], scale), this.weights([channels], 0.05)];
    const statistics = [0, 1].map((value) => {
      this.#made += 1;
      return this.graph.constant(`statistic_${this.#made}`, [channels], this.#allocate([channels]).fill(value));
    });
    return this.graph.node('BatchNormalization', [input, ...learned, ...statistics], {
      attributes: { epsilon: float(1e-5) },
    });
  }

  layerNormalization(input: string, width: number, epsilon: number): string {
    const learned = [this.filled([width], 1), this.filled([width], 0)];
    return this.graph.node('LayerNormalization', [input, ...learned], {
      attributes: { axis: int(-1), epsilon: float(epsilon) },
    });
  }

  /** `input` × weights + bias over the last dimension, for inputs of any rank. */
  dense(input: string, inputs: number, outputs: number): string {
    const weights = this.weights([inputs, outputs], Math.sqrt(6 / (inputs + outputs)));
    const product = this.graph.node('MatMul', [input, weights]);
    return this.graph.node('Add', [product, this.weights([outputs], 0.02)]);
  }

  relu(input: string): string {
    return this.graph.node('Relu', [input]);
  }

  #allocate(shape: Shape): Float32Array {
    return new Float32Array(this.#countOnly ? 0 : elementCount(shape));
  }

  #learned(kind: string, shape: Shape, values: Float32Array): string {
    this.parameters += elementCount(shape);
    this.#made += 1;
    return this.graph.constant(`${kind}_${this.#made}`, shape, values);
  }
}
