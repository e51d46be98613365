/**
 * A failed call as an IntarsiaError. Our own hosts name the code and the details in the trailing metadata; of other
 * servers the gRPC status, and here and there the wording, decide.
 */
import {
  errorCatalogue,
  grpcStatus,
  intarsiaError,
  type ErrorCode,
  type ErrorDetails,
  type IntarsiaError,
} from '#core/errors.js';
import type { CallFailure } from '#adapters/grpc/client-channel.js';
import type { EndpointVerdict } from './endpoint-picker.js';

const codeOfStatus: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [grpcStatus.CANCELLED, 'CANCELLED'],
  [grpcStatus.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
  [grpcStatus.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
  [grpcStatus.NOT_FOUND, 'NOT_FOUND'],
  [grpcStatus.ALREADY_EXISTS, 'ALREADY_EXISTS'],
  [grpcStatus.PERMISSION_DENIED, 'PERMISSION_DENIED'],
  [grpcStatus.RESOURCE_EXHAUSTED, 'RESOURCE_EXHAUSTED'],
  [grpcStatus.FAILED_PRECONDITION, 'FAILED_PRECONDITION'],
  [grpcStatus.ABORTED, 'UNAVAILABLE'],
  [grpcStatus.OUT_OF_RANGE, 'INVALID_ARGUMENT'],
  [grpcStatus.UNIMPLEMENTED, 'UNIMPLEMENTED'],
  [grpcStatus.UNAVAILABLE, 'UNAVAILABLE'],
  [grpcStatus.UNAUTHENTICATED, 'UNAUTHENTICATED'],
]);

/** Statuses that mean several things, told apart by what Triton and gRPC libraries write. */
const wordings: readonly { readonly status: number; readonly pattern: RegExp; readonly code: ErrorCode }[] = [
  { status: grpcStatus.NOT_FOUND, pattern: /unknown model|model .*not found/i, code: 'MODEL_NOT_FOUND' },
  { status: grpcStatus.UNAVAILABLE, pattern: /exceeds maximum queue size/i, code: 'QUEUE_FULL' },
  { status: grpcStatus.UNAVAILABLE, pattern: /request timeout expired/i, code: 'QUEUE_TIMEOUT' },
  {
    status: grpcStatus.UNAVAILABLE,
    pattern: /model .*(is )?not ready|has no available versions/i,
    code: 'MODEL_NOT_READY',
  },
  {
    status: grpcStatus.RESOURCE_EXHAUSTED,
    pattern: /larger than/i,
    code: 'REQUEST_TOO_LARGE',
  },
  // The connection went in the moment in which the call was to begin: nothing was sent.
  { status: grpcStatus.INTERNAL, pattern: /Failed to start HTTP\/2 stream/, code: 'UNAVAILABLE' },
];

/** Silence of at least this long counts against an endpoint. */
const silenceMsMin = 1000;

/** The error of a failed call. `details.endpoint` names where it happened. */
export function errorOfFailure(failure: CallFailure, endpoint: string): IntarsiaError {
  const code = namedCode(failure.metadata) ?? guessedCode(failure.status, failure.message);
  const details = { ...namedDetails(failure.metadata), endpoint, grpcStatus: failure.status };
  const unreachable = isUnreachable(failure);
  return intarsiaError(
    code,
    unreachable ? `endpoint ${endpoint} cannot be reached: ${withoutNote(failure.message)}` : failure.message,
    details,
  );
}

/** The transport ends what it says with a note on name resolution, empty for addresses. */
function withoutNote(message: string): string {
  return message.replace(/\.? *Resolution note: *$/, '');
}

/** The code that a message without a status deserves: errors inside a stream carry text only. */
export function codeOfText(message: string): ErrorCode {
  return wordings.find(({ pattern }) => pattern.test(message))?.code ?? 'INVALID_ARGUMENT';
}

/** What a failed attempt of this length says about its endpoint. */
export function verdictOf(failure: CallFailure, error: IntarsiaError, attemptMs: number): EndpointVerdict {
  if (error.code === 'UNAVAILABLE' || error.code === 'EXECUTOR_LOST') return 'failed';
  // A host that hangs answers nothing, and the deadline is all there is to see. A short deadline proves nothing, and a
  // host that is alive says in the metadata that the deadline has passed.
  if (error.code === 'DEADLINE_EXCEEDED' && namedCode(failure.metadata) === undefined) {
    return attemptMs >= silenceMsMin ? 'failed' : 'unknown';
  }
  return error.code === 'CANCELLED' ? 'unknown' : 'healthy';
}

function isUnreachable(failure: CallFailure): boolean {
  return (
    failure.status === grpcStatus.UNAVAILABLE &&
    namedCode(failure.metadata) === undefined &&
    /ECONN|ENOTFOUND|EHOST|ETIMEDOUT|No connection established|Name resolution|Connection dropped|read E/i.test(
      failure.message,
    )
  );
}

function guessedCode(status: number, message: string): ErrorCode {
  const worded = wordings.find((row) => row.status === status && row.pattern.test(message));
  return worded?.code ?? codeOfStatus.get(status) ?? 'INTERNAL';
}

function namedCode(metadata: CallFailure['metadata']): ErrorCode | undefined {
  const name = metadata['intarsia-code'];
  return name !== undefined && isErrorCode(name) ? name : undefined;
}

/** Whether the text is a code of the catalogue. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorCatalogue, text);
}

function namedDetails(metadata: CallFailure['metadata']): ErrorDetails {
  const text = metadata['intarsia-details'];
  if (text === undefined) return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    // Details explain; an error without them is still the right error.
    return {};
  }
  if (typeof parsed !== 'object' || parsed === null) return {};
  return Object.fromEntries(
    Object.entries(parsed).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value)),
  );
}
