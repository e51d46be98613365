import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { anonymousTenant, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { ModelConfig, SequenceBatching, SequenceControl } from '#core/model-config.js';
import type { Batch, FormOptions } from '#core/model-queue.js';
import { SequenceScheduler, type SequenceLimits } from '#core/sequence-scheduler.js';
import { decodeBytesElements, type Tensor } from '#core/tensor.js';

const freely: FormOptions = { serviceMs: 0, itemsMax: Infinity, flush: false };
const int32 = (value: number): Uint8Array => new Uint8Array(Int32Array.of(value).buffer);
const valueOf = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);

const control = (kind: SequenceControl['kind'], datatype: SequenceControl['datatype'] = 'INT32'): SequenceControl => ({
  name: kind,
  kind,
  datatype,
  falseTrue: [0, 1],
});
const direct = { kind: 'direct', queueDelayUsMax: 0, minimumSlotUtilization: 0 } as const;
const oldest = {
  kind: 'oldest',
  candidateSequencesMax: 2,
  preferredBatchSizes: [],
  queueDelayUsMax: 0,
  preserveOrdering: false,
} as const;
const accumulator = { inputName: 'IN', outputName: 'OUT', datatype: 'INT32', dims: [1] } as const;

function schedulerOf(
  batching: Partial<SequenceBatching> = {},
  limits: Partial<SequenceLimits> = {},
  maxBatchSize = 4,
): SequenceScheduler<string> {
  const sequenceBatching = { idleUsMax: 1_000_000, controls: [], states: [], strategy: direct, ...batching };
  const config = { name: 'm', maxBatchSize, sequenceBatching } as unknown as ModelConfig;
  return new SequenceScheduler(config, {
    requestsMax: 100,
    bytesMax: 1e6,
    sequencesMax: 100,
    stateBytesMax: 1e6,
    instances: 1,
    inputRank: new Map(),
    ...limits,
  });
}

let ids = 0;
/** `7s` starts sequence 7, `7e` ends it, `7` is in between. */
function step(text: string, changes: Partial<InferenceRequest> = {}): InferenceRequest {
  ids += 1;
  return {
    id: ids as RequestId,
    model: modelName('m'),
    version: modelVersion('1'),
    inputs: [],
    outputs: [],
    items: 1,
    batchKey: 'a',
    bytes: 4,
    priority: 0,
    queueTimeoutUs: 0,
    deadlineMs: Infinity,
    billing: { tenant: anonymousTenant, project: '', user: '' },
    arrivedMs: 0,
    sequence: { id: BigInt(Number.parseInt(text, 10)), start: text.includes('s'), end: text.includes('e') },
    ...changes,
  };
}

function offerAll(scheduler: SequenceScheduler<string>, texts: string, nowMs = 0): void {
  for (const text of texts.split(' ')) expect(scheduler.offer(step(text), text, nowMs)).toBeUndefined();
}

function take(scheduler: SequenceScheduler<string>, nowMs = 0, options: Partial<FormOptions> = {}): Batch<string> {
  const formed = scheduler.form(nowMs, { ...freely, ...options });
  if (formed.kind !== 'batch') throw new Error(`no batch: ${JSON.stringify(formed)}`);
  return formed;
}
const names = (batch: Batch<string>): string => batch.entries.map((entry) => entry.waiter).join(' ');

