import { describe, expect, it, vi } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { modelName, modelVersion } from '#core/ids.js';
import { defaultDynamicBatching } from '#core/model-config.js';
import { DeviceWorld, cpu, digestOf, doubler, modelConfig, numbers, valueOf } from './device-world.js';

const together = modelConfig('m', { dynamicBatching: defaultDynamicBatching });
const other = { ...together, name: 'n' };

function unload(world: DeviceWorld, name: string): { atMs: number | undefined } {
  const done: { atMs: number | undefined } = { atMs: undefined };
  world.device.tell({
    type: 'unload',
    model: modelName(name),
    version: modelVersion('1'),
    replyTo: { tell: () => ((done.atMs = world.nowMs), 'accepted') },
  });
  return done;
}

describe('a device loads', () => {
  it('is ready for a model only after a trial run', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    const outcomes = world.requestLoad(world.placement('a', together));
    await world.until(14);
    expect(outcomes).toEqual([]);
    const early = world.infer('m', [1]);
    await world.until(15);
    expect(valueOf(early)).toBe('MODEL_NOT_READY');
    expect(outcomes).toEqual([{ ok: true, loadMs: 5, memoryBytes: 1000, notes: [] }]);
    expect(numbers(world.executors.runs[0]!.inputs[0]!)).toEqual([0]);
  });

  it('runs the configured warm-ups instead', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    const { inputs } = world.request('m', [7, 8]);
    await world.load('a', together, { warmups: [{ name: 'w', inputs }] });
    expect(world.executors.runs.map((run) => numbers(run.inputs[0]!))).toEqual([[7, 8]]);
  });

  it('gives a run the threads that the configuration asks for, else its own', async () => {
    const world = new DeviceWorld({ models: { a: doubler(), b: doubler(), c: doubler() } });
    await world.load('a', together);
    const load = vi.spyOn(world.executors.current, 'load');
    await world.load('b', { ...other, parameters: new Map([['intra_op_thread_count', '3']]) });
    await world.load('c', { ...together, name: 'c' });
    expect(load.mock.calls.map(([{ options }]) => options.intraOpThreads)).toEqual([3, cpu.threads]);
  });

  it('refuses a model whose first run fails', async () => {
    const broken = doubler({
      inputs: [{ name: 'X', datatype: 'FP32', shape: [-1, 1] }],
      compute: () => {
        throw intarsiaError('EXECUTION_FAILED', 'no kernel image');
      },
    });
    const world = new DeviceWorld({ models: { a: broken } });
    expect(await world.load('a', together)).toMatchObject({ ok: false, error: { code: 'EXECUTION_FAILED' } });
    expect(world.executors.current.sessions.size).toBe(0);
  });

  it('tries ones where zeros fail, and goes on with what worked', async () => {
    const picky = doubler({
      inputs: [{ name: 'X', datatype: 'FP32', shape: [-1, 1] }],
      compute: ([x]) => {
        if (numbers(x!).includes(0)) throw intarsiaError('EXECUTION_FAILED', 'a scale of zero');
        return [{ name: 'Y', datatype: 'INT32', shape: x!.shape, data: x!.data.slice() }];
      },
    });
    const world = new DeviceWorld({ models: { a: picky }, canaryMs: 5000 });
    expect(await world.load('a', together)).toMatchObject({ ok: true, notes: [] });
    await world.until(9000);
    expect(world.executors.runs.map((run) => numbers(run.inputs[0]!))).toEqual([[0], [0x3f800000], [0x3f800000]]);
    expect(world.health.at(-1)).toBe('ready');
  });

  it('makes its canary of the configured warm-up where there is one', async () => {
    const picky = doubler({
      compute: (inputs) => {
        if (numbers(inputs[0]!)[0] !== 7) throw intarsiaError('EXECUTION_FAILED', 'only seven');
        return doubler().compute(inputs);
      },
    });
    const world = new DeviceWorld({ models: { a: picky }, canaryMs: 5000 });
    const { inputs } = world.request('m', [7]);
    await world.load('a', together, { warmups: [{ name: 'w', inputs }] });
    await world.until(9000);
    expect(world.executors.runs.map((run) => numbers(run.inputs[0]!))).toEqual([[7], [7]]);
    expect(world.health.at(-1)).toBe('ready');
  });

  it('serves a whole-number model that no invented values suit, and notes it', async () => {
    const picky = doubler({
      compute: ([x]) => {
        if (numbers(x!)[0]! < 2) throw intarsiaError('EXECUTION_FAILED', 'a step of zero');
        return [{ name: 'Y', datatype: 'INT32', shape: x!.shape, data: x!.data.slice() }];
      },
    });
    const world = new DeviceWorld({ models: { a: picky } });
    expect(await world.load('a', together)).toMatchObject({
      ok: true,
      notes: [expect.stringContaining('a step of zero') as unknown],
    });
    const answer = world.infer('m', [4]);
    await world.pass(10);
    expect(valueOf(answer)).toEqual([4]);
  });

  it('tries the next provider, and notes why', async () => {
    const world: DeviceWorld = new DeviceWorld({
      models: {
        a: doubler({
          loadFault: (provider) =>
            provider === 'cpu' ? intarsiaError('MODEL_INVALID', 'no kernel for Foo') : undefined,
        }),
      },
      fallbacks: [{ provider: 'wasm', startExecutor: () => world.fallbackExecutors.start() }],
    });
    const outcome = await world.load('a', together);
    expect(outcome).toMatchObject({
      ok: true,
      notes: [expect.stringMatching(/cpu .*wasm .*no kernel for Foo/) as unknown],
    });
    const answer = world.infer('m', [4]);
    await world.pass(10);
    expect(valueOf(answer)).toEqual([8]);
    expect(world.fallbackExecutors.runs).toHaveLength(2);
  });

  it('refuses a model that does not fit, and says how many bytes are missing', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, memoryBytesMax: 10_000 });
    const outcome = await world.load('a', together, { weightBytes: 9000 });
    // 9,000 bytes of weights × 1.25, and 4 × 8 items × (4 + 4) bytes of tensors.
    expect(outcome).toMatchObject({
      ok: false,
      error: { code: 'OUT_OF_MEMORY', details: { bytesMissing: 11_250 + 256 - 10_000 } },
    });
  });

  it('counts what a session was measured to take, and gives it back when that is too much', async () => {
    const world = new DeviceWorld({ models: { a: doubler({ memoryBytes: 20_000 }) }, memoryBytesMax: 10_000 });
    expect(await world.load('a', together)).toMatchObject({
      ok: false,
      error: { code: 'OUT_OF_MEMORY', details: { bytesMissing: 10_000 } },
    });
    expect((await world.status()).memoryUsedBytes).toBe(0);
    expect(world.executors.current.sessions.size).toBe(0);
  });

  it('evicts the longest unused idle session for room, and loads it again when it is asked for', async () => {
    const world = new DeviceWorld({
      models: {
        a: doubler({ memoryBytes: 4000 }),
        b: doubler({ memoryBytes: 4000 }),
        c: doubler({ memoryBytes: 4000 }),
      },
      memoryBytesMax: 10_000,
    });
    await world.load('a', together);
    await world.load('b', other);
    world.infer('m', [1]);
    await world.pass(10);
    expect(await world.load('c', { ...together, name: 'o' })).toMatchObject({ ok: true });
    const states = (await world.status()).sessions.map((session) => [session.model, session.state]);
    expect(states).toEqual([
      ['m', 'ready'],
      ['n', 'evicted'],
      ['o', 'ready'],
    ]);
    const answer = world.infer('n', [21]);
    await world.pass(100);
    expect(valueOf(answer)).toEqual([42]);
    expect((await world.status()).sessions.map((session) => session.state)).toEqual(['evicted', 'ready', 'ready']);
  });

  it('never evicts a session with work', async () => {
    const world = new DeviceWorld({
      models: { a: doubler({ memoryBytes: 6000, runMs: () => 500 }), b: doubler({ memoryBytes: 6000 }) },
      memoryBytesMax: 10_000,
    });
    await world.load('a', together);
    const answer = world.infer('m', [1]);
    await world.pass(1);
    expect(await world.load('b', other, { weightBytes: 4800 }, 100)).toMatchObject({
      ok: false,
      error: { code: 'OUT_OF_MEMORY' },
    });
    await world.pass(1000);
    expect(valueOf(answer)).toEqual([2]);
  });

  it('finishes what waits before it unloads', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', modelConfig('m'));
    const answers = [1, 2].map((value) => world.infer('m', [value]));
    const done = unload(world, 'm');
    await world.until(1000);
    const late = world.infer('m', [3]);
    await world.until(1100);
    expect(answers.map(valueOf)).toEqual([[2], [4]]);
    expect(valueOf(late)).toBe('MODEL_NOT_READY');
    expect(done.atMs).toBe(1020);
    expect(world.executors.current.sessions.size).toBe(0);
    expect((await world.status()).memoryUsedBytes).toBe(0);
  });

  it('replaces a version in place without failing a request', async () => {
    const tripler = doubler({
      compute: ([x]) => [{ ...x!, name: 'Y', data: new Uint8Array(Int32Array.from(numbers(x!), (v) => 3 * v).buffer) }],
    });
    const world = new DeviceWorld({ models: { a: doubler(), b: tripler } });
    await world.load('a', modelConfig('m'));
    const answers = [world.infer('m', [1])];
    world.requestLoad(world.placement('b', modelConfig('m')));
    for (let ms = 1001; ms < 1100; ms += 7) {
      await world.until(ms);
      answers.push(world.infer('m', [1]));
    }
    await world.until(2000);
    const values = answers.map((answer) => (valueOf(answer) as number[])[0]);
    expect(values.every((value) => value === 2 || value === 3)).toBe(true);
    expect([values[0], values.at(-1)]).toEqual([2, 3]);
    expect([...world.executors.current.sessions.values()]).toEqual(['b']);
  });

  it('keeps the old one serving when the new one cannot be loaded', async () => {
    const world = new DeviceWorld({
      models: { a: doubler(), b: doubler({ loadFault: () => intarsiaError('MODEL_INVALID', 'corrupt') }) },
    });
    await world.load('a', together);
    expect(await world.load('b', together)).toMatchObject({ ok: false, error: { code: 'MODEL_INVALID' } });
    const answer = world.infer('m', [2]);
    await world.pass(10);
    expect(valueOf(answer)).toEqual([4]);
  });

  it('unloads what is still loading once it is loaded', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    const outcomes = world.requestLoad(world.placement('a', together));
    await world.until(3);
    const done = unload(world, 'm');
    await world.until(100);
    expect(outcomes).toMatchObject([{ ok: true }]);
    expect(done.atMs).toBe(15);
    expect((await world.status()).sessions).toEqual([]);
  });
});

