/**
 * A small network as plain numbers: layers of weights with tanh between them, none after the last. Its outputs are heads that
 * score the same row; one head is a plain scorer, three are an ensemble whose disagreement says how sure it is.
 */
import { intarsiaError } from '../errors.js';

export interface Layer {
  readonly in: number;
  readonly out: number;
  /** `in` rows of `out` weights: weight [i][o] is at i * out + o, as TensorFlow.js keeps a dense layer's kernel. */
  readonly weights: Float32Array;
  readonly bias: Float32Array;
}

export interface Network {
  /** At least one; each takes what the one before gives. */
  readonly layers: readonly Layer[];
  readonly activation: 'tanh';
}

/** Bounds of what is loaded: nothing on the hot path needs more. */
export const layersMax = 8;
export const widthMax = 1024;
export const parametersMax = 1_000_000;

export function inputsOf({ layers }: Network): number {
  return layers[0]?.in ?? 0;
}

export function outputsOf({ layers }: Network): number {
  return layers.at(-1)?.out ?? 0;
}

export function parameterCount({ layers }: Network): number {
  return layers.reduce((total, layer) => total + (layer.in + 1) * layer.out, 0);
}

/** @throws MODEL_INVALID for layers that do not fit each other, are beyond the bounds, or hold what is not a finite number. */
export function checkNetwork(network: Network): Network {
  const { layers } = network;
  if (layers.length === 0 || layers.length > layersMax) {
    throw refusal(`it has ${layers.length} layers and may have 1 to ${layersMax}`);
  }
  let inputs = inputsOf(network);
  layers.forEach((layer, index) => {
    const name = `layer ${index}`;
    for (const [what, width] of [
      ['inputs', layer.in],
      ['outputs', layer.out],
    ] as const) {
      if (!Number.isInteger(width) || width < 1 || width > widthMax) {
        throw refusal(`${name} has ${width} ${what} and may have 1 to ${widthMax}`);
      }
    }
    if (layer.in !== inputs) throw refusal(`${name} takes ${layer.in} numbers and gets ${inputs}`);
    if (layer.weights.length !== layer.in * layer.out || layer.bias.length !== layer.out) {
      throw refusal(
        `${name} of ${layer.in} × ${layer.out} has ${layer.weights.length} weights and ${layer.bias.length} biases`,
      );
    }
    if (!layer.weights.every(Number.isFinite) || !layer.bias.every(Number.isFinite)) {
      throw refusal(`${name} holds a number that is not finite`);
    }
    inputs = layer.out;
  });
  const parameters = parameterCount(network);
  if (parameters > parametersMax) throw refusal(`it has ${parameters} parameters and may have ${parametersMax}`);
  return network;
}

function refusal(reason: string): Error {
  return intarsiaError('MODEL_INVALID', `the policy's network cannot be used: ${reason}`, {});
}