describe('a sequence', () => {
  it('runs one request at a time, in order, in one batch with other sequences', () => {
    const scheduler = schedulerOf();
    offerAll(scheduler, '1s 1 2s 1e 2');
    const first = take(scheduler);
    expect([names(first), first.reason]).toEqual(['1s 2s', 'sequence']);
    expect(scheduler.form(0, freely).kind).toBe('empty');
    scheduler.complete(first, undefined, 0);
    const second = take(scheduler);
    expect(names(second)).toBe('1 2');
    scheduler.complete(second, undefined, 0);
    expect(names(take(scheduler))).toBe('1e');
  });

  it('must be started, with Triton’s words', () => {
    const scheduler = schedulerOf();
    expect(scheduler.offer(step('7'), '', 0)).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message:
        "inference request for sequence 7 to model 'm' must specify the START flag on the first request of the sequence",
    });
    offerAll(scheduler, '7s 7e');
    expect(scheduler.offer(step('7'), '', 0)?.code).toBe('INVALID_ARGUMENT');
  });

  it('needs an id, and one item a request', () => {
    const { sequence: _, ...bare } = step('1s');
    expect(schedulerOf().offer(bare, '', 0)?.message).toMatch(/must specify a non-zero or non-empty correlation ID/);
    expect(schedulerOf().offer(step('1s', { items: 2 }), '', 0)?.message).toMatch(/must specify batch-size 1/);
  });

  it('may be named by a number or by a text, and the two differ', () => {
    const scheduler = schedulerOf();
    offerAll(scheduler, '1s');
    expect(scheduler.offer(step('1', { sequence: { id: '1', start: false, end: false } }), '', 0)?.code).toBe(
      'INVALID_ARGUMENT',
    );
    expect(scheduler.offer(step('1', { sequence: { id: '1', start: true, end: false } }), 'text', 0)).toBeUndefined();
    expect(names(take(scheduler))).toBe('1s text');
  });

  it('begins anew at a second start', () => {
    const scheduler = schedulerOf({ states: [accumulator] });
    offerAll(scheduler, '1s');
    run(scheduler, 41);
    offerAll(scheduler, '1s');
    expect(states(take(scheduler))).toEqual([0]);
  });

  it('may use an id again while the last request of the former owner waits', () => {
    const scheduler = schedulerOf({ states: [accumulator] });
    offerAll(scheduler, '1s');
    run(scheduler, 5);
    offerAll(scheduler, '1e 1s');
    const both = take(scheduler);
    expect([names(both), states(both)]).toEqual(['1e 1s', [5, 0]]);
  });

  it('is forgotten when it was silent for too long, not while it runs or waits', () => {
    const scheduler = schedulerOf({ idleUsMax: 10_000 });
    offerAll(scheduler, '1s');
    scheduler.expire(50);
    const batch = take(scheduler, 50);
    scheduler.expire(100);
    scheduler.complete(batch, undefined, 100);
    expect(scheduler.nextExpiryMs).toBe(110);
    scheduler.expire(109);
    expect(scheduler.sequences).toBe(1);
    scheduler.expire(110);
    expect(scheduler.sequences).toBe(0);
    expect(scheduler.offer(step('1'), '', 110)?.message).toMatch(/START/);
  });

  it('is over when one of its waiting requests is cancelled, and so are those behind', () => {
    const scheduler = schedulerOf();
    offerAll(scheduler, '1s 1 2s');
    const second = step('1');
    scheduler.offer(second, 'x', 0);
    const dropped = scheduler.cancel(second.id, 0);
    expect(dropped.map(({ entry, error }) => [entry.waiter, error.code])).toEqual([
      ['1s', 'CANCELLED'],
      ['1', 'CANCELLED'],
      ['x', 'CANCELLED'],
    ]);
    expect(names(take(scheduler))).toBe('2s');
    expect(scheduler.offer(step('1'), '', 0)?.code).toBe('INVALID_ARGUMENT');
  });

  it('is over at the deadline of a waiting request', () => {
    const scheduler = schedulerOf();
    offerAll(scheduler, '1s');
    const batch = take(scheduler);
    scheduler.offer(step('1', { deadlineMs: 5 }), 'late', 0);
    expect(scheduler.expire(5).map(({ error }) => error.code)).toEqual(['DEADLINE_EXCEEDED']);
    scheduler.complete(batch, undefined, 6);
    expect(scheduler.sequences).toBe(0);
  });
});

describe('slots', () => {
  it('bound the sequences that take part; others wait for an end', () => {
    const scheduler = schedulerOf({ strategy: oldest });
    offerAll(scheduler, '1s 2s 3s 3 1e');
    const first = take(scheduler);
    expect(names(first)).toBe('1s 2s');
    scheduler.complete(first, undefined, 0);
    const second = take(scheduler);
    expect(names(second)).toBe('1e');
    scheduler.complete(second, undefined, 0);
    expect(names(take(scheduler))).toBe('3s');
  });

  it('are one for each item of a batch and each instance with strategy direct', () => {
    const scheduler = schedulerOf({}, { instances: 2 }, 1);
    offerAll(scheduler, '1s 2s 3s');
    expect([names(take(scheduler)), names(take(scheduler))]).toEqual(['1s', '2s']);
    expect(scheduler.form(0, freely).kind).toBe('empty');
  });

  it('free themselves when their sequence falls silent', () => {
    const scheduler = schedulerOf({ idleUsMax: 10_000 }, {}, 1);
    offerAll(scheduler, '1s 2s');
    scheduler.complete(take(scheduler), undefined, 0);
    expect(scheduler.form(5, freely).kind).toBe('empty');
    scheduler.expire(10);
    expect(names(take(scheduler, 10))).toBe('2s');
  });

  it('are waited for no longer than the request allows', () => {
    const scheduler = schedulerOf({}, {}, 1);
    offerAll(scheduler, '1s');
    scheduler.offer(step('2s', { queueTimeoutUs: 3000 }), 'x', 0);
    expect(scheduler.nextExpiryMs).toBe(3);
    expect(scheduler.expire(3).map(({ entry, error }) => [entry.waiter, error.code])).toEqual([['x', 'QUEUE_TIMEOUT']]);
  });

  it('and backlog together hold a bounded number of sequences', () => {
    const scheduler = schedulerOf({}, { sequencesMax: 2 }, 1);
    offerAll(scheduler, '1s 2s');
    expect(scheduler.offer(step('3s'), '', 0)).toMatchObject({ code: 'RESOURCE_EXHAUSTED', details: { limit: 2 } });
  });
});

