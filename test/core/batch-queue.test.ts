import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BatchQueue } from '#core/batch-queue.js';
import { anonymousTenant, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import {
  defaultDynamicBatching,
  defaultQueuePolicy,
  type DynamicBatching,
  type QueuePolicy,
} from '#core/model-config.js';
import type { FormOptions } from '#core/model-queue.js';
import { SlowBatchQueue } from './batch-queue-model.js';

const freely: FormOptions = { serviceMs: 0, itemsMax: Infinity, flush: false };

let ids = 0;
function request(changes: Partial<InferenceRequest> = {}): InferenceRequest {
  ids += 1;
  return {
    id: ids as RequestId,
    model: modelName('m'),
    version: modelVersion('1'),
    inputs: [],
    outputs: [],
    items: 1,
    batchKey: 'a',
    bytes: 10,
    priority: 0,
    queueTimeoutUs: 0,
    deadlineMs: Infinity,
    billing: { tenant: anonymousTenant, project: '', user: '' },
    arrivedMs: 0,
    ...changes,
  };
}

interface QueueOptions {
  readonly maxBatchSize?: number;
  readonly batching?: Partial<DynamicBatching> | undefined;
  readonly requestsMax?: number;
  readonly bytesMax?: number;
}

function queueOf(options: QueueOptions = {}): BatchQueue<string> {
  const { maxBatchSize = 8, batching = {}, requestsMax = 100, bytesMax = 1e6 } = options;
  const dynamicBatching =
    'batching' in options && options.batching === undefined
      ? {}
      : { dynamicBatching: { ...defaultDynamicBatching, ...batching } };
  return new BatchQueue({ name: 'm', maxBatchSize, ...dynamicBatching }, { requestsMax, bytesMax });
}

/** Sizes of the requests in the batch and the reason it left, or the moment to wait for. */
function formed(queue: BatchQueue<string>, nowMs: number, options: Partial<FormOptions> = {}): unknown {
  const result = queue.form(nowMs, { ...freely, ...options });
  switch (result.kind) {
    case 'batch':
      return [result.reason, ...result.entries.map((entry) => entry.waiter)];
    case 'wait':
      return result.untilMs;
    case 'empty':
      return undefined;
  }
}

function fill(
  queue: BatchQueue<string>,
  waiters: string,
  nowMs: number,
  changes: Partial<InferenceRequest> = {},
): void {
  for (const waiter of waiters.split('')) expect(queue.offer(request(changes), waiter, nowMs)).toBeUndefined();
}

describe('a batch leaves', () => {
  it('with what is there, when there is no delay', () => {
    const queue = queueOf();
    fill(queue, 'abc', 0);
    expect(formed(queue, 0)).toEqual(['immediate', 'a', 'b', 'c']);
    expect(formed(queue, 0)).toBeUndefined();
  });

  it('full, counted in items and never above', () => {
    const queue = queueOf({ maxBatchSize: 4 });
    fill(queue, 'a', 0, { items: 3 });
    fill(queue, 'b', 0, { items: 2 });
    fill(queue, 'c', 0, { items: 1 });
    expect(formed(queue, 0)).toEqual(['full', 'a']);
    expect(formed(queue, 0)).toEqual(['immediate', 'b', 'c']);
  });

  it('at a preferred size, the largest that is there, until the delay is over', () => {
    const queue = queueOf({ batching: { preferredBatchSizes: [2, 4], queueDelayUsMax: 10_000 } });
    fill(queue, 'a', 0);
    expect(formed(queue, 0)).toBe(10);
    fill(queue, 'bcdef', 1);
    expect(formed(queue, 1)).toEqual(['preferred', 'a', 'b', 'c', 'd']);
    expect(formed(queue, 1)).toEqual(['preferred', 'e', 'f']);
    fill(queue, 'ghi', 2);
    expect(formed(queue, 12)).toEqual(['delay', 'g', 'h', 'i']);
  });

  it('at once when another shape waits, since nobody should wait for a batch he cannot join', () => {
    const queue = queueOf({ batching: { queueDelayUsMax: 10_000 } });
    fill(queue, 'a', 0);
    fill(queue, 'B', 1, { batchKey: 'b' });
    fill(queue, 'c', 2);
    expect(formed(queue, 2)).toEqual(['shape', 'a', 'c']);
    expect(formed(queue, 2)).toBe(11);
  });

  it('in strict order with preserve_ordering', () => {
    const queue = queueOf({ batching: { preserveOrdering: true } });
    fill(queue, 'a', 0);
    fill(queue, 'B', 0, { batchKey: 'b' });
    fill(queue, 'c', 0);
    expect(formed(queue, 0)).toEqual(['immediate', 'a']);
    expect(formed(queue, 0)).toEqual(['immediate', 'B']);
  });

  it('before a deadline that a further wait would miss, with the time a run takes', () => {
    const queue = queueOf({ batching: { queueDelayUsMax: 100_000 } });
    fill(queue, 'a', 0, { deadlineMs: 50 });
    expect(formed(queue, 0, { serviceMs: 20 })).toBe(29);
    expect(formed(queue, 29, { serviceMs: 20 })).toEqual(['deadline', 'a']);
  });

  it('when it is flushed, whatever the delay', () => {
    const queue = queueOf({ batching: { queueDelayUsMax: 100_000 } });
    fill(queue, 'ab', 0);
    expect(formed(queue, 0, { flush: true })).toEqual(['flush', 'a', 'b']);
  });

  it('no larger than a policy allows', () => {
    const queue = queueOf();
    fill(queue, 'abc', 0);
    expect(formed(queue, 0, { itemsMax: 2 })).toEqual(['full', 'a', 'b']);
  });

  it('one request at a time without dynamic batching', () => {
    const queue = queueOf({ batching: undefined });
    fill(queue, 'ab', 0);
    expect(formed(queue, 0)).toEqual(['immediate', 'a']);
  });
});

describe('requests wait', () => {
  it('by priority, then in order', () => {
    const queue = queueOf({ maxBatchSize: 3, batching: { priorityLevels: 3, defaultPriorityLevel: 2 } });
    fill(queue, 'c', 0, { priority: 3 });
    fill(queue, 'b', 0);
    fill(queue, 'a', 0, { priority: 1 });
    fill(queue, 'd', 0, { priority: 9 });
    expect(queue.topLevel).toBe(1);
    expect(formed(queue, 0)).toEqual(['full', 'a', 'b', 'd']);
    expect(formed(queue, 0)).toEqual(['immediate', 'c']);
  });

  it('behind the others once a DELAY policy timed them out, and still before less urgent ones', () => {
    const defaultQueuePolicy_: QueuePolicy = { ...defaultQueuePolicy, timeoutAction: 'DELAY', defaultTimeoutUs: 5000 };
    const queue = queueOf({
      maxBatchSize: 1,
      batching: { priorityLevels: 2, defaultPriorityLevel: 1, defaultQueuePolicy: defaultQueuePolicy_ },
    });
    fill(queue, 'a', 0);
    fill(queue, 'b', 4);
    fill(queue, 'z', 4, { priority: 2 });
    expect(queue.expire(5)).toEqual([]);
    expect(['b', 'a', 'z'].map(() => formed(queue, 5))).toEqual([
      ['full', 'b'],
      ['full', 'a'],
      ['full', 'z'],
    ]);
  });

  it('no longer than their own timeout, where the policy lets them say so', () => {
    const policies = new Map([[1, { ...defaultQueuePolicy, allowTimeoutOverride: true, defaultTimeoutUs: 9000 }]]);
    const queue = queueOf({
      batching: { priorityLevels: 2, defaultPriorityLevel: 2, priorityQueuePolicies: policies },
    });
    fill(queue, 'a', 0, { priority: 1, queueTimeoutUs: 3000 });
    fill(queue, 'b', 0, { priority: 1, queueTimeoutUs: 30_000 });
    fill(queue, 'c', 0, { priority: 2, queueTimeoutUs: 1000 });
    expect(queue.nextExpiryMs).toBe(3);
    expect(queue.expire(3).map(({ entry, error }) => [entry.waiter, error.code])).toEqual([['a', 'QUEUE_TIMEOUT']]);
    expect(queue.expire(9).map(({ entry }) => entry.waiter)).toEqual(['b']);
    expect(queue.nextExpiryMs).toBe(Infinity);
  });

  it('in bounded numbers of requests, of bytes, and of a level', () => {
    const policies = new Map([[1, { ...defaultQueuePolicy, sizeMax: 1 }]]);
    const batching = { priorityLevels: 2, defaultPriorityLevel: 2, priorityQueuePolicies: policies };
    const queue = queueOf({ batching, requestsMax: 3, bytesMax: 100 });
    fill(queue, 'a', 0, { priority: 1 });
    expect(queue.offer(request({ priority: 1 }), 'x', 0)?.message).toMatch(/^Exceeds maximum queue size/);
    expect(queue.offer(request({ bytes: 91 }), 'x', 0)).toMatchObject({ code: 'QUEUE_FULL', details: { limit: 100 } });
    fill(queue, 'bc', 0);
    expect(queue.offer(request(), 'x', 0)).toMatchObject({ code: 'QUEUE_FULL', details: { limit: 3 } });
    expect(queue.queuedBytes).toBe(30);
  });

  it('alone in an empty queue, however large they are', () => {
    expect(queueOf({ bytesMax: 5 }).offer(request({ bytes: 1000 }), 'a', 0)).toBeUndefined();
  });

  it('not at all when their deadline has passed', () => {
    expect(queueOf().offer(request({ deadlineMs: 5 }), 'a', 5)).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it('at as many levels as clients name, without those being kept for ever', () => {
    const queue = queueOf({ requestsMax: 1e6, batching: { priorityLevels: 1e9, defaultPriorityLevel: 1 } });
    for (let priority = 1; priority <= 5000; priority += 1) {
      fill(queue, 'a', 0, { priority });
      expect(formed(queue, 0)).toEqual(['immediate', 'a']);
    }
    expect(queue.queuedRequests).toBe(0);
  });
});

const policy: fc.Arbitrary<QueuePolicy> = fc.record({
  timeoutAction: fc.constantFrom('REJECT', 'DELAY'),
  defaultTimeoutUs: fc.constantFrom(0, 0, 2000, 7000),
  allowTimeoutOverride: fc.boolean(),
  sizeMax: fc.constantFrom(0, 0, 3),
});
const configuration = fc
  .record({
    maxBatchSize: fc.constantFrom(1, 4, 6, 8, 8),
    preferredBatchSizes: fc.constantFrom([], [], [2, 4], [3]),
    queueDelayUsMax: fc.constantFrom(0, 3000, 20_000, 20_000),
    preserveOrdering: fc.boolean(),
    levels: fc.constantFrom(0, 0, 2, 3),
    defaultQueuePolicy: policy,
    urgentPolicy: fc.option(policy, { nil: undefined }),
    isDynamic: fc.integer({ min: 0, max: 4 }).map((draw) => draw > 0),
    requestsMax: fc.constantFrom(4, 20),
    bytesMax: fc.constantFrom(60, 1000),
    serviceMs: fc.constantFrom(0, 3),
  })
  .map((drawn) => ({
    ...drawn,
    preferredBatchSizes: drawn.preferredBatchSizes.filter((size) => size <= drawn.maxBatchSize),
  }));
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('offer' as const),
      items: fc.constantFrom(1, 1, 1, 2, 3, 6),
      key: fc.constantFrom('a', 'a', 'a', 'a', 'a', 'b'),
      priority: fc.integer({ min: 0, max: 4 }),
      bytes: fc.constantFrom(1, 20),
      timeoutUs: fc.constantFrom(0, 0, 0, 1000, 5000),
      deadlineInMs: fc.constantFrom(Infinity, Infinity, Infinity, 2, 6, 15),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), nth: fc.nat({ max: 40 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('form' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 2, 4, 10) }) },
);

