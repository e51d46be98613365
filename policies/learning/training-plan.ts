/**
 * What a training run does, as plain data, and all it knows between two steps. The plan goes into the run folder and into
 * the manifest; the state is the checkpoint. Both are JSON once `training-state.ts` has packed the arrays.
 */
import type { Layer } from '#core/scheduling/network.js';
import { bcDefaults, type BcOptions } from './bc.js';
import { cemDefaults, type CemOptions, type CemState } from './cem.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import { ppoDefaults, type PpoOptions, type PpoState } from './ppo.js';

/** Runs end after their `seconds` of virtual time or their `requests`, whichever is first; 0 seconds: with their requests. */
export interface TrainingPlan {
  readonly seed: number;
  /**
   * Above 0: learning begins from a network with the rule `cheapest-feasible:share` built in, where the world has one, and
   * not from a drawn one that imitates the best rule.
   */
  readonly ruleShare: number;
  /** 1: a batching network is searched together with the last layer of dispatch, where the world has one to begin with; 0: batches are formed by the world's rule. */
  readonly batching: number;
  /** Share of their time that the fluid programme which networks see fills devices to in training, above 0 to 1. In use it fills them wholly. */
  readonly planShare: number;
  /** Widths of the hidden layers of a drawn network. */
  readonly hidden: readonly number[];
  /** Rules to learn from and to beat: the best of them on the training scenarios is the teacher. */
  readonly rules: readonly string[];
  /** Rules that the policy file may fall back to: the best of those that are among `rules`; where none is, the teacher. */
  readonly fallbacks: readonly string[];
  readonly imitation: BcOptions & {
    readonly episodes: number;
    readonly requests: number;
    readonly seconds: number;
    /** Rounds after the first, in which the network plays and the teacher says what it would have done. */
    readonly corrections: number;
  };
  /** How far the curriculum goes in the search and in validation, 0 to 1; optimisation goes all the way. */
  readonly strain: number;
  readonly search: CemOptions & {
    readonly scenarios: number;
    readonly requests: number;
    readonly seconds: number;
    /** How much more being worse than the best rule counts than being better. */
    readonly worseWeight: number;
    /** Weight of a class's share of misses beyond the best rule's. */
    readonly missWeight: number;
  };
  readonly optimisation: PpoOptions & { readonly requestsFirst: number; readonly requestsLast: number };
  /** Scenarios that are never trained on; the best network on them is the result. */
  readonly validation: {
    readonly scenarios: number;
    readonly requests: number;
    readonly seconds: number;
    readonly every: number;
  };
}

export const fullPlan: TrainingPlan = {
  seed: 1,
  ruleShare: 0.8,
  batching: 1,
  planShare: 1,
  hidden: [32, 32],
  rules: ['cheapest-feasible:0.6', 'cheapest-feasible:0.8', 'cheapest-feasible:1', 'cf-risk:0.02', 'milp-rate'],
  // Not rate matching: until it has seen five seconds of requests it sends them where they are done soonest, whatever the cost.
  fallbacks: ['cheapest-feasible:0.6', 'cheapest-feasible:0.8', 'cheapest-feasible:1', 'cf-risk:0.02'],
  strain: 0.4,
  imitation: { ...bcDefaults, episodes: 12, requests: 1_500, seconds: 0, corrections: 2, epochs: 5 },
  search: {
    ...cemDefaults,
    ...{
      iterations: 27,
      widenEvery: 20,
      population: 32,
      eliteShare: 0.27,
      deviationStart: 0.5,
      deviationShare: 0.25,
      deviationMin: 0.03,
    },
    ...{ scenarios: 12, requests: 3_000, seconds: 0, worseWeight: 1, missWeight: 2 },
  },
  // None: at this length it has not been shown to gain anything over the search.
  optimisation: { ...ppoDefaults, iterations: 0, requestsFirst: 300, requestsLast: 1_500 },
  validation: { scenarios: 12, requests: 4_000, seconds: 0, every: 4 },
};

