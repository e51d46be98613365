/** What an evaluation says of one contender in one cell: every column of the report, from the episodes it played there. */
import type { Objective } from '#core/scheduling/objective.js';
import { bootstrapMean, type BootstrapOptions } from './bootstrap.js';
import type { EpisodeRecord, EpisodeTotals, Outcomes } from './environment.js';
import { missesByClass } from './returns.js';

/** The part of an objective that evaluations need: the whole, and what of it is cost. */
export type ObjectiveParts = Pick<Objective, 'total' | 'cost' | 'energy'>;

/** An episode, without what no report needs. */
export interface EpisodeSummary {
  readonly objective: ObjectiveParts;
  /** Mean of E/e_ref. */
  readonly energy: number;
  readonly requests: readonly number[];
  readonly missed: readonly number[];
  /** Of what was answered, ms. */
  readonly latenciesMs: Float32Array;
  readonly totals: EpisodeTotals;
}

export interface Figures {
  readonly contender: string;
  readonly seeds: number;
  /** Mean over seeds, and its 95 % interval. */
  readonly objective: number;
  readonly objectiveLow: number;
  readonly objectiveHigh: number;
  /** Parts of the objective: cost, and the price of misses and lateness. */
  readonly cost: number;
  readonly missCost: number;
  /** Mean of E/e_ref, whatever weight the objective gives it. */
  readonly energy: number;
  readonly usdPerThousand: number;
  readonly joulesPerRequest: number;
  /** Answers in time, a second. */
  readonly goodput: number;
  /** Share in time over all requests. */
  readonly inTime: number;
  /** By class; 0 for a class without requests. */
  readonly missRates: readonly number[];
  readonly latencyMsP50: number;
  readonly latencyMsP99: number;
  /** Share of decisions that a shield left to the fallback rule: of dispatch or of batching, whichever is more. */
  readonly fallbackRate: number;
  readonly maskViolations: number;
}

const noTotals: EpisodeTotals = {
  ...{ usd: 0, joules: 0, spanMs: 0, decisions: 0, fallbacks: 0, maskViolations: 0 },
  ...{ batchDecisions: 0, batchFallbacks: 0 },
};

export function summarise(
  record: EpisodeRecord,
  classes: number,
  objective: (outcomes: Outcomes) => ObjectiveParts,
): EpisodeSummary {
  const { outcomes, totals = noTotals } = record;
  const { doneMs, arrivedMs, missed, lateness } = outcomes;
  const latenciesMs = new Float32Array(doneMs.length);
  let answered = 0;
  for (let index = 0; index < doneMs.length; index += 1) {
    // What was not served has no time to an answer.
    if (missed[index] === 1 && (lateness[index] ?? 0) <= 0) continue;
    latenciesMs[answered] = (doneMs[index] ?? 0) - (arrivedMs[index] ?? 0);
    answered += 1;
  }
  return {
    objective: objective(outcomes),
    energy: mean(outcomes.energy),
    ...missesByClass([record], classes),
    latenciesMs: latenciesMs.slice(0, answered),
    totals,
  };
}

export function figuresOf(contender: string, episodes: readonly EpisodeSummary[], options: BootstrapOptions): Figures {
  const objectives = episodes.map(({ objective }) => objective.total);
  const interval = bootstrapMean(objectives, options);
  const requests = columnSums(episodes.map((each) => each.requests));
  const missed = columnSums(episodes.map((each) => each.missed));
  const all = requests.reduce((sum, count) => sum + count, 0);
  const inTime = all - missed.reduce((sum, count) => sum + count, 0);
  const total = (of: (totals: EpisodeTotals) => number): number =>
    episodes.reduce((sum, { totals }) => sum + of(totals), 0);
  const spanMs = total((each) => each.spanMs);
  const decisions = total((each) => each.decisions);
  const batchDecisions = total((each) => each.batchDecisions);
  const latencies = pooled(episodes.map(({ latenciesMs }) => latenciesMs)).sort();
  const percentile = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] ?? 0;
  return {
    contender,
    seeds: episodes.length,
    objective: mean(objectives),
    objectiveLow: interval.low,
    objectiveHigh: interval.high,
    cost: mean(episodes.map(({ objective }) => objective.cost)),
    missCost: mean(episodes.map(({ objective }) => objective.total - objective.cost - objective.energy)),
    energy: mean(episodes.map(({ energy }) => energy)),
    usdPerThousand: all === 0 ? 0 : (total(({ usd }) => usd) / all) * 1_000,
    joulesPerRequest: all === 0 ? 0 : total(({ joules }) => joules) / all,
    goodput: spanMs > 0 ? (inTime / spanMs) * 1_000 : 0,
    inTime: all === 0 ? 1 : inTime / all,
    missRates: requests.map((count, index) => (count === 0 ? 0 : (missed[index] ?? 0) / count)),
    latencyMsP50: percentile(0.5),
    latencyMsP99: percentile(0.99),
    // Of whichever is left to its rule more often: who chooses replicas or who forms batches.
    fallbackRate: Math.max(
      decisions === 0 ? 0 : total(({ fallbacks }) => fallbacks) / decisions,
      batchDecisions === 0 ? 0 : total(({ batchFallbacks }) => batchFallbacks) / batchDecisions,
    ),
    maskViolations: total(({ maskViolations }) => maskViolations),
  };
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < values.length; index += 1) sum += values[index] ?? 0;
  return values.length === 0 ? 0 : sum / values.length;
}

function columnSums(rows: readonly (readonly number[])[]): number[] {
  return (rows[0] ?? []).map((_, column) => rows.reduce((sum, row) => sum + (row[column] ?? 0), 0));
}

function pooled(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
