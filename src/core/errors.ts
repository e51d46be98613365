/**
 * The error catalogue: every failure a client, an operator or another host can meet, with a stable code.
 *
 * Codes never change their meaning; messages may improve. A message names the thing, the limit and the actual value with
 * units. `docs/errors.md` is the reader's copy of this table and a test keeps the two equal. An error does not survive a
 * thread or a wire by itself: send `toErrorData(error)` and rebuild with `fromErrorData`.
 */

/** gRPC status numbers, as in google.rpc.Code. */
export const grpcStatus = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type GrpcStatusName = keyof typeof grpcStatus;

interface CatalogueRow {
  /** Whether the same request may succeed later or on another replica. */
  readonly retryable: boolean;
  readonly grpc: GrpcStatusName;
  readonly http: number;
  /** When it is raised, and what the caller can do. */
  readonly meaning: string;
}

/** Every code, in the order of docs/errors.md. */
export const errorCatalogue = {
  INVALID_ARGUMENT: {
    retryable: false,
    grpc: 'INVALID_ARGUMENT',
    http: 400,
    meaning: 'The request is malformed: wrong type, shape, byte count, name or option. Mend the request.',
  },
  MODEL_NOT_FOUND: {
    retryable: false,
    grpc: 'NOT_FOUND',
    http: 404,
    meaning: 'No model of that name, or no such version of it, is known. Look at `intarsia models list`.',
  },
  NOT_FOUND: {
    retryable: false,
    grpc: 'NOT_FOUND',
    http: 404,
    meaning: 'Another named thing (device, file, route, sequence) does not exist.',
  },
  MODEL_NOT_READY: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'The model is known but not ready: loading, unloading, or its load failed; the reason is in the message.',
  },
  MODEL_INVALID: {
    retryable: false,
    grpc: 'INVALID_ARGUMENT',
    http: 400,
    meaning:
      'The model or its configuration cannot be served: corrupt, unsupported operator or type, or contradictory.',
  },
  MODEL_QUARANTINED: {
    retryable: false,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'Executors crashed on this artefact again and again; it is kept out until it is loaded explicitly again.',
  },
  QUEUE_FULL: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: "The model's queue holds as many requests or bytes as it may. Retry later or on another replica.",
  },
  QUEUE_TIMEOUT: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'The request waited in the queue for longer than its timeout allows.',
  },
  DEADLINE_EXCEEDED: {
    retryable: false,
    grpc: 'DEADLINE_EXCEEDED',
    http: 504,
    meaning: "The request's deadline passed before an answer was there.",
  },
  CANCELLED: {
    retryable: false,
    grpc: 'CANCELLED',
    http: 499,
    meaning: 'The client went away or cancelled.',
  },
  DEVICE_UNAVAILABLE: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'The device is restarting, failed its canary, or is being drained.',
  },
  EXECUTOR_LOST: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning:
      'The executor died or hung while the request was in flight. The request may be repeated: inference is idempotent.',
  },
  EXECUTION_FAILED: {
    retryable: false,
    grpc: 'INTERNAL',
    http: 500,
    meaning: 'The execution provider reported an error while running the model; its words are in the message.',
  },
  OUT_OF_MEMORY: {
    retryable: false,
    grpc: 'RESOURCE_EXHAUSTED',
    http: 507,
    meaning: 'The device has too little memory for the model; the message says how many bytes are missing.',
  },
  REQUEST_TOO_LARGE: {
    retryable: false,
    grpc: 'RESOURCE_EXHAUSTED',
    http: 413,
    meaning: 'The request exceeds a size limit that the message names.',
  },
  RESOURCE_EXHAUSTED: {
    retryable: true,
    grpc: 'RESOURCE_EXHAUSTED',
    http: 429,
    meaning: 'A bounded resource of the host (connections, streams, sequences, mailbox) is used up. Retry later.',
  },
  UNAUTHENTICATED: {
    retryable: false,
    grpc: 'UNAUTHENTICATED',
    http: 401,
    meaning: 'A token is required and none, or an unknown one, was sent.',
  },
  PERMISSION_DENIED: {
    retryable: false,
    grpc: 'PERMISSION_DENIED',
    http: 403,
    meaning: 'The token is known but may not use this group of the API, this model or this path.',
  },
  ALREADY_EXISTS: {
    retryable: false,
    grpc: 'ALREADY_EXISTS',
    http: 409,
    meaning: 'The thing to be created is there already.',
  },
  FAILED_PRECONDITION: {
    retryable: false,
    grpc: 'FAILED_PRECONDITION',
    http: 409,
    meaning: 'The operation does not fit the present state, such as loading by API when model control is not explicit.',
  },
  UNIMPLEMENTED: {
    retryable: false,
    grpc: 'UNIMPLEMENTED',
    http: 501,
    meaning: 'The protocol knows this operation and this host does not offer it.',
  },
  STORE_UNAVAILABLE: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'The coordination store cannot be reached. Serving goes on; what changes the grid must be tried again.',
  },
  ARTIFACT_DAMAGED: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: "A model file's bytes are not those of its SHA-256. It is thrown away and fetched again from elsewhere.",
  },
  STORAGE_FULL: {
    retryable: false,
    grpc: 'RESOURCE_EXHAUSTED',
    http: 507,
    meaning: 'A disk is full; the message names the path.',
  },
  CONFIG_INVALID: {
    retryable: false,
    grpc: 'INVALID_ARGUMENT',
    http: 400,
    meaning: 'An option of the host or of the command line is wrong; the message names it, its range and the value.',
  },
  UNAVAILABLE: {
    retryable: true,
    grpc: 'UNAVAILABLE',
    http: 503,
    meaning: 'The host is starting, stopping, or no replica can take the request now.',
  },
  INTERNAL: {
    retryable: false,
    grpc: 'INTERNAL',
    http: 500,
    meaning: 'An invariant was broken. This is a bug: please report it with the log.',
  },
} as const satisfies Record<string, CatalogueRow>;

