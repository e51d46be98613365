/** What etcd3 throws, as errors of the Store port. */
import {
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdLeaseInvalidError,
  EtcdPermissionDeniedError,
  GRPCInvalidArgumentError,
  GRPCNotFoundError,
  GRPCOutOfRangeError,
  GRPCUnauthenticatedError,
} from 'etcd3';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';

const denied = [
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdPermissionDeniedError,
  GRPCUnauthenticatedError,
];
const malformed = [GRPCInvalidArgumentError, GRPCOutOfRangeError];

/** `write`: a call whose outcome is unknown when the connection broke after it was sent. */
export function portError(error: unknown, kind: 'read' | 'write'): IntarsiaError {
  if (error instanceof IntarsiaError) return error;
  const message = messageOf(error);
  const is = (classes: readonly (new (...args: never[]) => Error)[]): boolean =>
    classes.some((type) => error instanceof type);
  if (
    is(denied) ||
    /authentication failed|invalid auth token|permission denied|user name is empty|UNAUTHENTICATED/.test(message)
  ) {
    return intarsiaError('PERMISSION_DENIED', `the coordination store refuses this client: ${message}`, {}, error);
  }
  if (message.includes('space exceeded')) {
    return intarsiaError('STORAGE_FULL', `the coordination store is full: ${message}`, {}, error);
  }
  if (is([EtcdLeaseInvalidError, GRPCNotFoundError])) return intarsiaError('NOT_FOUND', message, {}, error);
  if (is(malformed) || /duplicate key|too many operations|too large|not provided/.test(message)) {
    return intarsiaError('INVALID_ARGUMENT', `the coordination store refuses the call: ${message}`, {}, error);
  }
  if (kind === 'write' && !wasNeverSent(message)) {
    const text = `the connection to the coordination store broke and whether the change was made is unknown: ${message}`;
    return intarsiaError('DEADLINE_EXCEEDED', text, {}, error);
  }
  return intarsiaError('STORE_UNAVAILABLE', `the coordination store cannot be reached: ${message}`, {}, error);
}

/** The words of grpc-js for a call that never left. */
function wasNeverSent(message: string): boolean {
  return /No connection established|Failed to connect|ECONNREFUSED|Channel closed before call started|Name resolution failed|too many requests|too many leases/i.test(
    message,
  );
}
