import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { executorEnvironment } from '#adapters/process/environment.js';
import { startProcessExecutor, type ProcessExecutorOptions } from '#adapters/process/process-executor.js';
import type { IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import type { Executor, RunRequest } from '#ports/executor.js';
import { floats, floatsOf, input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';
import { endlessLoop } from '#test/e2e/faulty-models.js';

let folder = '';
let pathOf: (name: string) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-process-'));
  pathOf = writeExecutorModels(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const affine: RunRequest = {
  session: 'affine' as SessionId,
  inputs: [input('x', 'FP32', [1, 4], floats(1, 2, 3, 4))],
  outputs: [],
};
/** About `batch` seconds of one core. */
const slow = (batch: number): RunRequest => ({
  session: 'slow' as SessionId,
  inputs: [input('x', 'FP32', [batch, 512, 512], new Uint8Array(batch * 512 * 512 * 4))],
  outputs: [],
});

async function start(
  options: Partial<ProcessExecutorOptions> = {},
): Promise<{ executor: Executor; pid: number; lost: Promise<IntarsiaError> }> {
  const executor = await startProcessExecutor({ provider: 'cpu', ...options });
  for (const name of ['affine', 'slow']) await executor.load(loadRequest(name, pathOf(name)));
  const { pid } = executor.description;
  if (pid === undefined) throw new Error('an executor process has a pid');
  const lost = new Promise<IntarsiaError>((resolve) => executor.onLost(resolve));
  return { executor, pid, lost };
}

/** A process that is not an executor but speaks its protocol as far as the script says. */
function pretender(script: string): string {
  const path = join(folder, `pretender-${Math.random().toString(36).slice(2)}.mjs`);
  const frame = join(import.meta.dirname, '../../dist/src/core/frame.js');
  writeFileSync(
    path,
    `import { Socket } from 'node:net';
     import { encodeFrame, joinRanges } from ${JSON.stringify(frame)};
     const control = new Socket({ fd: 3 });
     const send = (kind, header = '{}') => control.write(joinRanges(encodeFrame({ kind, number: 1, header: Buffer.from(header), payload: [] })));
     control.on('error', () => {});
     ${script}`,
  );
  return path;
}

describe('executor process that fails', () => {
  it('rejects everything in flight with EXECUTOR_LOST when the process is killed, and tells its owner once', async () => {
    const { executor, pid, lost } = await start();
    const told: IntarsiaError[] = [];
    executor.onLost((reason) => told.push(reason));
    const flights = [slow(4), slow(1), affine, affine].map((request) => executor.run(request));
    const outcomes = Promise.allSettled(flights.slice(0, 2));
    await Promise.all(flights.slice(2));
    process.kill(pid, 'SIGKILL');
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'EXECUTOR_LOST', retryable: true } });
    }
    const reason = await lost;
    expect(reason.message).toContain('SIGKILL');
    expect(told).toEqual([reason]);
    await expect(executor.run(affine)).rejects.toBe(reason);
    await expect(executor.load(loadRequest('again', pathOf('affine')))).rejects.toBe(reason);
    await executor.unload('affine' as SessionId);
    expect(await new Promise((resolve) => executor.onLost(resolve))).toBe(reason);
    await executor.close({ graceMs: 1_000 });
  });

  it('kills a process that stops answering heartbeats', async () => {
    const { executor, pid, lost } = await start({ heartbeatMs: 25, hangMs: 250 });
    process.kill(pid, 'SIGSTOP');
    const flight = executor.run(affine);
    await expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    expect((await lost).message).toMatch(/did not answer \d+ heartbeats/);
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
  });

  it('kills a process that sits on one run for longer than it may', async () => {
    const { executor, pid, lost } = await start({ heartbeatMs: 20, runMsMax: 100 });
    const flights = await Promise.allSettled([executor.run(slow(8)), executor.run(slow(1))]);
    for (const flight of flights) expect(flight).toMatchObject({ reason: { code: 'EXECUTOR_LOST' } });
    expect((await lost).message).toContain('took longer than 100 ms for one run');
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
  });

  it('tells the last words of a process that crashes', async () => {
    const entryPath = pretender(
      `process.stderr.write('the driver said no\\n'); send(2); setImmediate(() => process.exit(3));`,
    );
    await expect(startProcessExecutor({ provider: 'cpu', entryPath })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringMatching(/exited with code 3; its last words: the driver said no/) as string,
    });
  });

  it('gives up on a process that does not come up in time', async () => {
    const entryPath = pretender(`process.stdin.resume();`);
    await expect(startProcessExecutor({ provider: 'cpu', entryPath, startMsMax: 300 })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringContaining('not up within 300 ms') as string,
    });
  });

  it('kills a process that breaks the protocol', async () => {
    const garbage = pretender(`control.write('this is no frame at all, is it, and it is long enough');`);
    await expect(startProcessExecutor({ provider: 'cpu', entryPath: garbage })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringContaining('malformed') as string,
    });
    const odd = pretender(`send(999);`);
    await expect(startProcessExecutor({ provider: 'cpu', entryPath: odd })).rejects.toMatchObject({
      message: expect.stringContaining('control frame of kind 999') as string,
    });
  });

  it('says which providers there are when the one asked for is unknown here', async () => {
    const provider = process.platform === 'win32' ? 'coreml' : 'dml';
    await expect(startProcessExecutor({ provider })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringMatching(new RegExp(`no execution provider ${provider} .* it offers cpu`)) as string,
    });
  });

  it('kills a process whose work is not done when the grace of close is over', async () => {
    const { executor, pid } = await start();
    const flight = executor.run(slow(8));
    await Promise.all([
      expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' }),
      executor.close({ graceMs: 50 }),
    ]);
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
  });
});

