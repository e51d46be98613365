import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PlacementTable, type PlaceHost, type PlacementRequest } from '#core/grid/placement.js';
import { placementRefusals } from '#core/grid/placement-refusals.js';
import { placeHosts } from '#core/grid/copies.js';
import { defaultReconcileOptions, emptyMemory, type ReconcileMemory } from '#core/grid/reconcile-memory.js';
import { reconcile, type ReconcileOutput } from '#core/grid/reconcile.js';
import type {
  Deployment,
  HostActual,
  HostAssignment,
  ReplicaState,
  RolloutRecord,
  Tier,
  ViewHost,
} from '#core/grid/records.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';

const digest = artifactDigest('0'.repeat(64));
const copyBytes = 10;

interface HostShape {
  readonly zone: string;
  readonly tier: Tier;
  readonly memory: readonly number[];
}

function viewHost(name: string, shape: HostShape, generation = 1, state: ViewHost['state'] = 'up'): ViewHost {
  const { zone, tier, memory } = shape;
  const devices = memory.map((memoryBytes, index) => {
    const id = deviceId(`cpu:${index}`);
    return { id, provider: 'cpu', profile: '', emulated: false, memoryBytes, speed: 1, pricePerHour: 0 };
  });
  return {
    record: {
      format: 1,
      host: hostId(name),
      process: '',
      linkAddress: '',
      grpcEndpoint: '',
      httpEndpoint: '',
      role: 'host',
      softwareVersion: '',
      linkVersions: [1, 1],
      tier,
      zone,
      labels: {},
      spot: false,
      devices,
    },
    generation,
    state,
    cordoned: state === 'draining',
  };
}

const hostShape = fc.record({
  zone: fc.constantFrom('x', 'y'),
  tier: fc.constantFrom<Tier>('edge', 'core'),
  memory: fc.array(fc.integer({ min: 0, max: 35 }), { minLength: 1, maxLength: 2 }),
});

/** As placement promises it, in the slowest and plainest way. */
function slowPlaces(hosts: readonly PlaceHost[], request: PlacementRequest, count: number): string[] {
  const chosen: { host: PlaceHost; device: string }[] = [];
  const domain = (host: PlaceHost): string => (request.spread === 'zone' ? host.view.record.zone : host.host);
  for (let copy = 0; copy < count; copy += 1) {
    const options = hosts.flatMap((host) =>
      host.devices.flatMap(({ device }) => {
        const name = `${host.host} ${device.id}`;
        const isAllowed = request.constraints.tiers?.includes(host.view.record.tier) !== false;
        if (!isAllowed || chosen.some((one) => one.device === name) || device.memoryBytes < copyBytes) return [];
        const rank = [
          request.spread === 'none' ? 0 : chosen.filter((one) => domain(one.host) === domain(host)).length,
          request.spread === 'none' ? 0 : chosen.filter((one) => one.host === host).length,
          -device.memoryBytes,
        ];
        return [{ host, device: name, rank }];
      }),
    );
    options.sort((a, b) => a.rank.reduce((order, value, index) => order || value - (b.rank[index] ?? 0), 0));
    const [best] = options;
    if (best === undefined) break;
    chosen.push(best);
  }
  return chosen.map(({ device }) => device);
}

/** Whether the shards can be spread over memories at all: every way is tried. */
function hasPlaces([first, ...rest]: readonly number[], memory: readonly number[]): boolean {
  if (first === undefined) return true;
  return memory.some((free, index) => free >= first && hasPlaces(rest, memory.with(index, free - first)));
}

