/** Whoever forms batches in an episode, one policy for each device, and what their shields did. */
import { batchFeatureCount } from '#core/scheduling/batch-features.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import { LearnedBatching } from '#policies/batching/batching-learned.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import type { Batcher } from './environment.js';

/** What a learned batching policy leaves decisions to, and takes the sizes of batches from. */
export const batchFallback = 'deadline-cap+shed';
/** Of so many decisions one shows its rows, and so many numbers are kept of an episode. */
const recordEvery = 7;
const numbersMax = 20_000 * batchFeatureCount;

export interface BatchPlayer {
  readonly make: () => BatchingPolicy;
  readonly counts: () => { readonly batchDecisions: number; readonly batchFallbacks: number };
  readonly rows: readonly number[];
}

export function batchPlayer(batcher: Batcher, record: boolean): BatchPlayer {
  const made: LearnedBatching[] = [];
  const rows: number[] = [];
  let decisions = 0;
  const onRows = (all: Float32Array, count: number): void => {
    decisions += 1;
    if (decisions % recordEvery !== 0) return;
    for (let index = 0; index < count * batchFeatureCount && rows.length < numbersMax; index += 1) {
      rows.push(all[index] as number);
    }
  };
  const kept = (policy: LearnedBatching): LearnedBatching => {
    made.push(policy);
    return policy;
  };
  const maker = (): (() => BatchingPolicy) => {
    if (typeof batcher === 'string') return () => batchingByName(batcher);
    if (batcher.kind === 'policy') {
      const make = batchingFromFile(batcher.bytes);
      return () => kept(make());
    }
    const { layers } = batcher;
    return () =>
      kept(
        new LearnedBatching({
          name: 'network',
          scorer: new SimdScorer({ layers, activation: 'tanh' }),
          fallback: batchingByName(batchFallback),
          ...(record ? { onRows } : {}),
        }),
      );
  };
  return {
    make: maker(),
    counts: () => ({
      batchDecisions: made.reduce((sum, { counts }) => sum + counts.decisions, 0),
      batchFallbacks: made.reduce((sum, { counts }) => sum + counts.fallbacks, 0),
    }),
    rows,
  };
}
