/** Errors as REST answers: the status of the catalogue, `{"error": "…"}`, and our code in a header. */
import type { ServerResponse } from 'node:http';
import { asIntarsiaError, errorCatalogue, intarsiaError, IntarsiaError } from '#core/errors.js';

/** Longest message sent, characters: names in messages come from clients. */
const messageLengthMax = 1024;

export function statusOf(error: IntarsiaError): number {
  return errorCatalogue[error.code].http;
}

export function errorJson(error: IntarsiaError): string {
  const { message } = error;
  return JSON.stringify({
    error: message.length <= messageLengthMax ? message : `${message.slice(0, messageLengthMax)}…`,
  });
}

/** Writes the whole answer; does nothing when one has begun or the client is gone. */
export function sendError(
  response: ServerResponse,
  error: IntarsiaError,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent || response.destroyed) return;
  const body = Buffer.from(errorJson(error));
  response.writeHead(statusOf(error), {
    'content-type': 'application/json',
    'content-length': body.byteLength,
    'intarsia-code': error.code,
    ...headers,
  });
  response.end(body);
}

/** What the web framework throws, in our words. */
export function fromFramework(thrown: unknown): IntarsiaError {
  if (thrown instanceof IntarsiaError) return thrown;
  const statusCode =
    typeof thrown === 'object' && thrown !== null && 'statusCode' in thrown ? thrown.statusCode : undefined;
  if (statusCode === 413) return intarsiaError('REQUEST_TOO_LARGE', 'the request is too large', {}, thrown);
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
    return intarsiaError(
      'INVALID_ARGUMENT',
      thrown instanceof Error ? thrown.message : 'the request is malformed',
      {},
      thrown,
    );
  }
  return asIntarsiaError(thrown);
}
