/**
 * The engine of an emulated device that computes nothing: checks inputs like a real one and answers zeros of the right
 * shape, as far as the model file tells shapes. For planning and load tests with models too large for this machine.
 */
import { readFile } from 'node:fs/promises';
import { intarsiaError, messageOf } from '#core/errors.js';
import { readModelFacts, type ModelFacts, type ValueFacts } from '#core/onnx/model-facts.js';
import { elementCount, encodeBytesElements, tensorBytes, type Tensor, type TensorSpec } from '#core/tensor.js';
import type { RunRequest } from '#ports/executor.js';

export interface ZeroModel {
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
}

/** Reads a model file. @throws MODEL_INVALID. */
export async function readFacts(path: string): Promise<ModelFacts> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw intarsiaError('MODEL_INVALID', `file of the model cannot be read: ${messageOf(error)}`, {}, error);
  }
  return readModelFacts(bytes);
}

/** @throws MODEL_INVALID when the file leaves the type of an output to the engine. */
export function zeroModel(facts: ModelFacts): ZeroModel {
  return { inputs: facts.inputs.map(specOf), outputs: facts.outputs.map(specOf) };
}

function specOf(value: ValueFacts): TensorSpec {
  if (value.datatype === undefined) {
    throw intarsiaError('MODEL_INVALID', `the type of ${value.name} is left to an engine, and this device has none`);
  }
  const shape = (value.shape ?? []).map(({ size }) => size);
  return { name: value.name, datatype: value.datatype, shape };
}

/** Zeros for a run. @throws INVALID_ARGUMENT. */
export function zeroOutputs(model: ZeroModel, request: RunRequest, items: number): readonly Tensor[] {
  for (const input of request.inputs) {
    const spec = model.inputs.find((candidate) => candidate.name === input.name);
    if (spec === undefined) throw intarsiaError('INVALID_ARGUMENT', `the model has no input ${input.name}`);
    if (spec.datatype !== input.datatype) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `input ${input.name} has type ${input.datatype}; the model takes ${spec.datatype}`,
      );
    }
    const wanted = tensorBytes(input.datatype, input.shape);
    const bytes = input.chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    if (wanted !== undefined && wanted !== bytes) {
      throw intarsiaError('INVALID_ARGUMENT', `input ${input.name} takes ${wanted} bytes; it has ${bytes}`, {
        bytes,
        bytesWanted: wanted,
      });
    }
  }
  for (const { name } of model.inputs) {
    if (!request.inputs.some((input) => input.name === name)) {
      throw intarsiaError('INVALID_ARGUMENT', `input ${name} is missing`);
    }
  }
  const names = request.outputs.length === 0 ? model.outputs.map((spec) => spec.name) : request.outputs;
  return names.map((name) => {
    const spec = model.outputs.find((candidate) => candidate.name === name);
    if (spec === undefined) throw intarsiaError('INVALID_ARGUMENT', `the model has no output ${name}`);
    const shape = spec.shape.map((size, axis) => (size >= 0 ? size : axis === 0 ? items : 1));
    const bytes = tensorBytes(spec.datatype, shape);
    const data =
      bytes === undefined
        ? encodeBytesElements(Array.from({ length: elementCount(shape) }, () => new Uint8Array(0)))
        : new Uint8Array(bytes);
    return { name, datatype: spec.datatype, shape, data };
  });
}
