import { describe, expect, it } from 'vitest';
import { errorCatalogue, grpcStatus, intarsiaError } from '#core/errors.js';
import { expectTable } from './markdown-table.js';
import type { ErrorCode } from '#core/errors.js';

const codes = Object.keys(errorCatalogue) as readonly ErrorCode[];

describe('docs/errors.md', () => {
  it('lists every code of the error catalogue with its statuses and meaning, and nothing else', () => {
    expectTable('errors.md', 'errors', [
      ['code', 'retry can help', 'gRPC status', 'HTTP status', 'when, and what to do'],
      ...codes.map((code) => {
        const { retryable, grpc, http, meaning } = errorCatalogue[code];
        return [`\`${code}\``, retryable ? 'yes' : 'no', `${grpc} (${grpcStatus[grpc]})`, String(http), meaning];
      }),
    ]);
  });
});

describe('the error catalogue', () => {
  it('gives every code a status of both protocols and a sentence', () => {
    for (const code of codes) {
      const { http, grpc, meaning } = errorCatalogue[code];
      expect(http, code).toBeGreaterThanOrEqual(400);
      expect(grpcStatus[grpc], code).toBeGreaterThan(0);
      expect(meaning, code).toMatch(/^[A-Z].*\.$/);
      expect(intarsiaError(code, 'x').retryable).toBe(errorCatalogue[code].retryable);
    }
  });

  it('calls retryable only what a client of gRPC would retry too', () => {
    const retried = new Set(
      codes.filter((code) => errorCatalogue[code].retryable).map((code) => errorCatalogue[code].grpc),
    );
    expect([...retried].sort()).toEqual(['RESOURCE_EXHAUSTED', 'UNAVAILABLE']);
  });
});
