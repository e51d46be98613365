import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { defaultReconcileOptions, emptyMemory, type ReconcileMemory } from '#core/grid/reconcile-memory.js';
import { reconcile, type ReconcileOutput } from '#core/grid/reconcile.js';
import type {
  ActualReplica,
  AssignedReplica,
  Deployment,
  HostActual,
  HostAssignment,
  PlacementConstraints,
  ReplicaState,
  RolloutRecord,
  ViewHost,
} from '#core/grid/records.js';
import type { VerificationRecord } from '#core/grid/verification.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import { splitIdOf, type SplitSpec } from '#core/split/split-spec.js';

const digest = artifactDigest('0'.repeat(64));
const wholeBytes = 10;

interface ShardShape {
  readonly bytes: number;
  readonly standby?: number;
  readonly constraints?: PlacementConstraints;
}

function split(shards: readonly ShardShape[]): SplitSpec {
  const cuts = shards.slice(1).map((_, index) => index + 1);
  return {
    format: 1,
    id: splitIdOf({ digest, cuts, compression: 'none' }),
    digest,
    cuts,
    compression: 'none',
    shards: shards.map(({ bytes, ...rest }) => ({ memoryBytes: bytes, ...rest })),
  };
}

/** A grid that obeys: what is assigned becomes ready when the test says so. */
class World {
  nowMs = 0;
  readonly hosts = new Map<HostId, ViewHost>();
  readonly rollouts = new Map<string, RolloutRecord>();
  readonly assignments = new Map<HostId, HostAssignment>();
  readonly actuals = new Map<HostId, HostActual>();
  readonly events: string[] = [];
  readonly owners = new Map<string, string>();
  readonly memory = new Map<HostId, readonly number[]>();
  remembered: ReconcileMemory = emptyMemory;
  deployment: Deployment | undefined;
  revision = 1;
  generation = 10;
  verdict: VerificationRecord['verdict'] | undefined = 'equal';

