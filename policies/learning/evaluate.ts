/**
 * Judging policies in pairs: every policy meets the same scenarios with the same arrivals and service times (common random
 * numbers), so that differences are the policies' own. A cell is a fleet at a load with one kind of arrivals; within a cell
 * each policy is compared with the best rule of that cell, chosen in hindsight, and intervals come from the bootstrap.
 *
 * Seed by seed all contenders play, so that an evaluation which is stopped still compares like with like.
 */
import type { Random } from '#ports/random.js';
import { bootstrapMean, bootstrapMeanOfGroups } from './bootstrap.js';
import type { Outcomes, Player, Rollouts } from './environment.js';
import {
  figuresOf,
  mean,
  summarise,
  type EpisodeSummary,
  type Figures,
  type ObjectiveParts,
} from './evaluation-figures.js';

export interface EvaluationCell<Scenario> {
  readonly name: string;
  /** One scenario a seed. */
  readonly scenarios: readonly Scenario[];
}

export interface Contender {
  readonly name: string;
  readonly player: Player;
  /** Rules are what others are compared with. */
  readonly isRule: boolean;
  /** Whether it is compared with the rules, though it may be one. Default: when it is none. */
  readonly isJudged?: boolean;
}

export interface Comparison {
  readonly contender: string;
  /** The best rule of the cell in hindsight. */
  readonly against: string;
  /** Mean difference of the objective over the rule's mean objective: -0.05 is 5 % lower. 95 % interval by bootstrap. */
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  /** The differences by seed, in the same unit. */
  readonly changes: readonly number[];
  /** Change of the miss rate by class, as a share: 0.002 is 0.2 points. */
  readonly missChange: readonly number[];
  /** p99 over the rule's, less 1. */
  readonly p99Change: number;
  /** Objective over the bound, less 1; undefined without a bound. */
  readonly gap: number | undefined;
  /** Share of the rule's distance to the bound that is closed; undefined without a bound. */
  readonly gapClosed: number | undefined;
}

export interface CellReport {
  readonly cell: string;
  /** Seeds played; fewer than asked for when it was stopped. */
  readonly seeds: number;
  /** Mean over seeds of the least objective that any policy could reach (LB1). */
  readonly bound: number | undefined;
  readonly figures: readonly Figures[];
  readonly comparisons: readonly Comparison[];
}

export interface EvaluationOptions<Scenario> {
  readonly rollouts: Rollouts<Scenario>;
  readonly classes: readonly string[];
  readonly objective: (outcomes: Outcomes) => ObjectiveParts;
  readonly random: Random;
  readonly resamples?: number;
  /** Whether bounds are asked for. */
  readonly withBounds?: boolean;
  /** After each seed: share of all, 0 to 1, and the cell. */
  readonly onProgress?: (share: number, cell: string) => void;
  readonly onCell?: (report: CellReport) => void;
  /** Asked after each seed: whether to end with what there is. */
  readonly isStopWanted?: () => boolean;
}

/** Cells in their order; when it is stopped, those that were begun. */
export async function evaluate<Scenario>(
  cells: readonly EvaluationCell<Scenario>[],
  contenders: readonly Contender[],
  options: EvaluationOptions<Scenario>,
): Promise<readonly CellReport[]> {
  const { classes, objective, rollouts, withBounds = false, isStopWanted = () => false } = options;
  const reports: CellReport[] = [];
  const total = cells.reduce((sum, { scenarios }) => sum + scenarios.length, 0);
  let done = 0;
  for (const cell of cells) {
    const played: EpisodeSummary[][] = contenders.map(() => []);
    const bounds: number[] = [];
    for (const scenario of cell.scenarios) {
      if (isStopWanted()) break;
      // The first is asked for the bound, which is the same for all.
      const orders = contenders.map(({ player }, index) => ({
        ...{ scenario, player, dice: 'judge', record: false },
        withBound: withBounds && index === 0,
      }));
      const records = await rollouts.run(orders);
      for (const [index, record] of records.entries()) {
        played[index]?.push(summarise(record, classes.length, objective));
        if (record.bound !== undefined) bounds.push(record.bound);
      }
      done += 1;
      options.onProgress?.(done / total, cell.name);
    }
    if ((played[0] ?? []).length === 0) break;
    const report = reportOf(cell.name, contenders, { played, bounds }, options);
    reports.push(report);
    options.onCell?.(report);
  }
  return reports;
}

