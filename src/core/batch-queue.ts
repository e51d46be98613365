/**
 * The queue of one model on one device, and the batch former: Triton's dynamic batching, counted in items.
 *
 * Requests wait in priority levels, each first in, first out. A batch takes the most urgent request and, behind it, as many
 * with the same batch key as fit. It leaves at once when it is full, has a preferred size, or nothing may be waited for;
 * otherwise it waits for companions until the delay is over or a deadline is near. Without `dynamic_batching` requests run
 * one at a time in order.
 *
 * Where it differs from Triton: a request with another shape does not end the search for companions behind it (with
 * `preserve_ordering` it does), but it does end the wait, so that nobody waits for a batch he cannot join.
 *
 * Entries are linked lists with a map by id, so that a cancelled request leaves at once; the earliest expiry is kept as a
 * lower bound that is made exact whenever it is due. Left to others: who launches next among models (policies/batching).
 */
import { intarsiaError, invariant, type IntarsiaError } from './errors.js';
import type { RequestId } from './ids.js';
import type { InferenceRequest, ReleaseReason } from './inference.js';
import { defaultQueuePolicy, type ModelConfig, type QueuePolicy } from './model-config.js';
import { nothingToForm, type Batch, type Dropped, type FormOptions, type Formed } from './model-queue.js';
import type { ModelQueue, QueuedRequest } from './model-queue.js';

export interface BatchQueueLimits {
  /** Requests that may wait. At the bound: QUEUE_FULL. */
  readonly requestsMax: number;
  /** Bytes of inputs that may wait; a single request may always wait in an empty queue. At the bound: QUEUE_FULL. */
  readonly bytesMax: number;
}

type BatchingConfig = Pick<ModelConfig, 'name' | 'maxBatchSize' | 'dynamicBatching'>;

/** A batch leaves this long (ms) before a deadline or timeout that would end its wait: timers are never early. */
const launchMarginMs = 1;
/** Requests with another key that are passed over while a batch is formed; bounds the cost of many shapes in one queue. */
const passedOverMax = 1024;
/** Levels kept while nobody waits at them. */
const levelsKeptMax = 64;
/** Waiting requests that are looked at for the nearest deadline; and of each level for the nearest target. */
const deadlineScanMax = 64;
const targetScanMax = 8;

class Entry<Waiter> implements QueuedRequest<Waiter> {
  readonly request: InferenceRequest;
  readonly waiter: Waiter;
  readonly enqueuedMs: number;
  readonly level: Level<Waiter>;
  /** When its queue policy acts (ms); Infinity: never, or it has acted already. */
  timeoutAtMs: number;
  list: EntryList<Waiter>;
  previous: Entry<Waiter> | undefined = undefined;
  next: Entry<Waiter> | undefined = undefined;

  constructor(request: InferenceRequest, waiter: Waiter, nowMs: number, timeoutAtMs: number, level: Level<Waiter>) {
    this.request = request;
    this.waiter = waiter;
    this.enqueuedMs = nowMs;
    this.timeoutAtMs = timeoutAtMs;
    this.level = level;
    this.list = level.fresh;
  }
}

class EntryList<Waiter> {
  head: Entry<Waiter> | undefined = undefined;
  tail: Entry<Waiter> | undefined = undefined;

  push(entry: Entry<Waiter>): void {
    entry.list = this;
    entry.previous = this.tail;
    entry.next = undefined;
    if (this.tail === undefined) this.head = entry;
    else this.tail.next = entry;
    this.tail = entry;
  }

  unlink(entry: Entry<Waiter>): void {
    if (entry.previous === undefined) this.head = entry.next;
    else entry.previous.next = entry.next;
    if (entry.next === undefined) this.tail = entry.previous;
    else entry.next.previous = entry.previous;
    entry.previous = undefined;
    entry.next = undefined;
  }
}

/** One priority level: those within their timeout, then those that a DELAY policy put behind. */
class Level<Waiter> {
  readonly number: number;
  readonly policy: QueuePolicy;
  readonly fresh = new EntryList<Waiter>();
  readonly delayed = new EntryList<Waiter>();
  count = 0;

  constructor(number: number, policy: QueuePolicy) {
    this.number = number;
    this.policy = policy;
  }
}

export class BatchQueue<Waiter> implements ModelQueue<Waiter> {
  queuedRequests = 0;
  queuedItems = 0;
  queuedBytes = 0;
  nextExpiryMs = Infinity;
  readonly #config: BatchingConfig;
  readonly #limits: BatchQueueLimits;
  readonly #itemsMax: number;
  readonly #delayMs: number;
  readonly #preferred: ReadonlySet<number>;
  readonly #preferredMax: number;
  readonly #preserveOrdering: boolean;
  /** Levels that were ever used, most urgent first. */
  readonly #levels: Level<Waiter>[] = [];
  readonly #byId = new Map<RequestId, Entry<Waiter>>();

