/**
 * The batch queue again, slow and obviously right: one array, sorted anew for each question. Oracle of the property tests.
 */
import type { InferenceRequest, ReleaseReason } from '#core/inference.js';
import { defaultQueuePolicy, type DynamicBatching, type QueuePolicy } from '#core/model-config.js';

interface Waiting {
  readonly request: InferenceRequest;
  readonly enqueuedMs: number;
  readonly level: number;
  readonly policy: QueuePolicy;
  readonly timeoutAtMs: number;
  /** When a DELAY policy put it behind; undefined while it has not. Its place among those put behind is the order of that. */
  delayedAt: number | undefined;
}

export interface ModelOptions {
  readonly maxBatchSize: number;
  readonly batching: DynamicBatching | undefined;
  readonly requestsMax: number;
  readonly bytesMax: number;
}

export class SlowBatchQueue {
  readonly #options: ModelOptions;
  #waiting: Waiting[] = [];
  #delays = 0;

  constructor(options: ModelOptions) {
    this.#options = options;
  }

  get requests(): readonly InferenceRequest[] {
    return this.#waiting.map((entry) => entry.request);
  }

  offer(request: InferenceRequest, nowMs: number): 'accepted' | 'QUEUE_FULL' | 'DEADLINE_EXCEEDED' {
    const { batching, requestsMax, bytesMax } = this.#options;
    if (request.deadlineMs <= nowMs) return 'DEADLINE_EXCEEDED';
    const levels = batching?.priorityLevels ?? 0;
    const isLevel = request.priority >= 1 && request.priority <= levels;
    const level = levels === 0 ? 0 : isLevel ? request.priority : batching!.defaultPriorityLevel;
    const policy = batching?.priorityQueuePolicies.get(level) ?? batching?.defaultQueuePolicy ?? defaultQueuePolicy;
    const atLevel = this.#waiting.filter((entry) => entry.level === level).length;
    const bytes = this.#waiting.reduce((sum, entry) => sum + entry.request.bytes, 0);
    if (policy.sizeMax > 0 && atLevel >= policy.sizeMax) return 'QUEUE_FULL';
    if (this.#waiting.length >= requestsMax) return 'QUEUE_FULL';
    if (this.#waiting.length > 0 && bytes + request.bytes > bytesMax) return 'QUEUE_FULL';
    const limits = [policy.defaultTimeoutUs, policy.allowTimeoutOverride ? request.queueTimeoutUs : 0].filter(
      (us) => us > 0,
    );
    const timeoutAtMs = nowMs + Math.min(Infinity, ...limits) / 1000;
    this.#waiting.push({ request, enqueuedMs: nowMs, level, policy, timeoutAtMs, delayedAt: undefined });
    return 'accepted';
  }

  cancel(id: number): boolean {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((entry) => (entry.request.id as number) !== id);
    return this.#waiting.length < before;
  }

  /** Ids and codes of what leaves. */
  expire(nowMs: number): Map<number, string> {
    const left = new Map<number, string>();
    for (const entry of this.#waiting) {
      const timedOut = entry.delayedAt === undefined && entry.timeoutAtMs <= nowMs;
      if (entry.request.deadlineMs <= nowMs) left.set(entry.request.id, 'DEADLINE_EXCEEDED');
      else if (timedOut && entry.policy.timeoutAction === 'REJECT') left.set(entry.request.id, 'QUEUE_TIMEOUT');
      else if (timedOut) entry.delayedAt = this.#delays++;
    }
    this.#waiting = this.#waiting.filter((entry) => !left.has(entry.request.id));
    return left;
  }

  /** Moment of the next expiry, exactly. */
  nextExpiryMs(): number {
    const moments = this.#waiting.map((entry) =>
      Math.min(entry.request.deadlineMs, entry.delayedAt === undefined ? entry.timeoutAtMs : Infinity),
    );
    return Math.min(Infinity, ...moments);
  }

  form(nowMs: number, serviceMs: number): { ids: number[]; reason: ReleaseReason } | { untilMs: number } | undefined {
    const { batching, maxBatchSize } = this.#options;
    const itemsMax = Math.max(1, maxBatchSize);
    const inOrder = [...this.#waiting].sort(
      (a, b) =>
        a.level - b.level ||
        (a.delayedAt ?? -1) - (b.delayedAt ?? -1) ||
        this.#waiting.indexOf(a) - this.#waiting.indexOf(b),
    );
    const [head] = inOrder;
    if (head === undefined) return undefined;
    if (batching === undefined) return this.#take([head], 'immediate');
    const sameKey = (entry: Waiting): boolean => entry.request.batchKey === head.request.batchKey;
    const firstOther = inOrder.findIndex((entry) => !sameKey(entry));
    const companions =
      batching.preserveOrdering && firstOther >= 0 ? inOrder.slice(0, firstOther) : inOrder.filter(sameKey);
    let count = 0;
    let items = 0;
    while (count < companions.length && items + companions[count]!.request.items <= itemsMax) {
      items += companions[count]!.request.items;
      count += 1;
    }
    const isFull = items === itemsMax || count < companions.length;
    // Another key ends the wait if it is met before the batch is full.
    const lastTaken = inOrder.indexOf(companions[count - 1]!);
    const meetsOther = isFull
      ? inOrder.slice(0, lastTaken).some((entry) => !sameKey(entry))
      : inOrder.some((entry) => !sameKey(entry));
    const preferred = batching.preferredBatchSizes.length > 0 ? batching.preferredBatchSizes : [itemsMax];
    const sums = companions
      .slice(0, count)
      .map((_, index) => companions.slice(0, index + 1).reduce((sum, entry) => sum + entry.request.items, 0));
    const beyond = [...sums, ...(count < companions.length ? [items + companions[count]!.request.items] : [])];
    const overshoots = beyond.findIndex((sum, index) => index > 0 && sum > Math.max(...preferred));
    const exact = sums.findLastIndex((sum) => preferred.includes(sum)) + 1;
    const firstExact = sums.findIndex((sum) => preferred.includes(sum));
    // Past the largest preferred size without having met one: what came before leaves as it is.
    const before = overshoots >= 0 && (firstExact < 0 || firstExact >= overshoots) ? overshoots : 0;
    const preferredCount = Math.max(exact, exact > 0 ? 0 : before);
    const delayMs = batching.queueDelayUsMax / 1000;
    const taken = companions.slice(0, count);
    const delayEndsMs = Math.min(...taken.map((entry) => entry.enqueuedMs)) + delayMs;
    const delayOver = delayMs > 0 && nowMs >= delayEndsMs;
    if (preferredCount > 0 && !delayOver) {
      const sum = sums[preferredCount - 1]!;
      return this.#take(
        companions.slice(0, preferredCount),
        preferred.includes(sum) && sum < itemsMax ? 'preferred' : 'full',
      );
    }
    if (isFull) return this.#take(taken, 'full');
    if (delayMs === 0) return this.#take(taken, 'immediate');
    if (delayOver) return this.#take(taken, 'delay');
    if (meetsOther) return this.#take(taken, 'shape');
    const latest = taken.map((entry) =>
      Math.min(entry.request.deadlineMs - serviceMs, entry.delayedAt === undefined ? entry.timeoutAtMs : Infinity),
    );
    const latestMs = Math.min(...latest) - 1;
    if (nowMs >= latestMs) return this.#take(taken, 'deadline');
    return { untilMs: Math.min(delayEndsMs, latestMs) };
  }

  #take(entries: readonly Waiting[], reason: ReleaseReason): { ids: number[]; reason: ReleaseReason } {
    this.#waiting = this.#waiting.filter((entry) => !entries.includes(entry));
    return { ids: entries.map((entry) => entry.request.id), reason };
  }
}
