import { describe, expect, it } from 'vitest';
import type { ControllerStatus } from '#actors/controller/protocol.js';
import { leaderFence } from '#core/grid/election.js';
import { hostId } from '#core/ids.js';
import { GridWorld, keys, type WorldHost } from './controller-world.js';

async function threeHosts(world = new GridWorld()): Promise<GridWorld> {
  for (const name of ['a', 'b', 'c']) world.host(name);
  await world.publish('m/1', 4);
  await world.publish('m/2', 5);
  await world.pass(5);
  return world;
}

describe('the controller and the host agents', () => {
  it('serve a deployment on as many hosts as it wants copies, spread', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete', reason: '', stable: { version: '1' } });
  });

  it('start and stop copies when the number changes', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 1 });
    await world.pass(5);
    expect(world.serving('m')).toHaveLength(1);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 3 });
    await world.pass(5);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0', 'm/1 on c cpu:0']);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(10);
    expect(world.serving('m')).toHaveLength(2);
    await world.undeploy('d');
    await world.pass(10);
    expect(world.serving('m')).toEqual([]);
    expect(await world.rollout('d')).toMatchObject({ removed: true });
    await world.deploy({ name: 'd', model: 'm', version: 2, replicas: 1 });
    await world.pass(10);
    expect(world.serving('m')).toHaveLength(1);
    expect(await world.rollout('d')).not.toHaveProperty('removed');
  });

  it('drop the copies of a host that was away when its deployment was taken back', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 3 });
    await world.pass(5);
    world.store.away('refused', 'a');
    await world.pass(30);
    await world.undeploy('d');
    await world.pass(10);
    // It hears nothing, and serves on.
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0']);
    world.store.back('a');
    await world.pass(20);
    expect(world.serving('m')).toEqual([]);
  });

  it('replace the copies of a host that died', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    world.hosts.get('a')?.crash();
    await world.pass(60);
    expect(world.serving('m')).toEqual(['m/1 on b cpu:0', 'm/1 on c cpu:0']);
    const assigned = await world.assignments();
    expect(assigned.map(({ host }) => host)).toEqual(['b', 'c']);
  });

  it('empty a host that is drained, and never serve with fewer copies meanwhile', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    await world.order('a', 'drain');
    const least = await leastServing(world, 20);
    expect(least).toBe(2);
    expect(world.serving('m')).toEqual(['m/1 on b cpu:0', 'm/1 on c cpu:0']);
    await world.order('a', 'none');
    await world.pass(60);
    expect(world.serving('m')).toEqual(['m/1 on b cpu:0', 'm/1 on c cpu:0']);
  });

  it('place nothing new on a cordoned host and leave there what is there', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 1 });
    await world.pass(5);
    await world.order('a', 'cordon');
    await world.order('b', 'cordon');
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 3 });
    await world.pass(10);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on c cpu:0']);
    expect((await world.rollout('d'))?.reason).toMatch(/1 copy of m\/1 cannot be placed now: .*b: it is cordoned/);
    await world.order('b', 'none');
    await world.pass(10);
    expect(world.serving('m')).toHaveLength(3);
    expect((await world.rollout('d'))?.reason).toBe('');
  });

  it('roll to another version with no moment of fewer ready copies', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 3 });
    await world.pass(5);
    await world.deploy({ name: 'd', model: 'm', version: 2, replicas: 3 });
    const least = await leastServing(world, 40);
    expect(least).toBe(3);
    expect(world.serving('m')).toEqual(['m/2 on a cpu:0', 'm/2 on b cpu:0', 'm/2 on c cpu:0']);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete', stable: { version: '2' } });
  });

  it('go back by themselves when the new version does not become ready', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    for (const host of world.hosts.values()) host.devices[0]?.failures.set('m:5', 'EXECUTION_FAILED');
    await world.deploy({ name: 'd', model: 'm', version: 2, replicas: 2, rollout: { progressSeconds: 60 } });
    const least = await leastServing(world, 90);
    expect(least).toBe(2);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    const rollout = await world.rollout('d');
    expect(rollout).toMatchObject({ phase: 'rolled-back', stable: { version: '1' }, target: { version: '2' } });
    expect(rollout?.reason).toMatch(/within 60000 ms: .*width 5 fails on cpu:0/);
    expect((await world.events()).at(-1)).toMatch(/^deployment d: .*goes back to m\/1/);
    // Applied again, it is tried again; mended, it goes through.
    for (const host of world.hosts.values()) host.devices[0]?.failures.clear();
    await world.deploy({ name: 'd', model: 'm', version: 2, replicas: 2, rollout: { progressSeconds: 60 } });
    expect(await leastServing(world, 60)).toBe(2);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete', stable: { version: '2' } });
  });

  it('go on with a rollout where the leader died, and number no copy twice', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    await world.deploy({ name: 'd', model: 'm', version: 2, replicas: 2 });
    await world.pass(0.4);
    expect(await world.rollout('d')).toMatchObject({ phase: 'progressing' });
    const before = (await world.rollout('d'))?.nextReplica ?? 0;
    const leader = await world.leader();
    leader.crash();
    await world.pass(90);
    expect((await world.leader()).name).not.toBe(leader.name);
    expect(world.serving('m')).toEqual(
      ['a', 'b', 'c'].filter((name) => name !== leader.name).map((name) => `m/2 on ${name} cpu:0`),
    );
    const rollout = await world.rollout('d');
    expect(rollout).toMatchObject({ phase: 'complete', stable: { version: '2' } });
    expect(rollout?.nextReplica).toBeGreaterThan(before);
  });

  it('obey one leader only: what one of before writes is fenced', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    const old = await world.leader();
    const [assigned] = await world.assignments();
    const oldEpoch = assigned?.epoch ?? 0;
    world.store.away('silent', old.name);
    await world.pass(60);
    expect(world.store.fired.silent).toBeGreaterThan(0);
    const now = await world.leader();
    expect(now.name).not.toBe(old.name);
    const late = await world.now(
      world.operator.transact(
        {
          conditions: [leaderFence(keys.leader, oldEpoch)],
          operations: [{ type: 'put', key: keys.assignment(hostId('b')), value: '{}' }],
        },
        { deadlineMs: Infinity },
      ),
    );
    expect(late.ok).toBe(false);
    world.store.back(old.name);
    await world.pass(30);
    const serving = world.serving('m');
    const wanted = (await world.assignments()).flatMap(({ host, replicas }) =>
      replicas.map(({ model, version, device }) => `${model}/${version} on ${host} ${device}`),
    );
    expect(serving).toEqual([...wanted].sort());
    expect(serving).toHaveLength(2);
  });

  it('say what every host has against a deployment that can never fit, and place nothing', async () => {
    const world = await threeHosts();
    world.host('edge', { tier: 'edge', memoryBytes: 500 });
    await world.pass(5);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 1, constraints: { tiers: ['edge'] } });
    await world.pass(5);
    expect(world.serving('m')).toEqual([]);
    expect((await world.assignments()).flatMap(({ replicas }) => replicas)).toEqual([]);
    const reason = (await world.rollout('d'))?.reason ?? '';
    expect(reason).toMatch(/1 copy of m\/1 can never fit: a: its tier is core, not edge;/);
    expect(reason).toMatch(/edge: a copy takes 1000 bytes .* cpu:0 has 500 bytes in all: 500 bytes missing/);
    expect((await world.events()).join()).toContain('can never fit');
  });

  it('try another host when one turns out to have too little memory', async () => {
    const world = await threeHosts();
    world.hosts.get('a')?.devices[0]?.failures.set('m:4', 'OUT_OF_MEMORY');
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(60);
    expect(world.serving('m')).toEqual(['m/1 on b cpu:0', 'm/1 on c cpu:0']);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete' });
  });

  it('serve on while the store is away, and change nothing until it is back', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    const before = await world.assignments();
    world.store.away();
    expect(await leastServing(world, 120)).toBe(2);
    expect(world.store.fired.away).toBeGreaterThan(0);
    world.store.back();
    expect(await leastServing(world, 60)).toBe(2);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    expect((await world.assignments()).map(({ host }) => host)).toEqual(before.map(({ host }) => host));
  });

  it('serve on when the store is wiped, and take up what is deployed again', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    world.store.wipe();
    expect(await leastServing(world, 60)).toBe(2);
    await world.publish('m/1', 4);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    expect(await leastServing(world, 30)).toBe(2);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete' });
  });

  it('take over a model of hosts own repositories, and give it back', async () => {
    const world = new GridWorld();
    for (const name of ['a', 'b', 'c']) world.host(name, { models: { 'm/1': 4 } });
    await world.pass(5);
    expect(world.serving('m')).toHaveLength(3);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    expect(await leastServing(world, 20)).toBe(2);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    expect(world.hosts.get('a')?.log).toEqual(['cpu:0: load m/1 of width 4']);
    await world.undeploy('d');
    await world.pass(20);
    expect(world.serving('m')).toHaveLength(3);
  });

  it('move a copy to a host that joins when another has two more, and then rest', async () => {
    const world = new GridWorld({ moveMsMin: 5_000 });
    world.host('a', { deviceIds: ['cpu:0', 'cpu:1', 'cpu:2'] });
    await world.publish('m/1', 4);
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 3 });
    await world.pass(10);
    expect(world.serving('m')).toHaveLength(3);
    world.host('b');
    world.host('c');
    expect(await leastServing(world, 40)).toBe(3);
    expect(world.serving('m').map((line) => line.split(' ')[2])).toEqual(['a', 'b', 'c'].slice(0, 3));
    const leader = await world.leader();
    const writes = await writesOf(leader, world);
    await world.pass(300);
    expect(await writesOf(leader, world)).toBe(writes);
  });

  it('end in the same trace for the same seed', async () => {
    const run = async (): Promise<string> => {
      const world = await threeHosts();
      await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
      await world.pass(5);
      world.hosts.get('b')?.crash();
      await world.pass(30);
      return world.simulation.traceHash();
    };
    expect(await run()).toBe(await run());
  });
});