describe('against a slow version', () => {
  it('the queue does the same as one that is obviously right', () => {
    const reasons = new Set<string>();
    fc.assert(
      fc.property(configuration, fc.array(action, { maxLength: 60 }), (drawn, actions) => {
        const { maxBatchSize, levels, urgentPolicy, isDynamic, requestsMax, bytesMax, serviceMs, ...rest } = drawn;
        const batching: DynamicBatching = {
          ...rest,
          priorityLevels: levels,
          defaultPriorityLevel: levels === 0 ? 0 : 2,
          priorityQueuePolicies: new Map(urgentPolicy === undefined ? [] : [[1, urgentPolicy]]),
        };
        const queue = new BatchQueue<number>(
          { name: 'm', maxBatchSize, ...(isDynamic ? { dynamicBatching: batching } : {}) },
          { requestsMax, bytesMax },
        );
        const slow = new SlowBatchQueue({
          maxBatchSize,
          batching: isDynamic ? batching : undefined,
          requestsMax,
          bytesMax,
        });
        let nowMs = 0;
        const offered: number[] = [];
        const outcomes = new Map<number, number>();
        const left = (id: number): void => void outcomes.set(id, (outcomes.get(id) ?? 0) + 1);
        const expire = (): void => {
          const dropped = queue.expire(nowMs);
          const expected = slow.expire(nowMs);
          expect(new Map(dropped.map(({ entry, error }) => [entry.request.id as number, error.code]))).toEqual(
            expected,
          );
          for (const id of expected.keys()) left(id);
          expect(queue.nextExpiryMs).toBeLessThanOrEqual(slow.nextExpiryMs());
        };
        for (const step of actions) {
          switch (step.kind) {
            case 'offer': {
              const made = request({
                items: Math.min(step.items, maxBatchSize),
                batchKey: step.key,
                priority: step.priority,
                bytes: step.bytes,
                queueTimeoutUs: step.timeoutUs,
                deadlineMs: nowMs + step.deadlineInMs,
                arrivedMs: nowMs,
              });
              expire();
              const verdict = slow.offer(made, nowMs);
              expect(queue.offer(made, made.id, nowMs)?.code ?? 'accepted').toBe(verdict);
              if (verdict === 'accepted') offered.push(made.id);
              break;
            }
            case 'cancel': {
              const id = offered[step.nth % Math.max(1, offered.length)];
              if (id === undefined) break;
              const found = slow.cancel(id);
              expect(queue.cancel(id as RequestId).length > 0).toBe(found);
              if (found) left(id);
              break;
            }
            case 'pass':
              nowMs += step.ms;
              expire();
              break;
            case 'form': {
              expire();
              const result = queue.form(nowMs, { serviceMs, itemsMax: Infinity, flush: false });
              const expected = slow.form(nowMs, serviceMs);
              if (result.kind === 'batch') {
                expect({ ids: result.entries.map((entry) => entry.waiter), reason: result.reason }).toEqual(expected);
                expect(result.items).toBeLessThanOrEqual(Math.max(1, maxBatchSize));
                expect(new Set(result.entries.map((entry) => entry.request.batchKey)).size).toBe(1);
                reasons.add(result.reason);
                for (const entry of result.entries) left(entry.waiter);
              } else if (result.kind === 'wait') {
                expect({ untilMs: result.untilMs }).toEqual(expected);
                expect(result.untilMs).toBeGreaterThan(nowMs);
              } else expect(expected).toBeUndefined();
              break;
            }
          }
          const waiting = slow.requests;
          expect(queue.queuedRequests).toBe(waiting.length);
          expect(queue.queuedItems).toBe(waiting.reduce((sum, each) => sum + each.items, 0));
          expect(queue.queuedBytes).toBe(waiting.reduce((sum, each) => sum + each.bytes, 0));
        }
        for (const entry of queue.clear()) left(entry.waiter);
        // Nothing lost, nothing twice.
        expect([...outcomes.keys()].sort((a, b) => a - b)).toEqual(offered);
        expect([...outcomes.values()].every((count) => count === 1)).toBe(true);
        expect(queue.queuedRequests).toBe(0);
      }),
      { numRuns: 2000 },
    );
    expect([...reasons].sort()).toEqual(['deadline', 'delay', 'full', 'immediate', 'preferred', 'shape']);
  });
});

