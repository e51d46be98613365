/**
 * The implicit states of stateful models: their values between two runs, and before the first.
 */
import { datatypeBytes } from './datatype.js';
import { intarsiaError } from './errors.js';
import { elementCount, formatShape, tensorBytes, type Shape } from './tensor.js';
import type { SequenceState } from './model-config.js';

export interface StateValue {
  /** Without the batch dimension. */
  readonly shape: Shape;
  readonly data: Uint8Array;
}

/** Where every sequence of a model begins. */
export interface InitialStates {
  readonly values: readonly StateValue[];
  readonly key: string;
}

export const emptyState: StateValue = { shape: [], data: new Uint8Array(0) };

/** Shapes of the states as a key: sequences with different ones cannot share a batch. */
export function stateKey(states: readonly StateValue[]): string {
  return states.map((state) => state.shape.join('x')).join(';');
}

/**
 * The states before the first request: as configured, else zeros (empty texts for BYTES). A dimension that may vary starts
 * empty, unless the configured bytes tell its size.
 * @throws INVALID_ARGUMENT when the configured bytes do not fit the dimensions.
 */
export function initialStates(model: string, states: readonly SequenceState[]): InitialStates {
  const values = states.map((state): StateValue => {
    const known = state.dims.map((size) => (size < 0 ? 0 : size));
    if (state.initial === undefined) {
      // An empty text is four zero bytes.
      const bytes = tensorBytes(state.datatype, known) ?? 4 * elementCount(known);
      return { shape: known, data: new Uint8Array(bytes) };
    }
    const shape = initialShape(state.dims, state.initial.byteLength, datatypeBytes(state.datatype));
    const bytes = tensorBytes(state.datatype, shape);
    if (bytes !== undefined && bytes !== state.initial.byteLength) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `model '${model}': the initial state of '${state.inputName}' has ${state.initial.byteLength} bytes; its dims ${formatShape(state.dims)} need ${bytes}`,
      );
    }
    return { shape, data: state.initial };
  });
  return { values, key: stateKey(values) };
}

/** `dims` with its one variable size, if it has one, worked out from the bytes. */
function initialShape(dims: Shape, bytes: number, elementBytes: number): Shape {
  const rest = dims.reduce((product, size) => (size < 0 ? product : product * size), 1);
  if (elementBytes === 0 || rest === 0) return dims.map((size) => Math.max(0, size));
  return dims.map((size) => (size < 0 ? bytes / elementBytes / rest : size));
}
