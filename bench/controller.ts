/**
 * One reconciliation of 10,000 replicas on 1,000 hosts: placed from nothing, looked at again when all is well, and with
 * twenty hosts gone at once. Pure computation on one thread, without store and network.
 */
import { performance } from 'node:perf_hooks';
import { defaultReconcileOptions, emptyMemory } from '#core/grid/reconcile-memory.js';
import { reconcile, type ReconcileInput, type ReconcileOutput } from '#core/grid/reconcile.js';
import type {
  Deployment,
  HostActual,
  HostAssignment,
  ModelManifest,
  RolloutRecord,
  ViewHost,
} from '#core/grid/records.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import { benchReport, benchRow, type Bench } from './report.js';

const GiB = 2 ** 30;

interface Grid {
  readonly hosts: Map<HostId, ViewHost>;
  readonly deployments: Map<string, { readonly deployment: Deployment; readonly revision: number }>;
  readonly rollouts: Map<string, RolloutRecord>;
  readonly assignments: Map<HostId, HostAssignment>;
  readonly actuals: Map<HostId, HostActual>;
}

function gridOf(hostCount: number, deploymentCount: number, replicas: number): Grid {
  const hosts = new Map<HostId, ViewHost>();
  for (let index = 0; index < hostCount; index += 1) {
    const host = hostId(`host-${String(index).padStart(4, '0')}`);
    const device = (id: string): ViewHost['record']['devices'][number] => ({
      id: deviceId(id),
      provider: id.startsWith('cuda') ? 'cuda' : 'cpu',
      profile: '',
      emulated: false,
      memoryBytes: 64 * GiB,
      speed: 1,
      pricePerHour: 0,
    });
    hosts.set(host, {
      record: {
        format: 1,
        host,
        process: '',
        linkAddress: '',
        grpcEndpoint: '',
        httpEndpoint: '',
        role: 'host',
        softwareVersion: '',
        linkVersions: [1, 1],
        tier: 'core',
        zone: `zone-${index % 10}`,
        labels: {},
        spot: false,
        devices: [device('cpu:0'), device('cuda:0')],
      },
      generation: index + 1,
      state: 'up',
      cordoned: false,
    });
  }
  const deployments = new Map<string, { deployment: Deployment; revision: number }>();
  for (let index = 0; index < deploymentCount; index += 1) {
    const name = `deployment-${index}`;
    deployments.set(name, {
      revision: 1,
      deployment: {
        format: 1,
        name,
        model: modelName(`model-${index}`),
        version: modelVersion('1'),
        replicas,
        constraints: {},
        spread: index % 2 === 0 ? 'host' : 'zone',
        memoryBytes: 0,
        rollout: { surge: 1, progressMsMax: 300_000 },
      },
    });
  }
  return { hosts, deployments, rollouts: new Map(), assignments: new Map(), actuals: new Map() };
}

const digest = artifactDigest('0'.repeat(64));

function look(grid: Grid, memory = emptyMemory): { readonly output: ReconcileOutput; readonly ms: number } {
  const input: ReconcileInput = {
    nowMs: 1000,
    epoch: 7,
    view: { revision: 1, hosts: grid.hosts },
    deployments: grid.deployments,
    rollouts: grid.rollouts,
    assignments: grid.assignments,
    actuals: grid.actuals,
    manifestOf: (model, version): ModelManifest => ({ format: 1, model, version, digest, memoryBytes: GiB, files: [] }),
    verificationOf: () => undefined,
    variantsOf: () => [],
    memory,
    options: defaultReconcileOptions,
  };
  const startedMs = performance.now();
  const output = reconcile(input);
  return { output, ms: performance.now() - startedMs };
}

/** Puts what was decided into the grid, with every copy ready. */
function settle(grid: Grid, output: ReconcileOutput): number {
  let count = 0;
  for (const [name, record] of output.rollouts) if (record !== undefined) grid.rollouts.set(name, record);
  for (const [host, assignment] of output.assignments) {
    if (assignment === undefined) {
      grid.assignments.delete(host);
      grid.actuals.delete(host);
      continue;
    }
    grid.assignments.set(host, assignment);
    count += assignment.replicas.length;
    grid.actuals.set(host, {
      format: 1,
      host,
      assignmentRevision: 1,
      degraded: {},
      replicas: assignment.replicas.map(({ model, version, device, deployment }) => {
        return { model, version, device, deployment, state: 'ready', reason: '', digest, memoryBytes: GiB };
      }),
    });
  }
  return count;
}

const sizes = [
  { key: '100x100', about: '100 deployments of 100 copies', deployments: 100, replicas: 100 },
  { key: '5000x2', about: '5,000 deployments of 2 copies', deployments: 5000, replicas: 2 },
] as const;

export const run: Bench = (options) => {
  const { quick } = options;
  const hostCount = quick ? 100 : 1000;
  const share = quick ? 10 : 1;
  const rows = sizes.flatMap(({ key, about, deployments, replicas }) => {
    const grid = gridOf(hostCount, deployments / share, replicas);
    const first = look(grid);
    const placed = settle(grid, first.output);
    const second = look(grid, first.output.memory);
    settle(grid, second.output);
    const idle = look(grid, second.output.memory);
    for (const host of [...grid.hosts.keys()].slice(0, hostCount / 50)) grid.hosts.delete(host);
    const lost = look(grid, idle.output.memory);
    const time = (name: string, label: string, ms: number): ReturnType<typeof benchRow> =>
      benchRow({
        key: `controller.${key}.${name}`,
        label: `${about}: ${label}`,
        value: ms,
        unit: 'ms',
        ...(quick ? {} : { target: { kind: 'at-most', value: 1000 } }),
      });
    return [
      benchRow({ key: `controller.${key}.placed`, label: `${about}: copies placed`, value: placed, unit: 'copies' }),
      time('from-nothing', 'placed from nothing', first.ms),
      time('calm', 'looked at when all is well', idle.ms),
      benchRow({
        key: `controller.${key}.calm-writes`,
        label: `${about}: assignments written when all is well`,
        value: idle.output.assignments.size,
        unit: 'writes',
        target: { kind: 'at-most', value: 0 },
      }),
      time('hosts-lost', 'one host in fifty is gone', lost.ms),
    ];
  });
  return Promise.resolve(
    benchReport('controller', options, rows, ['one look each: no mean, no warm-up; pure computation on one thread']),
  );
};
