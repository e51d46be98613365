/**
 * Judging policies in pairs: every policy meets the same scenarios with the same arrivals and service times (common random
 * numbers), so that differences are the policies' own. A cell is a fleet at a load with one kind of arrivals; within a cell
 * each policy is compared with the best rule of that cell, chosen in hindsight, and intervals come from the bootstrap.
 */
import type { Random } from '#ports/random.js';
import type { EpisodeRecord, Outcomes, Player, Rollouts } from './environment.js';
import { missesByClass } from './returns.js';

export interface EvaluationCell<Scenario> {
  readonly name: string;
  /** One scenario a seed. */
  readonly scenarios: readonly Scenario[];
  /** Lower bound of the mean objective by seed; undefined where none was computed. */
  readonly bounds?: readonly number[];
}

export interface Contender {
  readonly name: string;
  readonly player: Player;
  /** Rules are what others are compared with. */
  readonly isRule: boolean;
}

export interface Figures {
  readonly contender: string;
  /** Mean over seeds. */
  readonly objective: number;
  readonly cost: number;
  readonly energy: number;
  /** Share in time over all requests. */
  readonly inTime: number;
  readonly missRates: readonly number[];
  readonly latencyMsP50: number;
  readonly latencyMsP99: number;
}

export interface Comparison {
  readonly contender: string;
  /** The best rule of the cell in hindsight. */
  readonly against: string;
  /** Mean difference of the objective over the rule's mean objective: -0.05 is 5 % lower. 95 % interval by bootstrap. */
  readonly change: number;
  readonly changeLow: number;
  readonly changeHigh: number;
  /** Change of the miss rate by class, as a share: 0.002 is 0.2 points. */
  readonly missChange: readonly number[];
  /** Share of the rule's distance to the bound that is closed; undefined without a bound. */
  readonly gapClosed: number | undefined;
}

export interface CellReport {
  readonly cell: string;
  readonly figures: readonly Figures[];
  readonly comparisons: readonly Comparison[];
}

export interface EvaluationOptions<Scenario> {
  readonly rollouts: Rollouts<Scenario>;
  readonly classes: readonly string[];
  readonly objective: (outcomes: Outcomes) => number;
  readonly random: Random;
  readonly resamples?: number;
  readonly onCell?: (report: CellReport, share: number) => void;
}

export async function evaluate<Scenario>(
  cells: readonly EvaluationCell<Scenario>[],
  contenders: readonly Contender[],
  options: EvaluationOptions<Scenario>,
): Promise<readonly CellReport[]> {
  const reports: CellReport[] = [];
  for (const cell of cells) {
    const report = await evaluateCell(cell, contenders, options);
    reports.push(report);
    options.onCell?.(report, reports.length / cells.length);
  }
  return reports;
}

async function evaluateCell<Scenario>(
  cell: EvaluationCell<Scenario>,
  contenders: readonly Contender[],
  options: EvaluationOptions<Scenario>,
): Promise<CellReport> {
  const { scenarios, bounds } = cell;
  const { rollouts, classes, objective, random, resamples = 2_000 } = options;
  const orders = contenders.flatMap(({ player }) =>
    scenarios.map((scenario) => ({ scenario, player, dice: 'judge', record: false })),
  );
  const records = await rollouts.run(orders);
  const played = contenders.map((contender, index) => {
    const own = records.slice(index * scenarios.length, (index + 1) * scenarios.length);
    const objectives = own.map(({ outcomes }) => objective(outcomes));
    return { contender, objectives, figures: figuresOf(contender.name, own, objectives, classes.length) };
  });
  const rules = played.filter(({ contender }) => contender.isRule);
  const best = (rules.length > 0 ? rules : played).reduce((left, right) =>
    right.figures.objective < left.figures.objective ? right : left,
  );
  const comparisons = played
    .filter(({ contender }) => !contender.isRule)
    .map(({ contender, objectives, figures }): Comparison => {
      const differences = objectives.map((value, index) => value - (best.objectives[index] ?? 0));
      const stream = random.stream(`${cell.name} ${contender.name}`);
      const interval = bootstrapMean(differences, { random: stream, resamples });
      const scale = best.figures.objective;
      const bound = bounds === undefined ? undefined : mean(bounds);
      return {
        contender: contender.name,
        against: best.contender.name,
        change: mean(differences) / scale,
        changeLow: interval.low / scale,
        changeHigh: interval.high / scale,
        missChange: figures.missRates.map((rate, index) => rate - (best.figures.missRates[index] ?? 0)),
        gapClosed: bound === undefined || scale <= bound ? undefined : (scale - figures.objective) / (scale - bound),
      };
    });
  return { cell: cell.name, figures: played.map(({ figures }) => figures), comparisons };
}

/** 95 % interval of the mean by resampling: the 2.5th and 97.5th hundredths of resampled means. */
export function bootstrapMean(
  values: readonly number[],
  { random, resamples }: { readonly random: Random; readonly resamples: number },
): { readonly low: number; readonly high: number } {
  const means = Float64Array.from({ length: resamples }, () => {
    let sum = 0;
    for (let index = 0; index < values.length; index += 1) sum += values[random.below(values.length)] ?? 0;
    return sum / values.length;
  }).sort();
  const at = (share: number): number => means[Math.min(resamples - 1, Math.floor(share * resamples))] ?? 0;
  return { low: at(0.025), high: at(0.975) };
}

function figuresOf(
  contender: string,
  records: readonly EpisodeRecord[],
  objectives: readonly number[],
  classes: number,
): Figures {
  const { requests, missed } = missesByClass(records, classes);
  const all = requests.reduce((sum, count) => sum + count, 0);
  const late = missed.reduce((sum, count) => sum + count, 0);
  // What was not served has no time to an answer.
  const latencies = Float64Array.from(
    records.flatMap(({ outcomes }) =>
      [...outcomes.doneMs.entries()].flatMap(([index, doneMs]) =>
        outcomes.missed[index] === 1 && (outcomes.lateness[index] ?? 0) <= 0
          ? []
          : [doneMs - (outcomes.arrivedMs[index] ?? 0)],
      ),
    ),
  ).sort();
  const at = (share: number): number =>
    latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] ?? 0;
  return {
    contender,
    objective: mean(objectives),
    cost: mean(records.map(({ outcomes }) => mean(outcomes.cost))),
    energy: mean(records.map(({ outcomes }) => mean(outcomes.energy))),
    inTime: all === 0 ? 1 : 1 - late / all,
    missRates: requests.map((count, index) => (count === 0 ? 0 : (missed[index] ?? 0) / count)),
    latencyMsP50: at(0.5),
    latencyMsP99: at(0.99),
  };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < values.length; index += 1) sum += values[index] ?? 0;
  return values.length === 0 ? 0 : sum / values.length;
}