/** One to three minutes on two cores. */
export const quickPlan: TrainingPlan = {
  ...fullPlan,
  hidden: [16],
  rules: ['cheapest-feasible:0.6', 'cheapest-feasible:0.8', 'sed'],
  imitation: { ...fullPlan.imitation, episodes: 6, requests: 1_000, seconds: 0, corrections: 1, epochs: 6 },
  search: { ...fullPlan.search, iterations: 8, widenEvery: 0, population: 20, scenarios: 6, requests: 800 },
  optimisation: {
    ...fullPlan.optimisation,
    ...{ iterations: 4, sequences: 4, plays: 4, decisionsMax: 4_096, requestsFirst: 200, requestsLast: 400 },
  },
  validation: { scenarios: 4, requests: 800, seconds: 0, every: 4 },
};

export const stages = ['rules', 'imitation', 'search', 'optimisation', 'done'] as const;
export type Stage = (typeof stages)[number];

/** A point of the curves. */
export interface CurvePoint {
  readonly stage: Stage;
  /** Step within the stage. */
  readonly step: number;
  readonly values: Readonly<Record<string, number>>;
}

export interface Candidate {
  readonly stage: Stage;
  readonly step: number;
  /** Mean over validation scenarios of objective ÷ that of the best rule in hindsight, less 1; negative is better. */
  readonly gain: number;
  readonly layers: readonly Layer[];
  /** Empty where a rule forms batches. */
  readonly batchLayers: readonly Layer[];
}

export interface TrainingState {
  readonly stage: Stage;
  readonly step: number;
  readonly teacher: string;
  /** The rule that the policy file falls back to. */
  readonly fallback: string;
  /** Objective of the best rule in hindsight on each validation scenario. */
  readonly ruleObjectives: readonly number[];
  /** Misses of the teacher by class on the validation scenarios. */
  readonly ruleMisses: readonly number[];
  readonly layers: readonly Layer[];
  /** Of the network that forms batches; empty where a rule does. */
  readonly batchLayers: readonly Layer[];
  /** Of the decisions of the last imitation. */
  readonly ranges: TrainedRanges | undefined;
  readonly batchRanges: TrainedRanges | undefined;
  readonly search: CemState | undefined;
  readonly optimisation: PpoState | undefined;
  readonly best: Candidate | undefined;
  readonly curves: readonly CurvePoint[];
}

/** Steps of each stage, and how long one takes compared with others, for a progress bar. */
export function stepsOf(plan: TrainingPlan, stage: Stage): number {
  switch (stage) {
    case 'rules':
      return 1;
    case 'imitation':
      return plan.ruleShare > 0 ? 1 : 1 + plan.imitation.corrections;
    case 'search':
      return plan.search.iterations;
    case 'optimisation':
      return plan.optimisation.iterations;
    case 'done':
      return 0;
  }
}

/** Learning from a decision once takes as long as simulating about so many requests. */
const learningWork = 10;

/** What one step of a stage takes, in simulated requests. */
export function requestsOf(plan: TrainingPlan, stage: Stage): number {
  const { imitation, search, optimisation, validation, rules } = plan;
  switch (stage) {
    case 'rules':
      return rules.length * (validation.scenarios * validation.requests + imitation.episodes * imitation.requests);
    case 'imitation':
      if (plan.ruleShare > 0) return 2 * imitation.episodes * imitation.requests;
      return (
        imitation.episodes * imitation.requests * (1 + 1.5 * imitation.epochs * learningWork) +
        validation.scenarios * validation.requests
      );
    case 'search':
      return (rules.length + search.population) * search.scenarios * search.requests;
    case 'optimisation':
      return (
        optimisation.sequences * optimisation.plays * 0.5 * (optimisation.requestsFirst + optimisation.requestsLast) +
        optimisation.decisionsMax * optimisation.epochs * learningWork
      );
    case 'done':
      return 0;
  }
}

/** Share of the whole that is done before a step, 0 to 1. */
export function shareDone(plan: TrainingPlan, at: { readonly stage: Stage; readonly step: number }): number {
  let total = 0;
  let done = 0;
  for (const stage of stages) {
    const work = requestsOf(plan, stage);
    total += work * stepsOf(plan, stage);
    if (stages.indexOf(stage) < stages.indexOf(at.stage)) done += work * stepsOf(plan, stage);
    if (stage === at.stage) done += work * at.step;
  }
  return total === 0 ? 1 : done / total;
}
