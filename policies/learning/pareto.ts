/**
 * What a contender is worth to those who weigh money, misses and energy otherwise than the objective does. The policies are
 * trained for one weight and take none when they decide; what changes with the weight is the best rule, and who wins.
 */
import type { Figures } from './evaluation-figures.js';

/** Weights of cost, of misses (λ: price of one) and of energy (η). */
export interface Preference {
  readonly missWeight: number;
  readonly energyWeight: number;
}

/** λ the figures were made with. */
const missWeightOfFigures = 10;

export const preferences: readonly Preference[] = [
  ...[1, 3, 10, 30, 100].map((missWeight) => ({ missWeight, energyWeight: 0 })),
  { missWeight: 10, energyWeight: 1 },
];

export interface ParetoPoint {
  readonly contender: string;
  /** Means over cells: C/c_ref, misses with lateness in units of one miss, E/e_ref. */
  readonly cost: number;
  readonly misses: number;
  readonly energy: number;
  /** Whether no other contender is at least as good in all three and better in one. */
  readonly isFront: boolean;
  /** Objective by preference, in the order of `preferences`. */
  readonly objectives: readonly number[];
}

export function paretoOf(cells: readonly { readonly figures: readonly Figures[] }[]): readonly ParetoPoint[] {
  const [first] = cells;
  if (first === undefined) return [];
  const points = first.figures.map(({ contender }, index) => {
    const meanOf = (value: (figures: Figures) => number): number =>
      cells.reduce((sum, { figures }) => sum + value(figures[index] as Figures), 0) / cells.length;
    return {
      contender,
      cost: meanOf((figures) => figures.cost),
      misses: meanOf((figures) => figures.missCost / missWeightOfFigures),
      energy: meanOf((figures) => figures.energy),
    };
  });
  return points.map((point) => ({
    ...point,
    isFront: !points.some((other) => dominates(other, point)),
    objectives: preferences.map(
      ({ missWeight, energyWeight }) => point.cost + missWeight * point.misses + energyWeight * point.energy,
    ),
  }));
}

type Place = Pick<ParetoPoint, 'cost' | 'misses' | 'energy'>;

function dominates(left: Place, right: Place): boolean {
  const isNoWorse = left.cost <= right.cost && left.misses <= right.misses && left.energy <= right.energy;
  return isNoWorse && (left.cost < right.cost || left.misses < right.misses || left.energy < right.energy);
}
