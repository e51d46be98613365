/**
 * An answer as REST writes it: a JSON object, and behind it the tensors the client wants as binary data. The JSON is
 * written by hand: it is small, its keys are known, and its tensors are the only large part.
 */
import type { Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import type {
  InferParameters,
  InferRequestMessage,
  InferResponseMessage,
  InferTensor,
} from '#core/inference-message.js';
import { dataToJson } from './json-tensors.js';

export interface EncodedAnswer {
  readonly json: string;
  /** Bytes of the JSON in UTF-8. */
  readonly jsonBytes: number;
  /** Raw tensors that follow the JSON, in the order of the outputs. */
  readonly tensors: readonly Uint8Array[];
  readonly byteLength: number;
}

/** Which outputs a client wants as binary data: its word for all, and its word for single ones. */
export interface BinaryWishes {
  readonly all: boolean;
  readonly single: ReadonlyMap<string, boolean> | undefined;
}

/** @throws INVALID_ARGUMENT when a wish is no boolean. */
export function binaryWishes(message: InferRequestMessage): BinaryWishes {
  let single: Map<string, boolean> | undefined;
  for (const { name, parameters } of message.outputs) {
    if (parameters.size === 0) continue;
    const wish = flagOf(parameters, 'binary_data');
    if (wish !== undefined) (single ??= new Map<string, boolean>()).set(name, wish);
  }
  return { all: flagOf(message.parameters, 'binary_data_output') ?? false, single };
}

function flagOf(parameters: InferParameters, key: string): boolean | undefined {
  const parameter = parameters.get(key);
  if (parameter === undefined) return undefined;
  if (parameter.kind !== 'bool') throw intarsiaError('INVALID_ARGUMENT', `parameter '${key}' must be a boolean`);
  return parameter.value;
}

/** @throws INVALID_ARGUMENT when an output wanted in JSON has no JSON form. */
export function encodeAnswer(answer: InferResponseMessage, wishes: BinaryWishes): EncodedAnswer {
  const tensors: Uint8Array[] = [];
  let tensorBytes = 0;
  let outputs = '';
  for (const output of answer.outputs) {
    if (outputs !== '') outputs += ',';
    if (wishes.single?.get(output.name) ?? wishes.all) {
      outputs += `{${headOf(output)},"parameters":{"binary_data_size":${output.data.byteLength}}}`;
      tensors.push(output.data);
      tensorBytes += output.data.byteLength;
    } else {
      outputs += `{${headOf(output)},"data":${dataToJson(output.name, output.datatype as Datatype, output.data)}}`;
    }
  }
  const id = answer.id === '' ? '' : `"id":${JSON.stringify(answer.id)},`;
  const json =
    `{${id}"model_name":${JSON.stringify(answer.modelName)},"model_version":"${answer.modelVersion}",` +
    `${parametersJson(answer.parameters)}"outputs":[${outputs}]}`;
  const jsonBytes = Buffer.byteLength(json);
  return { json, jsonBytes, tensors, byteLength: jsonBytes + tensorBytes };
}

/** The whole answer in one piece. */
export function joinAnswer({ json, jsonBytes, tensors, byteLength }: EncodedAnswer): Buffer {
  const whole = Buffer.allocUnsafe(byteLength);
  whole.write(json, 0, 'utf8');
  let at = jsonBytes;
  for (const tensor of tensors) {
    whole.set(tensor, at);
    at += tensor.byteLength;
  }
  return whole;
}

function headOf({ name, datatype, shape }: InferTensor): string {
  return `"name":${JSON.stringify(name)},"datatype":"${datatype}","shape":[${shape.join(',')}]`;
}

/** `"parameters":{…},` or nothing. */
function parametersJson(parameters: InferParameters): string {
  if (parameters.size === 0) return '';
  let entries = '';
  for (const [key, { kind, value }] of parameters) {
    if (entries !== '') entries += ',';
    entries += `${JSON.stringify(key)}:${kind === 'string' ? JSON.stringify(value) : String(value)}`;
  }
  return `"parameters":{${entries}},`;
}
