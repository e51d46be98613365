/** A model goes from whole to pieces and back on three real hosts, under load; and a real one is served by three hosts. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from '#client/index.js';
import { listSharedModels, sharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { Cluster } from './cluster.js';
import { fullOnly, isFull } from './extent.js';
import { LiveLoad } from './live-load.js';

const testMs = 240_000;
const mnistPath = join(sharedModels, 'mnist/model.onnx');
const hasMnist = existsSync(mnistPath);

describe.skipIf(!isFull)(`split models on three real hosts${fullOnly}`, () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({
      store: 'embedded',
      files: hasMnist ? { 'mnist/1/model.onnx': readFileSync(mnistPath) } : {},
    });
  }, testMs);
  afterAll(() => cluster.end(), testMs);

  async function deploySplit(deployment: object, version: string): Promise<void> {
    const prepared = await cluster.client.grid.prepareSplit(JSON.stringify(deployment), { timeoutMs: 120_000 });
    expect(prepared.refusal).toBe('');
    const { applied, refusals } = await cluster.client.grid.deploy(prepared.deploymentJson);
    expect({ applied, refusals }).toEqual({ applied: true, refusals: [] });
    await cluster.untilDeployed(version, 1);
  }

  it(
    'a rollout from whole to pieces and back costs no request, of clients and of stock clients',
    async () => {
      const wanted = { name: 'affine', model: 'affine', version: '1', replicas: 1 };
      await cluster.deploy(wanted);
      const endpoints = cluster.hosts.map(({ grpc }) => grpc);
      const loads = await Promise.all([
        LiveLoad.start({ kind: 'client', endpoints, perSecond: 40, deadlineMs: 5_000 }),
        LiveLoad.start({ kind: 'stock', endpoints, perSecond: 20, deadlineMs: 5_000 }),
      ]);
      await deploySplit({ ...wanted, split: { cuts: [1] } }, '1');
      const pieces = await cluster.until('no whole copy is left', ({ replicas }) => {
        const own = replicas.filter(({ deployment, version }) => deployment === 'affine' && version === '1');
        return own.length === 2 && own.every(({ split, state }) => split !== '' && state === 'ready');
      });
      expect(pieces.deployments.find(({ name }) => name === 'affine')?.gate).toContain('equal');
      await loads[0].more(100);
      const { parameters } = await cluster.client.infer('affine', { x: [[1, 2, 3, 4]] }, { version: '1' });
      expect(parameters.has('intarsia_stages')).toBe(true);
      await cluster.deploy(wanted);
      await cluster.until('no piece is left', ({ replicas }) => replicas.every(({ split }) => split === ''));
      await loads[0].more(100);
      const answer = await cluster.client.infer('affine', { x: [[1, 2, 3, 4]] }, { version: '1' });
      expect(answer.output().toArray()).toEqual([3, 5, 7, 9]);
      for (const load of loads) await load.stop();
      expect(loads.flatMap(({ failures }) => failures)).toEqual([]);
    },
    testMs,
  );

  const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
  it.skipIf(missing !== '')(
    `MNIST in three stages on three hosts answers its test vectors from every gateway${missing}`,
    async () => {
      await deploySplit({ name: 'mnist', model: 'mnist', version: '1', replicas: 1, split: { stages: 3 } }, '1');
      await cluster.until('stages on three hosts', ({ replicas }) => {
        const own = replicas.filter(({ deployment, state }) => deployment === 'mnist' && state === 'ready');
        return new Set(own.map(({ host }) => host)).size === 3;
      });
      const cases = listSharedModels().filter((one) => one.kind === 'vector' && one.model === 'mnist');
      expect(cases.length).toBeGreaterThan(0);
      for (const { grpc } of cluster.hosts) {
        const client = connect({ endpoints: grpc, discovery: false });
        try {
          for (const one of cases) {
            if (one.kind !== 'vector') continue;
            const inputs = Object.fromEntries(one.inputs.map((tensor) => [tensor.name, tensor]));
            const answer = await client.infer('mnist', inputs);
            const expected = one.expected[0]!;
            const wanted = new Float32Array(Uint8Array.from(expected.data).buffer);
            const given = answer.output().toArray().flat(Infinity) as number[];
            expect(given).toHaveLength(wanted.length);
            for (const [index, value] of given.entries()) {
              expect(Math.abs(value - wanted[index]!)).toBeLessThanOrEqual(
                1e-3 * Math.max(1, Math.abs(wanted[index]!)),
              );
            }
          }
        } finally {
          client.close();
        }
      }
    },
    testMs,
  );
});