/** Least number of copies of `m` that answered at any tenth of a second. */
async function leastServing(world: GridWorld, seconds: number): Promise<number> {
  let least = Infinity;
  for (let tenth = 0; tenth < seconds * 10; tenth += 1) {
    await world.pass(0.1);
    least = Math.min(least, world.serving('m').length);
  }
  return least;
}

async function writesOf(host: WorldHost, world: GridWorld): Promise<number> {
  const asked = host.controller.ask<ControllerStatus>((replyTo) => ({ type: 'status', replyTo }), {
    deadlineMs: Infinity,
  });
  return (await world.now(asked)).writes;
}

describe('events', () => {
  it('tell of hosts that join, are cordoned and are lost, and of who leads, each once though leaders change', async () => {
    const world = await threeHosts();
    await world.order('b', 'cordon');
    await world.pass(2);
    await world.order('b', 'none');
    await world.pass(2);
    const first = await world.leader();
    const firstName = first.name;
    first.crash();
    await world.pass(30);
    const secondName = (await world.leader()).name;
    expect(secondName).not.toBe(firstName);
    const events = await world.events();
    const ofHosts = events.filter((event) => event.startsWith('host ')).map((event) => event.replace(/\d+/, 'N'));
    for (const name of ['a', 'b', 'c']) {
      expect(ofHosts.filter((event) => event === `host ${name}: joined as generation N: cpu:0`)).toHaveLength(1);
    }
    expect(ofHosts.filter((event) => event === 'host b: is cordoned')).toHaveLength(1);
    expect(ofHosts.filter((event) => event === 'host b: is no longer cordoned')).toHaveLength(1);
    expect(ofHosts.filter((event) => event.includes('leads'))).toEqual([
      `host ${firstName}: leads, in epoch N`,
      `host ${secondName}: leads, in epoch N`,
    ]);
    expect(ofHosts.filter((event) => event.includes('gone'))).toEqual([
      `host ${firstName}: is gone without leaving: its lease ended`,
    ]);
  });
});