describe('waiting for companions', () => {
  it('ends with the utilisation asked for, with strategy direct', () => {
    const scheduler = schedulerOf({
      strategy: { kind: 'direct', queueDelayUsMax: 10_000, minimumSlotUtilization: 0.5 },
    });
    offerAll(scheduler, '1s');
    expect(scheduler.form(0, freely)).toEqual({ kind: 'wait', untilMs: 10 });
    offerAll(scheduler, '2s');
    expect(names(take(scheduler))).toBe('1s 2s');
    offerAll(scheduler, '3s', 5);
    expect(take(scheduler, 15).reason).toBe('delay');
  });

  it('ends with the delay, a preferred size or a deadline, with strategy oldest', () => {
    const strategy = { ...oldest, candidateSequencesMax: 10, preferredBatchSizes: [2], queueDelayUsMax: 10_000 };
    const scheduler = schedulerOf({ strategy });
    offerAll(scheduler, '1s');
    expect(scheduler.form(3, freely)).toEqual({ kind: 'wait', untilMs: 10 });
    offerAll(scheduler, '2s 3s', 4);
    const preferred = take(scheduler, 4);
    expect([names(preferred), preferred.reason]).toEqual(['1s 2s', 'preferred']);
    expect(take(scheduler, 14).reason).toBe('delay');
    scheduler.offer(step('4s', { deadlineMs: 27 }), '4s', 20);
    expect(scheduler.form(20, { ...freely, serviceMs: 5 })).toEqual({ kind: 'wait', untilMs: 21 });
    expect(take(scheduler, 21, { serviceMs: 5 }).reason).toBe('deadline');
  });
});

describe('controls', () => {
  const added = (batch: Batch<string>, name: string): number[] =>
    batch.addedInputs.find((input) => input.name === name)!.chunks.map(valueOf);

  it('tell where a request stands in its sequence', () => {
    const kinds = ['START', 'END', 'READY'] as const;
    const scheduler = schedulerOf({ controls: [...kinds.map((kind) => control(kind)), control('CORRID', 'UINT64')] });
    offerAll(scheduler, '1s 2s');
    scheduler.complete(take(scheduler), undefined, 0);
    offerAll(scheduler, '1 2e 300s');
    const batch = take(scheduler);
    expect([added(batch, 'START'), added(batch, 'END'), added(batch, 'READY')]).toEqual([
      [0, 0, 1],
      [0, 1, 0],
      [1, 1, 1],
    ]);
    const ids = batch.addedInputs[3]!;
    expect([ids.shape, ids.chunks.map((chunk) => new DataView(chunk.buffer).getBigUint64(0, true))]).toEqual([
      [3, 1],
      [1n, 2n, 300n],
    ]);
  });

  it('have the rank that the model gives them, and no batch dimension where the model has none', () => {
    const controls = [control('START'), control('READY', 'BOOL')];
    const ranked = schedulerOf({ controls }, { inputRank: new Map([['START', 1]]) });
    offerAll(ranked, '1s 2s');
    expect(take(ranked).addedInputs.map((input) => input.shape)).toEqual([[2], [2, 1]]);
    const alone = schedulerOf({ controls }, {}, 0);
    offerAll(alone, '1s');
    expect(take(alone).addedInputs.map((input) => [input.shape, input.chunks[0]!.byteLength])).toEqual([
      [[1], 4],
      [[1], 1],
    ]);
  });

  it('refuse an id that the model cannot take', () => {
    const scheduler = schedulerOf({ controls: [control('CORRID', 'UINT32')] });
    expect(scheduler.offer(step('4294967296s'), '', 0)).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(scheduler.offer(step('1', { sequence: { id: 'x', start: true, end: false } }), '', 0)?.message).toMatch(
      /UINT32/,
    );
    const texts = schedulerOf({ controls: [control('CORRID', 'BYTES')] });
    texts.offer(step('1', { sequence: { id: 'häuser', start: true, end: false } }), '', 0);
    const [chunk] = take(texts).addedInputs[0]!.chunks;
    expect(new TextDecoder().decode(decodeBytesElements(chunk!)[0])).toBe('häuser');
  });
});

