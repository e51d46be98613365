/**
 * Errors as gRPC statuses. Beside status and message, the trailing metadata carry our own code and details
 * (`intarsia-code`, `intarsia-details` as JSON), so that our client need not guess.
 */
import { Metadata, status as Status, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { errorCatalogue, type IntarsiaError } from '#core/errors.js';

/** Longest message and details sent, characters: headers are small, and names in messages come from clients. */
const messageLengthMax = 1024;
const detailsLengthMax = 1024;

/** What a unary handler hands to its callback. */
export function statusOf(error: IntarsiaError): Partial<StatusObject> {
  const metadata = new Metadata();
  metadata.set('intarsia-code', error.code);
  const details = ascii(JSON.stringify(error.details));
  if (details !== '{}' && details.length <= detailsLengthMax) metadata.set('intarsia-details', details);
  return {
    code: Status[errorCatalogue[error.code].grpc],
    details: wellFormed(error.message),
    metadata,
  };
}

/** The same as the trailers of an HTTP/2 stream. */
export function trailersOf(error: IntarsiaError): Record<string, string> {
  const { code, details, metadata } = statusOf(error);
  const trailers: Record<string, string> = {
    'grpc-status': String(code),
    'grpc-message': encodeURI(details ?? ''),
  };
  for (const [name, value] of Object.entries(metadata?.getMap() ?? {})) trailers[name] = String(value);
  return trailers;
}

/** What ends a stream with a status. */
export function streamErrorOf(error: IntarsiaError): ServiceError {
  return Object.assign(new Error(wellFormed(error.message)), statusOf(error)) as ServiceError;
}

/** The message in at most the allowed length, without halves of surrogate pairs, which percent-encoding refuses. */
function wellFormed(message: string): string {
  const text = message.length <= messageLengthMax ? message : `${message.slice(0, messageLengthMax)}…`;
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');
}

/** JSON with everything outside of printable ASCII escaped: what metadata may hold. */
function ascii(json: string): string {
  return json.replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
