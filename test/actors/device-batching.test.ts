import { batchingByName } from '#policies/batching/batching-by-name.js';
import { describe, expect, it } from 'vitest';
import { defaultDynamicBatching } from '#core/model-config.js';
import { DeviceWorld, cpu, doubler, modelConfig, valueOf } from './device-world.js';

const together = modelConfig('m', { dynamicBatching: defaultDynamicBatching });

describe('a device batches', () => {
  it('answers a request with its own rows, and a receipt of its share', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    expect(await world.load('a', together)).toMatchObject({ ok: true, memoryBytes: 1000 });
    const first = world.infer('m', [1, 2]);
    const second = world.infer('m', [3]);
    await world.pass(10);
    expect([valueOf(first), valueOf(second)]).toEqual([[2, 4], [6]]);
    const outcome = first.outcomes[0]!;
    expect(outcome.ok && outcome.receipt).toMatchObject({
      device: 'cpu:0',
      emulated: true,
      queueUs: 0,
      computeInferUs: 10_000,
      batchItems: 3,
      billedUnits: 2,
      energySource: 'profile',
    });
  });

  it('forms a batch only when a permit frees, of everything that waits by then', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    world.infer('m', [1]);
    await world.until(1002);
    const waiting = [2, 3, 4].map((value) => world.infer('m', [value]));
    await world.until(1005);
    const last = world.infer('m', [5]);
    await world.until(1020);
    expect(world.runsOf('a')).toEqual([
      [1000, 1],
      [1010, 4],
    ]);
    expect([...waiting, last].map(valueOf)).toEqual([[4], [6], [8], [10]]);
  });

  it('shares one batch among requests that arrive in the same turn', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    for (let value = 0; value < 5; value += 1) world.infer('m', [value]);
    await world.pass(10);
    expect(world.runsOf('a')).toEqual([[1000, 5]]);
    expect(world.simulation.metrics.value('intarsia_batch_released_total', 'm', '1', 'cpu:0', 'immediate')).toBe(1);
  });

  it('waits for companions up to the delay, and no longer when a deadline is near', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', { ...together, dynamicBatching: { ...defaultDynamicBatching, queueDelayUsMax: 50_000 } });
    world.infer('m', [1]);
    await world.until(1030);
    world.infer('m', [2]);
    await world.until(1100);
    const hurried = world.infer('m', [3], { deadlineMs: 1131 });
    await world.until(1200);
    expect(world.runsOf('a')).toEqual([
      [1050, 2],
      [1120, 1],
    ]);
    expect(valueOf(hurried)).toEqual([6]);
    expect(world.simulation.metrics.value('intarsia_batch_released_total', 'm', '1', 'cpu:0', 'delay')).toBe(1);
    expect(world.simulation.metrics.value('intarsia_batch_released_total', 'm', '1', 'cpu:0', 'deadline')).toBe(1);
  });

  it('runs requests one at a time in order without dynamic batching', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', modelConfig('m'));
    const answers = [[1], [2, 3], [4]].map((values) => world.infer('m', values));
    await world.pass(40);
    expect(world.runsOf('a')).toEqual([
      [1000, 1],
      [1010, 2],
      [1020, 1],
    ]);
    expect(answers.map(valueOf)).toEqual([[2], [4, 6], [8]]);
  });

  it('runs urgent requests first', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    const dynamicBatching = { ...defaultDynamicBatching, priorityLevels: 2, defaultPriorityLevel: 2 };
    await world.load('a', modelConfig('m', { maxBatchSize: 2, dynamicBatching }));
    world.infer('m', [0]);
    await world.until(1001);
    const ordinary = [1, 2].map((value) => world.infer('m', [value]));
    const urgent = [3, 4].map((value) => world.infer('m', [value], { priority: 1 }));
    await world.until(1100);
    expect(urgent.map((answer) => answer.atMs)).toEqual([1020, 1020]);
    expect(ordinary.map((answer) => answer.atMs)).toEqual([1030, 1030]);
  });

  it('gives a free permit to the model whose head has waited longest', async () => {
    const world = new DeviceWorld({ models: { a: doubler(), b: doubler() } });
    await world.load('a', together);
    await world.load('b', { ...together, name: 'n' });
    world.infer('m', [1]);
    await world.until(2001);
    const b = world.infer('n', [1]);
    await world.until(2002);
    const a = world.infer('m', [2]);
    await world.until(2100);
    expect([b.atMs, a.atMs]).toEqual([2020, 2030]);
  });

  it('hands the next batch over while one computes, where the device has a permit more than it computes at once', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, descriptor: { ...cpu, permits: 2 } });
    await world.load('a', modelConfig('m'));
    for (const value of [1, 2, 3]) world.infer('m', [value]);
    await world.until(1005);
    expect((await world.status()).permitsFree).toBe(0);
    expect((await world.status()).queues[0]?.queuedRequests).toBe(1);
  });

  it('keeps the order of answers with preserve_ordering, though a later batch is done first', async () => {
    const slowFirst = doubler({ runMs: (items) => (items === 2 ? 30 : 10) });
    const world = new DeviceWorld({
      models: { a: slowFirst },
      descriptor: { ...cpu, permits: 2 },
      executor: { concurrency: 2 },
    });
    const dynamicBatching = { ...defaultDynamicBatching, preserveOrdering: true };
    const instanceGroups = [{ name: '', kind: 'CPU' as const, count: 2, gpus: [] }];
    await world.load('a', modelConfig('m', { maxBatchSize: 2, dynamicBatching, instanceGroups }));
    const slow = world.infer('m', [1, 2]);
    const quick = world.infer('m', [3]);
    await world.until(1029);
    expect(quick.outcomes).toEqual([]);
    await world.until(1031);
    expect([slow.atMs, quick.atMs]).toEqual([1030, 1030]);
  });
});

