import { describe, expect, it } from 'vitest';
import { residencyActor } from '#actors/residency/actor.js';
import { loadHighsSolver } from '#adapters/highs/highs-solver.js';
import type { DemandRow } from '#core/grid/demand.js';
import { deploymentFromText, deploymentsOfFile } from '#core/grid/deployment-file.js';
import type { Deployment } from '#core/grid/records.js';
import { withResidencyKept } from '#core/grid/residency-words.js';
import { hostId } from '#core/ids.js';
import { GridWorld, keys, type HostOptions, type WorldHost } from './controller-world.js';

const solver = await loadHighsSolver();

/** Items a second by model, asked of whoever serves it; each takes 100 ms on a device of speed 1. */
class Demand {
  readonly perSecond = new Map<string, number>();

  /** Shared out over all copies of the grid. */
  rowsOf(world: GridWorld, host: WorldHost, speed: number): readonly DemandRow[] {
    return [...this.perSecond].flatMap(([model, perSecond]) => {
      const copies = world.serving(model);
      return copies
        .filter((line) => line.includes(` on ${host.name} `))
        .map((line) => {
          const device = line.split(' ').at(-1) ?? '';
          return { model, version: '1', device, itemsPerSecond: perSecond / copies.length, msPerItem: 100 / speed };
        });
    });
  }
}

interface Grid {
  readonly world: GridWorld;
  readonly demand: Demand;
  readonly add: (name: string, options: { readonly price: number; readonly speed: number } & HostOptions) => WorldHost;
  readonly deployment: (name: string) => Promise<Deployment>;
}

/** Devices have room for one copy each. */
async function grid(): Promise<Grid> {
  const world = new GridWorld();
  const demand = new Demand();
  world.copyBytes = 1000;
  const add: Grid['add'] = (name, { price, speed, ...options }) => {
    const device = { provider: 'cpu', profile: '', emulated: true, memoryBytes: 1500, speed, pricePerHour: price };
    const host = world.host(name, { ...options, memoryBytes: 1500, ...devicesOf(device) });
    const { store, election, membership } = host;
    host.system.spawn(
      'residency',
      residencyActor({
        ...{ host: hostId(name), store, keys, election, membership, everyMs: 10_000 },
        demand: () => Promise.resolve(demand.rowsOf(world, host, speed)),
        solver: () => Promise.resolve(solver),
      }),
    );
    return host;
  };
  for (const model of ['a', 'b']) await world.publish(`${model}/1`, 4);
  return {
    ...{ world, demand, add },
    deployment: async (name) => {
      const key = keys.deployment(name);
      const { entry } = await world.now(world.operator.get(key, { deadlineMs: Infinity }));
      return deploymentFromText(entry?.value ?? '', key);
    },
  };
}

/** The record of a host as the world makes it, with other figures for its one device. */
function devicesOf(device: object): object {
  return { devices: [{ id: 'cpu:0', ...device }] };
}

const planned = (name: string, residency: object): Record<string, unknown> => ({
  name,
  model: name,
  version: 1,
  residency,
});

