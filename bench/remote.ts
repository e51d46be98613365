/**
 * What it costs a request that its model is on another host: the digit model has one copy in a grid of three real hosts, and
 * a client asks the host that has it and one that has not, a request at a time, in turns, over and over.
 *
 * Goal: the remote p50 is at most 1.5 times the local one and 0.3 ms. Non-goals: throughput, tensors that are large (split
 * and links measure those), a network between the hosts.
 */
import { performance } from 'node:perf_hooks';
import { connect, type InferenceClient } from '#client/index.js';
import { FailoverGrid } from './failover-grid.js';
import { benchReport, benchRow, median, type BenchOptions, type BenchReport } from './report.js';

const localFactor = 1.5;
const excessMsMax = 0.3;
const warmUpRequests = 500;

export async function run(options: BenchOptions): Promise<BenchReport> {
  const requests = options.quick ? 500 : 10_000;
  const grid = await FailoverGrid.start(1);
  const clients: InferenceClient[] = [];
  const clientOf = (host: string): InferenceClient => {
    const client = connect({ endpoints: grid.endpointOf(host), discovery: false });
    clients.push(client);
    return client;
  };
  try {
    const [home = ''] = (await grid.facts()).placed;
    // What hosts served by themselves is withdrawn after the deployment is complete.
    await grid.until('one copy in all', ({ replicas }) => {
      return replicas.filter(({ model }) => model === 'digits').every(({ deployment }) => deployment !== '');
    });
    const away = grid.names.find((name) => name !== home) ?? '';
    const [near, far] = [clientOf(home), clientOf(away)];
    const image = { data: new Float32Array(28 * 28), shape: [1, 1, 28, 28] };
    const ask = async (client: InferenceClient): Promise<number> => {
      const beganMs = performance.now();
      await client.infer('digits', { image });
      return performance.now() - beganMs;
    };
    const local: number[] = [];
    const remote: number[] = [];
    for (let index = -warmUpRequests; index < requests; index += 1) {
      const [localMs, remoteMs] = [await ask(near), await ask(far)];
      if (index < 0) continue;
      local.push(localMs);
      remote.push(remoteMs);
    }
    const [localMs, remoteMs] = [median(local), median(remote)];
    return benchReport(
      'remote',
      options,
      [
        benchRow({ key: 'remote.local.p50', label: 'the copy is on the host asked, p50', value: localMs, unit: 'ms' }),
        benchRow({ key: 'remote.p50', label: 'the copy is on another host, p50', value: remoteMs, unit: 'ms' }),
        benchRow({ key: 'remote.ratio', label: 'remote to local', value: remoteMs / localMs, unit: 'x' }),
        benchRow({
          key: 'remote.excess',
          label: `remote above ${localFactor} times local`,
          value: remoteMs - localFactor * localMs,
          unit: 'ms',
          target: { kind: 'at-most', value: excessMsMax },
        }),
      ],
      [
        `store: ${grid.storeKind}; three hosts and the client share this machine's processors; ${requests} requests each`,
      ],
    );
  } finally {
    for (const client of clients) client.close();
    await grid.end();
  }
}
