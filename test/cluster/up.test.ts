/** `intarsia up --hosts 3` under `intarsia bench serve`, as users run both: any one of its processes is killed. */
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { executorPids, metric, procThere } from '../e2e/running-host.js';
import { runProgram, startProgram, type StartedProgram } from '../e2e/host-process.js';
import type { LoadReport } from '#cli/load/load-report.js';
import { fullOnly, isFull } from './extent.js';
import { freePort } from '../store/real-stores.js';

const testMs = 240_000;
const loadSeconds = 20;

interface UpFacts {
  readonly store: { readonly pid: number };
  readonly hosts: readonly { readonly grpc: string; readonly metrics: string; readonly pid: number }[];
}

const victims = {
  'a host': ({ hosts }: UpFacts) => hosts[1]?.pid ?? 0,
  'the host that began': ({ hosts }: UpFacts) => hosts[0]?.pid ?? 0,
  'an executor': ({ hosts }: UpFacts) => executorPids(hosts[2]?.pid ?? 0)[0] ?? 0,
  'the store': ({ store }: UpFacts) => store.pid,
} as const;

describe.skipIf(!isFull || !procThere)(`intarsia up with three hosts under intarsia bench serve${fullOnly}`, () => {
  let grid: StartedProgram;
  let facts: UpFacts;
  beforeAll(async () => {
    const args = ['up', '--json', '--hosts', '3', '--base-port', String(await freeBase()), '--', '--lease-ms', '5000'];
    grid = await startProgram(args);
    facts = grid.document as UpFacts;
  }, testMs);
  afterAll(async () => {
    await grid.stop();
  }, testMs);

  it.each(Object.entries(victims))(
    'survives kill -9 of one process: no request fails, and it is there again',
    async (_what, victimOf) => {
      const endpoints = facts.hosts.map(({ grpc }) => grpc);
      const client = connect({ endpoints });
      try {
        await untilUp(client);
        const load = runProgram(
          [
            ...['bench', 'serve', '--json', '--model', 'digits', '--protocol', 'client', '--rate', '100'],
            ...['--deadline-ms', '5000', '--seconds', String(loadSeconds), '--endpoint', endpoints.join(',')],
          ],
          { timeoutMs: testMs },
        );
        // The load has begun when hosts have answered it.
        const before = await answered(facts);
        while ((await answered(facts)) < before + 200) await delay(10);
        const pid = victimOf(facts);
        expect(pid).toBeGreaterThan(1);
        process.kill(pid, 'SIGKILL');
        const { code, stdout, stderr } = await load;
        const { failed, errors } = JSON.parse(stdout) as Pick<LoadReport, 'failed' | 'errors'>;
        expect({ failed, errors, code, stderr }).toMatchObject({ failed: 0, errors: {}, code: 0 });
        await untilUp(client);
      } finally {
        client.close();
      }
    },
    testMs,
  );
});

/** Requests that hosts have answered. */
async function answered({ hosts }: UpFacts): Promise<number> {
  const counts = hosts.map(({ metrics }) => metric(metrics, 'nv_inference_request_success', 'model="digits"'));
  return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
}

/** All three hosts are there, and the store knows. */
async function untilUp(client: InferenceClient): Promise<void> {
  const endMs = performance.now() + 60_000;
  let seen: string;
  for (;;) {
    try {
      const { hosts, storeConnected } = await client.grid.status({ timeoutMs: 3_000 });
      if (storeConnected && hosts.filter(({ state }) => state === 'up').length === 3) return;
      seen = JSON.stringify({ storeConnected, hosts: hosts.map(({ host, state }) => [host, state]) });
    } catch (error) {
      seen = String(error);
    }
    if (performance.now() > endMs) throw new Error(`not all up; last seen: ${seen}`);
    await delay(20);
  }
}

/** The first of the ports that three hosts and a store need: 10 apart, each with the next four. */
async function freeBase(): Promise<number> {
  for (;;) {
    const base = await freePort();
    if (base > 60_000) continue;
    const wanted = [0, 10, 20].flatMap((host) => [0, 1, 2, 3].map((port) => base + host + port));
    if ((await Promise.all([...wanted, base + 4].map(isFree))).every(Boolean)) return base;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