  constructor(config: BatchingConfig, limits: BatchQueueLimits) {
    this.#config = config;
    this.#limits = limits;
    this.#itemsMax = Math.max(1, config.maxBatchSize);
    const batching = config.dynamicBatching;
    this.#delayMs = (batching?.queueDelayUsMax ?? 0) / 1000;
    this.#preserveOrdering = batching?.preserveOrdering ?? false;
    const preferred = (batching?.preferredBatchSizes ?? []).filter((size) => size <= this.#itemsMax);
    this.#preferred = new Set(preferred.length > 0 ? preferred : [this.#itemsMax]);
    this.#preferredMax = Math.max(...this.#preferred);
  }

  get topLevel(): number {
    for (const level of this.#levels) if (level.count > 0) return level.number;
    return 0;
  }

  oldestArrivedMs(): number {
    let oldest = Infinity;
    for (const level of this.#levels) {
      if (level.fresh.head !== undefined) oldest = Math.min(oldest, level.fresh.head.request.arrivedMs);
      if (level.delayed.head !== undefined) oldest = Math.min(oldest, level.delayed.head.request.arrivedMs);
    }
    return oldest;
  }

  nearestDeadlineMs(): number {
    let nearest = Infinity;
    let seen = 0;
    for (const level of this.#levels) {
      for (const list of [level.fresh, level.delayed]) {
        for (let entry = list.head; entry !== undefined && seen < deadlineScanMax; entry = entry.next) {
          nearest = Math.min(nearest, entry.request.deadlineMs);
          seen += 1;
        }
      }
    }
    return nearest;
  }

  nearestTargetMs(): number {
    let nearest = Infinity;
    for (const level of this.#levels) {
      if (level.count === 0) continue;
      let seen = 0;
      for (let entry = level.fresh.head ?? level.delayed.head; entry !== undefined; entry = following(entry)) {
        const { deadlineMs, arrivedMs, sloMs = Infinity } = entry.request;
        nearest = Math.min(nearest, deadlineMs, arrivedMs + sloMs);
        seen += 1;
        if (seen === targetScanMax) break;
      }
    }
    return nearest;
  }

  offer(request: InferenceRequest, waiter: Waiter, nowMs: number): IntarsiaError | undefined {
    invariant(request.items <= this.#itemsMax, 'a request holds no more items than its model takes at once');
    invariant(!this.#byId.has(request.id), 'a request waits once');
    if (request.deadlineMs <= nowMs) return deadlineExceeded(request, 0);
    const level = this.#levelOf(request.priority);
    const refusal = this.#refusal(request, level);
    if (refusal !== undefined) return refusal;
    const entry = new Entry(request, waiter, nowMs, nowMs + timeoutMs(request, level.policy), level);
    level.fresh.push(entry);
    level.count += 1;
    this.#byId.set(request.id, entry);
    this.queuedRequests += 1;
    this.queuedItems += request.items;
    this.queuedBytes += request.bytes;
    const expiryMs = Math.min(entry.timeoutAtMs, request.deadlineMs);
    if (expiryMs < this.nextExpiryMs) this.nextExpiryMs = expiryMs;
    return undefined;
  }

  cancel(id: RequestId): readonly Dropped<Waiter>[] {
    const entry = this.#byId.get(id);
    if (entry === undefined) return [];
    this.#remove(entry);
    return [
      { entry, error: intarsiaError('CANCELLED', `request ${id} was cancelled while it waited`, { request: id }) },
    ];
  }

  expire(nowMs: number): readonly Dropped<Waiter>[] {
    const dropped: Dropped<Waiter>[] = [];
    if (this.nextExpiryMs > nowMs) return dropped;
    let nextExpiryMs = Infinity;
    for (const level of this.#levels) {
      // The delayed ones first: what is moved behind them now has been looked at already.
      for (const list of [level.delayed, level.fresh]) {
        let entry = list.head;
        while (entry !== undefined) {
          const following: Entry<Waiter> | undefined = entry.next;
          const error = this.#act(entry, nowMs);
          if (error !== undefined) dropped.push({ entry, error });
          else nextExpiryMs = Math.min(nextExpiryMs, entry.timeoutAtMs, entry.request.deadlineMs);
          entry = following;
        }
      }
    }
    this.nextExpiryMs = nextExpiryMs;
    return dropped;
  }

  shed(nowMs: number, leadMs: number): readonly Dropped<Waiter>[] {
    // A lower bound: when even that is far enough away, nobody is near.
    if (this.nextExpiryMs >= nowMs + leadMs) return nobodyDropped;
    const dropped: Dropped<Waiter>[] = [];
    for (const entry of this.#byId.values()) {
      const { request } = entry;
      if (request.deadlineMs >= nowMs + leadMs) continue;
      this.#remove(entry);
      dropped.push({ entry, error: tooLate(request, nowMs, leadMs) });
    }
    return dropped;
  }

  form(nowMs: number, options: FormOptions): Formed<Waiter> {
    invariant(this.nextExpiryMs > nowMs, 'what has expired is taken out before a batch is formed');
    if (this.queuedRequests === 0) return nothingToForm;
    return this.#config.dynamicBatching === undefined ? this.#formAlone() : this.#formTogether(nowMs, options);
  }

  complete(): void {
    // Requests without a sequence leave nothing behind.
  }

  clear(): readonly QueuedRequest<Waiter>[] {
    const entries = [...this.#byId.values()];
    for (const entry of entries) this.#remove(entry);
    this.nextExpiryMs = Infinity;
    return entries;
  }

  #formAlone(): Formed<Waiter> {
    for (const level of this.#levels) {
      const entry = level.fresh.head ?? level.delayed.head;
      if (entry !== undefined) return this.#take([entry], 1, 'immediate');
    }
    return nothingToForm;
  }

  #formTogether(nowMs: number, options: FormOptions): Formed<Waiter> {
    const itemsMax = Math.min(this.#itemsMax, Math.max(1, options.itemsMax));
    const selected: Entry<Waiter>[] = [];
    let items = 0;
    let key = '';
    let preferredCount = 0;
    let preferredItems = 0;
    let full = false;
    let passedOver = 0;
    let oldestMs = Infinity;
    let latestLaunchMs = Infinity;
    search: for (const level of this.#levels) {
      if (level.count === 0) continue;
      for (let entry = level.fresh.head ?? level.delayed.head; entry !== undefined; entry = following(entry)) {
        const { request } = entry;
        if (selected.length === 0) key = request.batchKey;
        else {
          if (request.batchKey !== key) {
            passedOver += 1;
            if (this.#preserveOrdering || passedOver > passedOverMax) break search;
            continue;
          }
          const together = items + request.items;
          if (together > this.#preferredMax && preferredCount === 0) {
            preferredCount = selected.length;
            preferredItems = items;
          }
          if (together > itemsMax) {
            full = true;
            break search;
          }
        }
        selected.push(entry);
        items += request.items;
        if (entry.enqueuedMs < oldestMs) oldestMs = entry.enqueuedMs;
        const launchMs = Math.min(request.deadlineMs - options.serviceMs, entry.timeoutAtMs) - launchMarginMs;
        if (launchMs < latestLaunchMs) latestLaunchMs = launchMs;
        if (this.#preferred.has(items)) {
          preferredCount = selected.length;
          preferredItems = items;
        }
        if (items >= itemsMax) {
          full = true;
          break search;
        }
      }
    }
    const delayEndsMs = oldestMs + this.#delayMs;
    const delayOver = this.#delayMs > 0 && nowMs >= delayEndsMs;
    if (options.flush) return this.#take(selected, selected.length, full ? 'full' : 'flush');
    if (preferredCount > 0 && !delayOver) {
      const reason = this.#preferred.has(preferredItems) && preferredItems < itemsMax ? 'preferred' : 'full';
      return this.#take(selected, preferredCount, reason);
    }
    if (full) return this.#take(selected, selected.length, 'full');
    if (this.#delayMs === 0) return this.#take(selected, selected.length, 'immediate');
    if (delayOver) return this.#take(selected, selected.length, 'delay');
    if (passedOver > 0) return this.#take(selected, selected.length, 'shape');
    if (nowMs >= latestLaunchMs) return this.#take(selected, selected.length, 'deadline');
    return { kind: 'wait', untilMs: Math.min(delayEndsMs, latestLaunchMs) };
  }

  #take(selected: Entry<Waiter>[], count: number, reason: ReleaseReason): Batch<Waiter> {
    selected.length = count;
    let items = 0;
    for (const entry of selected) {
      this.#remove(entry);
      items += entry.request.items;
    }
    invariant(items <= this.#itemsMax, 'a batch holds no more items than its model takes at once');
    return { kind: 'batch', entries: selected, items, reason, addedInputs: noInputs };
  }

  /** Applies the deadline and the queue policy to one entry. What comes back is the reason it was taken out. */
  #act(entry: Entry<Waiter>, nowMs: number): IntarsiaError | undefined {
    if (entry.request.deadlineMs <= nowMs) {
      this.#remove(entry);
      return deadlineExceeded(entry.request, nowMs - entry.enqueuedMs);
    }
    if (entry.timeoutAtMs > nowMs) return undefined;
    if (entry.level.policy.timeoutAction === 'DELAY') {
      entry.list.unlink(entry);
      entry.timeoutAtMs = Infinity;
      entry.level.delayed.push(entry);
      return undefined;
    }
    this.#remove(entry);
    const waitedMs = nowMs - entry.enqueuedMs;
    return intarsiaError(
      'QUEUE_TIMEOUT',
      `Request timeout expired: model '${this.#config.name}' let the request wait for ${waitedMs.toFixed(1)} ms`,
      { waitedMs },
    );
  }

  #remove(entry: Entry<Waiter>): void {
    entry.list.unlink(entry);
    entry.level.count -= 1;
    this.#byId.delete(entry.request.id);
    this.queuedRequests -= 1;
    this.queuedItems -= entry.request.items;
    this.queuedBytes -= entry.request.bytes;
  }

  /** Priorities are the clients' numbers: levels nobody waits at are not kept for ever. */
  #forgetEmptyLevels(): void {
    const used = this.#levels.filter((level) => level.count > 0);
    this.#levels.splice(0, this.#levels.length, ...used);
  }

  #refusal(request: InferenceRequest, level: Level<Waiter>): IntarsiaError | undefined {
    const model = this.#config.name;
    const { sizeMax } = level.policy;
    if (sizeMax > 0 && level.count >= sizeMax)
      return queueFull(model, level.count, sizeMax, 'requests of this priority');
    const { requestsMax, bytesMax } = this.#limits;
    if (this.queuedRequests >= requestsMax) return queueFull(model, this.queuedRequests, requestsMax, 'requests');
    if (this.queuedRequests > 0 && this.queuedBytes + request.bytes > bytesMax) {
      return queueFull(model, this.queuedBytes, bytesMax, 'bytes');
    }
    return undefined;
  }

  #levelOf(priority: number): Level<Waiter> {
    const batching = this.#config.dynamicBatching;
    const levelMax = batching?.priorityLevels ?? 0;
    const number =
      levelMax === 0 ? 0 : priority >= 1 && priority <= levelMax ? priority : (batching?.defaultPriorityLevel ?? 0);
    for (const level of this.#levels) if (level.number === number) return level;
    if (this.#levels.length >= levelsKeptMax) this.#forgetEmptyLevels();
    const policy = batching?.priorityQueuePolicies.get(number) ?? batching?.defaultQueuePolicy ?? defaultQueuePolicy;
    const level = new Level<Waiter>(number, policy);
    const behind = this.#levels.findIndex((other) => other.number > number);
    this.#levels.splice(behind < 0 ? this.#levels.length : behind, 0, level);
    return level;
  }
}

const noInputs: readonly never[] = [];
const nobodyDropped: readonly never[] = [];

/** The entry behind this one at its level: the delayed ones follow the others. */
function following<Waiter>(entry: Entry<Waiter>): Entry<Waiter> | undefined {
  if (entry.next !== undefined) return entry.next;
  return entry.list === entry.level.fresh ? entry.level.delayed.head : undefined;
}

/** Milliseconds until the queue policy acts; Infinity: never. A request may shorten its wait where the policy allows it. */
function timeoutMs(request: InferenceRequest, policy: QueuePolicy): number {
  const ownUs = policy.allowTimeoutOverride && request.queueTimeoutUs > 0 ? request.queueTimeoutUs : Infinity;
  const defaultUs = policy.defaultTimeoutUs > 0 ? policy.defaultTimeoutUs : Infinity;
  return Math.min(ownUs, defaultUs) / 1000;
}

/** The answer to a request whose deadline passed while it waited. */
export function deadlineExceeded(request: InferenceRequest, waitedMs: number): IntarsiaError {
  return intarsiaError(
    'DEADLINE_EXCEEDED',
    `the deadline of the request to model '${request.model}' passed after it had waited for ${waitedMs.toFixed(1)} ms`,
    { waitedMs },
  );
}

function tooLate(request: InferenceRequest, nowMs: number, leadMs: number): IntarsiaError {
  const leftMs = request.deadlineMs - nowMs;
  return intarsiaError(
    'DEADLINE_EXCEEDED',
    `the request to model '${request.model}' would be late: ${leftMs.toFixed(1)} ms are left, a run takes about ${leadMs.toFixed(1)} ms`,
    { leftMs, runMs: leadMs },
  );
}

/** The answer to a request that finds the queue full: Triton's words, then ours. */
export function queueFull(model: string, held: number, limit: number, unit: string): IntarsiaError {
  return intarsiaError('QUEUE_FULL', `Exceeds maximum queue size: model '${model}' holds ${held} of ${limit} ${unit}`, {
    held,
    limit,
  });
}
