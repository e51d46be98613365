/** Leader election as whole hosts see it, on virtual time: one leader at a time, and fenced. */
import { afterEach, describe, expect, it } from 'vitest';
import { GridWorld, keep, keys, type GridHost } from './grid-world.js';

let world: GridWorld;
afterEach(() => world.end());

async function begin(count: number): Promise<readonly GridHost[]> {
  world = new GridWorld({ elections: true });
  const hosts = await world.startMany(count);
  await world.until('there is a leader', () => leaders(hosts).length === 1);
  return hosts;
}

const leaders = (hosts: readonly GridHost[]): readonly GridHost[] =>
  hosts.filter((host) => host.isAlive && host.leadership?.leading === true);

/** Writes as that host's controller would, with the fence it was given. */
async function write(host: GridHost, key: string): Promise<boolean> {
  const led = [...host.leadershipSeen].reverse().find((each) => each.leading);
  if (led?.leading !== true) throw new Error(`host ${host.name} never led`);
  const written = host.store.transact(
    { conditions: [led.fence], operations: [{ type: 'put', key, value: host.name }] },
    { deadlineMs: host.clock.nowMs() + 2_000 },
  );
  await world.pass(100);
  return (await written).ok;
}

describe('an election', () => {
  it('makes one host the leader, and all know who it is', async () => {
    const hosts = await begin(4);
    const [leader] = leaders(hosts);
    await world.pass(1_000);
    for (const host of hosts) {
      if (host !== leader) expect(host.leadership).toMatchObject({ leading: false, leader: leader?.name });
    }
    expect(await write(leader!, `${keys.prefix}test`)).toBe(true);
  });

  it('is held again when the leader dies: the host that has been there longest leads, in a larger epoch', async () => {
    const hosts = await begin(4);
    const first = leaders(hosts)[0]!;
    const before = first.leadership!.epoch;
    world.kill(first);
    const rest = hosts.filter((host) => host !== first);
    await world.until('there is another leader', () => leaders(rest).length === 1, 15_000);
    expect(leaders(rest)[0]!.leadership!.epoch).toBeGreaterThan(before);
    const oldest = [...rest].sort((left, right) => left.news.self!.generation - right.news.self!.generation)[0];
    expect(leaders(rest)).toEqual([oldest]);
  });

  it('ends the lead of a paused host: when it goes on it writes nothing and follows', async () => {
    const hosts = await begin(3);
    const first = leaders(hosts)[0]!;
    const rest = hosts.filter((host) => host !== first);
    world.pause(first);
    await world.until('there is another leader', () => leaders(rest).length === 1, 15_000);
    const { leadership } = first;
    if (leadership?.leading !== true) throw new Error('it does not lead');
    const late = first.store.transact(
      { conditions: [leadership.fence], operations: [{ type: 'put', key: `${keys.prefix}test`, value: 'late' }] },
      { deadlineMs: first.clock.nowMs() + 60_000 },
    );
    world.resume(first);
    await world.until('it follows', () => first.leadership?.leading === false, 5_000);
    expect((await late).ok).toBe(false);
    expect(leaders(hosts)).toHaveLength(1);
  });

  it('passes on at a drain: the leader resigns, and another one leads within two seconds', async () => {
    const hosts = await begin(3);
    const first = leaders(hosts)[0]!;
    first.membership.tell({ type: 'drain', waitMsMax: 1_000, replyTo: keep(() => undefined) });
    const rest = hosts.filter((host) => host !== first);
    await world.until('there is another leader', () => leaders(rest).length === 1, 2_000);
    expect(first.leadership?.leading).toBe(false);
    await world.pass(20_000);
    expect(leaders(rest)).toHaveLength(1);
  });

  it('never has two leaders that can write, whatever the store does', async () => {
    const hosts = await begin(4);
    const epochs = new Map<number, string>();
    const look = (): void => {
      for (const host of hosts) {
        for (const each of host.leadershipSeen) {
          if (!each.leading) continue;
          const known = epochs.get(each.epoch);
          // A wiped store begins its revisions anew; none is wiped here.
          expect(known ?? host.name).toBe(host.name);
          epochs.set(each.epoch, host.name);
        }
      }
    };
    for (let round = 0; round < 6; round += 1) {
      const leader = leaders(hosts)[0]!;
      if (round % 3 === 0) world.store.loseLeases(leader.name);
      else if (round % 3 === 1) world.store.away('silent', leader.name);
      else for (const host of hosts) world.store.breakNextTransaction(host.name, 'outcome-unknown');
      await world.pass(20_000);
      world.store.back(leader.name);
      await world.until('there is one leader', () => leaders(hosts).length === 1, 30_000);
      look();
    }
    expect(epochs.size).toBeGreaterThanOrEqual(4);
  });

  it('goes on when the store is wiped', async () => {
    const hosts = await begin(3);
    await world.pass(5_000);
    world.store.wipe();
    await world.pass(15_000);
    expect(leaders(hosts)).toHaveLength(1);
    expect(await write(leaders(hosts)[0]!, `${keys.prefix}test`)).toBe(true);
  });
});
