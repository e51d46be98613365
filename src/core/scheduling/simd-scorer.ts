/**
 * A network as a synchronous scorer (ports/scorer): its weights and the rows of a decision lie in the kernel's memory, and a
 * call runs layer by layer over all rows. Nothing is allocated unless a decision is larger than any before.
 */
import { checkNetwork, inputsOf, outputsOf, type Layer, type Network } from './network.js';
import { blockOutputs, simdKernel, type Dense } from './simd-kernel.js';

interface Placed {
  readonly inputs: number;
  readonly blocks: number;
  /** Bytes. */
  readonly weightsAt: number;
  readonly biasAt: number;
}

/** Rows there is room for at first. */
const rowsFirst = 160;

export class SimdScorer {
  readonly inputs: number;
  readonly outputs: number;
  readonly #network: Network;
  #rowsMax = 0;
  #dense!: Dense;
  #memory!: Float32Array<ArrayBuffer>;
  #placed: readonly Placed[] = [];
  /** Numbers from the start of the memory. */
  #rowsAt = 0;
  #frontAt = 0;
  #backAt = 0;

  /** @throws MODEL_INVALID for a network that `checkNetwork` refuses. */
  constructor(network: Network) {
    this.#network = checkNetwork(network);
    this.inputs = inputsOf(network);
    this.outputs = outputsOf(network);
    this.#layOut(rowsFirst);
  }

  score(rows: Float32Array, count: number, out: Float32Array): void {
    if (count === 0) return;
    if (count > this.#rowsMax) this.#layOut(2 * count);
    const { inputs, outputs } = this;
    const memory = this.#memory;
    const numbers = count * inputs;
    const rowsAt = this.#rowsAt;
    for (let index = 0; index < numbers; index += 1) memory[rowsAt + index] = rows[index] as number;
    let fromAt = rowsAt;
    let stride = inputs;
    let toAt = this.#frontAt;
    let spareAt = this.#backAt;
    const placed = this.#placed;
    const last = placed.length - 1;
    for (let index = 0; index <= last; index += 1) {
      const layer = placed[index] as Placed;
      const { blocks, weightsAt, biasAt } = layer;
      this.#dense(
        4 * fromAt,
        count,
        4 * stride,
        layer.inputs,
        weightsAt,
        biasAt,
        4 * toAt,
        blocks,
        index < last ? 1 : 0,
      );
      stride = blocks * blockOutputs;
      fromAt = toAt;
      toAt = spareAt;
      spareAt = fromAt;
    }
    for (let row = 0; row < count; row += 1) {
      for (let output = 0; output < outputs; output += 1) {
        out[row * outputs + output] = memory[fromAt + row * stride + output] as number;
      }
    }
  }

  #layOut(rowsMax: number): void {
    const { layers } = this.#network;
    const padded = (outputs: number): number => Math.ceil(outputs / blockOutputs) * blockOutputs;
    const widest = layers.reduce((most, layer) => Math.max(most, padded(layer.out)), 0);
    const weights = layers.reduce((sum, layer) => sum + (layer.in + 1) * padded(layer.out), 0);
    const { dense, memory } = simdKernel(4 * (weights + rowsMax * (this.inputs + 2 * widest)));
    let at = 0;
    this.#placed = layers.map((layer): Placed => {
      const blocks = padded(layer.out) / blockOutputs;
      const weightsAt = at;
      for (let block = 0; block < blocks; block += 1) at = placeBlock(layer, block, memory, at);
      const biasAt = at;
      memory.set(layer.bias, biasAt);
      at += blocks * blockOutputs;
      return { inputs: layer.in, blocks, weightsAt: 4 * weightsAt, biasAt: 4 * biasAt };
    });
    this.#rowsAt = at;
    this.#frontAt = at + rowsMax * this.inputs;
    this.#backAt = this.#frontAt + rowsMax * widest;
    this.#dense = dense;
    this.#memory = memory;
    this.#rowsMax = rowsMax;
  }
}

/** Writes the weights of 16 outputs, input by input; outputs that pad the layer have 0. */
function placeBlock(layer: Layer, block: number, memory: Float32Array, from: number): number {
  let at = from;
  for (let input = 0; input < layer.in; input += 1) {
    for (let lane = 0; lane < blockOutputs; lane += 1) {
      const output = block * blockOutputs + lane;
      if (output < layer.out) memory[at] = layer.weights[input * layer.out + output] as number;
      at += 1;
    }
  }
  return at;
}
