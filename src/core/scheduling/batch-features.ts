/**
 * The feature builder of batching: one row for each batch that a device with a free permit may launch, and for each time it
 * may wait instead. As with dispatch, runtime, simulator and trainer all use this one, and its golden vectors pin it.
 *
 * Times are divided by the target of the request at the head of the queue, items by the model's largest batch.
 */

/** Changes whenever a feature's meaning does. */
export const batchSchema = 'batch-1';

export const batchFeatureNames: readonly string[] = [
  'launch',
  'run',
  'wait',
  'head_slack',
  'slack_after',
  'other_slack_after',
  'fill',
  'left',
  'efficiency',
  'arrivals',
  'later_efficiency',
  'other_work',
  'other_queues',
  'urgency',
  'rate',
  'head_age',
];
export const batchFeatureCount = 16;

/** What a device may do now. Mutable and reused. Times in ms. */
export interface BatchCandidate {
  /** Launch `items` of the queue now; otherwise wait for `waitMs`. */
  launch: boolean;
  /** Items of the batch; when waiting, of the batch that could be launched now. */
  items: number;
  /** 0 for a launch. */
  waitMs: number;
  /** A run with `items`, with one item, and with as many as there will be after the wait (and how many those are). */
  runMs: number;
  soloMs: number;
  laterItems: number;
  laterRunMs: number;
  /** Why it may not be chosen; empty when it may. */
  masked: string;
}

/** The queue that a row is about, and the rest of its device. Mutable and reused. Times in ms. */
export interface BatchQueueView {
  queueItems: number;
  itemsMax: number;
  /** From the head's arrival to its target, above 0. */
  headSloMs: number;
  /** From now to the head's target; negative when it is late. */
  headSlackMs: number;
  headAgeMs: number;
  /** Least slack among the device's other queues; Infinity when they are empty. */
  otherSlackMs: number;
  /** Predicted time to drain the device's other queues, and how many of them have work. */
  otherWorkMs: number;
  otherQueues: number;
  /** 0 (most urgent) to 1. */
  urgency: number;
  /** Items that arrive at this queue in a millisecond, recent mean. */
  itemsPerMs: number;
}

export function newBatchCandidate(): BatchCandidate {
  return { launch: true, items: 1, waitMs: 0, runMs: 1, soloMs: 1, laterItems: 1, laterRunMs: 1, masked: '' };
}

export function newBatchQueueView(): BatchQueueView {
  return {
    queueItems: 1,
    itemsMax: 1,
    headSloMs: 1,
    headSlackMs: 1,
    headAgeMs: 0,
    otherSlackMs: Infinity,
    otherWorkMs: 0,
    otherQueues: 0,
    urgency: 0.5,
    itemsPerMs: 0,
  };
}

function clip(value: number): number {
  return value > 3 ? 3 : value < -3 ? -3 : value;
}

/** Writes the row of one choice: `batchFeatureCount` numbers from `offset` on. */
export function writeBatchFeatures(
  queue: BatchQueueView,
  candidate: BatchCandidate,
  out: Float32Array,
  offset: number,
): void {
  const perTarget = 1 / queue.headSloMs;
  const { items, waitMs, runMs, soloMs } = candidate;
  const { itemsMax } = queue;
  const spentMs = waitMs + (candidate.launch ? runMs : candidate.laterRunMs);
  out[offset] = candidate.launch ? 1 : 0;
  out[offset + 1] = clip(runMs * perTarget);
  out[offset + 2] = clip(waitMs * perTarget);
  out[offset + 3] = clip(queue.headSlackMs * perTarget);
  out[offset + 4] = clip((queue.headSlackMs - spentMs) * perTarget);
  out[offset + 5] = clip((queue.otherSlackMs - spentMs) * perTarget);
  out[offset + 6] = clip(items / itemsMax);
  out[offset + 7] = clip((queue.queueItems - (candidate.launch ? items : 0)) / itemsMax);
  out[offset + 8] = clip(runMs / (items * soloMs));
  out[offset + 9] = clip((queue.itemsPerMs * waitMs) / itemsMax);
  out[offset + 10] = clip(candidate.laterRunMs / (candidate.laterItems * soloMs));
  out[offset + 11] = clip(Math.log1p(queue.otherWorkMs * perTarget));
  out[offset + 12] = clip(queue.otherQueues / 8);
  out[offset + 13] = clip(queue.urgency);
  out[offset + 14] = clip(Math.log1p(queue.itemsPerMs * soloMs));
  out[offset + 15] = clip(queue.headAgeMs * perTarget);
}