describe('executor process', () => {
  it('does not end by signals that are meant for the host', async () => {
    const { executor, pid } = await start();
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(pid, signal);
    expect(floatsOf((await executor.run(affine)).outputs[0])).toEqual([3, 5, 7, 9]);
    await executor.close({ graceMs: 10_000 });
    expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
  });

  it('lets a short run of one model pass a long run of another', async () => {
    const { executor } = await start();
    const order: string[] = [];
    const long = executor.run(slow(2)).then(() => order.push('slow'));
    await executor.run(affine).then(() => order.push('affine'));
    await long;
    expect(order).toEqual(['affine', 'slow']);
    await executor.close({ graceMs: 10_000 });
  });

  it('tells its memory and processor time', async () => {
    const { executor } = await start({ heartbeatMs: 20 });
    await vi.waitFor(() => expect(executor.usage().cpuCores).toBeGreaterThanOrEqual(0), { timeout: 10_000 });
    expect(executor.usage().memoryBytes).toBeGreaterThan(20_000_000);
    await executor.close({ graceMs: 10_000 });
  });

  it('refuses more requests than it may have in flight', async () => {
    const { executor } = await start({ inFlightMax: 2 });
    const flights = [slow(1), slow(1), slow(1)].map((request) => executor.run(request));
    await expect(flights[2]).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    await Promise.all(flights.slice(0, 2));
    await executor.close({ graceMs: 10_000 });
  });

  it.skipIf(!existsSync('/proc/self/environ'))(
    'gets no secrets of the host’s environment (skipped without /proc)',
    async () => {
      vi.stubEnv('INTARSIA_TOKEN', 'hunter2');
      vi.stubEnv('CUDA_API_KEY', 'hunter2');
      vi.stubEnv('CUDA_VISIBLE_DEVICES', '0');
      const { executor, pid } = await start();
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      expect(environment).toContain('CUDA_VISIBLE_DEVICES=0');
      expect(environment.join('\n')).not.toContain('hunter2');
      await executor.close({ graceMs: 10_000 });
      vi.unstubAllEnvs();
    },
  );

  it('passes on what drivers need and what its owner adds', () => {
    const environment = executorEnvironment(
      { PATH: '/bin', VK_DRIVER_FILES: '/icd.json', NODE_OPTIONS: '--inspect', AWS_SECRET: 'x', HOME: undefined },
      { EXTRA: '1' },
    );
    expect(environment).toMatchObject({ PATH: '/bin', VK_DRIVER_FILES: '/icd.json', EXTRA: '1' });
    for (const name of ['NODE_OPTIONS', 'AWS_SECRET', 'HOME']) expect(environment).not.toHaveProperty(name);
  });

  it('finishes what it computes and ends when its host is killed', async () => {
    const pid = await orphan('slow', pathOf('slow'), { shape: [1, 512, 512], bytes: 512 * 512 * 4 });
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow(/ESRCH/), { timeout: 20_000 });
  });

  it('ends when its host is killed, also in the middle of a run without end', async () => {
    const path = join(folder, 'endless.onnx');
    writeFileSync(path, endlessLoop());
    const pid = await orphan('endless', path, { shape: [1], bytes: 8 });
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow(/ESRCH/), { timeout: 25_000 });
  });
});

/** The process of an executor whose host was killed in the middle of a run of the model. */
async function orphan(
  session: string,
  path: string,
  { shape, bytes }: { readonly shape: readonly number[]; readonly bytes: number },
): Promise<number> {
  const dist = join(import.meta.dirname, '../../dist/src/adapters/process/process-executor.js');
  const script = join(folder, `host-${session}.mjs`);
  writeFileSync(
    script,
    `import { startProcessExecutor } from ${JSON.stringify(dist)};
     const executor = await startProcessExecutor({ provider: 'cpu' });
     const { inputs } = await executor.load(${JSON.stringify(loadRequest(session, path))});
     const [{ name, datatype }] = inputs;
     const chunks = [new Uint8Array(${bytes})];
     void executor.run({ session: '${session}', inputs: [{ name, datatype, shape: ${JSON.stringify(shape)}, chunks }], outputs: [] });
     process.stdout.write(String(executor.description.pid));`,
  );
  const host = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [said] = (await once(host.stdout, 'data')) as [Buffer];
  const pid = Number(said.toString());
  process.kill(pid, 0);
  host.kill('SIGKILL');
  await once(host, 'exit');
  return pid;
}
