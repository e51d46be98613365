import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { connect, type GridStatus, type InferenceClient } from '#client/index.js';
import { repositoryRoot, startHostProcess, type HostProcess } from './host-process.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-gateways-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const running: HostProcess[] = [];
afterEach(async () => {
  for (const host of running.splice(0)) await host.stop('SIGKILL');
});

const picture = { image: { shape: [1, 1, 28, 28], data: new Float32Array(784) } };

/** A client of its own has a connection of its own, which reaches one of the processes. */
async function asked<Answer>(endpoint: string, ask: (client: InferenceClient) => Promise<Answer>): Promise<Answer> {
  const client = connect({ endpoints: [endpoint] });
  try {
    return await ask(client);
  } finally {
    client.close();
  }
}

async function statusOnce(endpoint: string, isDone: (status: GridStatus) => boolean): Promise<GridStatus> {
  for (let look = 0; look < 300; look += 1) {
    const status = await asked(endpoint, (client) => client.grid.status());
    if (isDone(status)) return status;
    await delay(100);
  }
  throw new Error('the grid did not come to the state that was waited for within 300 looks');
}

const gatewaysOf = ({ hosts }: GridStatus) => hosts.filter(({ role }) => role === 'gateway');

describe.skipIf(process.platform !== 'linux')(
  'intarsia serve --gateways 2 (Linux: children are read from /proc)',
  () => {
    it(
      'serves by two processes on one port, starts one again that is killed, and stops them all',
      { timeout: 180_000 },
      async () => {
        const host = await startHostProcess(
          [
            ['--name', 'h', '--gateways', '2', '--store-port', '0', '--link-port', '0', '--data-dir', folder],
            ['--repository', join(repositoryRoot, 'examples/models'), '--device', 'cpu', '--cpu-threads', '1'],
          ].flat(),
        );
        running.push(host);
        const before = await statusOnce(host.grpc, (status) => gatewaysOf(status).length === 2);
        expect(before.hosts.map(({ host: name, role, devices }) => [name, role, devices.length])).toEqual([
          ['h', 'host', 1],
          ['h-g1', 'gateway', 0],
          ['h-g2', 'gateway', 0],
        ]);
        expect(gatewaysOf(before).map(({ grpcEndpoint }) => grpcEndpoint)).toEqual([host.grpc, host.grpc]);
        // The host that has the devices opens no port for clients.
        expect(before.hosts[0]?.grpcEndpoint).toBe('');

        const placed = await asked(host.grpc, (client) => client.infer('digits', picture));
        expect(placed.receipt).toMatchObject({ host: 'h', device: 'cpu:0' });
        // Each status tells who answered: connections are spread over both.
        const answered = new Set<string>();
        for (let connection = 0; connection < 20; connection += 1) {
          answered.add((await asked(host.grpc, (client) => client.grid.status())).host);
        }
        expect([...answered].sort()).toEqual(['h-g1', 'h-g2']);

        const gateways = childrenOf(host.pid).filter((pid) => commandOf(pid).includes('gateway-main'));
        expect(gateways).toHaveLength(2);
        process.kill(gateways[0] as number, 'SIGKILL');
        const generations = new Map(gatewaysOf(before).map(({ host: name, generation }) => [name, generation]));
        await statusOnce(host.grpc, (status) =>
          gatewaysOf(status).some(({ host: name, generation }) => generation > (generations.get(name) ?? Infinity)),
        );
        expect((await asked(host.grpc, (client) => client.infer('digits', picture))).receipt?.host).toBe('h');

        const { code, stderr } = await host.stop();
        running.length = 0;
        expect([code, stderr]).toEqual([0, expect.not.stringContaining('stopped without')]);
        for (const pid of gateways) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
      },
    );
  },
);

function childrenOf(pid: number): readonly number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function commandOf(pid: number): string {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
}