describe('placement', () => {
  it('chooses what a plain search over all devices chooses', () => {
    fc.assert(
      fc.property(
        fc.array(hostShape, { maxLength: 6 }),
        fc.integer({ min: 1, max: 8 }),
        fc.constantFrom('host', 'zone', 'none' as const),
        fc.boolean(),
        (shapes, count, spread, isCoreOnly) => {
          const view = new Map(shapes.map((shape, index) => [hostId(`h${index}`), viewHost(`h${index}`, shape)]));
          const hosts = placeHosts({ revision: 1, hosts: view }, new Map());
          const table = new PlacementTable(hosts);
          const request: PlacementRequest = {
            edition: 'm/1',
            shardBytes: [copyBytes],
            constraints: isCoreOnly ? { tiers: ['core'] } : {},
            tier: undefined,
            spread: spread,
            placed: [],
            isAvoided: () => false,
          };
          const expected = slowPlaces(hosts, request, count);
          const search = table.search(request);
          const found: string[] = [];
          for (let copy = 0; copy < count; copy += 1) {
            const gang = search.place();
            if (gang === undefined) break;
            found.push(...gang.map(({ host, device }) => `${host.host} ${device.id}`));
          }
          expect(found).toEqual(expected);
          if (found.length < count) expect(placementRefusals(table.hosts, request)).toHaveLength(hosts.length);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('places all shards of a copy or none', () => {
    fc.assert(
      fc.property(
        fc.array(hostShape, { minLength: 1, maxLength: 4 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 2, maxLength: 4 }),
        (shapes, shardBytes) => {
          const view = new Map(shapes.map((shape, index) => [hostId(`h${index}`), viewHost(`h${index}`, shape)]));
          const hosts = placeHosts({ revision: 1, hosts: view }, new Map());
          const search = new PlacementTable(hosts).search({
            edition: 'm/1',
            shardBytes,
            constraints: {},
            tier: undefined,
            spread: 'host',
            placed: [],
            isAvoided: () => false,
          });
          const gang = search.place();
          const devices = hosts.flatMap((host) => host.devices);
          const taken = devices.reduce((sum, { takenBytes }) => sum + takenBytes, 0);
          expect(taken).toBe(gang === undefined ? 0 : shardBytes.reduce((sum, bytes) => sum + bytes, 0));
          const memory = devices.map(({ device }) => device.memoryBytes);
          expect(gang !== undefined, 'a place is found where there is one').toBe(hasPlaces(shardBytes, memory));
          for (const { device, takenBytes } of devices) expect(takenBytes).toBeLessThanOrEqual(device.memoryBytes);
        },
      ),
      { numRuns: 300 },
    );
  });
});

/** A grid that obeys: what is assigned becomes ready when the test says so. */
class Obedient {
  nowMs = 0;
  readonly hosts = new Map<HostId, ViewHost>();
  readonly deployments = new Map<string, { deployment: Deployment; revision: number }>();
  readonly rollouts = new Map<string, RolloutRecord>();
  readonly assignments = new Map<HostId, HostAssignment>();
  readonly actuals = new Map<HostId, HostActual>();
  readonly owners = new Map<string, string>();
  memory: ReconcileMemory = emptyMemory;
  generation = 10;

  look(): ReconcileOutput {
    const output = reconcile({
      nowMs: this.nowMs,
      epoch: 1,
      view: { revision: 1, hosts: this.hosts },
      deployments: this.deployments,
      rollouts: this.rollouts,
      assignments: this.assignments,
      actuals: this.actuals,
      manifestOf: (model, version) => ({ format: 1, model, version, digest, memoryBytes: copyBytes, files: [] }),
      variantsOf: () => [],
      verificationOf: () => undefined,
      memory: this.memory,
      options: defaultReconcileOptions,
    });
    this.memory = output.memory;
    for (const [name, record] of output.rollouts) {
      if (record === undefined) this.rollouts.delete(name);
      else this.rollouts.set(name, record);
    }
    for (const [host, assignment] of output.assignments) {
      if (assignment === undefined) this.assignments.delete(host);
      else this.assignments.set(host, assignment);
      for (const { deployment, replica, shard } of assignment?.replicas ?? []) {
        const key = `${deployment} ${replica} ${shard}`;
        const owner = `${host} ${assignment?.generation ?? 0}`;
        expect(this.owners.get(key) ?? owner, `owner of ${key}`).toBe(owner);
        this.owners.set(key, owner);
      }
    }
    return output;
  }

  obey(state: ReplicaState = 'ready'): void {
    for (const [host, { record, generation }] of this.hosts) {
      const assignment = this.assignments.get(host);
      if (assignment?.generation !== generation) continue;
      const replicas = assignment.replicas.map(({ model, version, device, deployment }) => {
        const before = this.actuals.get(host)?.replicas.find((one) => one.device === device && one.version === version);
        const now = before?.state === 'ready' ? 'ready' : state;
        return { model, version, device, deployment, state: now, reason: '', digest, memoryBytes: copyBytes } as const;
      });
      for (const { id, memoryBytes } of record.devices) {
        const used = replicas.filter(({ device }) => device === id).length * copyBytes;
        expect(used, `memory of ${host} ${id}`).toBeLessThanOrEqual(memoryBytes);
      }
      this.actuals.set(host, { format: 1, host, assignmentRevision: 1, replicas, degraded: {} });
    }
  }

  ready(name: string): number {
    return [...this.actuals].reduce(
      (sum, [host, { replicas }]) =>
        sum +
        (this.hosts.has(host) ? replicas.filter((one) => one.deployment === name && one.state === 'ready').length : 0),
      0,
    );
  }
}

type Step =
  | { readonly type: 'version'; readonly version: number }
  | { readonly type: 'replicas'; readonly replicas: number }
  | { readonly type: 'lose' | 'return' | 'drain' | 'suspect' | 'well'; readonly host: number }
  | { readonly type: 'time'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ type: fc.constant('version' as const), version: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ type: fc.constant('replicas' as const), replicas: fc.integer({ min: 0, max: 5 }) }),
  fc.record({
    type: fc.constantFrom('lose', 'return', 'drain', 'suspect', 'well'),
    host: fc.integer({ min: 0, max: 4 }),
  }),
  fc.record({ type: fc.constant('time' as const), ms: fc.integer({ min: 1, max: 100_000 }) }),
);

describe('reconciliation', () => {
  it('keeps memory and owners through whatever happens, comes to what is wanted when calm, and then rests', () => {
    fc.assert(
      fc.property(
        fc.array(hostShape, { minLength: 5, maxLength: 5 }),
        fc.array(fc.tuple(step, fc.boolean()), { maxLength: 25 }),
        fc.integer({ min: 1, max: 3 }),
        (shapes, steps, surge) => {
          const grid = new Obedient();
          let wanted = 2;
          let version = 1;
          let revision = 1;
          const deploy = (): void => {
            const deployment: Deployment = {
              format: 1,
              name: 'd',
              model: modelName('m'),
              version: modelVersion(String(version)),
              replicas: wanted,
              constraints: {},
              spread: 'host',
              memoryBytes: 0,
              rollout: { surge, progressMsMax: 60_000 },
            };
            revision += 1;
            grid.deployments.set('d', { deployment, revision });
          };
          const set = (index: number, state: ViewHost['state'] | 'gone', isNew = false): void => {
            const host = hostId(`h${index}`);
            const before = grid.hosts.get(host);
            if (state === 'gone') {
              grid.hosts.delete(host);
              grid.actuals.delete(host);
              return;
            }
            if (before === undefined && !isNew) return;
            if (before === undefined) grid.generation += 1;
            const generation = before?.generation ?? grid.generation;
            grid.hosts.set(host, viewHost(host, shapes[index]!, generation, state));
          };
          for (let index = 0; index < shapes.length; index += 1) set(index, 'up', true);
          deploy();
          for (const [one, isObeyed] of steps) {
            switch (one.type) {
              case 'version':
                version = one.version;
                deploy();
                break;
              case 'replicas':
                wanted = one.replicas;
                deploy();
                break;
              case 'time':
                grid.nowMs += one.ms;
                break;
              case 'lose':
                set(one.host, 'gone');
                break;
              case 'return':
                set(one.host, 'up', true);
                break;
              case 'drain':
                set(one.host, 'draining');
                break;
              case 'suspect':
                set(one.host, 'suspected');
                break;
              case 'well':
                set(one.host, 'up');
            }
            grid.look();
            grid.obey(isObeyed ? 'ready' : 'loading');
          }
          for (let index = 0; index < shapes.length; index += 1) set(index, 'up', true);
          deploy();
          for (let look = 0; look < 60; look += 1) {
            grid.look();
            grid.obey();
            grid.nowMs += 61_000;
          }
          const room = shapes.flatMap(({ memory }) => memory).filter((bytes) => bytes >= copyBytes).length;
          // Where not all fit, a copy of an older version may go on serving beside the new ones.
          if (room >= wanted) expect(grid.ready('d')).toBe(wanted);
          else expect(grid.ready('d')).toBeGreaterThanOrEqual(room);
          const output = grid.look();
          expect([output.assignments.size, output.events.length]).toEqual([0, 0]);
          const twice = [grid.look(), grid.look()].map(({ rollouts }) => rollouts.size);
          expect(twice).toEqual([0, 0]);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('gives the same output for the same input', () => {
    const grid = new Obedient();
    const shape: HostShape = { zone: 'x', tier: 'core', memory: [100, 100] };
    for (const name of ['a', 'b', 'c']) grid.hosts.set(hostId(name), viewHost(name, shape));
    const deployment: Deployment = {
      format: 1,
      name: 'd',
      model: modelName('m'),
      version: modelVersion('1'),
      replicasPerTier: { core: 4 },
      constraints: {},
      spread: 'zone',
      memoryBytes: 0,
      rollout: { surge: 1, progressMsMax: 60_000 },
    };
    grid.deployments.set('d', { deployment, revision: 1 });
    const reversed = new Obedient();
    for (const [host, view] of [...grid.hosts].reverse()) reversed.hosts.set(host, view);
    reversed.deployments.set('d', { deployment, revision: 1 });
    const sorted = (output: ReconcileOutput): unknown => [...output.assignments].sort(([a], [b]) => (a < b ? -1 : 1));
    expect(sorted(grid.look())).toEqual(sorted(reversed.look()));
  });

  it('keeps as many ready copies as are wanted throughout every rollout', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.boolean(), { maxLength: 40 }),
        (wanted, surge, obeyed) => {
          const grid = new Obedient();
          for (const name of ['a', 'b', 'c', 'd']) {
            grid.hosts.set(hostId(name), viewHost(name, { zone: 'x', tier: 'core', memory: [100] }));
          }
          const deploy = (version: string): void => {
            const deployment: Deployment = {
              format: 1,
              name: 'd',
              model: modelName('m'),
              version: modelVersion(version),
              replicas: wanted,
              constraints: {},
              spread: 'host',
              memoryBytes: 0,
              rollout: { surge, progressMsMax: 1e6 },
            };
            grid.deployments.set('d', { deployment, revision: Number(version) });
          };
          const most = (): number =>
            [...grid.assignments.values()].reduce((sum, { replicas }) => sum + replicas.length, 0);
          deploy('1');
          grid.look();
          grid.obey();
          grid.look();
          deploy('2');
          for (const isObeyed of obeyed) {
            grid.look();
            expect(most()).toBeLessThanOrEqual(wanted + surge);
            grid.obey(isObeyed ? 'ready' : 'loading');
            expect(grid.ready('d')).toBeGreaterThanOrEqual(wanted);
          }
        },
      ),
      { numRuns: 200 },
    );
  });
});