describe('residency of a live grid', () => {
  it('moves a model to the device that serves it cheapest', async () => {
    const { world, demand, add, deployment } = await grid();
    add('a-dear', { price: 4, speed: 1 });
    await world.pass(20);
    await world.deploy(planned('a', { min: 1, max: 1 }));
    await world.pass(30);
    expect(world.serving('a')).toEqual(['a/1 on a-dear cpu:0']);
    add('b-cheap', { price: 1, speed: 1 });
    await world.pass(30);
    // Nobody asks: there is nothing to be saved.
    expect(world.serving('a')).toEqual(['a/1 on a-dear cpu:0']);
    demand.perSecond.set('a', 2);
    await world.pass(60);
    expect(world.serving('a')).toEqual(['a/1 on b-cheap cpu:0']);
    expect((await deployment('a')).constraints).toEqual({ hosts: ['b-cheap'], devices: ['cpu:0'] });
  });

  it('serves more copies where demand grows', async () => {
    const { world, demand, add, deployment } = await grid();
    add('dear', { price: 4, speed: 1 });
    add('cheap', { price: 1, speed: 1 });
    add('other', { price: 2, speed: 1 });
    await world.pass(20);
    await world.deploy(planned('a', { min: 1, max: 3 }));
    await world.pass(30);
    expect(world.serving('a')).toHaveLength(1);
    // Twelve items a second of 100 ms are more than two devices at half of their time can do.
    demand.perSecond.set('a', 12);
    await world.pass(90);
    expect(world.serving('a')).toEqual(['a/1 on cheap cpu:0', 'a/1 on dear cpu:0', 'a/1 on other cpu:0']);
    expect((await deployment('a')).replicas).toBe(3);
  });

  it('two models that want the same devices share them out by demand, within the bounds of both', async () => {
    const { world, demand, add, deployment } = await grid();
    for (const name of ['h1', 'h2', 'h3', 'h4']) add(name, { price: 1, speed: 1 });
    await world.pass(20);
    await world.deploy(planned('a', { min: 1, max: 4 }));
    await world.deploy(planned('b', { min: 1, max: 2 }));
    demand.perSecond.set('a', 4);
    demand.perSecond.set('b', 30);
    await world.pass(120);
    expect((await deployment('b')).replicas).toBe(2);
    expect((await deployment('a')).replicas).toBeLessThanOrEqual(2);
    expect(world.serving('b')).toHaveLength(2);
    expect(world.serving('a').length).toBeGreaterThanOrEqual(1);
  });

  it('goes on under the next leader when the leader is lost in the middle, with the copies that were lost elsewhere', async () => {
    const { world, demand, add, deployment } = await grid();
    for (const name of ['h1', 'h2', 'h3', 'h4']) add(name, { price: 1, speed: 1 });
    await world.pass(20);
    await world.deploy(planned('a', { min: 2, max: 3 }));
    demand.perSecond.set('a', 8);
    await world.pass(60);
    const before = world.serving('a');
    expect(before.length).toBeGreaterThanOrEqual(2);
    const leader = await world.leader();
    leader.crash();
    await world.pass(90);
    const after = world.serving('a');
    expect((await world.leader()).name).not.toBe(leader.name);
    expect(after.length).toBeGreaterThanOrEqual(2);
    expect(after.some((line) => line.includes(` ${leader.name} `))).toBe(false);
    expect((await deployment('a')).constraints.hosts).not.toContain(leader.name);
  });

  it('leaves deployments alone that did not ask for it, and writes nothing where it is only to advise', async () => {
    const { world, demand, add, deployment } = await grid();
    for (const name of ['h1', 'h2', 'h3']) add(name, { price: 1, speed: 1 });
    await world.pass(20);
    await world.deploy({ name: 'a', model: 'a', version: 1, replicas: 1 });
    await world.deploy(planned('b', { min: 1, max: 2, advise: true }));
    demand.perSecond.set('a', 30);
    demand.perSecond.set('b', 30);
    const before = [await deployment('a'), await deployment('b')];
    await world.pass(60);
    expect([await deployment('a'), await deployment('b')]).toEqual(before);
    expect(world.serving('b')).toHaveLength(1);
  });

  it('writes nothing more while demand stays as it is', async () => {
    const { world, demand, add } = await grid();
    for (const name of ['h1', 'h2', 'h3']) add(name, { price: 1, speed: 1 });
    await world.pass(20);
    await world.deploy(planned('a', { min: 1, max: 3 }));
    demand.perSecond.set('a', 8);
    await world.pass(90);
    const revision = async (): Promise<number | undefined> => {
      const { entry } = await world.now(world.operator.get(keys.deployment('a'), { deadlineMs: Infinity }));
      return entry?.modRevision;
    };
    const settled = await revision();
    await world.pass(300);
    expect(await revision()).toBe(settled);
  });
});

describe('a deployment that asks for it', () => {
  it('begins with its least copies and keeps its own constraints beside those of the leader', () => {
    const file = { ...planned('a', { min: 2, max: 5 }), constraints: { zones: ['z'] } };
    const [deployment] = deploymentsOfFile(file, 'a.yaml');
    expect(deployment).toMatchObject({ replicas: 2, residency: { min: 2, max: 5, constraints: { zones: ['z'] } } });
    expect(deploymentFromText(JSON.stringify(deployment), 'key')).toEqual(deployment);
  });

  it('keeps what the leader decided when it is applied again, within its bounds, and begins anew with other constraints', () => {
    const [file] = deploymentsOfFile(planned('a', { min: 1, max: 2 }), 'a.yaml') as readonly [Deployment];
    const decided = { ...file, replicas: 4, constraints: { hosts: ['h1'], devices: ['cpu:0'] } };
    expect(withResidencyKept(file, undefined)).toEqual(file);
    expect(withResidencyKept(file, decided)).toEqual({ ...decided, replicas: 2 });
    const elsewhere = { ...planned('a', { min: 1, max: 2 }), constraints: { zones: ['z'] } };
    const [other] = deploymentsOfFile(elsewhere, 'a.yaml') as readonly [Deployment];
    expect(withResidencyKept(other, decided)).toEqual(other);
  });

  it('is refused without an upper bound, with one below the lower, and beside counts by tier', () => {
    const refusal = (residency: object, more: object = {}): (() => unknown) => {
      return () => deploymentsOfFile({ ...planned('a', residency), ...more }, 'a.yaml');
    };
    expect(refusal({ min: 1 })).toThrow('residency.max');
    expect(refusal({ min: 3, max: 2 })).toThrow('residency.max');
    expect(refusal({ min: 1, max: 200 })).toThrow('residency.max');
    expect(refusal({ max: 2 }, { replicasPerTier: { core: 1 } })).toThrow('replicasPerTier');
    expect(refusal({ max: 2, advise: 'yes' })).toThrow('residency.advise');
  });
});
