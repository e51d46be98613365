import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '#client/index.js';
import { affine, writeInto } from './faulty-models.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { affineTraffic, until } from './running-host.js';
import { temporaryFolder } from './temporary-folder.js';

const repository = join(temporaryFolder(), 'models');
writeInto(repository, { 'affine/1/model.onnx': affine() });

async function start(...args: string[]): Promise<HostProcess> {
  const host = await startHostProcess(['--repository', repository, '--device', 'cpu', ...args]);
  onTestFinished(async () => {
    await host.stop('SIGKILL');
  });
  return host;
}

describe('a device that stops computing', { timeout: 90_000 }, () => {
  it('is left out while others serve, tells why to who insists on it, and comes back', async () => {
    const far = await start();
    const near = await start('--remote-device', `far:0=${far.grpc}`, '--place', 'affine=cpu:0,far:0');
    const client = connect({ endpoints: near.grpc, attemptsMax: 1 });
    onTestFinished(() => client.close());
    const on = async (device: string) => {
      const answer = await client.infer('affine', { x: [[1, 2, 3, 4]] }, { parameters: { intarsia_device: device } });
      expect(answer.output().toArray()).toEqual([3, 5, 7, 9]);
      return answer.receipt?.device;
    };
    expect([await on('cpu:0'), await on('far:0')]).toEqual(['cpu:0', 'far:0']);

    const others = affineTraffic(client, 4);
    await others.more(100);
    await far.stop('SIGKILL');
    await others.more(200);
    await expect(on('far:0')).rejects.toMatchObject({ retryable: true });
    // Its executor is lost once three probes in a row have failed, and is started in vain from then on.
    await until(
      'the loss',
      () => near.stderr(),
      (log) => /"provider":"remote".*executor failed to start/.test(log),
    );
    await expect(on('far:0')).rejects.toMatchObject({ code: 'DEVICE_UNAVAILABLE' });
    expect(await on('cpu:0')).toBe('cpu:0');

    await start('--grpc-port', far.grpc.split(':')[1] ?? '');
    await until(
      'the device being back',
      () => on('far:0').catch(() => ''),
      (device) => device === 'far:0',
    );
    await others.stop();
    expect(others.failures).toEqual([]);
  });
});
