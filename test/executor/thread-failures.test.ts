import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { quarantinedThreads, startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import type { IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import { floats, floatsOf, input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';

let folder = '';
let pathOf: (name: string) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-thread-'));
  pathOf = writeExecutorModels(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const slowInputs = (batch: number) => [input('x', 'FP32', [batch, 512, 512], new Uint8Array(batch * 512 * 512 * 4))];

describe('executor thread that fails', () => {
  it('quarantines a thread that sits on one run for too long, and ends it only when it comes back', async () => {
    const executor = await startThreadExecutor({ provider: 'cpu', runMsMax: 40, watchMs: 20 });
    for (const name of ['slow', 'affine']) await executor.load(loadRequest(name, pathOf(name)));
    const lost = new Promise<IntarsiaError>((resolve) => executor.onLost(resolve));
    const flight = executor.run({ session: 'slow' as SessionId, inputs: slowInputs(12), outputs: [] });
    await expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    expect((await lost).message).toContain('for one run');
    expect(quarantinedThreads()).toBe(1);
    await expect(executor.run({ session: 'affine' as SessionId, inputs: [], outputs: [] })).rejects.toMatchObject({
      code: 'EXECUTOR_LOST',
    });
    await executor.close({ graceMs: 0 });
    await vi.waitFor(() => expect(quarantinedThreads()).toBe(0), { timeout: 25_000 });
  });

  it('leaves a thread alone that is busy when the grace of close is over', async () => {
    const executor = await startThreadExecutor({ provider: 'cpu' });
    await executor.load(loadRequest('slow', pathOf('slow')));
    const flight = executor.run({ session: 'slow' as SessionId, inputs: slowInputs(2), outputs: [] });
    const refused = expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    await executor.close({ graceMs: 10 });
    await refused;
    expect(quarantinedThreads()).toBe(1);
    await vi.waitFor(() => expect(quarantinedThreads()).toBe(0), { timeout: 25_000 });
  });

  it('says so when the thread cannot start', async () => {
    const workerPath = join(folder, 'broken.mjs');
    writeFileSync(workerPath, `throw new Error('no such luck');`);
    await expect(startThreadExecutor({ provider: 'cpu', workerPath })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringContaining('no such luck') as string,
    });
  });

  it('is lost when a thread dies', async () => {
    const workerPath = join(folder, 'dying.mjs');
    writeFileSync(
      workerPath,
      `export default async (task) => {
         if (task.type === 'describe') return { ok: true, value: { engine: 'dying 1' } };
         if (task.type === 'load') return { ok: true, value: { inputs: [], outputs: [] } };
         process.exit(7);
       };`,
    );
    const executor = await startThreadExecutor({ provider: 'cpu', workerPath });
    await executor.load(loadRequest('affine', pathOf('affine')));
    const lost = new Promise<IntarsiaError>((resolve) => executor.onLost(resolve));
    const flight = executor.run({ session: 'affine' as SessionId, inputs: [], outputs: [] });
    await expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    expect((await lost).message).toContain('exited with code: 7');
  });

  it('lets a short run of one model pass a long run of another', async () => {
    const executor = await startThreadExecutor({ provider: 'cpu' });
    for (const name of ['slow', 'affine']) await executor.load(loadRequest(name, pathOf(name)));
    const order: string[] = [];
    const long = executor
      .run({ session: 'slow' as SessionId, inputs: slowInputs(2), outputs: [] })
      .then(() => order.push('slow'));
    const { outputs } = await executor.run({
      session: 'affine' as SessionId,
      inputs: [input('x', 'FP32', [1, 4], floats(1, 2, 3, 4))],
      outputs: [],
    });
    order.push('affine');
    expect(floatsOf(outputs[0])).toEqual([3, 5, 7, 9]);
    await long;
    expect(order).toEqual(['affine', 'slow']);
    await executor.close({ graceMs: 20_000 });
  });
});
