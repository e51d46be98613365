/** What `intarsia evaluate --log` asks and is told: estimates of policies from a decision log, and a simulator held against one. */
import type { DamagedLogFile } from './decision-log-report.js';

export interface LogEstimateRequest {
  readonly folder: string;
  /** Learned policies, as `evaluate` takes them. */
  readonly policies: readonly string[];
}

export interface LogEstimateReport {
  readonly policies: readonly PolicyEstimate[];
  readonly damaged: readonly DamagedLogFile[];
}

/** Rewards are means over requests, as in the objective with its sign changed: higher is better. */
export interface PolicyEstimate {
  readonly policy: string;
  readonly decisions: number;
  readonly effectiveDecisions: number;
  /** Share of decisions whose weight was cut. */
  readonly clipped: number;
  readonly logged: RewardEstimate;
  readonly snips: RewardEstimate;
  readonly doublyRobust: RewardEstimate;
}

/** 95 % interval. */
export interface RewardEstimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

export interface CalibrationRequest {
  readonly folder: string;
  /** Fleet file, or the name of one that comes with the product. */
  readonly fleet: string;
  /** The policy that decided; empty for the one that the log names most. */
  readonly policy: string;
  readonly batching: string;
  readonly seed: number;
}

export interface CalibrationReport {
  readonly fleet: string;
  readonly policy: string;
  readonly requests: number;
  /** All answers, then those of each model. */
  readonly rows: readonly CalibrationRow[];
  readonly limits: { readonly ksDistance: number; readonly p50Error: number; readonly p99Error: number };
  readonly damaged: readonly DamagedLogFile[];
}

export interface CalibrationRow {
  /** Empty for all. */
  readonly model: string;
  /** Answers compared. */
  readonly measured: number;
  readonly simulated: number;
  readonly ksDistance: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Simulated over measured, less 1. */
  readonly p50Error: number;
  readonly p99Error: number;
  readonly passed: boolean;
}