  host(name: string, memory: readonly number[], state: ViewHost['state'] | 'gone' = 'up'): void {
    const host = hostId(name);
    this.memory.set(host, memory);
    if (state === 'gone') {
      this.hosts.delete(host);
      this.actuals.delete(host);
      return;
    }
    const known = this.hosts.get(host);
    if (known === undefined) this.generation += 1;
    const devices = memory.map((memoryBytes, index) => {
      const id = deviceId(`cpu:${index}`);
      return { id, provider: 'cpu', profile: '', emulated: false, memoryBytes, speed: 1, pricePerHour: 0 };
    });
    this.hosts.set(host, {
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
        zone: '',
        labels: {},
        spot: false,
        devices,
      },
      generation: known?.generation ?? this.generation,
      state,
      cordoned: state === 'draining',
    });
  }

  deploy(replicas: number, pieces?: SplitSpec): void {
    this.revision += 1;
    this.deployment = {
      format: 1,
      name: 'd',
      model: modelName('m'),
      version: modelVersion('1'),
      replicas,
      constraints: {},
      spread: 'host',
      memoryBytes: 0,
      rollout: { surge: 1, progressMsMax: 600_000 },
      ...(pieces === undefined ? {} : { split: pieces }),
    };
  }

  look(): ReconcileOutput {
    const { deployment, revision } = this;
    const output = reconcile({
      nowMs: this.nowMs,
      epoch: 1,
      view: { revision: 1, hosts: this.hosts },
      deployments: new Map(deployment === undefined ? [] : [['d', { deployment, revision }]]),
      rollouts: this.rollouts,
      assignments: this.assignments,
      actuals: this.actuals,
      manifestOf: (model, version) => ({ format: 1, model, version, digest, memoryBytes: wholeBytes, files: [] }),
      variantsOf: () => [],
      verificationOf: (model, version, id) => this.#verification(model, version, id),
      memory: this.remembered,
      options: defaultReconcileOptions,
    });
    this.remembered = output.memory;
    this.events.push(...output.events.map(({ text }) => text));
    for (const [name, record] of output.rollouts) {
      if (record === undefined) this.rollouts.delete(name);
      else this.rollouts.set(name, record);
    }
    for (const [host, assignment] of output.assignments) {
      if (assignment === undefined) this.assignments.delete(host);
      else this.assignments.set(host, assignment);
    }
    this.#check();
    return output;
  }

  /** What is assigned is there; with `state` only what was ready stays so. */
  obey(state: ReplicaState = 'ready'): void {
    for (const [host, { generation }] of this.hosts) {
      const assignment = this.assignments.get(host);
      if (assignment?.generation !== generation) continue;
      const before = this.actuals.get(host)?.replicas ?? [];
      const replicas = assignment.replicas.map((assigned): ActualReplica => {
        const { model, version, device, deployment, shard } = assigned;
        const isReady = before.some((one) => isSamePiece(one, assigned) && one.state === 'ready');
        return {
          ...{ model, version, device, deployment, reason: '', digest },
          state: isReady ? 'ready' : state,
          memoryBytes: bytesOf(assigned),
          ...(assigned.split === undefined ? {} : { split: assigned.split.id, shard }),
        };
      });
      this.actuals.set(host, { format: 1, host, assignmentRevision: 1, replicas, degraded: {} });
    }
  }

  assigned(): readonly (AssignedReplica & { readonly host: HostId })[] {
    return [...this.assignments].flatMap(([host, { generation, replicas }]) =>
      this.hosts.get(host)?.generation === generation ? replicas.map((one) => ({ ...one, host })) : [],
    );
  }

  settle(looks = 40): void {
    for (let look = 0; look < looks; look += 1) {
      this.look();
      this.obey();
      this.nowMs += 5_000;
    }
  }

  /** Whether a request finds what it needs: a whole model, or a holder of every shard of one split. */
  isServed(): boolean {
    const ready = [...this.actuals.values()].flatMap(({ replicas }) =>
      replicas.filter(({ state }) => state === 'ready'),
    );
    if (ready.some((one) => one.split === undefined)) return true;
    const bySplit = new Map<string, Set<number>>();
    for (const { split: id = '', shard = 0 } of ready) bySplit.set(id, (bySplit.get(id) ?? new Set()).add(shard));
    const counts = new Map(
      this.assigned().map(({ split: spec }) => [spec?.id ?? '', spec?.shards.length ?? Infinity] as const),
    );
    return [...bySplit].some(([id, shards]) => shards.size === counts.get(id));
  }

  #verification(model: string, version: string, id: string): VerificationRecord | undefined {
    if (this.verdict === undefined) return undefined;
    return {
      format: 1,
      model: modelName(model),
      version: modelVersion(version),
      split: id,
      digest,
      cuts: [],
      compression: 'none',
      planned: [],
      host: 'a',
      wallMs: 0,
      verdict: this.verdict,
      reason: '',
      bitExact: false,
      maxAbsoluteError: 2,
      maxRelativeError: 0.5,
      toleranceRelative: 0.001,
      toleranceSteps: {},
      vectors: ['seed 1'],
      providers: [],
      optimization: 'all',
      referenceOptimization: 'disabled',
      batches: false,
      notes: [],
    };
  }

  #check(): void {
    const used = new Map<string, number>();
    const gangs = new Map<number, { readonly count: number; readonly shards: number[] }>();
    const pieces = new Set<string>();
    for (const assigned of this.assigned()) {
      const { host, device, replica, shard, split: spec, standby } = assigned;
      const owner = `${host} ${this.hosts.get(host)?.generation ?? 0} ${device}`;
      const key = `${replica} ${shard}`;
      expect(this.owners.get(key) ?? owner, `owner of ${key}`).toBe(owner);
      this.owners.set(key, owner);
      const piece = `${owner} ${spec?.id ?? ''} ${shard}`;
      expect(pieces.has(piece), `${piece} is assigned once`).toBe(false);
      pieces.add(piece);
      used.set(owner, (used.get(owner) ?? 0) + bytesOf(assigned));
      if (standby === true) continue;
      const gang = gangs.get(replica) ?? { count: spec?.shards.length ?? 1, shards: [] };
      gang.shards.push(shard);
      gangs.set(replica, gang);
      const index = Number(device.slice(4));
      expect(used.get(owner), `memory of ${owner}`).toBeLessThanOrEqual(this.memory.get(host)?.[index] ?? 0);
    }
    for (const [replica, { count, shards }] of gangs) {
      expect(
        shards.sort((a, b) => a - b),
        `shards of copy ${replica}`,
      ).toEqual(Array.from({ length: count }, (_, shard) => shard));
    }
  }
}