describe('a device survives its executor', () => {
  it('answers what was in flight with a retryable error, restarts after a back-off, and serves what waited', async () => {
    const world = new DeviceWorld({ models: { a: doubler() } });
    await world.load('a', modelConfig('m'));
    const inFlight = world.infer('m', [1]);
    const waiting = world.infer('m', [2]);
    await world.until(1005);
    expect(() => world.executors.current.crash('signal 11')).toThrow('signal 11');
    await world.until(1005);
    expect(inFlight.outcomes).toMatchObject([{ ok: false, error: { code: 'EXECUTOR_LOST', retryable: true } }]);
    expect((await world.status()).health).toBe('degraded');
    await world.until(1104);
    expect(world.executors.started).toHaveLength(1);
    await world.until(1200);
    // 100 ms of back-off, 5 ms of loading, 10 ms of warm-up, then the run.
    expect([valueOf(waiting), waiting.atMs]).toEqual([[4], 1130]);
    expect(world.health).toEqual(['starting', 'ready', 'degraded', 'ready']);
    expect((await world.status()).executorRestarts).toBe(1);
    expect(world.simulation.metrics.value('intarsia_executor_restarts_total', 'cpu:0')).toBe(1);
  });

  it('waits twice as long after each crash', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, executor: { startMs: 1 } });
    await world.load('a', together);
    for (let crash = 0; crash < 4; crash += 1) {
      expect(() => world.executors.current.crash('again')).toThrow('again');
      const startMs = world.nowMs + 100 * 2 ** crash;
      await world.until(startMs);
      expect(world.executors.started).toHaveLength(crash + 1);
      await world.until(startMs + 50);
      expect(world.executors.started).toHaveLength(crash + 2);
    }
  });

  it('quarantines a model that crashes it again and again, alone', async () => {
    const crashing = doubler({ runCrashes: ([x]) => numbers(x!).includes(666) });
    const world = new DeviceWorld({ models: { bad: crashing, good: doubler() } });
    await world.load('bad', modelConfig('m'));
    await world.load('good', modelConfig('n'));
    for (let round = 0; round < 3; round += 1) {
      const poison = world.infer('m', [666]);
      await world.pass(1000);
      expect(valueOf(poison)).toBe('EXECUTOR_LOST');
    }
    const refused = world.infer('m', [1]);
    const served = world.infer('n', [5]);
    await world.pass(1000);
    expect(valueOf(refused)).toBe('MODEL_QUARANTINED');
    expect(valueOf(served)).toEqual([10]);
    expect((await world.status()).sessions.map((session) => session.state)).toEqual(['quarantined', 'ready']);
    // An explicit load gives it another chance.
    expect(
      await world.load('bad', modelConfig('m'), { artifact: { digest: digestOf('bad'), path: 'good' } }),
    ).toMatchObject({
      ok: true,
    });
  });

  it('finds the culprit among several that were in flight, by trying them one at a time', async () => {
    const world = new DeviceWorld({
      models: { bad: doubler({ runCrashes: ([x]) => numbers(x!).includes(666) }), good: doubler() },
      descriptor: { ...cpu, permits: 2 },
      executor: { concurrency: 2 },
    });
    await world.load('bad', modelConfig('m'));
    await world.load('good', modelConfig('n'));
    const innocent: ReturnType<DeviceWorld['infer']>[] = [];
    for (let round = 0; round < 4; round += 1) {
      world.infer('m', [666]);
      innocent.push(world.infer('n', [round]));
      await world.pass(2000);
    }
    // Only the first crash took the other one along; then the two ran apart.
    expect(innocent.map(valueOf)).toEqual(['EXECUTOR_LOST', [2], [4], [6]]);
    expect((await world.status()).sessions.map((session) => session.state)).toEqual(['quarantined', 'ready']);
    expect(world.executors.started).toHaveLength(5);
  });

  it('quarantines a model whose load crashes the executor, while the others come back', async () => {
    const world = new DeviceWorld({ models: { bad: doubler({ loadFault: () => 'crash' }), good: doubler() } });
    await world.load('good', other);
    expect(await world.load('bad', together, {}, 5000)).toMatchObject({
      ok: false,
      error: { code: 'MODEL_QUARANTINED' },
    });
    const answer = world.infer('n', [1]);
    await world.pass(1000);
    expect(valueOf(answer)).toEqual([2]);
    expect(world.executors.started).toHaveLength(4);
  });

  it('refuses what waits once the executor does not start any more, and goes on trying', async () => {
    let isBroken = false;
    const world = new DeviceWorld({
      models: { a: doubler() },
      executor: { startFault: () => (isBroken ? intarsiaError('DEVICE_UNAVAILABLE', 'no driver') : undefined) },
    });
    await world.load('a', together);
    isBroken = true;
    expect(() => world.executors.current.crash('unplugged')).toThrow('unplugged');
    const waiting = world.infer('m', [1]);
    await world.until(1500);
    expect(waiting.outcomes).toEqual([]);
    // 100, 200 and 400 ms after the crash a start failed.
    await world.until(1701);
    expect([valueOf(waiting), waiting.atMs]).toEqual(['DEVICE_UNAVAILABLE', 1700]);
    expect((await world.status()).health).toBe('failed');
    const refused = world.infer('m', [1]);
    await world.pass(1);
    expect(valueOf(refused)).toBe('DEVICE_UNAVAILABLE');
    isBroken = false;
    await world.pass(10_000);
    const answer = world.infer('m', [1]);
    await world.pass(10);
    expect(valueOf(answer)).toEqual([2]);
    expect(world.health.at(-1)).toBe('ready');
  });

  it('shows by canary that it computes, and takes no requests while it does not', async () => {
    let isIll = false;
    const ill = doubler({
      compute: (inputs) => {
        if (isIll) throw intarsiaError('EXECUTION_FAILED', 'uncorrectable memory error');
        return doubler().compute(inputs);
      },
    });
    const world = new DeviceWorld({ models: { a: ill }, canaryMs: 5000 });
    await world.load('a', together);
    await world.until(9000);
    expect(world.runsOf('a')).toEqual([[5015, 1]]);
    isIll = true;
    await world.until(12_000);
    expect(await world.status()).toMatchObject({
      health: 'failed',
      reason: expect.stringContaining('uncorrectable memory error') as unknown,
    });
    const refused = world.infer('m', [1]);
    await world.pass(1);
    expect(valueOf(refused)).toBe('DEVICE_UNAVAILABLE');
    // Its executor was given up for a new one, which computes no better: it is tried again and again.
    await world.pass(3000);
    expect(world.executors.started).toHaveLength(2);
    expect(world.executors.started[0]!.closed).toBe(true);
    isIll = false;
    await world.pass(2000);
    const answer = world.infer('m', [1]);
    await world.pass(20);
    expect(valueOf(answer)).toEqual([2]);
    expect(world.health).toEqual(['starting', 'ready', 'degraded', 'failed', 'ready']);
  });

  it('does not let a canary take time from a device that answers requests', async () => {
    const world = new DeviceWorld({ models: { a: doubler() }, canaryMs: 2000 });
    await world.load('a', together);
    for (let ms = 1500; ms < 6000; ms += 500) {
      await world.until(ms);
      world.infer('m', [1]);
    }
    await world.until(6000);
    expect(world.runsOf('a').every(([ms]) => ms % 500 === 0)).toBe(true);
    expect(world.runsOf('a')).toHaveLength(9);
  });

  it('starts at once when that is asked for', async () => {
    const world = new DeviceWorld({ models: {}, startAtOnce: true, executor: { startMs: 20 } });
    await world.until(10);
    expect((await world.status()).health).toBe('starting');
    await world.until(30);
    expect((await world.status()).health).toBe('ready');
  });

  it.each(['stop', 'drain'] as const)('leaves no executor behind that starts while it is told to %s', async (how) => {
    const world = new DeviceWorld({ models: {}, startAtOnce: true, executor: { startMs: 20 } });
    await world.until(10);
    if (how === 'stop') world.system.stop(world.device);
    else void world.system.drain({ deadlineMs: Infinity });
    await world.until(100);
    expect(world.executors.started.map(({ closed }) => closed)).toEqual([true]);
    expect(world.system.isAlive(world.device)).toBe(false);
  });
});

describe('a device actor that fails', () => {
  it('answers everybody, and its next incarnation loads again what was serving', async () => {
    const world = new DeviceWorld({
      models: { a: doubler() },
      batchingPolicy: {
        name: 'fragile',
        decidesAlone: true,
        choose: (views, _nowMs, choice) => {
          if (views[0]!.queuedItems === 3) throw new Error('the policy broke');
          choice.queue = 0;
          choice.itemsMax = Infinity;
        },
      },
    });
    await world.load('a', together);
    const fatal = world.infer('m', [1, 2, 3]);
    await world.pass(1);
    expect(valueOf(fatal)).toBe('DEVICE_UNAVAILABLE');
    await world.pass(1000);
    const answer = world.infer('m', [7]);
    await world.pass(1000);
    expect(valueOf(answer)).toEqual([14]);
    expect(world.executors.started[0]!.closed).toBe(true);
  });
});
