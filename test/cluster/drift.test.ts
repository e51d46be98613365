/** A device that begins to answer wrongly, and that nobody else could contradict: the reference does, and it is given up. */
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { InferenceClient } from '#client/index.js';
import { affine, writeInto } from '../e2e/faulty-models.js';
import { startHostProcess, type HostProcess } from '../e2e/host-process.js';
import { Cluster } from './cluster.js';

const testMs = 240_000;

/** Asks until the answer is that one; fails with what it was last. */
async function untilAnswered(client: InferenceClient, wanted: readonly number[]): Promise<void> {
  const endMs = performance.now() + 90_000;
  for (;;) {
    const seen = await client.infer('affine', { x: [[1, 2, 3, 4]] }).then(
      (answer) => answer.output().toArray().join(),
      (error: unknown) => String(error),
    );
    if (seen === wanted.join()) return;
    if (performance.now() > endMs) throw new Error(`not ${wanted.join()} but ${seen}`);
  }
}

describe('a device that alone holds a model and begins to answer wrongly', () => {
  let folder: string;
  let far: HostProcess;
  let cluster: Cluster;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'intarsia-drift-'));
    writeInto(folder, { 'affine/1/model.onnx': affine(2) });
    far = await startHostProcess([
      ...['--repository', folder, '--device', 'cpu', '--cpu-threads', '1'],
      ...['--model-control-mode', 'poll', '--poll-seconds', '1'],
    ]);
    cluster = await Cluster.start({
      store: 'embedded',
      // The silicon of this device is somebody else's server: it can be made to answer wrongly.
      hosts: [{ name: 'host-1', args: ['--remote-device', `far:0=${far.grpc}`, '--check-share', '1'] }],
    });
  }, testMs);
  afterAll(async () => {
    await cluster.end();
    await far.stop('SIGKILL');
    await rm(folder, { recursive: true, force: true });
  }, testMs);

  it(
    'is found out by the reference and put out of service with the numbers, and its copy goes to another device or is reported',
    async () => {
      const { client } = cluster;
      await cluster.deploy({ replicas: 1, constraints: { devices: ['far:0'] } });
      await untilAnswered(client, [3, 5, 7, 9]);
      const [copy] = (await cluster.status()).replicas.filter(({ deployment }) => deployment === 'affine');
      expect([copy?.device, copy?.state]).toEqual(['far:0', 'ready']);

      writeInto(folder, { 'affine/1/model.onnx': affine(3) });
      await untilAnswered(client, [4, 7, 10, 13]);
      const reason =
        /\d+ of \d+ sampled answers were contradicted, the last one of affine by the reference: output 'y' at 0/;
      // It goes on asking: what is to be found out are answers.
      const load = { isOver: false };
      const asking = (async () => {
        while (!load.isOver) await client.infer('affine', { x: [[1, 2, 3, 4]] }).catch(() => undefined);
      })();
      const { hosts } = await cluster.until('the device out of service', (status) =>
        status.deployments.some((one) => reason.test(one.reason)),
      );
      load.isOver = true;
      await asking;
      expect(hosts.map(({ host, state }) => `${host} ${state}`)).toEqual(['host-1 up']);

      // There is no other place that the deployment allows: it says so, and nobody gets wrong answers any more.
      await expect(client.infer('affine', { x: [[1, 2, 3, 4]] })).rejects.toMatchObject({
        code: expect.stringMatching(/UNAVAILABLE/) as string,
      });
      // As soon as another device is allowed, the copy goes there.
      await cluster.deploy({ replicas: 1 });
      await untilAnswered(client, [3, 5, 7, 9]);
      const moved = (await cluster.status()).replicas.filter(
        ({ state, version }) => state === 'ready' && version === '1',
      );
      expect(moved.map(({ device }) => device)).toContain('cpu:0');
    },
    testMs,
  );
});
