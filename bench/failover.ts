/**
 * What clients notice when something of a grid fails: three hosts, replicas on two of them, an open loop at 60 % of the
 * measured capacity with a deadline of 2 s, sent by `intarsia/client`. For each fault: requests that failed, p99 before it,
 * until latency is normal again, and afterwards, and how long that took.
 *
 * Normal is what p99 was in the worst second before the fault, and half as much again. Latency is back to normal at the
 * beginning of the first two seconds in which no sliding second is above that. `--only` takes keys of `faults`.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { NodeClock } from '#adapters/node/clock.js';
import { openClientLoad, type ClientLoad } from '#cli/load/client-load.js';
import { completeLoadPlan, type Arrivals } from '#cli/load/load-plan.js';
import type { LoadReport } from '#cli/load/load-report.js';
import { runLoad, type EndedRequest } from '#cli/load/load-runner.js';
import { requestBody } from '#cli/load/request-bodies.js';
import { connect } from '#client/index.js';
import { intarsiaError } from '#core/errors.js';
import { FailoverGrid } from './failover-grid.js';
import { benchReport, benchRow, type BenchOptions, type BenchReport, type BenchRow } from './report.js';

const deadlineMs = 2_000;
const loadShare = 0.6;
const normalFactor = 1.5;
const backMsMax = 3_000;
const stepMs = 250;
const windowMs = 1_000;
const calmMs = 2_000;

interface Sizes {
  readonly capacityMs: number;
  readonly warmUpMs: number;
  readonly beforeMs: number;
  readonly afterMs: number;
  readonly standStillMs: number;
  readonly storeAwayMs: number;
}

interface Fault {
  readonly key: string;
  readonly label: string;
  /** Breaks something; what it gives back is over when the fault is: the load goes on for `afterMs` from there. */
  readonly strike: (grid: FailoverGrid, sizes: Sizes) => Promise<void>;
}

const faults: readonly Fault[] = [
  {
    key: 'kill',
    label: 'kill -9 of one of two',
    strike: async (grid) => grid.signal(await holder(grid), 'SIGKILL'),
  },
  {
    key: 'stand-still',
    label: 'SIGSTOP of one of two',
    strike: async (grid, { standStillMs }) => {
      const name = await holder(grid);
      grid.signal(name, 'SIGSTOP');
      await delay(standStillMs);
      grid.signal(name, 'SIGCONT');
    },
  },
  {
    key: 'rolling-update',
    label: 'rolling update',
    strike: (grid) => grid.deploy('2'),
  },
  {
    key: 'drain',
    label: 'drain of one of two',
    strike: async (grid) => {
      const name = await holder(grid);
      await grid.client.grid.order(name, 'drain');
      await grid.until('copies elsewhere', ({ replicas }) => {
        const placed = replicas.filter(({ deployment, state }) => deployment !== '' && state === 'ready');
        return placed.length === 2 && placed.every(({ host }) => host !== name);
      });
      await grid.client.grid.order(name, 'uncordon');
    },
  },
  {
    key: 'controller',
    label: 'kill -9 of the controller',
    strike: async (grid) => grid.signal((await grid.facts()).leader, 'SIGKILL'),
  },
  {
    key: 'store-away',
    label: 'store away',
    strike: async (grid, { storeAwayMs }) => {
      await grid.stopStore();
      await delay(storeAwayMs);
      await grid.startStore();
    },
  },
];

/** @throws INVALID_ARGUMENT when a part is named that there is not. */
export async function run(options: BenchOptions): Promise<BenchReport> {
  const chosen = chosenFaults(options.only);
  const sizes: Sizes = options.quick
    ? { capacityMs: 3_000, warmUpMs: 1_000, beforeMs: 4_000, afterMs: 6_000, standStillMs: 4_000, storeAwayMs: 30_000 }
    : {
        capacityMs: 8_000,
        warmUpMs: 3_000,
        beforeMs: 10_000,
        afterMs: 12_000,
        standStillMs: 30_000,
        storeAwayMs: 120_000,
      };
  const grid = await FailoverGrid.start();
  try {
    const capacity = await measure(grid, { kind: 'closed', concurrency: 32 }, sizes.capacityMs);
    const perSecond = Math.max(1, Math.floor(capacity.requestsPerSecond * loadShare));
    const rows: BenchRow[] = [
      benchRow({
        key: 'failover.capacity',
        label: 'capacity, 32 in flight by the client',
        value: capacity.requestsPerSecond,
        unit: 'requests/s',
      }),
      benchRow({ key: 'failover.load', label: 'load of each fault', value: perSecond, unit: 'requests/s' }),
    ];
    const notes = [
      `store: ${grid.storeKind}; three hosts, store and load share this machine's processors; deadline ${deadlineMs} ms`,
      `stood still for ${sizes.standStillMs / 1000} s; store away for ${sizes.storeAwayMs / 1000} s`,
    ];
    for (const fault of chosen) {
      const { failed, ...found } = await strike(grid, fault, perSecond, sizes);
      rows.push(...rowsOf(fault, found, failed));
      if (failed.length > 0) notes.push(`${fault.label}: ${summaryOf(failed)}`);
      await grid.heal();
    }
    return benchReport('failover', options, rows, notes);
  } finally {
    await grid.end();
  }
}

function chosenFaults(only: readonly string[] | undefined): readonly Fault[] {
  if (only === undefined) return faults;
  const keys = faults.map(({ key }) => key);
  const unknown = only.find((name) => !keys.includes(name));
  if (unknown !== undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `failover has no part ${unknown}; it has ${keys.join(', ')}`);
  }
  return faults.filter(({ key }) => only.includes(key));
}

