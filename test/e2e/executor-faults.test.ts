import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { asIntarsiaError } from '#core/errors.js';
import { affine, deadlyQuotient, insatiable, loop, quotient, writeInto } from './faulty-models.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { affineTraffic, executorPid, isRunning, metric, procThere, until } from './running-host.js';
import { temporaryFolder } from './temporary-folder.js';

const repository = join(temporaryFolder(), 'models');
const runMsMax = 2_000;
let host: HostProcess;
/** As a client of ours comes: it retries. */
let client: InferenceClient;
/** As a stock client: it does not. */
let stock: InferenceClient;

beforeAll(() => {
  mkdirSync(repository);
  writeInto(repository, {
    'affine/1/model.onnx': affine(),
    'affine/config.pbtxt': 'max_batch_size: 16 dynamic_batching { max_queue_delay_microseconds: 20000 }',
    'quotient/1/model.onnx': quotient(),
    'loop/1/model.onnx': loop(),
    'insatiable/1/model.onnx': insatiable(),
  });
});

// A host for each test: a host remembers who was in flight when an executor was lost, however it was, and waits longer
// before each restart. What one test did to it would count in the next, and on a slow machine be the crash too many.
beforeEach(async () => {
  const args = ['--device', 'cpu', '--model-control-mode', 'explicit', '--load-model', '*'];
  host = await startHostProcess(['--repository', repository, ...args, '--run-ms-max', String(runMsMax)]);
  client = connect({ endpoints: host.grpc });
  stock = connect({ endpoints: host.grpc, attemptsMax: 1 });
});
afterEach(async () => {
  client.close();
  stock.close();
  await host.stop();
});

const divide = (a: number, b: number) =>
  stock.infer('quotient', {
    a: { data: Int32Array.of(a), shape: [1, 1] },
    b: { data: Int32Array.of(b), shape: [1, 1] },
  });

describe.skipIf(!procThere)('an executor process that dies (skipped without /proc)', { timeout: 90_000 }, () => {
  it('is replaced: clients that retry see nothing, others one retryable error at most for what was in flight', async () => {
    const patient = affineTraffic(client, 128);
    const impatient = affineTraffic(stock, 4);
    await patient.more(200);
    const before = executorPid(host.pid);
    const restarts = await metric(host.metrics, 'intarsia_executor_restarts_total');
    // Stopped first, until a batch of 16 cannot leave: then it has full batches in its hands.
    process.kill(before, 'SIGSTOP');
    const pending = () => metric(host.metrics, 'nv_inference_pending_request_count', 'model="affine"');
    await until('a full queue', pending, (requests) => requests >= 16);
    process.kill(before, 'SIGKILL');
    await patient.more(400);
    await Promise.all([patient.stop(), impatient.stop()]);
    expect(executorPid(host.pid)).not.toBe(before);
    expect(await metric(host.metrics, 'intarsia_executor_restarts_total')).toBe(restarts + 1);
    expect(await metric(host.metrics, 'nv_inference_request_failure', 'model="affine"')).toBeGreaterThan(16);
    expect(patient.failures).toEqual([]);
    expect(impatient.failures.length).toBeLessThanOrEqual(4);
    for (const failure of impatient.failures) expect(failure).toMatchObject({ code: 'EXECUTOR_LOST', retryable: true });
  });

  it('is killed when it hangs, also when nobody asks for anything, and replaced: a stopped process has no heartbeat', async () => {
    const before = executorPid(host.pid);
    process.kill(before, 'SIGSTOP');
    await until(
      'the end of the stopped process',
      () => isRunning(before),
      (running) => !running,
    );
    expect((await client.infer('affine', { x: [[1, 2, 3, 4]] })).output().toArray()).toEqual([3, 5, 7, 9]);
    expect(executorPid(host.pid)).not.toBe(before);
    expect(host.stderr()).toMatch(/did not answer \d+ heartbeats/);
  });

  it('is killed when it hangs under load: who retries sees nothing', async () => {
    const before = executorPid(host.pid);
    const others = affineTraffic(client, 8);
    await others.more(50);
    process.kill(before, 'SIGSTOP');
    await others.more(100);
    await others.stop();
    expect(others.failures).toEqual([]);
    expect(isRunning(before)).toBe(false);
  });
});

describe.skipIf(!procThere)('a model that harms its executor (skipped without /proc)', { timeout: 90_000 }, () => {
  const countTo = (times: bigint, options: { readonly timeoutMs?: number } = {}) =>
    stock.infer('loop', { times: BigInt64Array.of(times) }, options);

  it('cannot take more memory than there is: the run fails, the process lives', async () => {
    const before = executorPid(host.pid);
    const sizes = { data: BigInt64Array.of(2n ** 22n, 2n ** 22n) };
    await expect(stock.infer('insatiable', { sizes })).rejects.toMatchObject({
      code: expect.stringMatching(/^(OUT_OF_MEMORY|EXECUTION_FAILED)$/) as string,
    });
    expect((await stock.infer('insatiable', { sizes: BigInt64Array.of(1n, 1n) })).output().toArray()).toEqual([0]);
    expect(executorPid(host.pid)).toBe(before);
  });

  it.skipIf(process.arch !== 'x64')(
    'by crashing it again and again is quarantined alone, until it is loaded again (skipped where no division traps)',
    async () => {
      expect((await divide(10, 2)).output().toArray()).toEqual([5]);
      const others = affineTraffic(client, 4);
      const codes = await codesUntil('MODEL_QUARANTINED', () => divide(deadlyQuotient.a, deadlyQuotient.b));
      expect(codes.slice(0, -1).filter((code) => code !== 'EXECUTOR_LOST')).toEqual([]);
      expect(codes.length).toBeGreaterThan(3);
      await expect(divide(10, 2)).rejects.toMatchObject({ code: 'MODEL_QUARANTINED', retryable: false });
      await others.more(100);
      await others.stop();
      expect(others.failures).toEqual([]);
      const index = await client.repositoryIndex();
      expect(index.find(({ name }) => name === 'quotient')?.reason).toMatch(/quarantine/);
      expect(index.find(({ name }) => name === 'affine')).toMatchObject({ state: 'READY' });

      await client.loadModel('quotient');
      expect((await divide(10, 2)).output().toArray()).toEqual([5]);
    },
  );

  it('by a run without end is ended with its process, and quarantined alone', async () => {
    expect((await countTo(3n)).output().toArray()).toEqual([3n]);
    const others = affineTraffic(client, 4);
    await expect(countTo(2n ** 60n, { timeoutMs: 300 })).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    // While the run goes on, the other models are served.
    await others.more(20);
    const messages = new Set<string>();
    const codes = await codesUntil('MODEL_QUARANTINED', () => countTo(2n ** 60n), messages);
    expect(codes.slice(0, -1).filter((code) => code !== 'EXECUTOR_LOST')).toEqual([]);
    expect([...messages].some((message) => message.includes(`took longer than`))).toBe(true);
    await others.more(100);
    await others.stop();
    expect(others.failures).toEqual([]);
  });
});

/** Sends until the code comes; the codes of all failures. */
async function codesUntil(
  code: string,
  send: () => Promise<unknown>,
  messages: Set<string> = new Set(),
): Promise<readonly string[]> {
  const codes: string[] = [];
  while (codes.at(-1) !== code && codes.length < 30) {
    const failure = await send().then(
      () => Promise.reject(new Error('the harmful request was answered')),
      (error: unknown) => asIntarsiaError(error),
    );
    codes.push(failure.code);
    messages.add(failure.message);
  }
  return codes;
}
