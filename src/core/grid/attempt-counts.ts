/** How often a gateway tried: plain numbers on the hot path, read by whoever shows metrics. */

/** Why another attempt was made. */
export type RetryReason = 'failed' | 'overdue';

export class AttemptCounts {
  attempts = 0;
  /** Attempts after a failed one, and beside one that took too long. */
  readonly retries: Record<RetryReason, number> = { failed: 0, overdue: 0 };
  /** Retries that the budget refused. */
  refused = 0;
  hedges = 0;
  bans = 0;
  /** Answers that came when another attempt had answered already. */
  late = 0;
}
