/**
 * What a client may say beside its tensors: Triton's sequence, priority and timeout parameters, and ours with the prefix
 * `intarsia_`. Everything is checked here once; parameters of other names belong to nobody and are passed over.
 */
import { intarsiaError } from '#core/errors.js';
import { anonymousTenant, tenantId } from '#core/ids.js';
import type { Billing } from '#core/billing.js';
import type { SequenceStep } from '#core/inference.js';
import { isSloClass, sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import type { InferParameter, InferParameters } from '#core/inference-message.js';
import type { Caller, InferCall } from '#ports/inference-gateway.js';

export interface RequestParameters {
  readonly sequence: SequenceStep | undefined;
  readonly priority: number;
  readonly queueTimeoutUs: number;
  /** Milliseconds from arrival; Infinity when none is given. */
  readonly deadlineInMs: number;
  readonly sloMs: number;
  /** Undefined when the client does not say. */
  readonly sloClass: SloClass | undefined;
  /** The only device that may run it; empty for any. */
  readonly device: string;
  readonly billing: Billing;
}

/** Longest text of `intarsia_project`, `intarsia_user` and a textual `sequence_id`, characters. */
const textLengthMax = 256;

const anonymousBilling: Billing = { tenant: anonymousTenant, project: '', user: '' };
const plainParameters: RequestParameters = {
  sequence: undefined,
  priority: 0,
  queueTimeoutUs: 0,
  deadlineInMs: Infinity,
  sloMs: 0,
  sloClass: undefined,
  device: '',
  billing: anonymousBilling,
};

/** @throws INVALID_ARGUMENT for a value of the wrong type or range, a reserved or misspelt name; PERMISSION_DENIED for another's tenant. */
export function readParameters(parameters: InferParameters, call: InferCall): RequestParameters {
  const { caller } = call;
  if (parameters.size === 0 && call.sloMs === 0) {
    if (caller.tenant === anonymousTenant) return plainParameters;
    return { ...plainParameters, billing: { tenant: caller.tenant, project: '', user: '' } };
  }
  let sequenceId: bigint | string = 0n;
  let start = false;
  let end = false;
  let priority = 0;
  let queueTimeoutUs = 0;
  let deadlineInMs = Infinity;
  let sloMs = call.sloMs;
  let sloClass: SloClass | undefined;
  let tenant = caller.tenant;
  let device = '';
  let project = '';
  let user = '';
  for (const [key, parameter] of parameters) {
    switch (key) {
      case 'sequence_id':
        sequenceId = parameter.kind === 'string' ? text(key, parameter) : unsigned(key, parameter);
        break;
      case 'sequence_start':
        start = flag(key, parameter);
        break;
      case 'sequence_end':
        end = flag(key, parameter);
        break;
      case 'priority':
        priority = wholeNumber(key, parameter);
        break;
      case 'timeout':
        queueTimeoutUs = wholeNumber(key, parameter);
        break;
      case 'binary_data_output':
        flag(key, parameter);
        break;
      case 'headers':
        throw reserved(key);
      case 'intarsia_deadline_ms':
        deadlineInMs = milliseconds(key, parameter);
        break;
      case 'intarsia_slo_ms':
        sloMs = milliseconds(key, parameter);
        break;
      case 'intarsia_device':
        device = text(key, parameter);
        break;
      case 'intarsia_slo_class':
        sloClass = classOf(key, text(key, parameter));
        break;
      case 'intarsia_tenant':
        tenant = namedTenant(text(key, parameter), caller);
        break;
      case 'intarsia_project':
        project = text(key, parameter);
        break;
      case 'intarsia_user':
        user = text(key, parameter);
        break;
      default:
        if (key.startsWith('triton_') && !call.reservedParameters.has(key)) throw reserved(key);
        if (key.startsWith('intarsia_')) {
          throw intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' is not known to this host`, {});
        }
    }
  }
  return {
    sequence: sequenceId === 0n || sequenceId === '' ? undefined : { id: sequenceId, start, end },
    priority,
    queueTimeoutUs,
    deadlineInMs,
    sloMs,
    sloClass,
    device,
    billing: { tenant, project, user },
  };
}

function classOf(key: string, name: string): SloClass {
  if (isSloClass(name)) return name;
  throw intarsiaError('INVALID_ARGUMENT', `parameter '${key}' is '${name}'; it may be ${sloClasses.join(', ')}`, {
    parameter: key,
  });
}

function namedTenant(name: string, caller: Caller): Billing['tenant'] {
  if (caller.namesTenant) return tenantId(name);
  if (name === caller.tenant) return caller.tenant;
  throw intarsiaError('PERMISSION_DENIED', `the token belongs to tenant '${caller.tenant}', not to '${name}'`, {
    tenant: caller.tenant,
  });
}

function reserved(key: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' is reserved and should not be set`, {});
}

function flag(key: string, parameter: InferParameter): boolean {
  if (parameter.kind !== 'bool') throw wrongKind(key, 'a boolean', parameter);
  return parameter.value;
}

function text(key: string, parameter: InferParameter): string {
  if (parameter.kind !== 'string') throw wrongKind(key, 'a text', parameter);
  if (parameter.value.length > textLengthMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `parameter '${key}' may have at most ${textLengthMax} characters; it has ${parameter.value.length}`,
      { limit: textLengthMax, length: parameter.value.length },
    );
  }
  return parameter.value;
}

function unsigned(key: string, parameter: InferParameter): bigint {
  if ((parameter.kind !== 'int64' && parameter.kind !== 'uint64') || parameter.value < 0n) {
    throw wrongKind(key, 'a whole number of 0 or more', parameter);
  }
  return parameter.value;
}

function wholeNumber(key: string, parameter: InferParameter): number {
  const value = unsigned(key, parameter);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw wrongKind(key, 'a whole number below 2^53', parameter);
  return Number(value);
}

/** More than 0; numbers with fractions are welcome. */
function milliseconds(key: string, parameter: InferParameter): number {
  const value = parameter.kind === 'double' ? parameter.value : wholeNumber(key, parameter);
  if (!(value > 0 && value <= Number.MAX_SAFE_INTEGER)) throw wrongKind(key, 'more than 0 milliseconds', parameter);
  return value;
}

function wrongKind(key: string, wanted: string, parameter: InferParameter): Error {
  const actual = parameter.kind === 'string' ? 'a text' : `${parameter.kind} ${String(parameter.value)}`;
  return intarsiaError('INVALID_ARGUMENT', `parameter '${key}' must be ${wanted}; it is ${actual}`, { parameter: key });
}