describe('a batch queue with targets', () => {
  it('knows the earliest deadline or objective among the first of each level', () => {
    const queue = queueOf({ batching: { priorityLevels: 2, defaultPriorityLevel: 2 } });
    expect(queue.nearestTargetMs()).toBe(Infinity);
    queue.offer(request({ arrivedMs: 10, sloMs: 100 }), 'a', 10);
    queue.offer(request({ arrivedMs: 12, deadlineMs: 90 }), 'b', 12);
    expect(queue.nearestTargetMs()).toBe(90);
    queue.offer(request({ arrivedMs: 13, sloMs: 50, priority: 1 }), 'c', 13);
    expect(queue.nearestTargetMs()).toBe(63);
  });

  it('sheds what would pass its deadline in a run begun now, and nothing else', () => {
    const queue = queueOf();
    for (const [waiter, deadlineMs] of [
      ['a', 100],
      ['b', 50],
      ['c', Infinity],
      ['d', 60],
    ] as const) {
      queue.offer(request({ deadlineMs, sloMs: 1 }), waiter, 0);
    }
    expect(queue.shed(20, 30)).toEqual([]);
    const shed = queue.shed(20, 41);
    expect(shed.map(({ entry, error }) => [entry.waiter, error.code])).toEqual([
      ['b', 'DEADLINE_EXCEEDED'],
      ['d', 'DEADLINE_EXCEEDED'],
    ]);
    expect(queue.queuedRequests).toBe(2);
    expect(queue.form(20, freely)).toMatchObject({ kind: 'batch', items: 2 });
  });
});
