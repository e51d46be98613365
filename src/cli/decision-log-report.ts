/** What the commands about the decision log are handed, and print. */

/** A file of the log that cannot be read. */
export interface DamagedLogFile {
  readonly file: string;
  readonly reason: string;
}

export interface LogQueryRequest {
  readonly folder: string;
  readonly sql: string;
  readonly rowsMax: number;
  readonly msMax: number;
}

export interface LogQueryReport {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
  /** There are more rows than were asked for. */
  readonly isCut: boolean;
  readonly damaged: readonly DamagedLogFile[];
}

export interface ExplainRequest {
  readonly folder: string;
  /** Number of a request, or `RUN/NUMBER`; `last` for the latest that was decided about. */
  readonly request: string;
  /** Device to suppose free, such as `cpu:0` or `host/cpu:0`; empty for none. */
  readonly free: string;
  /** File of the learned policy that decided; empty where a rule did. */
  readonly policyPath: string;
}

export interface ExplainReport {
  readonly run: string;
  readonly request: number;
  readonly model: string;
  readonly class: string;
  readonly items: number;
  readonly sloMs: number;
  /** One for each attempt. */
  readonly decisions: readonly ExplainedDecision[];
  /** Undefined while it is under way, and when the host ended before it did. */
  readonly outcome: ExplainedOutcome | undefined;
  readonly damaged: readonly DamagedLogFile[];
}

export interface ExplainedDecision {
  /** ISO 8601. */
  readonly time: string;
  /** Since the request's arrival, ms. */
  readonly waitedMs: number;
  readonly policy: string;
  /** Why a learned policy left it to its rule; empty when it did not. */
  readonly fallback: string;
  readonly propensity: number;
  readonly candidates: readonly ExplainedCandidate[];
  /** Device chosen; `refused`, or `none` when all were masked. */
  readonly choice: string;
  /** Score of refusing; undefined where it was not scored. */
  readonly refusalScore: number | undefined;
  /** The same policy asked again with the same figures; undefined when it is not at hand. */
  readonly again: string | undefined;
  /** And with `free` having nothing to do. */
  readonly whenFree: SupposedChoice | undefined;
}

export interface SupposedChoice {
  readonly device: string;
  readonly choice: string;
  /** Of `device` then, from now to the answer; undefined when it is no candidate. */
  readonly expectedMs: number | undefined;
  readonly costUsd: number | undefined;
  /** Why it could not have been chosen all the same; empty when it could. */
  readonly masked: string;
}

export interface ExplainedCandidate {
  readonly device: string;
  readonly isChosen: boolean;
  /** Why it could not be chosen; empty when it could. */
  readonly masked: string;
  /** From now to the answer, and its parts, ms. */
  readonly expectedMs: number;
  readonly netMs: number;
  readonly runningMs: number;
  readonly aheadMs: number;
  readonly serviceMs: number;
  /** Left of the target after the answer, ms; below 0: late. */
  readonly slackMs: number;
  readonly queueItems: number;
  readonly costUsd: number;
  readonly score: number | undefined;
}

export interface ExplainedOutcome {
  /** `ok` or a code. */
  readonly outcome: string;
  readonly shed: boolean;
  readonly durationMs: number;
  readonly missed: boolean;
  /** Empty when it was not computed. */
  readonly device: string;
  readonly emulated: boolean;
  readonly queueMs: number | undefined;
  readonly computeMs: number | undefined;
  readonly batchItems: number;
  readonly costUsd: number | undefined;
  readonly joules: number | undefined;
}
