/**
 * Where the rows of finished requests go: memory, a decision log, a bill.
 *
 * Promises: `record` is called once per request that passed validation, after its answer is on its way; it never throws
 * and never waits. A receiver that is behind drops its oldest rows and counts them.
 */
import type { RequestRecord } from '#core/request-record.js';

export interface Telemetry {
  record(row: RequestRecord): void;
}