/** Runs the next batch; each request's state becomes its own plus `add`. */
function run(scheduler: SequenceScheduler<string>, add: number, nowMs = 0): void {
  const batch = take(scheduler, nowMs);
  const outputs = states(batch).map((state): Tensor[] => [
    { name: 'OUT', datatype: 'INT32', shape: [1, 1], data: int32(state + add) },
  ]);
  scheduler.complete(batch, outputs, nowMs);
}
function states(batch: Batch<string>): number[] {
  return batch.addedInputs.find((input) => input.name === 'IN')!.chunks.map(valueOf);
}

describe('implicit states', () => {
  it('carry what a run gave to the next run of the same sequence, and to no other', () => {
    const scheduler = schedulerOf({ states: [accumulator] });
    offerAll(scheduler, '1s 2s');
    run(scheduler, 10);
    offerAll(scheduler, '2');
    run(scheduler, 1);
    offerAll(scheduler, '1 2 3s');
    const batch = take(scheduler);
    expect([names(batch), states(batch)]).toEqual(['1 2 3s', [10, 11, 0]]);
    expect(scheduler.stateBytes).toBe(8);
  });

  it('stay as they were when a run fails', () => {
    const scheduler = schedulerOf({ states: [accumulator] });
    offerAll(scheduler, '1s');
    run(scheduler, 10);
    offerAll(scheduler, '1');
    scheduler.complete(take(scheduler), undefined, 0);
    offerAll(scheduler, '1');
    expect(states(take(scheduler))).toEqual([10]);
  });

  it('are copies, so that a state does not hold on to the bytes of a batch', () => {
    const scheduler = schedulerOf({ states: [accumulator] });
    offerAll(scheduler, '1s');
    const whole = new Uint8Array(4000);
    whole.set(int32(7), 400);
    const data = whole.subarray(400, 404);
    scheduler.complete(take(scheduler), [[{ name: 'OUT', datatype: 'INT32', shape: [1, 1], data }]], 0);
    whole.fill(0);
    offerAll(scheduler, '1');
    const batch = take(scheduler);
    expect(states(batch)).toEqual([7]);
    expect(batch.addedInputs[0]!.chunks[0]!.buffer.byteLength).toBe(4);
  });

  it('begin as configured, with sizes worked out from the bytes; a size that may vary begins empty', () => {
    const scheduler = schedulerOf({
      states: [
        { ...accumulator, initial: int32(5) },
        { inputName: 'CACHE', outputName: 'C', datatype: 'FP32', dims: [2, -1, 3] },
        { inputName: 'LIST', outputName: 'L', datatype: 'INT32', dims: [-1], initial: new Uint8Array(12) },
        { inputName: 'WORDS', outputName: 'W', datatype: 'BYTES', dims: [2] },
      ],
    });
    offerAll(scheduler, '1s');
    expect(take(scheduler).addedInputs.map(({ shape, chunks }) => [shape, chunks[0]!.byteLength])).toEqual([
      [[1, 1], 4],
      [[1, 2, 0, 3], 0],
      [[1, 3], 12],
      [[1, 2], 8],
    ]);
    expect(() => schedulerOf({ states: [{ ...accumulator, initial: new Uint8Array(3) }] })).toThrow(/3 bytes.*need 4/);
  });

  it('of different shapes do not share a batch', () => {
    const scheduler = schedulerOf({ states: [{ ...accumulator, dims: [-1] }] });
    offerAll(scheduler, '1s 2s');
    const batch = take(scheduler);
    const grown = (size: number): Tensor[] => [
      { name: 'OUT', datatype: 'INT32', shape: [1, size], data: new Uint8Array(4 * size) },
    ];
    scheduler.complete(batch, [grown(2), grown(3)], 0);
    offerAll(scheduler, '1 2');
    expect(names(take(scheduler))).toBe('1');
    expect(names(take(scheduler))).toBe('2');
  });

  it('are bounded in bytes: new sequences are refused at the bound, known ones go on', () => {
    const scheduler = schedulerOf({ states: [accumulator] }, { stateBytesMax: 4 });
    offerAll(scheduler, '1s');
    run(scheduler, 1);
    expect(scheduler.offer(step('2s'), '', 0)).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    offerAll(scheduler, '1e');
    run(scheduler, 1);
    expect(scheduler.stateBytes).toBe(0);
    offerAll(scheduler, '2s');
  });
});