function bytesOf({ split: spec, shard }: AssignedReplica): number {
  return spec?.shards[shard]?.memoryBytes ?? wholeBytes;
}

function isSamePiece(actual: ActualReplica, assigned: AssignedReplica): boolean {
  if (actual.device !== assigned.device || actual.split !== assigned.split?.id) return false;
  return assigned.split === undefined || actual.shard === assigned.shard;
}

const three = split([{ bytes: 6 }, { bytes: 8, standby: 1 }, { bytes: 3 }]);

describe('copies of a split', () => {
  it('keep all their shards or none, memory and owners through whatever happens, and are complete when calm', () => {
    const step = fc.oneof(
      fc.record({ type: fc.constant('split' as const), to: fc.integer({ min: 0, max: 2 }) }),
      fc.record({ type: fc.constant('replicas' as const), to: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ type: fc.constantFrom('lose', 'drain', 'suspect', 'up'), to: fc.integer({ min: 0, max: 4 }) }),
      fc.record({ type: fc.constant('time' as const), to: fc.integer({ min: 1, max: 60_000 }) }),
    );
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 8, max: 30 }), { minLength: 1, maxLength: 2 }), {
          minLength: 5,
          maxLength: 5,
        }),
        fc.array(fc.tuple(step, fc.boolean()), { maxLength: 25 }),
        (memories, steps) => {
          const world = new World();
          const splits = [undefined, three, split([{ bytes: 7 }, { bytes: 4 }])] as const;
          const states = { lose: 'gone', drain: 'draining', suspect: 'suspected', up: 'up' } as const;
          let chosen: SplitSpec | undefined = three;
          let replicas = 1;
          for (const [index, memory] of memories.entries()) world.host(`h${index}`, memory);
          world.deploy(replicas, chosen);
          for (const [{ type, to }, isObeyed] of steps) {
            if (type === 'time') world.nowMs += to;
            else if (type === 'split') chosen = splits[to];
            else if (type === 'replicas') replicas = to;
            else if (type === 'up' || world.hosts.has(hostId(`h${to}`))) {
              world.host(`h${to}`, memories[to] ?? [], states[type]);
            }
            if (type === 'split' || type === 'replicas') world.deploy(replicas, chosen);
            world.look();
            world.obey(isObeyed ? 'ready' : 'loading');
          }
          for (const [index, memory] of memories.entries()) world.host(`h${index}`, memory, 'up');
          world.deploy(1, chosen);
          world.settle();
          // One copy always fits: each of five hosts takes the largest shard.
          const id = chosen?.id;
          const copies = new Set(
            world.assigned().flatMap((one) => (one.split?.id === id && one.standby !== true ? [one.replica] : [])),
          );
          if (chosen !== undefined || memories.flat().some((bytes) => bytes >= wholeBytes)) {
            expect(copies.size).toBe(1);
            expect(world.isServed()).toBe(true);
            expect(world.assigned().every((one) => one.split?.id === id)).toBe(true);
          }
          const rest = world.look();
          expect(rest.assignments.size + rest.rollouts.size, 'a calm grid rests').toBe(0);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('go from whole to split and back without a moment in which nobody serves', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (ready) => {
        const world = new World();
        for (const name of ['a', 'b', 'c']) world.host(name, [20]);
        world.deploy(2);
        world.settle(10);
        for (const [index, isReady] of ready.entries()) {
          if (index === 5) world.deploy(2, three);
          if (index === 20) world.deploy(2);
          world.look();
          world.obey(isReady ? 'ready' : 'loading');
          expect(world.isServed(), `step ${index}`).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('replace the shard of a lost host and leave the others where they are', () => {
    const world = new World();
    for (const name of ['a', 'b', 'c', 'd']) world.host(name, [10]);
    world.deploy(1, split([{ bytes: 6 }, { bytes: 8 }, { bytes: 7 }]));
    world.settle(5);
    const before = world.assigned();
    const lost = before.find(({ shard }) => shard === 1);
    world.host(lost?.host ?? '', [10], 'gone');
    world.look();
    const after = world.assigned();
    const place = (list: typeof before, shard: number): string => {
      const found = list.find((one) => one.shard === shard);
      return `${found?.host ?? ''} ${found?.device ?? ''}`;
    };
    expect([place(after, 0), place(after, 2)]).toEqual([place(before, 0), place(before, 2)]);
    expect(place(after, 1)).not.toBe(place(before, 1));
    expect(after.every(({ replica }) => replica > (before[0]?.replica ?? 0))).toBe(true);
  });

  it('take a standby that is ready for a lost shard, and get another standby', () => {
    const world = new World();
    for (const name of ['a', 'b', 'c', 'd', 'e']) world.host(name, [10]);
    world.deploy(1, three);
    world.settle(5);
    const standby = world.assigned().find((one) => one.standby === true);
    const lost = world.assigned().find((one) => one.shard === 1 && one.standby !== true);
    expect(standby?.host).not.toBe(lost?.host);
    world.host(lost?.host ?? '', [10], 'gone');
    expect(world.isServed()).toBe(true);
    world.look();
    const [now] = world.assigned().filter((one) => one.shard === 1 && one.standby !== true);
    expect(now?.host).toBe(standby?.host);
    expect(world.assigned().filter((one) => one.standby === true)).toHaveLength(1);
  });

  it('move a shard away from a host that drains only once its replacement is ready', () => {
    const world = new World();
    for (const name of ['a', 'b', 'c', 'd']) world.host(name, [10]);
    world.deploy(1, split([{ bytes: 6 }, { bytes: 8 }, { bytes: 7 }]));
    world.settle(5);
    const leaving = world.assigned().find(({ shard }) => shard === 1)?.host ?? '';
    world.host(leaving, [10], 'draining');
    world.look();
    expect(world.assigned().filter(({ shard }) => shard === 1)).toHaveLength(2);
    world.obey('loading');
    world.look();
    expect(world.assigned().some(({ host }) => host === leaving)).toBe(true);
    expect(world.isServed()).toBe(true);
    world.settle(4);
    expect(world.assigned().some(({ host }) => host === leaving)).toBe(false);
    expect(world.assigned().map(({ shard }) => shard)).toHaveLength(3);
    expect(world.isServed()).toBe(true);
  });

  it('obey the constraints of each shard', () => {
    const world = new World();
    for (const name of ['a', 'b', 'c']) world.host(name, [20]);
    const at = (name: string): PlacementConstraints => ({ hosts: [name] });
    world.deploy(
      1,
      split([
        { bytes: 1, constraints: at('c') },
        { bytes: 1, constraints: at('a') },
        { bytes: 1, constraints: at('c') },
      ]),
    );
    world.settle(3);
    const places = world.assigned().map(({ shard, host }) => `${shard} ${host}`);
    expect(places.sort()).toEqual(['0 c', '1 a', '2 c']);
  });

  it('are refused with the stage that fits nowhere and how many bytes are missing', () => {
    const world = new World();
    world.host('a', [10]);
    world.host('b', [7]);
    world.deploy(1, split([{ bytes: 3 }, { bytes: 25 }]));
    world.look();
    expect(world.assigned()).toEqual([]);
    expect(world.events.join('\n')).toContain(
      'can never fit: stage 2 of 2: a: the shard takes 25 bytes (25 B) and cpu:0 has 10 bytes in all: 15 bytes missing; b: the shard takes 25 bytes (25 B) and cpu:0 has 7 bytes in all: 18 bytes missing',
    );
    world.deploy(1, split([{ bytes: 9 }, { bytes: 9 }]));
    world.look();
    expect(world.assigned()).toEqual([]);
    expect(world.rollouts.get('d')?.reason).toContain('each of its 2 stages has a place alone, but not all at once');
  });

  it('are not placed before the gate has found them equal', () => {
    const world = new World();
    for (const name of ['a', 'b', 'c', 'd']) world.host(name, [10]);
    world.verdict = undefined;
    world.deploy(1, three);
    world.settle(2);
    expect(world.assigned()).toEqual([]);
    expect(world.events.at(-1)).toContain('was never compared with the whole model');
    world.verdict = 'different';
    world.settle(2);
    expect(world.assigned()).toEqual([]);
    expect(world.rollouts.get('d')?.reason).toContain('largest error 2.00 absolute, 0.500 relative (0.00100 passes)');
    world.verdict = 'equal';
    world.settle(3);
    expect(world.isServed()).toBe(true);
  });
});
