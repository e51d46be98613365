/** What `intarsia train` asks for and is told. */
import type { DamagedLogFile } from './decision-log-report.js';
import type { PolicyEstimate } from './log-evaluation-report.js';

export interface TrainRequest {
  /** YAML file with parts of the plan; empty for none. */
  readonly configPath: string;
  /** Fleet files; empty for those of the product. */
  readonly fleets: readonly string[];
  readonly traces: readonly string[];
  readonly seed: number | undefined;
  /** Threads that play episodes; 0 plays on the main thread. */
  readonly workers: number;
  /** Stops after so many minutes, as an interrupt does; undefined: when the plan is done. */
  readonly minutes: number | undefined;
  readonly quick: boolean;
  /** Folder of the run. */
  readonly out: string;
  /** Folder of a run to continue; empty for a new one. */
  readonly resume: string;
  readonly backend: 'tensorflow' | 'wasm' | 'cpu' | undefined;
  /** Learned policy whose networks training begins with: a file, or the name of one that comes with the product; empty for none. */
  readonly from: string;
}

export interface TrainProgress {
  /** 0 to 1. */
  readonly share: number;
  readonly stage: string;
  readonly step: number;
  readonly steps: number;
  /** Estimate; undefined before the first step. */
  readonly leftMs: number | undefined;
  /** Of the best network, against the best rule in hindsight; undefined before the first was judged. */
  readonly gain: number | undefined;
}

export interface TrainReport {
  readonly folder: string;
  /** False when it was stopped before its end. */
  readonly isDone: boolean;
  /** Policy file; empty when it stopped before there was a network. */
  readonly policyPath: string;
  readonly policySha256: string;
  /** The best of the rules, to be imitated. */
  readonly teacher: string;
  /** The rule that the policy falls back to. */
  readonly fallback: string;
  /** Mean change of the objective against the best rule in hindsight on validation scenarios: -0.05 is 5 % lower. */
  readonly gain: number;
  /** Where the best network came from. */
  readonly bestStage: string;
  readonly backend: string;
  readonly steps: number;
}

export interface TrainWatch {
  /** After each step, and before the first. */
  readonly onStep: (progress: TrainProgress) => void;
  /** Asked after each step: whether to save and end. */
  readonly isStopWanted: () => boolean;
}

/** What `intarsia train --from-log` asks for. */
export interface LogTrainRequest {
  /** Folder of the decision log. */
  readonly folder: string;
  /** The learned policy that is tuned: a file, or the name of one that comes with the product. */
  readonly policy: string;
  /** YAML file with parts of the plan; empty for none. */
  readonly configPath: string;
  readonly seed: number | undefined;
  readonly out: string;
  readonly backend: TrainRequest['backend'];
}

/** An estimate on decisions that nothing was learned from, or why there is none. */
export type HeldOutReport = Omit<PolicyEstimate, 'policy'> | { readonly reason: string };

export interface LogTrainReport {
  readonly folder: string;
  readonly policyPath: string;
  readonly policySha256: string;
  readonly backend: string;
  /** Decisions that were learned from, and how many of them the result really rests on. */
  readonly decisions: number;
  readonly effectiveDecisions: number;
  /** Share of the returns' variance that could be foretold. */
  readonly explained: number;
  /** Share of decisions that were drawn, not certain. */
  readonly explored: number;
  readonly before: HeldOutReport;
  readonly after: HeldOutReport;
  readonly damaged: readonly DamagedLogFile[];
}
