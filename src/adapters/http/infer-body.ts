/**
 * The body of a REST inference request: JSON, JSON followed by raw tensors (the binary-tensor extension), or nothing but
 * one tensor. What names and shapes mean is the gateway's business.
 */
import { isDatatype } from '#core/datatype.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import {
  dimensionsMax,
  noParameters,
  parametersMax,
  tensorsMax,
  type InferParameter,
  type InferParameters,
  type InferRequestMessage,
  type InferTensor,
  type RequestedOutput,
} from '#core/inference-message.js';
import type { Shape } from '#core/tensor.js';
import { formatBytes } from '#core/units.js';
import { dataFromJson } from './json-tensors.js';

/** Longest JSON part. JSON takes many times its size in memory; tensors belong behind it as binary data. */
export const jsonBytesMax = 64 * 1024 * 1024;

export interface BodyContext {
  readonly modelName: string;
  readonly modelVersion: string;
  /** Value of `Inference-Header-Content-Length`, if sent. */
  readonly jsonLength: string | undefined;
}

/**
 * @throws INVALID_ARGUMENT for a body that is not such a request, REQUEST_TOO_LARGE for JSON beyond `jsonBytesMax`.
 */
export function readInferBody(body: Buffer, context: BodyContext): InferRequestMessage {
  const jsonBytes = jsonLengthOf(body, context.jsonLength);
  const request = parseJson(body, jsonBytes);
  const tensors = new BinaryTensors(body, jsonBytes);
  const inputs = listOf(request['inputs'], 'inputs', tensorsMax).map((input) => readInput(input, tensors));
  tensors.expectEnd();
  const outputs =
    request['outputs'] === undefined ? [] : listOf(request['outputs'], 'outputs', tensorsMax).map(readOutput);
  return {
    modelName: context.modelName,
    modelVersion: context.modelVersion,
    id: request['id'] === undefined ? '' : textOf(request['id'], 'id'),
    parameters: readParameters(request['parameters'], 'parameters'),
    inputs,
    outputs,
    rawContents: true,
  };
}

/** A request that is nothing but the bytes of the model's only input. */
export function rawBody(
  body: Uint8Array,
  context: BodyContext,
  input: { readonly name: string; readonly datatype: string; readonly shape: Shape },
): InferRequestMessage {
  return {
    modelName: context.modelName,
    modelVersion: context.modelVersion,
    id: '',
    parameters: noParameters,
    inputs: [{ ...input, parameters: noParameters, data: plainBytes(body) }],
    outputs: [],
    rawContents: true,
  };
}

function jsonLengthOf(body: Buffer, header: string | undefined): number {
  const length = header === undefined ? body.byteLength : Number(header);
  if (!Number.isInteger(length) || length < 0 || length > body.byteLength) {
    throw refused(`Inference-Header-Content-Length is '${header ?? ''}', but the body has ${body.byteLength} bytes`);
  }
  if (length > jsonBytesMax) {
    throw intarsiaError(
      'REQUEST_TOO_LARGE',
      `the JSON of a request may have ${formatBytes(jsonBytesMax)}; this one has ${formatBytes(length)}: send tensors as binary data`,
      { limitBytes: jsonBytesMax, jsonBytes: length },
    );
  }
  return length;
}

/** The same bytes as a plain Uint8Array: a Buffer's `slice` does not copy, which would surprise whoever gets it. */
function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

type JsonObject = Readonly<Record<string, unknown>>;

/** The JSON object at the beginning of the body. @throws INVALID_ARGUMENT */
export function parseJson(body: Buffer, jsonBytes: number = body.byteLength): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8', 0, jsonBytes));
  } catch (error) {
    throw refused(`the request is not JSON: ${messageOf(error).slice(0, 200)}`);
  }
  return objectOf(parsed, 'the request');
}

/** The raw tensors behind the JSON, in the order of the inputs. */
class BinaryTensors {
  readonly #body: Buffer;
  #position: number;

