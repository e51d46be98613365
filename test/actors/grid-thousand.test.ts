/** Membership and detection in a grid of 1,000 hosts, on virtual time. */
import { afterEach, describe, expect, it } from 'vitest';
import { GridWorld } from './grid-world.js';

const count = 1_000;
let world: GridWorld;
afterEach(() => world.end());

describe('a grid of 1,000 hosts', () => {
  it('has a join and a death in every view within 5 s of virtual time, and each host probes a few others only', async () => {
    world = new GridWorld({ stepsMax: 100_000_000 });
    for (let index = 0; index < count; index += 1) {
      world.start(`h${index}`);
      if (index % 50 === 49) await world.pass(50);
    }
    const all = [...world.hosts.values()];
    await world.until('all are in all views', () => all.every((host) => host.news.view.hosts.size === count));
    await world.pass(3_000);
    world.start('late');
    const joinMs = await world.until('all see the late one', () => all.every((host) => host.trusts('late')), 5_000);
    const before = world.network.counts.delivered;
    const dead = all[count / 2]!;
    world.kill(dead, 'unplugged');
    const rest = [...world.hosts.values()];
    const deathMs = await world.until(
      'all suspect the dead one',
      () => rest.every((host) => !host.trusts(dead.name)),
      5_000,
    );
    const messages = (world.network.counts.delivered - before) / (deathMs / 1_000) / count;
    expect(joinMs).toBeLessThan(5_000);
    expect(deathMs).toBeLessThan(5_000);
    // Three probes and their answers a second, and some for helpers.
    expect(messages).toBeLessThan(12);
    const suspects = new Set(
      rest.flatMap((host) => [...host.news.view.hosts].filter(([, each]) => each.state !== 'up').map(([name]) => name)),
    );
    expect([...suspects]).toEqual([dead.name]);
  }, 400_000);
});