interface Played {
  /** By contender and seed. */
  readonly played: readonly (readonly EpisodeSummary[])[];
  readonly bounds: readonly number[];
}

function reportOf<Scenario>(
  cell: string,
  contenders: readonly Contender[],
  { played, bounds }: Played,
  { random, resamples = 2_000 }: EvaluationOptions<Scenario>,
): CellReport {
  const rows = contenders.map((contender, index) => {
    const episodes = played[index] ?? [];
    const stream = random.stream(`${cell} ${contender.name}`);
    return {
      contender,
      stream,
      objectives: episodes.map(({ objective }) => objective.total),
      figures: figuresOf(contender.name, episodes, { random: stream.stream('figures'), resamples }),
    };
  });
  const rules = rows.filter(({ contender }) => contender.isRule);
  const best = (rules.length > 0 ? rules : rows).reduce((left, right) =>
    right.figures.objective < left.figures.objective ? right : left,
  );
  const bound = bounds.length === 0 ? undefined : mean(bounds);
  const scale = best.figures.objective;
  const comparisons = rows
    .filter(({ contender }) => contender.isJudged ?? !contender.isRule)
    .map(({ contender, objectives, figures, stream }): Comparison => {
      const changes = objectives.map((value, index) => (value - (best.objectives[index] ?? 0)) / scale);
      const interval = bootstrapMean(changes, { random: stream, resamples });
      return {
        contender: contender.name,
        against: best.contender.name,
        change: mean(changes),
        changeLow: interval.low,
        changeHigh: interval.high,
        changes,
        missChange: figures.missRates.map((rate, index) => rate - (best.figures.missRates[index] ?? 0)),
        p99Change: figures.latencyMsP99 / best.figures.latencyMsP99 - 1,
        gap: bound === undefined || bound <= 0 ? undefined : figures.objective / bound - 1,
        gapClosed: bound === undefined || scale <= bound ? undefined : (scale - figures.objective) / (scale - bound),
      };
    });
  const seeds = best.objectives.length;
  return { cell, seeds, bound, figures: rows.map(({ figures }) => figures), comparisons };
}

/** One contender over all cells; each cell counts the same. */
export interface OverallComparison {
  readonly contender: string;
  readonly cells: number;
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  readonly worstCell: string;
  readonly worstChange: number;
  /** Largest rise of a class's miss rate in any cell, as a share. */
  readonly worstMissChange: number;
  readonly gapClosed: number | undefined;
  readonly fallbackRate: number;
  readonly maskViolations: number;
}

export function overallOf(
  reports: readonly CellReport[],
  options: { readonly random: Random; readonly resamples?: number },
): readonly OverallComparison[] {
  const { random, resamples = 2_000 } = options;
  return (reports[0]?.comparisons ?? []).map(({ contender }) => {
    const own = reports.flatMap((report) => {
      const comparison = report.comparisons.find((each) => each.contender === contender);
      const figures = report.figures.find((each) => each.contender === contender);
      return comparison === undefined || figures === undefined ? [] : [{ cell: report.cell, comparison, figures }];
    });
    const worst = own.reduce((left, right) => (right.comparison.change > left.comparison.change ? right : left));
    const groups = own.map(({ comparison }) => comparison.changes);
    const interval = bootstrapMeanOfGroups(groups, { random: random.stream(`overall ${contender}`), resamples });
    const closed = own.flatMap(({ comparison }) => comparison.gapClosed ?? []);
    return {
      contender,
      cells: own.length,
      change: mean(own.map(({ comparison }) => comparison.change)),
      changeLow: interval.low,
      changeHigh: interval.high,
      worstCell: worst.cell,
      worstChange: worst.comparison.change,
      worstMissChange: Math.max(...own.flatMap(({ comparison }) => comparison.missChange)),
      gapClosed: closed.length === 0 ? undefined : mean(closed),
      fallbackRate: mean(own.map(({ figures }) => figures.fallbackRate)),
      maskViolations: own.reduce((sum, { figures }) => sum + figures.maskViolations, 0),
    };
  });
}