  constructor(body: Buffer, position: number) {
    this.#body = body;
    this.#position = position;
  }

  take(name: string, bytes: number): Uint8Array {
    const end = this.#position + bytes;
    if (end > this.#body.byteLength) {
      throw refused(
        `binary data of input '${name}' has ${bytes} bytes by its parameter, but ${this.#body.byteLength - this.#position} are left in the body`,
      );
    }
    const data = plainBytes(this.#body.subarray(this.#position, end));
    this.#position = end;
    return data;
  }

  expectEnd(): void {
    const left = this.#body.byteLength - this.#position;
    if (left !== 0) throw refused(`${left} bytes of the body belong to no input`);
  }
}

function readInput(value: unknown, tensors: BinaryTensors): InferTensor {
  const input = objectOf(value, 'an input');
  const name = textOf(input['name'], 'the name of an input');
  const datatype = textOf(input['datatype'], `datatype of input '${name}'`);
  const shape = shapeOf(input['shape'], name);
  const parameters = readParameters(input['parameters'], `parameters of input '${name}'`);
  const size = parameters.get('binary_data_size');
  if (size === undefined) {
    if (!isDatatype(datatype)) throw refused(`input '${name}' has the unknown datatype '${datatype.slice(0, 80)}'`);
    if (parameters.has('shared_memory_region')) return { name, datatype, shape, parameters, data: new Uint8Array() };
    return { name, datatype, shape, parameters, data: dataFromJson(name, datatype, shape, input['data']) };
  }
  if (input['data'] !== undefined) throw refused(`input '${name}' has both data and binary_data_size`);
  if (size.kind !== 'int64' || size.value < 0n) {
    throw refused(`binary_data_size of input '${name}' must be a whole number of bytes`);
  }
  return { name, datatype, shape, parameters, data: tensors.take(name, Number(size.value)) };
}

function readOutput(value: unknown): RequestedOutput {
  const output = objectOf(value, 'an output');
  const name = textOf(output['name'], 'the name of an output');
  return { name, parameters: readParameters(output['parameters'], `parameters of output '${name}'`) };
}

/** JSON parameters: whole numbers become int64, others double. @throws INVALID_ARGUMENT for lists, objects and null. */
export function readParameters(value: unknown, what: string): InferParameters {
  if (value === undefined) return noParameters;
  const entries = Object.entries(objectOf(value, what));
  if (entries.length > parametersMax)
    throw refused(`${what} may be at most ${parametersMax}; there are ${entries.length}`);
  return new Map(entries.map(([key, parameter]) => [key, parameterOf(key, parameter)]));
}

function parameterOf(key: string, value: unknown): InferParameter {
  switch (typeof value) {
    case 'boolean':
      return { kind: 'bool', value };
    case 'string':
      return { kind: 'string', value };
    case 'number':
      return Number.isSafeInteger(value) ? { kind: 'int64', value: BigInt(value) } : { kind: 'double', value };
    default:
      throw refused(`parameter '${key.slice(0, 80)}' must be a boolean, a number or a text`);
  }
}

function shapeOf(value: unknown, name: string): number[] {
  const shape = listOf(value, `shape of input '${name}'`, dimensionsMax);
  for (const size of shape) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size)) {
      throw refused(`shape of input '${name}' must be a list of whole numbers`);
    }
  }
  return shape as number[];
}

function listOf(value: unknown, what: string, max: number): unknown[] {
  if (!Array.isArray(value)) throw refused(`${what} must be a list`);
  if (value.length > max) throw refused(`${what} may have at most ${max} entries; there are ${value.length}`);
  return value;
}

function objectOf(value: unknown, what: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw refused(`${what} must be a JSON object`);
  return value as JsonObject;
}

function textOf(value: unknown, what: string): string {
  if (typeof value !== 'string') throw refused(`${what} must be a text`);
  return value;
}

function refused(message: string): Error {
  return intarsiaError('INVALID_ARGUMENT', message);
}
