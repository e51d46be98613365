/**
 * The learned batching policy: one small network scores what the device may do now, launch the batch that a rule would launch,
 * a larger one of the same queue, or wait a little for companions, and the best is done. Around it the shield of dispatch: what lies outside of what training has
 * seen, and queues about which too little is known, are left to a rule.
 *
 * What the rules lack is the whole device: waiting is safe only while every queue that waits behind can still be in time. Slack
 * is therefore reckoned as if the queues ran one after another by their targets. All rows of a decision are measured by the
 * target of the most urgent queue, so that they can be compared.
 */
import {
  batchFeatureCount,
  newBatchCandidate,
  newBatchQueueView,
  writeBatchFeatures,
} from '#core/scheduling/batch-features.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import { checkRow, shieldRanges, type ShieldRanges } from '#core/scheduling/shield.js';
import type { Scorer } from '#ports/scorer.js';
import type { BatchingPolicy, LaunchChoice, LaunchView } from './batching-policy.js';

export interface LearnedBatchingOptions {
  readonly name: string;
  /** Of one head. */
  readonly scorer: Scorer;
  /** Absent while it is trained: then nothing is out of range. */
  readonly ranges?: TrainedRanges;
  /** Says which batch would be launched now, never waits, and decides when the network must not. */
  readonly fallback: BatchingPolicy;
  /** Shown the rows of a decision: for the ranges of training. */
  readonly onRows?: (rows: Float32Array, count: number) => void;
}

export interface BatchingCounts {
  decisions: number;
  fallbacks: number;
}

/** Queues that are looked at; of more, the rule decides. */
const queuesMax = 16;
/** Shares of the most urgent head's slack that may be waited. */
const waits = [0.05, 0.1, 0.2, 0.4];
/** Two sizes of a batch, and waiting. */
const rowsMax = 2 + waits.length;
/** A head that has waited for this share of its target is not kept waiting any more. */
const waitedShareMax = 0.5;
/** Time over which arrivals are averaged, ms. */
const rateMs = 2_000;

interface Arrivals {
  /** Recent mean of items a ms, too low by `unseen` while little time has been seen. */
  perMs: number;
  /** Weight that the mean gives to times before the first look. */
  unseen: number;
  queued: number;
  launched: number;
  seenMs: number;
}

export class LearnedBatching implements BatchingPolicy {
  readonly name: string;
  readonly decidesAlone = true;
  readonly sheds = true;
  readonly counts: BatchingCounts = { decisions: 0, fallbacks: 0 };
  readonly #options: LearnedBatchingOptions;
  readonly #ranges: ShieldRanges | undefined;
  readonly #arrivals = new WeakMap<LaunchView, Arrivals>();
  readonly #queue = newBatchQueueView();
  readonly #candidate = newBatchCandidate();
  readonly #rows = new Float32Array(rowsMax * batchFeatureCount);
  readonly #scores = new Float32Array(rowsMax);
  /** What each row stands for: the queue and its items, or −1 and how long to wait. */
  readonly #rowQueue = new Int32Array(rowsMax);
  readonly #rowItems = new Float64Array(rowsMax);
  /** Queues by the target of their heads; by place: time to run a batch, slack, least slack before and from there on. */
  readonly #order = new Int32Array(queuesMax);
  readonly #runMs = new Float64Array(queuesMax);
  readonly #slackMs = new Float64Array(queuesMax);
  readonly #before = new Float64Array(queuesMax + 1);
  readonly #after = new Float64Array(queuesMax + 1);
  /** What the rule would launch. */
  readonly #ruled: LaunchChoice = { queue: -1, itemsMax: 1, untilMs: Infinity };

  constructor(options: LearnedBatchingOptions) {
    this.name = options.name;
    this.#options = options;
    this.#ranges = options.ranges === undefined ? undefined : shieldRanges(options.ranges);
  }

  choose(views: readonly LaunchView[], nowMs: number, choice: LaunchChoice): void {
    this.counts.decisions += 1;
    for (let index = 0; index < views.length; index += 1) this.#note(views[index] as LaunchView, nowMs);
    if (!this.#isKnown(views) || !this.#decide(views, nowMs, choice)) {
      this.counts.fallbacks += 1;
      this.#options.fallback.choose(views, nowMs, choice);
    }
    const view = views[choice.queue];
    const about = view === undefined ? undefined : this.#arrivals.get(view);
    if (view !== undefined && about !== undefined) {
      about.launched += Math.min(view.queuedItems, view.itemsMax, choice.itemsMax);
    }
  }

