/** Keeps a ledger by what a gateway's attempts come to. */
import type { InferenceOutcome, InferenceRequest } from '../inference.js';
import type { AttemptObserver, Candidate } from '../picker.js';
import type { DispatchLedger } from './dispatch-ledger.js';

/** Answers beside success: reused, nobody keeps them. */
const failed = { ok: false, batchItems: 0, computeMs: 0 };

export class LedgerObserver implements AttemptObserver {
  readonly #ledger: DispatchLedger;
  readonly #answer = { ok: true, batchItems: 0, computeMs: 0 };

  constructor(ledger: DispatchLedger) {
    this.#ledger = ledger;
  }

  began({ replica }: Candidate, { items, sloClass }: InferenceRequest, nowMs: number): void {
    this.#ledger.sent(this.#ledger.laneOf(replica), items, sloClass ?? 'standard', nowMs);
  }

  ended(
    { replica }: Candidate,
    { items, sloClass }: InferenceRequest,
    nowMs: number,
    outcome: InferenceOutcome | undefined,
  ): void {
    const lane = this.#ledger.laneOf(replica);
    if (outcome === undefined) {
      this.#ledger.withdrawn(lane, items, sloClass ?? 'standard', nowMs);
      return;
    }
    if (!outcome.ok) {
      // A client that went away or whose deadline passed says nothing against the device.
      const { code } = outcome.error;
      if (code === 'CANCELLED' || code === 'DEADLINE_EXCEEDED' || code === 'INVALID_ARGUMENT') {
        this.#ledger.withdrawn(lane, items, sloClass ?? 'standard', nowMs);
      } else this.#ledger.answered(lane, items, sloClass ?? 'standard', nowMs, failed);
      return;
    }
    const { receipt } = outcome;
    const answer = this.#answer;
    answer.batchItems = receipt.batchItems;
    answer.computeMs = (receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs) / 1000;
    this.#ledger.answered(lane, items, sloClass ?? 'standard', nowMs, answer);
  }
}
