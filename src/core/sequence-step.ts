/** Where a request stands in its sequence; in a file of its own because requests and stages of them both say it. */

/** Triton's sequence parameters. `id` 0n or '' never appears: such a request has no sequence. */
export interface SequenceStep {
  readonly id: bigint | string;
  readonly start: boolean;
  readonly end: boolean;
}