describe('against the rules', () => {
  it('whatever happens, each request leaves once, sequences keep their order and their sums', () => {
    const action = fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          kind: fc.constant('offer' as const),
          id: fc.integer({ min: 1, max: 5 }),
          end: fc.boolean(),
        }),
      },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('form' as const) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('finish' as const), fails: fc.boolean() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), nth: fc.nat({ max: 30 }) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 5, 30) }) },
    );
    fc.assert(
      fc.property(
        fc.record({ maxBatchSize: fc.integer({ min: 1, max: 3 }), candidates: fc.integer({ min: 1, max: 3 }) }),
        fc.array(action, { maxLength: 80 }),
        ({ maxBatchSize, candidates }, actions) => {
          const strategy = { ...oldest, candidateSequencesMax: candidates };
          const scheduler = schedulerOf({ strategy, states: [accumulator], idleUsMax: 20_000 }, {}, maxBatchSize);
          let nowMs = 0;
          const offered: { id: number; key: string; order: number }[] = [];
          const left = new Map<number, string>();
          /** Sum and order by life of a sequence, as the test knows it. */
          const lives = new Map<number, { key: string; order: number }>();
          const sums = new Map<string, number>();
          const lastRun = new Map<string, number>();
          const running: Batch<string>[] = [];
          const drop = (dropped: ReturnType<typeof scheduler.expire>): void => {
            for (const { entry, error } of dropped) {
              expect(left.has(entry.request.id)).toBe(false);
              left.set(entry.request.id, error.code);
              const number = Number(entry.request.sequence!.id);
              if (lives.get(number)?.key === entry.waiter) lives.delete(number);
            }
          };
          for (const act of actions) {
            drop(scheduler.expire(nowMs));
            switch (act.kind) {
              case 'offer': {
                const made = step(`${act.id}${act.end ? 'e' : ''}`);
                let life = lives.get(act.id);
                const isKnown = life !== undefined && scheduler.offer(made, life.key, nowMs) === undefined;
                let request = made;
                if (!isKnown) {
                  life = { key: `${act.id}#${offered.length}`, order: 0 };
                  lives.set(act.id, life);
                  request = step(`${act.id}s${act.end ? 'e' : ''}`);
                  expect(scheduler.offer(request, life.key, nowMs)).toBeUndefined();
                }
                life!.order += 1;
                offered.push({ id: request.id, key: life!.key, order: life!.order });
                if (act.end) lives.delete(act.id);
                break;
              }
              case 'form': {
                const formed = scheduler.form(nowMs, freely);
                if (formed.kind !== 'batch') break;
                expect(formed.items).toBeLessThanOrEqual(maxBatchSize);
                const keys = [...running, formed].flatMap((batch) => batch.entries.map((entry) => entry.waiter));
                expect(new Set(keys).size).toBe(keys.length);
                formed.entries.forEach((entry, index) => {
                  const { key, order } = offered.find((each) => each.id === (entry.request.id as number))!;
                  expect(order).toBeGreaterThan(lastRun.get(key) ?? 0);
                  lastRun.set(key, order);
                  expect(states(formed)[index]).toBe(sums.get(key) ?? 0);
                });
                running.push(formed);
                break;
              }
              case 'finish': {
                const batch = running.shift();
                if (batch === undefined) break;
                const outputs = states(batch).map((state): Tensor[] => [
                  { name: 'OUT', datatype: 'INT32', shape: [1, 1], data: int32(state + 1) },
                ]);
                scheduler.complete(batch, act.fails ? undefined : outputs, nowMs);
                for (const entry of batch.entries) {
                  left.set(entry.request.id, 'ran');
                  if (!act.fails) sums.set(entry.waiter, (sums.get(entry.waiter) ?? 0) + 1);
                }
                break;
              }
              case 'cancel': {
                const chosen = offered[act.nth % Math.max(1, offered.length)];
                if (chosen !== undefined) drop(scheduler.cancel(chosen.id as RequestId, nowMs));
                break;
              }
              case 'pass':
                nowMs += act.ms;
                drop(scheduler.expire(nowMs));
                break;
            }
          }
          for (const entry of scheduler.clear()) left.set(entry.request.id, 'cleared');
          for (const batch of running) {
            scheduler.complete(batch, undefined, nowMs);
            for (const entry of batch.entries) left.set(entry.request.id, 'ran');
          }
          expect([...left.keys()].sort((a, b) => a - b)).toEqual(offered.map((each) => each.id));
          expect([scheduler.queuedRequests, scheduler.queuedBytes, scheduler.sequences, scheduler.stateBytes]).toEqual([
            0, 0, 0, 0,
          ]);
        },
      ),
      { numRuns: 500 },
    );
  });
});