export type ErrorCode = keyof typeof errorCatalogue;

/** Plain values that explain an error: names, limits, actual values; units are part of the key (`bytesMissing`, `waitedMs`). */
export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

/** An expected failure at an edge. `code` decides what the caller can do. */
export class IntarsiaError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'IntarsiaError';
    this.code = code;
    this.details = details;
  }

  /** Whether the same request may succeed later or elsewhere. */
  get retryable(): boolean {
    return errorCatalogue[this.code].retryable;
  }
}

/** Shorthand for `new IntarsiaError`. */
export function intarsiaError(
  code: ErrorCode,
  message: string,
  details?: ErrorDetails,
  cause?: unknown,
): IntarsiaError {
  return new IntarsiaError(code, message, details, cause);
}

/** An error as plain data, for threads, processes and wires. */
export interface ErrorData {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

/** Plain data of any thrown value; what is not an IntarsiaError becomes INTERNAL. */
export function toErrorData(thrown: unknown): ErrorData {
  if (thrown instanceof IntarsiaError) return { code: thrown.code, message: thrown.message, details: thrown.details };
  return { code: 'INTERNAL', message: messageOf(thrown), details: {} };
}

/** The error that `toErrorData` described; an unknown code becomes INTERNAL. */
export function fromErrorData(data: ErrorData): IntarsiaError {
  const code = Object.hasOwn(errorCatalogue, data.code) ? data.code : 'INTERNAL';
  return new IntarsiaError(code, data.message, data.details);
}

/** An IntarsiaError as it is; anything else wrapped as INTERNAL with the original as cause. */
export function asIntarsiaError(thrown: unknown): IntarsiaError {
  return thrown instanceof IntarsiaError ? thrown : new IntarsiaError('INTERNAL', messageOf(thrown), {}, thrown);
}

/** The message of a thrown value of any type. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** A broken invariant: raised by `invariant`, never expected, stops the actor that raised it. */
export class InvariantError extends Error {
  constructor(message: string) {
    super(`invariant broken: ${message}`);
    this.name = 'InvariantError';
  }
}

/** States what must be true at a place where data changes hands. One condition per call. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** The end of an exhaustive switch: a compile error when a case is missing. */
export function unreachable(value: never): never {
  throw new InvariantError(`unexpected ${JSON.stringify(value)}`);
}
