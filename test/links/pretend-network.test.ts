/** The pretend network keeps the promises of remote delivery, whatever it is told to do to packets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  collector,
  remoteDeliveryContract,
  type LinkedHosts,
  type Numbered,
  type TestHost,
} from '#test/contract/remote-delivery.js';
import { entranceOf, PretendNetwork, Simulation, type PretendNetworkOptions } from '#testing.js';

function pretendGrid(names: readonly string[], options: Partial<PretendNetworkOptions> = {}, seed = 1) {
  const world = new Simulation({ seed });
  const network = new PretendNetwork({
    clock: world.clock,
    random: world.random.stream('network'),
    log: world.log,
    ...options,
  });
  const join = (name: string): TestHost => {
    const links = network.host(name);
    const system = world.system({ host: name, remote: links, incarnationMin: links.incarnationMin });
    links.attach(entranceOf(system));
    return { system, links };
  };
  const hosts = new Map(names.map((name) => [name, join(name)]));
  return { world, network, hosts, join };
}

function pretendPair(): Promise<LinkedHosts> {
  const { world, network, hosts, join } = pretendGrid(['near', 'far']);
  const { clock } = world;
  let far = hosts.get('far') as TestHost;
  return Promise.resolve({
    near: hosts.get('near') as TestHost,
    get far() {
      return far;
    },
    until: async (what, condition) => {
      const endMs = clock.nowMs() + 120_000;
      await clock.settleUntil();
      while (!condition()) {
        if (clock.nowMs() > endMs) throw new Error(`waited 120 virtual seconds for ${what}`);
        await clock.settleUntil(clock.nowMs() + 10);
      }
    },
    cut: () => {
      network.partition(['near'], ['far']);
    },
    heal: () => {
      network.heal();
    },
    restartFar: async () => {
      network.crash('far');
      far.system.terminate();
      await clock.settleUntil();
      far = join('far');
    },
    close: () => Promise.resolve(),
  });
}

describe('remote delivery over the pretend network', () => {
  remoteDeliveryContract(pretendPair);
});

describe('the pretend network', () => {
  it('delivers in order and once under loss, duplication and reordering, and everything once it is calm', () => {
    const kinds = ['lost', 'duplicated', 'reordered', 'resent', 'filtered', 'restored'] as const;
    // One seed may do without one of them; all together do not.
    const happened = new Map(kinds.map((kind) => [kind, 0]));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (seed) => {
        const { world, network, hosts } = pretendGrid(['a', 'b'], {}, seed);
        network.faultsEverywhere({ loss: 0.2, duplication: 0.2, reordering: 0.2, delayMsMax: 5 });
        const { got, ref } = collector((hosts.get('b') as TestHost).system);
        const out = (hosts.get('a') as TestHost).system.ref<Numbered>(ref.address);
        for (let number = 0; number < 200; number += 1) {
          out.tell({ type: 'numbered', number, data: new Uint8Array() });
          world.clock.advance(5);
        }
        network.faultsEverywhere({ loss: 0, duplication: 0, reordering: 0 });
        world.clock.advance(5_000);
        expect(network.counts.linksLost).toBe(0);
        expect(got.map(({ number }) => number)).toEqual(Array.from({ length: 200 }, (_, number) => number));
        for (const [kind, count] of happened) happened.set(kind, count + network.counts[kind]);
      }),
      { numRuns: 30 },
    );
    expect([...happened].filter(([, count]) => count === 0)).toEqual([]);
  });

  it('never mixes links when they are lost again and again', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (seed) => {
        const { world, network, hosts } = pretendGrid(['a', 'b'], {}, seed);
        const { got, ref } = collector((hosts.get('b') as TestHost).system);
        const chance = world.random.stream('cuts');
        const out = (hosts.get('a') as TestHost).system.ref<Numbered>(ref.address);
        network.faultsEverywhere({ loss: 0.05, duplication: 0.1, reordering: 0.2, reorderMs: 3_000 });
        for (let number = 0; number < 400; number += 1) {
          out.tell({ type: 'numbered', number, data: new Uint8Array() });
          if (chance.below(40) === 0)
            network.cutOneWay(chance.below(2) === 0 ? 'a' : 'b', chance.below(2) === 0 ? 'a' : 'b');
          if (chance.below(60) === 0) network.partition(['a'], ['b']);
          if (chance.below(40) === 0) network.heal();
          world.clock.advance(chance.below(200));
        }
        network.heal();
        network.faultsEverywhere({ loss: 0, duplication: 0, reordering: 0 });
        world.clock.advance(20_000);
        out.tell({ type: 'numbered', number: 1_000, data: new Uint8Array() });
        world.clock.advance(5_000);
        const numbers = got.map(({ number }) => number);
        expect(numbers).toEqual([...new Set(numbers)].sort((left, right) => left - right));
        expect(numbers.at(-1)).toBe(1_000);
      }),
      { numRuns: 30 },
    );
  });

  it('loses the link when only one direction is cut', async () => {
    const { world, network, hosts } = pretendGrid(['a', 'b']);
    const { ref } = collector((hosts.get('b') as TestHost).system);
    let ended = '';
    (hosts.get('a') as TestHost).links.watch(ref.address, (reason) => (ended = reason));
    await world.clock.settleUntil(1_000);
    network.cutOneWay('b', 'a');
    await world.clock.settleUntil(10_000);
    expect(ended).toBe('failed');
    expect(network.counts.cut).toBeGreaterThan(0);
  });

  it('tells of a killed host at once and of an unplugged one after the silence, and slows and freezes', async () => {
    const { world, network, hosts } = pretendGrid(['a', 'b', 'c']);
    const ends: string[] = [];
    const { links } = hosts.get('a') as TestHost;
    for (const name of ['b', 'c']) {
      const { ref } = collector((hosts.get(name) as TestHost).system);
      links.watch(ref.address, () => ends.push(`${name} after ${Math.round((world.clock.nowMs() - 5_000) / 1_000)} s`));
    }
    network.slow('b', 50);
    await world.clock.settleUntil(5_000);
    network.crash('b', 'killed');
    network.crash('c', 'unplugged');
    await world.clock.settleUntil(5_100);
    expect(ends).toEqual(['b after 0 s']);
    await world.clock.settleUntil(12_000);
    expect(ends).toHaveLength(2);
    expect(ends[1]).toMatch(/^c after [2345] s$/);
  });

  it('rests when nobody needs a link, and carries what is sent later', async () => {
    const { world, network, hosts } = pretendGrid(['a', 'b']);
    const { got, ref } = collector((hosts.get('b') as TestHost).system);
    const out = (hosts.get('a') as TestHost).system.ref<Numbered>(ref.address);
    out.tell({ type: 'numbered', number: 1, data: new Uint8Array() });
    await world.clock.settle();
    expect(world.clock.pending).toBe(0);
    out.tell({ type: 'numbered', number: 2, data: new Uint8Array() });
    await world.clock.settle();
    expect(got.map(({ number }) => number)).toEqual([1, 2]);
    expect(network.counts.linksLost).toBe(0);
  });

  it('is the same run for the same seed', () => {
    const run = (seed: number): string => {
      const { world, network, hosts } = pretendGrid(['a', 'b'], {}, seed);
      network.faultsEverywhere({ loss: 0.1, duplication: 0.1, reordering: 0.1 });
      const { ref } = collector((hosts.get('b') as TestHost).system);
      const out = (hosts.get('a') as TestHost).system.ref<Numbered>(ref.address);
      for (let number = 0; number < 50; number += 1) out.tell({ type: 'numbered', number, data: new Uint8Array() });
      world.clock.advance(5_000);
      return world.traceHash();
    };
    expect(run(3)).toBe(run(3));
    expect(run(3)).not.toBe(run(4));
  });
});