/** A host with a copy; not the leader where there is a choice, which is a fault of its own. */
async function holder(grid: FailoverGrid): Promise<string> {
  const { placed, leader } = await grid.facts();
  const name = placed.find((host) => host !== leader) ?? placed[0];
  if (name === undefined) throw new Error('the model is placed nowhere');
  return name;
}

async function strike(
  grid: FailoverGrid,
  fault: Fault,
  perSecond: number,
  sizes: Sizes,
): Promise<Recovery & { readonly failed: readonly EndedRequest[] }> {
  const clock = new NodeClock();
  const ended: EndedRequest[] = [];
  const ending = new AbortController();
  const load = measure(grid, { kind: 'poisson', ratePerSecond: perSecond }, 3_600_000, {
    warmUpMs: sizes.warmUpMs,
    signal: ending.signal,
    onRequest: (request) => ended.push(request),
  });
  await delay(sizes.warmUpMs + sizes.beforeMs);
  const faultMs = clock.nowMs();
  try {
    await fault.strike(grid, sizes);
    await delay(sizes.afterMs);
  } finally {
    ending.abort();
    await load;
  }
  return { ...recoveryOf(ended, faultMs), failed: ended.filter(({ code }) => code !== '') };
}

async function measure(
  grid: FailoverGrid,
  arrivals: Arrivals,
  forMs: number,
  more: {
    readonly warmUpMs?: number;
    readonly signal?: AbortSignal;
    readonly onRequest?: (request: EndedRequest) => void;
  } = {},
): Promise<LoadReport> {
  const { warmUpMs = 1_000, ...watched } = more;
  const transport = openLoad(grid);
  try {
    await transport.open();
    return await runLoad({
      plan: completeLoadPlan({ arrivals, warmUpMs, windowMs: forMs, deadlineMs, receiptEvery: 0 }),
      transport,
      clock: new NodeClock(),
      itemsPerRequest: 1,
      receiptOf: () => undefined,
      ...watched,
    });
  } finally {
    transport.close();
  }
}

function openLoad({ endpoints }: FailoverGrid): ClientLoad {
  const shape = [1, 1, 28, 28];
  const image = { name: 'image', datatype: 'FP32', shape, data: new Uint8Array(4 * 28 * 28) } as const;
  const { path, headers, body } = requestBody('client', { name: 'digits', version: '' }, [image]);
  const target = {
    protocol: 'client',
    address: endpoints.join(','),
    tls: false,
    path,
    headers,
    bodies: [body],
    connections: 1,
    timeoutMs: deadlineMs,
  } as const;
  return openClientLoad(target, connect);
}

/** Milliseconds. */
interface Recovery {
  readonly p99Before: number;
  readonly p99During: number;
  readonly p99After: number;
  /** From the fault until p99 was normal again; Infinity when it never was. */
  readonly backMs: number;
}

function recoveryOf(ended: readonly EndedRequest[], faultMs: number): Recovery {
  const requests = [...ended].sort((a, b) => a.intendedMs - b.intendedMs);
  const [firstMs, lastMs] = [requests[0]?.intendedMs ?? 0, requests.at(-1)?.intendedMs ?? 0];
  const between = (fromMs: number, toMs: number): readonly EndedRequest[] =>
    requests.filter(({ intendedMs }) => intendedMs >= fromMs && intendedMs < toMs);
  const worstBefore = Math.max(
    ...steps(firstMs, faultMs - windowMs).map((fromMs) => p99(between(fromMs, fromMs + windowMs))),
  );
  const normalMs = worstBefore * normalFactor;
  const isCalm = (fromMs: number): boolean =>
    steps(fromMs, fromMs + calmMs - windowMs).every((at) => p99(between(at, at + windowMs)) <= normalMs);
  const calm = steps(faultMs, lastMs - calmMs).find(isCalm);
  const backMs = calm === undefined ? Infinity : calm - faultMs;
  const overMs = faultMs + Math.min(backMs, lastMs - faultMs);
  return {
    p99Before: p99(between(firstMs, faultMs)),
    // At least the first second, also where nobody noticed.
    p99During: p99(between(faultMs, Math.max(overMs, faultMs + windowMs))),
    p99After: p99(between(overMs, lastMs)),
    backMs,
  };
}

function steps(fromMs: number, toMs: number): readonly number[] {
  return Array.from({ length: Math.max(1, Math.floor((toMs - fromMs) / stepMs) + 1) }, (_, i) => fromMs + i * stepMs);
}

/** Of those answered well; what failed is counted for itself. */
function p99(requests: readonly EndedRequest[]): number {
  const sorted = requests
    .filter(({ code }) => code === '')
    .map(({ latencyMs }) => latencyMs)
    .sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0;
}

function rowsOf({ key, label }: Fault, found: Recovery, failed: readonly EndedRequest[]): BenchRow[] {
  const row = (name: string, what: string, value: number, unit: string, atMost?: number): BenchRow =>
    benchRow({
      key: `failover.${key}.${name}`,
      label: `${label}: ${what}`,
      value,
      unit,
      ...(atMost === undefined ? {} : { target: { kind: 'at-most', value: atMost } }),
    });
  return [
    row('failed', 'failed requests', failed.length, 'requests', 0),
    row('p99-before', 'p99 before', found.p99Before, 'ms'),
    row('p99-during', 'p99 until it is normal again', found.p99During, 'ms'),
    row('p99-after', 'p99 afterwards', found.p99After, 'ms'),
    row('back', 'p99 is normal again after', found.backMs / 1000, 's', backMsMax / 1000),
  ];
}

function summaryOf(failed: readonly EndedRequest[]): string {
  const counts = new Map<string, number>();
  for (const { code } of failed) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].map(([code, count]) => `${count} × ${code}`).join(', ');
}
