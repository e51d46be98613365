import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { emulateExecutor } from '#adapters/emulated/emulated-executor.js';
import { emulatedRunMs, type EmulationProfile } from '#adapters/emulated/latency-model.js';
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import type { Executor, RunEstimate, RunRequest } from '#ports/executor.js';
import { VirtualClock } from '#sim/virtual-clock.js';
import { floats, floatsOf, input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';

let folder = '';
let pathOf: (name: string) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-emulated-'));
  pathOf = writeExecutorModels(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** 60 GFLOPS and 80 GB/s after derating. */
const profile: EmulationProfile = {
  key: 'toy',
  memoryBytes: 1000,
  bandwidthBytesPerSecond: 100e9,
  flopsPerSecond: 100e9,
};
/** 10 ms an item by arithmetic, 0.3 ms of launches. */
const heavy: RunEstimate = { flopsPerItem: 600e6, weightBytes: 64, activationBytesPerItem: 0, operators: 100 };
const rows = (count: number): RunRequest => ({
  session: 'affine' as SessionId,
  inputs: [input('x', 'FP32', [count, 4], new Uint8Array(count * 16))],
  outputs: [],
});
const load = { ...loadRequest('affine', ''), estimate: heavy };

/** An executor that answers at once, or when the test says so. */
function inner(run: Executor['run']): { executor: Executor; lose: (reason: IntarsiaError) => void } {
  let lose: (reason: IntarsiaError) => void = () => {};
  const spec = { name: 'x', datatype: 'FP32', shape: [-1, 4] } as const;
  return {
    executor: {
      description: { provider: 'cpu', isolation: 'inline', emulated: false, engine: 'inner 1', concurrency: 1 },
      load: () =>
        Promise.resolve({ inputs: [spec], outputs: [spec], loadMs: 1, memoryBytes: 5, optimization: 'all', notes: [] }),
      run,
      unload: () => Promise.resolve(),
      usage: () => ({ memoryBytes: 123 }),
      onLost: (listener) => (lose = listener),
      close: () => Promise.resolve(),
    },
    lose: (reason) => lose(reason),
  };
}
const answer = () => Promise.resolve({ outputs: [], computeInputUs: 1, computeInferUs: 2, computeOutputUs: 3 });

describe('emulated executor', () => {
  it('takes the longer of arithmetic and memory, and the launches', () => {
    expect(emulatedRunMs(profile, heavy, 1)).toBeCloseTo(10.3, 6);
    expect(emulatedRunMs(profile, heavy, 4)).toBeCloseTo(40.3, 6);
    const reading = { flopsPerItem: 0, weightBytes: 800e6, activationBytesPerItem: 80e6, operators: 0 };
    expect(emulatedRunMs(profile, reading, 2)).toBeCloseTo(12, 6);
  });

  it('answers after the profile’s time multiplied by the scale, one run after the other', async () => {
    const clock = new VirtualClock();
    const executor = emulateExecutor({ inner: inner(answer).executor, profile, clock, timeScale: 2 });
    await executor.load(load);
    const ended: [string, number][] = [];
    const one = executor.run(rows(1)).then((result) => {
      ended.push(['one', clock.nowMs()]);
      return result;
    });
    const two = executor.run(rows(2)).then(() => ended.push(['two', clock.nowMs()]));
    for (let turn = 0; turn < 20 && ended.length < 2; turn += 1) {
      await Promise.resolve();
      await new Promise((resolve) => setImmediate(resolve));
      clock.advance(10);
    }
    const result = await one;
    await two;
    expect(result.computeInferUs).toBeCloseTo(20_600, 3);
    expect(ended.map(([name]) => name)).toEqual(['one', 'two']);
    expect(ended[0]![1]).toBeGreaterThanOrEqual(20.6);
    expect(ended[1]![1]).toBeGreaterThanOrEqual(20.6 + 40.6);
    expect(executor.overruns).toBe(0);
    expect(executor.description).toMatchObject({ emulated: true, engine: 'emulated toy over inner 1' });
  });

  it('counts runs whose true computation was slower than the profile', async () => {
    const clock = new VirtualClock();
    let finish: () => void = () => {};
    const late = inner(() => new Promise((resolve) => (finish = () => void answer().then(resolve))));
    const executor = emulateExecutor({ inner: late.executor, profile, clock, timeScale: 1 });
    await executor.load(load);
    const flight = executor.run(rows(1));
    clock.advance(1_000);
    finish();
    await flight;
    expect(executor.overruns).toBe(1);
  });

  it('has the memory of the profile: refuses what does not fit and says how much is missing', async () => {
    const clock = new VirtualClock();
    const executor = emulateExecutor({ inner: inner(answer).executor, profile, clock, timeScale: 1 });
    const big = { ...load, estimate: { ...heavy, weightBytes: 700 } };
    await executor.load(big);
    expect(executor.usage().memoryBytes).toBe(700);
    await expect(executor.load({ ...big, session: 'second' as SessionId })).rejects.toMatchObject({
      code: 'OUT_OF_MEMORY',
      details: { bytesMissing: 400 },
    });
    await executor.unload('affine' as SessionId);
    expect(executor.usage().memoryBytes).toBe(0);
  });

  it('is lost with its inner executor', async () => {
    const clock = new VirtualClock();
    const never = inner(() => new Promise(() => {}));
    const executor = emulateExecutor({ inner: never.executor, profile, clock, timeScale: 1 });
    await executor.load(load);
    const lost = new Promise((resolve) => executor.onLost(resolve));
    const flight = executor.run(rows(1));
    const reason = intarsiaError('EXECUTOR_LOST', 'gone');
    never.lose(reason);
    await expect(flight).rejects.toBe(reason);
    expect(await lost).toBe(reason);
    await expect(executor.run(rows(1))).rejects.toBe(reason);
  });

  it('without an engine answers zeros of the right shape, and still refuses wrong inputs', async () => {
    const clock = new VirtualClock();
    const executor = emulateExecutor({ profile, clock, timeScale: 1 });
    const loaded = await executor.load(loadRequest('affine', pathOf('affine')));
    expect(loaded.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: [-1, 4] }]);
    expect(loaded.memoryBytes).toBe(32);
    const flight = executor.run({ ...rows(2), inputs: [input('x', 'FP32', [2, 4], floats(1, 2, 3, 4, 5, 6, 7, 8))] });
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(1_000);
    const { outputs } = await flight;
    expect(outputs[0]).toMatchObject({ name: 'y', datatype: 'FP32', shape: [2, 4] });
    expect(floatsOf(outputs[0])).toEqual(new Array(8).fill(0));
    expect(executor.description).toMatchObject({ provider: 'none', isolation: 'inline', emulated: true });
    for (const inputs of [
      [],
      [input('z', 'FP32', [1, 4], floats(1, 2, 3, 4))],
      [input('x', 'FP64', [1, 4], new Uint8Array(32))],
      [input('x', 'FP32', [2, 4], floats(1))],
    ]) {
      await expect(executor.run({ ...rows(1), inputs })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
  });
});
