/**
 * A model in three stages on three host processes of this machine, with a standby of the middle stage: what a hop between
 * hosts costs, and what clients notice when the middle host is killed under load.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { NodeClock } from '#adapters/node/clock.js';
import { SupervisedProcess } from '#adapters/process/supervised-process.js';
import { connect, type GridStatus, type InferenceClient } from '#client/index.js';
import { packageRoot } from '#compose/package-root.js';
import { messageOf } from '#core/errors.js';
import { freePorts, Store } from './failover-grid.js';
import { benchRow, median, type BenchRow } from './report.js';
import { longMiddleCuts, writeHops, writeLongMiddle } from './split-models.js';

const main = join(packageRoot, 'bin/intarsia.mjs');
const hostNames = ['host-1', 'host-2', 'host-3', 'host-4'];
const untilMsMax = 60_000;
const deadlineMs = 5_000;
const stopMs = 10_000;
const size = 1024;
/** Requests at once in the moment of the kill, beside those that come anyway. */
const burst = 12;

interface GridHost {
  readonly name: string;
  readonly grpc: string;
  readonly metrics: string;
  readonly process: SupervisedProcess;
}

export async function acrossHosts({
  quick,
  notes,
  late,
}: {
  readonly quick: boolean;
  readonly notes: string[];
  readonly late: AbortSignal;
}): Promise<readonly BenchRow[]> {
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-split-grid-'));
  const store = await Store.start(join(folder, 'store'));
  const hosts: GridHost[] = [];
  try {
    const repository = join(folder, 'models');
    await mkdir(repository);
    await writeHops(repository, 'whole', size);
    await writeHops(repository, 'pieces', size);
    await writeLongMiddle(repository, 'long', size);
    hosts.push(...(await Promise.all(hostNames.map((name) => startHost(name, { folder, repository, store })))));
    const client = connect({ endpoints: hosts.map(({ grpc }) => grpc) });
    try {
      late.addEventListener('abort', () => client.close(), { once: true });
      await until({ client, late }, 'four hosts', ({ hosts: seen, leader }) => {
        return seen.filter(({ state }) => state === 'up').length === hosts.length && leader !== '';
      });
      await deployStages({ client, late }, 'pieces', [1, 2]);
      const hop = await hopCost(client, quick);
      const status = await deployStages({ client, late }, 'long', longMiddleCuts);
      return [...hop, ...(await killMiddle(hosts, status, { quick, notes, late }))];
    } finally {
      client.close();
    }
  } finally {
    await Promise.all(hosts.map((host) => host.process.stop(stopMs)));
    await store.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function startHost(
  name: string,
  { folder, repository, store }: { readonly folder: string; readonly repository: string; readonly store: Store },
): Promise<GridHost> {
  const [http = 0, grpc = 0, metrics = 0, link = 0] = await freePorts(4);
  const args = [
    ['serve', '--json', '--name', name, '--repository', repository, '--device', 'cpu', '--cpu-threads', '1'],
    ['--http-port', http, '--grpc-port', grpc, '--metrics-port', metrics, '--link-port', link],
    [store.kind === 'etcd' ? '--etcd' : '--join', store.address, '--data-dir', join(folder, name)],
    ['--log-level', 'error'],
  ].flat();
  const host = new SupervisedProcess({
    ...{ name, args: () => [main, ...args.map(String)], env: process.env, clock: new NodeClock(), restarts: false },
    ...{ onLine: () => undefined, onReady: () => undefined, onEnd: () => undefined },
  });
  await host.start();
  return { name, grpc: `127.0.0.1:${grpc}`, metrics: `http://127.0.0.1:${metrics}/metrics`, process: host };
}

interface Grid {
  readonly client: InferenceClient;
  readonly late: AbortSignal;
}

/** Three stages on three hosts, and a standby of the middle one on the fourth. Resolves when they serve. */
async function deployStages(grid: Grid, model: string, cuts: readonly number[]): Promise<GridStatus> {
  const stages = ['host-1', 'host-2', 'host-3'].map((host, stage) => ({
    constraints: { hosts: stage === 1 ? [host, 'host-4'] : [host] },
    ...(stage === 1 ? { standby: 1 } : {}),
  }));
  const wanted = { name: model, model, version: '1', replicas: 1, split: { cuts, stages } };
  const prepared = await grid.client.grid.prepareSplit(JSON.stringify(wanted), { timeoutMs: untilMsMax });
  if (prepared.refusal !== '') throw new Error(`the split was refused: ${prepared.refusal}`);
  const { applied, refusals } = await grid.client.grid.deploy(prepared.deploymentJson);
  if (!applied) throw new Error(`the deployment was refused: ${refusals.join('; ')}`);
  return until(grid, `three stages of ${model} and a standby`, ({ replicas }) => {
    const ready = replicas.filter((each) => each.model === model && each.stage > 0 && each.state === 'ready');
    return ready.length === 4;
  });
}

async function until(
  { client, late }: Grid,
  what: string,
  holds: (status: GridStatus) => boolean,
): Promise<GridStatus> {
  const endMs = performance.now() + untilMsMax;
  for (;;) {
    late.throwIfAborted();
    const status = await client.grid.status({ timeoutMs: 5_000 }).catch(() => undefined);
    if (status !== undefined && holds(status)) return status;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${untilMsMax} ms`);
    await delay(50);
  }
}

const input = [Array.from({ length: size }, () => 0.5)];
/** 0.5 × 1 × 2 × 3 × 4; and 0.5 × 2 × 3. */
const expectedOf = { whole: 12, pieces: 12, long: 3 } as const;

async function ask(client: InferenceClient, model: keyof typeof expectedOf): Promise<boolean> {
  const expected = expectedOf[model];
  const answer = await client.infer(model, { x: input }, { timeoutMs: deadlineMs });
  return answer
    .output()
    .toArray()
    .every((value) => value === expected);
}

/** Three stages on three hosts against the whole model on one, both asked by the same client in turns. */
async function hopCost(client: InferenceClient, quick: boolean): Promise<readonly BenchRow[]> {
  const extra: number[] = [];
  for (let index = -20; index < (quick ? 100 : 400); index += 1) {
    const startMs = performance.now();
    await ask(client, 'whole');
    const middleMs = performance.now();
    await ask(client, 'pieces');
    if (index >= 0) extra.push((performance.now() - middleMs - (middleMs - startMs)) / 2);
  }
  return [
    benchRow({
      key: 'split.hop.host',
      label: 'a hop of 4 KiB to another host of this machine',
      value: median(extra),
      unit: 'ms',
    }),
  ];
}

async function killMiddle(
  hosts: readonly GridHost[],
  { replicas }: GridStatus,
  { quick, notes, late }: { readonly quick: boolean; readonly notes: string[]; readonly late: AbortSignal },
): Promise<readonly BenchRow[]> {
  const middle = replicas.find(({ model, stage, standby }) => model === 'long' && stage === 2 && !standby)?.host;
  const victim = hosts.find(({ name }) => name === middle);
  if (victim === undefined) throw new Error('the middle stage is placed nowhere');
  const others = hosts.filter((host) => host !== victim);
  const client = connect({ endpoints: others.map(({ grpc }) => grpc) });
  const seconds = quick ? 3 : 10;
  const everyMs = 20;
  const failures: string[] = [];
  let wrong = 0;
  const requests: Promise<void>[] = [];
  const send = (): void => {
    const request = ask(client, 'long').then(
      (isRight) => void (wrong += isRight ? 0 : 1),
      (error: unknown) => void failures.push(messageOf(error)),
    );
    requests.push(request);
  };
  const idlePermits = await permitsFree(victim);
  let killed: Promise<void> | undefined;
  try {
    const endMs = performance.now() + 2 * seconds * 1000;
    const killMs = performance.now() + seconds * 1000;
    while (performance.now() < endMs) {
      late.throwIfAborted();
      if (killed === undefined && performance.now() >= killMs) {
        // More than the stage and its standby do at once, so that it has some when it dies.
        for (let index = 0; index < burst; index += 1) send();
        killed = killAtWork(victim, idlePermits, late);
      }
      send();
      await delay(everyMs);
    }
    await killed;
    await Promise.all(requests);
  } finally {
    client.close();
  }
  const [failure] = failures;
  if (failure !== undefined) notes.push(`killed in the middle: the first failure was: ${failure}`);
  const reruns = await stageReruns(others);
  const stages = [...reruns.keys()].sort();
  notes.push(`killed in the middle: stages that ran again: ${stages.length === 0 ? 'none' : stages.join(', ')}`);
  const key = 'split.kill';
  const label = 'kill -9 of the middle host under load';
  const none = { kind: 'at-most', value: 0 } as const;
  return [
    benchRow({ key: `${key}.requests`, label: `${label}: requests`, value: requests.length, unit: 'requests' }),
    benchRow({
      key: `${key}.failed`,
      label: `${label}: failed`,
      value: failures.length,
      unit: 'requests',
      target: none,
    }),
    benchRow({ key: `${key}.wrong`, label: `${label}: wrong answers`, value: wrong, unit: 'requests', target: none }),
    benchRow({
      key: `${key}.reruns`,
      label: `${label}: runs again of the lost stage`,
      value: reruns.get('2') ?? 0,
      unit: 'runs',
      target: { kind: 'at-least', value: 1 },
    }),
    benchRow({
      ...{ key: `${key}.other-reruns`, label: `${label}: runs again of other stages`, unit: 'runs', target: none },
      value: [...reruns].reduce((sum, [stage, count]) => sum + (stage === '2' ? 0 : count), 0),
    }),
  ];
}

/** Ends the host as soon as its device is seen at work. */
async function killAtWork(victim: GridHost, idlePermits: number, late: AbortSignal): Promise<void> {
  while ((await permitsFree(victim)) >= idlePermits) late.throwIfAborted();
  const { pid } = victim.process;
  if (pid === undefined) throw new Error(`${victim.name} does not run`);
  process.kill(pid, 'SIGKILL');
}

/** Further runs that the host's device would take now. */
async function permitsFree({ name, metrics }: GridHost): Promise<number> {
  const page = await (await fetch(metrics, { signal: AbortSignal.timeout(5_000) })).text();
  const permits = /^intarsia_device_permits_free\{[^}]*\} (\d+)/m.exec(page)?.[1];
  if (permits === undefined) throw new Error(`${name} does not tell its free permits`);
  return Number(permits);
}

async function stageReruns(hosts: readonly GridHost[]): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  for (const { metrics } of hosts) {
    const page = await (await fetch(metrics, { signal: AbortSignal.timeout(5_000) })).text();
    for (const [, stage = '', count] of page.matchAll(
      /^intarsia_stage_reruns_total\{[^}]*stage="(\d+)"[^}]*\} (\d+)/gm,
    )) {
      if (Number(count) > 0) counts.set(stage, (counts.get(stage) ?? 0) + Number(count));
    }
  }
  return counts;
}