  /** Whether every queue has a target and measured runs: without them there is nothing to score. */
  #isKnown(views: readonly LaunchView[]): boolean {
    if (views.length > queuesMax) return false;
    for (let index = 0; index < views.length; index += 1) {
      const view = views[index] as LaunchView;
      if (view.nearestTargetMs === Infinity || !(view.runMs(1) > 0)) return false;
      if (!(view.nearestTargetMs > view.oldestArrivedMs)) return false;
    }
    return true;
  }

  /** Counts what has come since the last look. */
  #note(view: LaunchView, nowMs: number): void {
    const about = this.#arrivals.get(view);
    if (about === undefined) {
      this.#arrivals.set(view, { perMs: 0, unseen: 1, queued: view.queuedItems, launched: 0, seenMs: nowMs });
      return;
    }
    const elapsedMs = nowMs - about.seenMs;
    if (elapsedMs <= 0) return;
    const arrived = Math.max(0, view.queuedItems - about.queued + about.launched);
    const left = Math.exp(-elapsedMs / rateMs);
    about.perMs = about.perMs * left + (arrived / elapsedMs) * (1 - left);
    about.unseen *= left;
    about.queued = view.queuedItems;
    about.launched = 0;
    about.seenMs = nowMs;
  }

  /** Writes the choice; false where it is left to the rule. */
  #decide(views: readonly LaunchView[], nowMs: number, choice: LaunchChoice): boolean {
    const rows = this.#rows;
    const urgent = this.#sort(views, nowMs);
    const first = views[urgent] as LaunchView;
    const targetMs = first.nearestTargetMs - first.oldestArrivedMs;
    let count = 0;
    let mayWait = true;
    for (let index = 0; index < views.length; index += 1) {
      const view = views[index] as LaunchView;
      const waitedMs = nowMs - view.oldestArrivedMs;
      // Nobody waits beside a full batch, nor with a head that has waited long.
      if (view.queuedItems >= view.itemsMax) mayWait = false;
      if (waitedMs >= waitedShareMax * (view.nearestTargetMs - view.oldestArrivedMs)) mayWait = false;
    }
    this.#options.fallback.choose(views, nowMs, this.#ruled);
    const launched = this.#ruled.queue;
    const view = views[launched];
    if (view === undefined) return false;
    const all = Math.min(view.queuedItems, view.itemsMax);
    const items = Math.min(all, this.#ruled.itemsMax);
    const place = this.#order.indexOf(launched);
    count = this.#launchRow(views, { place, items, nowMs, targetMs }, count);
    if (items < all && nowMs + view.runMs(all) <= view.nearestTargetMs) {
      count = this.#launchRow(views, { place, items: all, nowMs, targetMs }, count);
    }
    // The least slack of all: beyond it somebody would begin too late.
    const slackMs = this.#after[0] as number;
    if (mayWait && slackMs > 0) {
      for (const share of waits) {
        const waitMs = share * (first.nearestTargetMs - nowMs);
        if (waitMs <= slackMs) count = this.#waitRow(views, { urgent, waitMs, nowMs, targetMs }, count);
      }
    }
    if (this.#ranges !== undefined) {
      for (let row = 0; row < count; row += 1) {
        if (checkRow(rows, row * batchFeatureCount, this.#ranges) !== '') return false;
      }
    }
    this.#options.onRows?.(rows, count);
    this.#options.scorer.score(rows, count, this.#scores);
    let best = 0;
    for (let row = 1; row < count; row += 1) {
      if ((this.#scores[row] as number) > (this.#scores[best] as number)) best = row;
    }
    if (Number.isNaN(this.#scores[best])) return false;
    const queue = this.#rowQueue[best] as number;
    const value = this.#rowItems[best] as number;
    choice.queue = queue;
    choice.itemsMax = queue < 0 ? Infinity : value;
    choice.untilMs = queue < 0 ? nowMs + value : Infinity;
    return true;
  }

  /** Orders the queues and sums up; answers the queue whose head must begin soonest. */
  #sort(views: readonly LaunchView[], nowMs: number): number {
    const order = this.#order;
    const count = views.length;
    let urgent = 0;
    let soonestMs = Infinity;
    for (let index = 0; index < count; index += 1) {
      const view = views[index] as LaunchView;
      const beginMs = view.nearestTargetMs - view.runMs(1);
      if (beginMs < soonestMs) {
        soonestMs = beginMs;
        urgent = index;
      }
      let place = index;
      while (place > 0 && (views[order[place - 1] as number] as LaunchView).nearestTargetMs > view.nearestTargetMs) {
        order[place] = order[place - 1] as number;
        place -= 1;
      }
      order[place] = index;
    }
    let sumMs = 0;
    this.#before[0] = Infinity;
    for (let place = 0; place < count; place += 1) {
      const view = views[order[place] as number] as LaunchView;
      const runMs = view.runMs(Math.min(view.queuedItems, view.itemsMax));
      sumMs += runMs;
      this.#runMs[place] = runMs;
      this.#slackMs[place] = view.nearestTargetMs - nowMs - sumMs;
      this.#before[place + 1] = Math.min(this.#before[place] as number, this.#slackMs[place] as number);
    }
    this.#after[count] = Infinity;
    for (let place = count - 1; place >= 0; place -= 1) {
      this.#after[place] = Math.min(this.#after[place + 1] as number, this.#slackMs[place] as number);
    }
    this.#sumMs = sumMs;
    return urgent;
  }

  #sumMs = 0;

  /** What rows of the queue at a place say of it and of the others. */
  #describe(views: readonly LaunchView[], place: number, nowMs: number, targetMs: number): LaunchView {
    const view = views[this.#order[place] as number] as LaunchView;
    const queue = this.#queue;
    const runMs = this.#runMs[place] as number;
    queue.queueItems = view.queuedItems;
    queue.itemsMax = view.itemsMax;
    queue.headSloMs = targetMs;
    queue.headSlackMs = view.nearestTargetMs - nowMs;
    queue.headAgeMs = nowMs - view.oldestArrivedMs;
    // Without this queue those behind it begin sooner.
    queue.otherSlackMs = Math.min(this.#before[place] as number, (this.#after[place + 1] as number) + runMs);
    queue.otherWorkMs = this.#sumMs - runMs;
    queue.otherQueues = views.length - 1;
    queue.urgency = view.urgency;
    const arrivals = this.#arrivals.get(view);
    queue.itemsPerMs = arrivals === undefined || arrivals.unseen === 1 ? 0 : arrivals.perMs / (1 - arrivals.unseen);
    return view;
  }

  #launchRow(views: readonly LaunchView[], at: LaunchAt, row: number): number {
    const { place, items, nowMs, targetMs } = at;
    const view = this.#describe(views, place, nowMs, targetMs);
    const candidate = this.#candidate;
    candidate.launch = true;
    candidate.items = candidate.laterItems = items;
    candidate.waitMs = 0;
    candidate.runMs = candidate.laterRunMs = view.runMs(items);
    candidate.soloMs = view.runMs(1);
    writeBatchFeatures(this.#queue, candidate, this.#rows, row * batchFeatureCount);
    this.#rowQueue[row] = this.#order[place] as number;
    this.#rowItems[row] = items;
    return row + 1;
  }

  #waitRow(views: readonly LaunchView[], at: WaitAt, row: number): number {
    const { urgent, waitMs, nowMs, targetMs } = at;
    const view = this.#describe(views, this.#order.indexOf(urgent), nowMs, targetMs);
    const candidate = this.#candidate;
    const items = Math.min(view.queuedItems, view.itemsMax);
    candidate.launch = false;
    candidate.items = items;
    candidate.waitMs = waitMs;
    candidate.runMs = view.runMs(items);
    candidate.soloMs = view.runMs(1);
    candidate.laterItems = Math.min(view.itemsMax, items + Math.round(this.#queue.itemsPerMs * waitMs));
    candidate.laterRunMs = view.runMs(candidate.laterItems);
    writeBatchFeatures(this.#queue, candidate, this.#rows, row * batchFeatureCount);
    this.#rowQueue[row] = -1;
    this.#rowItems[row] = waitMs;
    return row + 1;
  }
}

interface LaunchAt {
  readonly place: number;
  readonly items: number;
  readonly nowMs: number;
  readonly targetMs: number;
}

interface WaitAt {
  readonly urgent: number;
  readonly waitMs: number;
  readonly nowMs: number;
  readonly targetMs: number;
}
