/**
 * Where decisions and what became of their requests are kept for study: training, explanation, audits.
 *
 * Promises: both calls are synchronous, copy what they keep, never wait and never throw. A log that is behind, full or broken
 * loses rows and counts them; it never holds up a request.
 */
import type { EndedRequest } from '#core/decision-log/log-recorder.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';

export interface DecisionLog {
  /** A decision was made; its objects are reused after the call. */
  decided(decision: DispatchDecision): void;
  /** A request is over. */
  finished(ended: EndedRequest): void;
}
