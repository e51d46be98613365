/**
 * One row per finished request: what ran where, how long each part took, what it cost, how it ended. The one source for
 * status, billing and the learned scheduler; names are stable because rows outlive releases.
 */
import type { ErrorCode } from './errors.js';
import type { Billing } from './billing.js';
import type { InferenceOutcome, InferenceRequest } from './inference.js';
import type { ModelName, ModelVersion, RequestId } from './ids.js';
import type { Receipt } from './receipt.js';

/** Version of the row's shape; grows when a field changes its meaning. */
export const requestRecordVersion = 1;

export interface RequestRecord {
  readonly version: typeof requestRecordVersion;
  readonly request: RequestId;
  readonly model: ModelName;
  readonly modelVersion: ModelVersion;
  readonly billing: Billing;
  readonly items: number;
  readonly inputBytes: number;
  readonly priority: number;
  /** Milliseconds since 1970 when the gateway had the whole request: for people and bills. */
  readonly arrivedWallMs: number;
  /** Milliseconds from arrival to the answer, monotonic. */
  readonly durationMs: number;
  /** Milliseconds the client allowed; undefined without a deadline. */
  readonly allowedMs?: number;
  readonly outcome: 'ok' | ErrorCode;
  /** Answered well and within its deadline: what goodput counts. */
  readonly good: boolean;
  /** Present when it was computed. */
  readonly receipt?: Receipt;
}

export interface FinishedRequest {
  readonly request: InferenceRequest;
  readonly outcome: InferenceOutcome;
  /** Monotonic milliseconds, same clock as `request.arrivedMs`. */
  readonly finishedMs: number;
  /** Wall clock at `finishedMs`. */
  readonly finishedWallMs: number;
}

/** The row of a finished request. Pure. */
export function makeRequestRecord({ request, outcome, finishedMs, finishedWallMs }: FinishedRequest): RequestRecord {
  const durationMs = Math.max(0, finishedMs - request.arrivedMs);
  return {
    version: requestRecordVersion,
    request: request.id,
    model: request.model,
    modelVersion: request.version,
    billing: request.billing,
    items: request.items,
    inputBytes: request.bytes,
    priority: request.priority,
    arrivedWallMs: finishedWallMs - durationMs,
    durationMs,
    ...(Number.isFinite(request.deadlineMs) ? { allowedMs: request.deadlineMs - request.arrivedMs } : {}),
    outcome: outcome.ok ? 'ok' : outcome.error.code,
    good: outcome.ok && finishedMs <= request.deadlineMs,
    ...(outcome.ok ? { receipt: outcome.receipt } : {}),
  };
}
