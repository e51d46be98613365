/** Connections that are on their way to a process of a cluster when it dies. */
import cluster, { type Worker } from 'node:cluster';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { rescueConnections } from '#compose/handed-connections.js';

const program = `
import { createServer } from 'node:net';
createServer((socket) => socket.end(String(process.pid))).listen(0, '127.0.0.1');
`;

async function start(): Promise<{ workers: readonly Worker[]; port: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-cluster-'));
  const exec = join(folder, 'worker.mjs');
  writeFileSync(exec, program);
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.setupPrimary({ exec, args: [], execArgv: [] });
  const workers = [1, 2].map(() => cluster.fork());
  for (const worker of workers) rescueConnections(worker);
  onTestFinished(async () => {
    for (const worker of workers) {
      if (worker.isDead()) continue;
      const ended = once(worker, 'exit');
      worker.process.kill('SIGKILL');
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  });
  const addresses = (await Promise.all(workers.map((worker) => once(worker, 'listening')))) as [{ port: number }][];
  return { workers, port: addresses[0]?.[0].port ?? 0 };
}

/** Who answered. */
function answer(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = '';
    connect(port, '127.0.0.1')
      .on('data', (bytes) => (text += bytes.toString()))
      .on('end', () => resolve(Number(text)))
      .on('error', reject);
  });
}

it.skipIf(process.platform === 'win32')(
  'answers connections by the process that is left when the one that they were handed to dies (not Windows: SIGSTOP)',
  async () => {
    const { workers, port } = await start();
    const [dying, left] = workers as [Worker, Worker];
    expect(new Set([await answer(port), await answer(port)])).toEqual(new Set([dying.process.pid, left.process.pid]));
    // It takes no connection any more, and says nothing.
    dying.process.kill('SIGSTOP');
    const answers = [1, 2, 3, 4].map(() => answer(port));
    expect(await Promise.race(answers)).toBe(left.process.pid);
    dying.process.kill('SIGKILL');
    expect(new Set(await Promise.all(answers))).toEqual(new Set([left.process.pid]));
  },
);
