/** What `intarsia evaluate` asks and is told: plain data between the command line and the program. */

export interface EvaluationRequest {
  /** Rules by name, learned policies by file or by the name of one that comes with the product, modules of one's own. */
  readonly policies: readonly string[];
  /** Rules of which the best of each cell is what policies are compared with. */
  readonly rules: readonly string[];
  /** Rules are tried with each; policies without `@batching` behind their name go with the first. */
  readonly batching: readonly string[];
  /** Fleet files, or names of those that come with the product. */
  readonly fleets: readonly string[];
  readonly traces: readonly string[];
  /** Streams as written, such as `poisson`. */
  readonly arrivals: readonly string[];
  readonly loads: readonly number[];
  readonly seeds: number;
  /** Of an episode. */
  readonly requests: number;
  /** Length of a run in virtual seconds, in the place of `requests`; 0: `requests` says. */
  readonly seconds: number;
  readonly stress: boolean;
  readonly bounds: boolean;
  readonly seed: number;
  /** Threads; 0 plays on the main thread. */
  readonly workers: number;
  /** File of the page; empty for none. */
  readonly htmlPath: string;
}

export interface EvaluationWatch {
  /** Share done, 0 to 1, and a few words. */
  readonly onProgress: (share: number, words: string) => void;
  /** Asked now and then: whether to end with what there is. */
  readonly isStopWanted: () => boolean;
}

export interface EvaluationReport {
  /** False when it was stopped. */
  readonly isDone: boolean;
  readonly classes: readonly string[];
  readonly contenders: readonly string[];
  /** Digests of the learned policies among them, so that a report speaks for these bytes and no others. */
  readonly files: readonly { readonly contender: string; readonly sha256: string }[];
  readonly cells: readonly EvaluationCellReport[];
  /** One row a policy, over all cells. */
  readonly overall: readonly EvaluationOverall[];
  readonly preferences: readonly { readonly missWeight: number; readonly energyWeight: number }[];
  readonly pareto: readonly EvaluationPareto[];
  /** Cells of the stress suite, and a verdict on each; empty when it was not asked for. */
  readonly stress: readonly EvaluationCellReport[];
  readonly verdicts: readonly StressVerdict[];
  readonly htmlPath: string;
}

export interface EvaluationCellReport {
  readonly cell: string;
  readonly seeds: number;
  readonly bound: number | undefined;
  readonly figures: readonly EvaluationFigures[];
  readonly comparisons: readonly EvaluationComparison[];
}

export interface EvaluationFigures {
  readonly contender: string;
  readonly objective: number;
  readonly objectiveLow: number;
  readonly objectiveHigh: number;
  readonly cost: number;
  readonly missCost: number;
  readonly energy: number;
  readonly usdPerThousand: number;
  readonly joulesPerRequest: number;
  readonly goodput: number;
  readonly missRates: readonly number[];
  readonly latencyMsP50: number;
  readonly latencyMsP99: number;
  readonly fallbackRate: number;
  readonly maskViolations: number;
}

export interface EvaluationComparison {
  readonly contender: string;
  readonly against: string;
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  readonly missChange: readonly number[];
  readonly p99Change: number;
  readonly gap: number | undefined;
  readonly gapClosed: number | undefined;
}

export interface EvaluationOverall {
  readonly contender: string;
  readonly cells: number;
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  readonly worstCell: string;
  readonly worstChange: number;
  readonly worstMissChange: number;
  readonly gapClosed: number | undefined;
  readonly fallbackRate: number;
  readonly maskViolations: number;
}

export interface EvaluationPareto {
  readonly contender: string;
  readonly cost: number;
  readonly misses: number;
  readonly energy: number;
  readonly isFront: boolean;
  readonly objectives: readonly number[];
}

export interface StressVerdict {
  readonly cell: string;
  readonly contender: string;
  /** The better of the policy's fallback and the default rule. */
  readonly against: string;
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  readonly fallbackRate: number;
  readonly maskViolations: number;
  readonly passed: boolean;
}
