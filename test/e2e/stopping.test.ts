import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { affine, loop, writeInto } from './faulty-models.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { affineTraffic, executorPid, executorPids, isRunning, metric, procThere, until } from './running-host.js';
import { temporaryFolder } from './temporary-folder.js';

const repository = join(temporaryFolder(), 'models');
mkdirSync(repository);
writeInto(repository, { 'affine/1/model.onnx': affine(), 'loop/1/model.onnx': loop() });

async function start(...args: string[]): Promise<{ host: HostProcess; client: InferenceClient }> {
  const host = await startHostProcess(['--repository', repository, '--device', 'cpu', ...args]);
  const client = connect({ endpoints: host.grpc, attemptsMax: 1 });
  onTestFinished(async () => {
    client.close();
    await host.stop('SIGKILL');
  });
  return { host, client };
}

/** Turns of the loop that take about a tenth of a second, a few times more on a busy machine. */
const someTurns = 2_000n;
/** Permits of the processor while nothing runs. */
const idlePermits = 4;
const pendingOf = (host: HostProcess, model: string): Promise<number> =>
  metric(host.metrics, 'nv_inference_pending_request_count', `model="${model}"`);

/** Runs in the executor's hands: an idle device has all its permits. */
const runningOf = async (host: HostProcess): Promise<number> =>
  idlePermits - (await metric(host.metrics, 'intarsia_device_permits_free'));

async function untilRunning(host: HostProcess): Promise<void> {
  await until(
    'a run',
    () => runningOf(host),
    (running) => running > 0,
  );
}

describe.skipIf(!procThere)('a host that is told to stop (skipped without /proc)', { timeout: 60_000 }, () => {
  it('answers every request it has, refuses new ones as retryable, and ends with 0 and without children', async () => {
    const { host, client } = await start('--drain-ms-max', '600000');
    const executors = executorPids(host.pid);
    expect(executors).toHaveLength(1);
    // While it stands still no request ends, so that it is plain when the host has all of them.
    process.kill(executors[0] ?? 0, 'SIGSTOP');
    const overGrpc = Array.from({ length: 12 }, () => client.infer('loop', { times: BigInt64Array.of(someTurns) }));
    const overRest = Array.from({ length: 4 }, () =>
      fetch(`${host.http}/v2/models/loop/infer`, {
        method: 'POST',
        body: JSON.stringify({
          inputs: [{ name: 'times', datatype: 'INT64', shape: [1], data: [Number(someTurns)] }],
        }),
      }),
    );
    await until(
      'all requests',
      async () => (await pendingOf(host, 'loop')) + (await runningOf(host)),
      (known) => known === 16,
    );
    process.kill(executors[0] ?? 0, 'SIGCONT');
    const others = affineTraffic(client, 4);
    const ended = host.stop('SIGTERM');

    for (const answer of await Promise.all(overGrpc)) expect(answer.output().toArray()).toEqual([someTurns]);
    for (const answer of await Promise.all(overRest)) {
      expect(answer.status).toBe(200);
      const { outputs } = (await answer.json()) as { outputs: { data: number[] }[] };
      expect(outputs[0]?.data).toEqual([Number(someTurns)]);
    }
    const { code, signal, stderr } = await ended;
    expect({ code, signal }, stderr).toEqual({ code: 0, signal: null });
    await others.stop();
    for (const failure of others.failures) expect(failure).toMatchObject({ retryable: true });
    expect(executors.filter(isRunning)).toEqual([]);
  });

  it('does not wait for ever for a run without end: the time to drain is over, and everything ends', async () => {
    const { host, client } = await start('--drain-ms-max', '500');
    const endless = client.infer('loop', { times: BigInt64Array.of(2n ** 60n) });
    await untilRunning(host);
    const executor = executorPid(host.pid);
    const [, { code, signal }] = await Promise.all([
      expect(endless).rejects.toMatchObject({ retryable: true }),
      host.stop('SIGTERM'),
    ]);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(isRunning(executor)).toBe(false);
  });

  it('is not in the way of a second signal', async () => {
    const { host, client } = await start('--drain-ms-max', '600000');
    client.infer('loop', { times: BigInt64Array.of(2n ** 60n) }).catch(() => undefined);
    await untilRunning(host);
    const executor = executorPid(host.pid);
    const ended = host.stop('SIGINT');
    await until(
      'the drain',
      () => host.stderr(),
      (text) => text.includes('stopping: finishing'),
    );
    await host.stop('SIGINT');
    expect(await ended).toMatchObject({ signal: 'SIGINT' });
    expect(isRunning(host.pid)).toBe(false);
    process.kill(executor, 'SIGKILL');
  });
});

describe.skipIf(!procThere)('a host that is killed (skipped without /proc)', () => {
  it('leaves no executor behind', async () => {
    const { host, client } = await start();
    const flight = client.infer('loop', { times: BigInt64Array.of(someTurns) });
    const executor = executorPid(host.pid);
    await Promise.all([
      expect(flight).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true }),
      host.stop('SIGKILL'),
    ]);
    await until(
      'the end of the executor',
      () => isRunning(executor),
      (running) => !running,
    );
  });
});