describe('a device lets nobody wait in vain', () => {
  it('refuses by a shedding policy what a run begun now would answer too late, and nobody by its figures of long ago', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, batchingPolicy: batchingByName('deadline-cap+shed') });
    await world.load('a', together);
    world.infer('m', [1]);
    await world.until(1015);
    world.infer('m', [2]);
    await world.until(1016);
    const hopeless = world.infer('m', [3], { deadlineMs: 1024 });
    const hopeful = world.infer('m', [4], { deadlineMs: 1060 });
    await world.until(1018);
    expect(valueOf(hopeless)).toBe('DEADLINE_EXCEEDED');
    expect(hopeful.outcomes).toEqual([]);
    await world.until(3000);
    expect(valueOf(hopeful)).toEqual([8]);
    // Nothing has run for more than a second: what is known of its time may be wrong, and one is tried.
    const tried = world.infer('m', [5], { deadlineMs: 3005 });
    await world.until(3001);
    expect(world.runsOf('a').at(-1)).toEqual([3000, 1]);
    await world.until(3020);
    expect(valueOf(tried)).toEqual([10]);
  });

  it('caps batches by the targets of those that wait, as runs on this device have shown', async () => {
    const growing = doubler({ runMs: (items) => 8 + 2 * items });
    const world = new DeviceWorld({ models: { a: growing }, batchingPolicy: batchingByName('deadline-cap') });
    await world.load('a', together);
    // Without targets batches grow as they come, and their times are learned.
    for (const items of [1, 4, 8]) {
      for (let count = 0; count < items; count += 1) world.infer('m', [1]);
      await world.until(world.nowMs + 100);
    }
    const before = world.runsOf('a').length;
    world.infer('m', [1]);
    await world.until(world.nowMs + 1);
    for (let count = 0; count < 8; count += 1) world.infer('m', [1], { sloMs: 26 });
    await world.until(world.nowMs + 100);
    // 9 ms are gone when the device is free: of the 17 that are left, 4 items take 16.
    expect(
      world
        .runsOf('a')
        .slice(before)
        .map(([, items]) => items),
    ).toEqual([1, 4, 4]);
  });

  it('takes a cancelled request out of the queue at once', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    world.infer('m', [1]);
    await world.until(1001);
    const cancelled = world.infer('m', [2]);
    const kept = world.infer('m', [3]);
    await world.until(1002);
    world.cancel(cancelled, 'm');
    await world.until(1002);
    expect(valueOf(cancelled)).toBe('CANCELLED');
    expect((await world.status()).queues[0]?.queuedRequests).toBe(1);
    await world.until(1020);
    expect(valueOf(kept)).toEqual([6]);
    expect(world.runsOf('a')).toEqual([
      [1000, 1],
      [1010, 1],
    ]);
    expect(world.simulation.metrics.value('nv_inference_request_failure', 'm', '1', 'CANCELED')).toBe(1);
  });

  it('tells a request that is cancelled while it runs, once', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    const answer = world.infer('m', [1]);
    await world.until(1005);
    world.cancel(answer, 'm');
    world.cancel(answer, 'm');
    await world.until(1050);
    expect(valueOf(answer)).toBe('CANCELLED');
  });

  it('expires by timer, while the device is busy: at the deadline, and at the queue timeout', async () => {
    const world = new DeviceWorld({ models: { a: doubler({ runMs: () => 500 }) } });
    const defaultQueuePolicy = { ...defaultDynamicBatching.defaultQueuePolicy, defaultTimeoutUs: 100_000 };
    await world.load('a', { ...together, dynamicBatching: { ...defaultDynamicBatching, defaultQueuePolicy } });
    const running = world.infer('m', [1]);
    await world.until(1001);
    const late = world.infer('m', [2], { deadlineMs: 1050 });
    const patient = world.infer('m', [3]);
    await world.until(2000);
    expect([valueOf(late), late.atMs]).toEqual(['DEADLINE_EXCEEDED', 1050]);
    expect([valueOf(patient), patient.atMs]).toEqual(['QUEUE_TIMEOUT', 1101]);
    expect([valueOf(running), running.atMs]).toEqual([[2], 1500]);
    expect(patient.outcomes[0]).toMatchObject({
      error: { message: expect.stringContaining('Request timeout expired') as unknown },
    });
  });

  it('refuses what does not fit the queue, with Triton’s words', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, limits: { queueRequestsMax: 2 } });
    await world.load('a', together);
    world.infer('m', [0]);
    await world.until(1001);
    const answers = [1, 2, 3].map((value) => world.infer('m', [value]));
    await world.until(1001);
    expect(valueOf(answers[2]!)).toBe('QUEUE_FULL');
    expect(answers[2]!.outcomes[0]).toMatchObject({
      error: { retryable: true, message: expect.stringContaining('Exceeds maximum queue size') as unknown },
    });
    expect(world.simulation.metrics.value('nv_inference_request_failure', 'm', '1', 'REJECTED')).toBe(1);
  });

  it('says that a model is not loaded here, so that another replica may be tried', async () => {
    const world = new DeviceWorld({ models: {} });
    const answer = world.infer('m', [1]);
    await world.until(0);
    expect(valueOf(answer)).toBe('MODEL_NOT_READY');
  });

  it('refuses new requests when it is drained, and replies once nothing waits or runs', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', { ...together, dynamicBatching: { ...defaultDynamicBatching, queueDelayUsMax: 900_000 } });
    const answer = world.infer('m', [1]);
    const drained: number[] = [];
    world.device.tell({ type: 'drain', replyTo: { tell: () => (drained.push(world.nowMs), 'accepted') } });
    await world.until(1000);
    const refused = world.infer('m', [2]);
    await world.until(2000);
    expect(valueOf(refused)).toBe('DEVICE_UNAVAILABLE');
    expect(valueOf(answer)).toEqual([2]);
    expect(drained).toEqual([1010]);
    expect(world.health.at(-1)).toBe('draining');
  });

  it('stops by itself when the system drains, with its executor closed', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    const answer = world.infer('m', [1]);
    const report = world.system.drain({ deadlineMs: 5000 });
    await world.until(1010);
    expect(await report).toEqual({ abandoned: [] });
    expect(valueOf(answer)).toEqual([2]);
    expect(world.executors.current.closed).toBe(true);
  });

  it('tells everybody when it stops at once', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    const running = world.infer('m', [1]);
    await world.until(1001);
    const waiting = world.infer('m', [2]);
    await world.until(1002);
    world.system.stop(world.device);
    await world.until(1100);
    expect([valueOf(running), valueOf(waiting)]).toEqual(['DEVICE_UNAVAILABLE', 'DEVICE_UNAVAILABLE']);
    expect(world.executors.current.closed).toBe(true);
  });
});

