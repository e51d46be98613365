/**
 * Whether a learned policy may be trusted with the decision at hand: pure checks of its rows before and of its scores after.
 * Each answers a reason to leave the decision to the rule, or the empty text.
 */
import type { DispatchCandidate } from './dispatch-view.js';
import type { TrainedRanges } from './policy-file.js';

export type FallbackReason = '' | 'nan' | 'range' | 'rare' | 'stale' | 'disagreement' | 'time' | 'breaker';

export const fallbackReasons: readonly Exclude<FallbackReason, ''>[] = [
  'nan',
  'range',
  'rare',
  'stale',
  'disagreement',
  'time',
  'breaker',
];

/** A feature may lie outside of its range in training by this share of the range. */
const outsideShare = 0.2;
/** So many rare features in the row that was chosen make it one the policy has hardly seen. */
const rareMax = 3;
/** What 32-bit numbers make of a value on the edge. */
const rounding = 1e-6;

/** The ranges as arrays, widened as far as the shield allows. */
export interface ShieldRanges {
  readonly least: Float64Array;
  readonly greatest: Float64Array;
  readonly low: Float64Array;
  readonly high: Float64Array;
}

export function shieldRanges({ least, low, high, greatest }: TrainedRanges): ShieldRanges {
  const margin = (index: number): number => outsideShare * ((greatest[index] ?? 0) - (least[index] ?? 0)) + rounding;
  return {
    least: Float64Array.from(least, (value, index) => value - margin(index)),
    greatest: Float64Array.from(greatest, (value, index) => value + margin(index)),
    low: Float64Array.from(low, (value) => value - rounding),
    high: Float64Array.from(high, (value) => value + rounding),
  };
}

/** `nan` or `range` when a row that may be chosen is no number or lies outside of what training has seen. */
export function checkRow(rows: Float32Array, offset: number, { least, greatest }: ShieldRanges): FallbackReason {
  for (let index = 0; index < least.length; index += 1) {
    const value = rows[offset + index] as number;
    // NaN fails both comparisons.
    if (!(value >= (least[index] as number) && value <= (greatest[index] as number))) {
      return Number.isNaN(value) ? 'nan' : 'range';
    }
  }
  return '';
}

/** `rare` when three or more features of the row are beyond the 0.1 and 99.9 percentiles of training. */
export function checkRare(rows: Float32Array, offset: number, { low, high }: ShieldRanges): FallbackReason {
  let rare = 0;
  for (let index = 0; index < low.length; index += 1) {
    const value = rows[offset + index] as number;
    if (value < (low[index] as number) || value > (high[index] as number)) rare += 1;
  }
  return rare >= rareMax ? 'rare' : '';
}

/** `stale` when nothing recent is known of any candidate that may be chosen. */
export function checkStale(candidates: readonly DispatchCandidate[], staleMsMax: number): FallbackReason {
  for (let index = 0; index < candidates.length; index += 1) {
    const { masked, telemetryAgeMs } = candidates[index] as DispatchCandidate;
    if (masked === '' && telemetryAgeMs <= staleMsMax) return '';
  }
  return 'stale';
}
