/** An inference request from the user's values to bytes. */
import { intarsiaError } from '#core/errors.js';
import { encodeInferRequest } from '#core/inference-wire.js';
import { noParameters, type InferParameter, type InferParameters, type InferTensor } from '#core/inference-message.js';
import type { SloClass } from '#core/scheduling/slo-class.js';
import type { CallOptions } from './caller.js';
import { toTensor, type DeclaredDatatype, type InputValue } from './tensor-input.js';

/** Inputs by name. */
export type InferInputs = Readonly<Record<string, InputValue>>;

export type ParameterValue = string | number | bigint | boolean;

/** An output wanted, with what is wanted of it. */
export interface OutputRequest {
  readonly name: string;
  /** Best classes wanted instead of the values, at least 1: `OutputTensor.asClassifications()` reads them. */
  readonly classes?: number;
}

/** A step of a sequence: requests that share the state a model keeps. */
export interface SequenceOptions {
  /** Not 0 and not empty. */
  readonly id: number | bigint | string;
  readonly start?: boolean;
  readonly end?: boolean;
}

export interface InferOptions extends CallOptions {
  /** Version of the model; default: the server's choice. */
  readonly version?: string;
  /** Echoed in the answer. Default: empty; in a stream a number of the client's own. */
  readonly id?: string;
  /** Outputs wanted; default: all. */
  readonly outputs?: readonly (string | OutputRequest)[];
  /** 1 is the highest; default: the model's own. */
  readonly priority?: number;
  /** Microseconds the request may wait in the model's queue, where the model lets requests say so. */
  readonly queueTimeoutUs?: number;
  /** Milliseconds within which the answer is useful: what schedulers aim at. Unlike a deadline it ends nothing. */
  readonly sloMs?: number;
  /** How urgent it is: sets a target where `sloMs` does not, and whether it is refused when it would be late anyway. */
  readonly sloClass?: SloClass;
  /** A request of a sequence changes the state on the server, so it is never retried. */
  readonly sequence?: SequenceOptions;
  /** Who pays, beside the tenant that the token names: goes into the receipt. */
  readonly project?: string;
  readonly user?: string;
  /** Further parameters as the protocol has them. Whole numbers travel as int64, others as double. */
  readonly parameters?: Readonly<Record<string, ParameterValue>>;
}

/**
 * The request as bytes.
 * @throws INVALID_ARGUMENT when an input contradicts itself or a parameter cannot be sent.
 */
export function encodeRequest(
  model: string,
  inputs: InferInputs,
  options: InferOptions,
  declared: DeclaredDatatype,
): Uint8Array {
  if (model === '') throw intarsiaError('INVALID_ARGUMENT', 'a request needs the name of a model; it is empty');
  const tensors: InferTensor[] = [];
  for (const [name, value] of Object.entries(inputs)) {
    tensors.push({ ...toTensor(name, value, declared), parameters: noParameters });
  }
  return encodeInferRequest({
    modelName: model,
    modelVersion: options.version ?? '',
    id: options.id ?? '',
    parameters: requestParameters(options),
    inputs: tensors,
    outputs: (options.outputs ?? []).map((output) => {
      const { name, classes } = typeof output === 'string' ? { name: output, classes: undefined } : output;
      return { name, parameters: classes === undefined ? noParameters : classification(name, classes) };
    }),
    rawContents: true,
  }).toBytes();
}

/** Whether the request may be sent twice: inference without a sequence has no effect but its answer. */
export function isRepeatable(options: InferOptions): boolean {
  return options.sequence === undefined && options.parameters?.['sequence_id'] === undefined;
}

function requestParameters(options: InferOptions): InferParameters {
  const parameters = new Map<string, InferParameter>();
  const { sequence } = options;
  if (sequence !== undefined) {
    const id = sequence.id;
    parameters.set(
      'sequence_id',
      typeof id === 'string' ? { kind: 'string', value: id } : parameterOf('sequence.id', id),
    );
    parameters.set('sequence_start', { kind: 'bool', value: sequence.start ?? false });
    parameters.set('sequence_end', { kind: 'bool', value: sequence.end ?? false });
  }
  if (options.priority !== undefined) parameters.set('priority', whole('priority', options.priority));
  if (options.queueTimeoutUs !== undefined) parameters.set('timeout', whole('queueTimeoutUs', options.queueTimeoutUs));
  if (options.sloMs !== undefined) parameters.set('intarsia_slo_ms', parameterOf('sloMs', options.sloMs));
  if (options.sloClass !== undefined) {
    parameters.set('intarsia_slo_class', { kind: 'string', value: options.sloClass });
  }
  if (options.project !== undefined) parameters.set('intarsia_project', { kind: 'string', value: options.project });
  if (options.user !== undefined) parameters.set('intarsia_user', { kind: 'string', value: options.user });
  for (const [name, value] of Object.entries(options.parameters ?? {})) parameters.set(name, parameterOf(name, value));
  return parameters.size === 0 ? noParameters : parameters;
}

function parameterOf(name: string, value: ParameterValue): InferParameter {
  if (typeof value === 'string') return { kind: 'string', value };
  if (typeof value === 'boolean') return { kind: 'bool', value };
  if (typeof value === 'bigint') return { kind: value < 2n ** 63n ? 'int64' : 'uint64', value };
  if (Number.isSafeInteger(value)) return { kind: 'int64', value: BigInt(value) };
  if (Number.isFinite(value)) return { kind: 'double', value };
  throw intarsiaError('INVALID_ARGUMENT', `parameter ${name} must be a finite number; it is ${value}`);
}

function whole(name: string, value: number): InferParameter {
  if (Number.isSafeInteger(value) && value >= 0) return { kind: 'int64', value: BigInt(value) };
  throw intarsiaError('INVALID_ARGUMENT', `${name} must be a whole number of at least 0; it is ${value}`);
}

function classification(output: string, classes: number): InferParameters {
  if (Number.isSafeInteger(classes) && classes >= 1) {
    return new Map([['classification', { kind: 'int64', value: BigInt(classes) }]]);
  }
  throw intarsiaError(
    'INVALID_ARGUMENT',
    `output '${output}': classes must be a whole number of at least 1; it is ${classes}`,
  );
}