describe('a device counts', () => {
  it('keeps the figures of ModelStatistics, by batch size too', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    world.infer('m', [1, 2]);
    world.infer('m', [3]);
    await world.until(1010);
    world.infer('m', [4]);
    await world.until(1020);
    const [entry] = await world.statistics();
    expect(entry).toMatchObject({ model: 'm', version: '1', memoryBytes: 1000 });
    expect(entry!.statistics).toMatchObject({
      inferenceCount: 4,
      executionCount: 2,
      success: { count: 3, ns: 30_000_000 },
      queue: { count: 3, ns: 0 },
      computeInfer: { count: 3, ns: 30_000_000 },
      fail: { count: 0 },
    });
    expect(entry!.statistics.batches.map((batch) => [batch.batchSize, batch.computeInfer])).toEqual([
      [1, { count: 1, ns: 10_000_000 }],
      [3, { count: 1, ns: 10_000_000 }],
    ]);
  });

  it('counts under Triton’s names', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', together);
    world.infer('m', [1, 2]);
    world.infer('m', [3]);
    await world.until(1001);
    world.infer('m', [4]);
    await world.until(1001);
    const { metrics } = world.simulation;
    expect(metrics.value('nv_inference_pending_request_count', 'm', '1')).toBe(1);
    expect(metrics.value('intarsia_device_permits_free', 'cpu:0')).toBe(0);
    await world.until(1020);
    expect(metrics.value('nv_inference_request_success', 'm', '1')).toBe(3);
    expect(metrics.value('nv_inference_count', 'm', '1')).toBe(4);
    expect(metrics.value('nv_inference_exec_count', 'm', '1')).toBe(2);
    expect(metrics.value('nv_inference_queue_duration_us', 'm', '1')).toBe(9000);
    expect(metrics.value('nv_inference_request_duration_us', 'm', '1')).toBe(39_000);
    expect(metrics.value('nv_inference_pending_request_count', 'm', '1')).toBe(0);
    expect(metrics.value('nv_model_load_duration_secs', 'm', '1')).toBe(0.005);
    expect(metrics.value('intarsia_request_cost_usd_total', 'm', '1', 'cpu:0')).toBeCloseTo(2 * 10.02e-6, 12);
  });

  it('tells which share of the time it was busy', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, usageMs: 100 });
    await world.load('a', together, {}, 100);
    world.infer('m', [1]);
    await world.until(150);
    world.infer('m', [1]);
    await world.until(200);
    expect((await world.status()).utilization).toBeCloseTo(0.2);
    expect(world.simulation.metrics.value('intarsia_device_busy_share', 'cpu:0')).toBeCloseTo(0.2);
  });
});
