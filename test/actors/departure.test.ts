/** The end of a drain that has a deadline. */
import { describe, expect, it } from 'vitest';
import { departureActor } from '#actors/departure/actor.js';
import type { IngressMessage } from '#actors/ingress/protocol.js';
import { writeMember } from '#core/grid/member-text.js';
import type { HostOrder } from '#core/grid/records.js';
import { GridWorld, keys, type GridHost } from './grid-world.js';

async function standing() {
  const world = new GridWorld();
  const [a, b] = (await world.startMany(2)) as [GridHost, GridHost];
  const operator = world.store.client('operator');
  const order = async (change: Partial<HostOrder> | undefined): Promise<void> => {
    const key = keys.order(a.name);
    const whole: HostOrder = { format: 1, cordoned: true, draining: true, deadlineWallMs: 0, reason: '', ...change };
    const operations = [
      change === undefined
        ? ({ type: 'delete', key } as const)
        : ({ type: 'put', key, value: writeMember(whole) } as const),
    ];
    void operator.transact({ conditions: [], operations }, { deadlineMs: Infinity });
    await world.pass(100);
  };
  const seen = { told: [] as IngressMessage[], departures: 0 };
  const begin = (): void => {
    const ingress = a.system.spawn<IngressMessage>('ingress', () => ({ receive: (each) => void seen.told.push(each) }));
    const { store, membership, name } = a;
    const onDeparture = (): void => void (seen.departures += 1);
    a.system.spawn('departure', departureActor({ host: name, store, keys, membership, ingress, onDeparture }));
  };
  const inMs = (ms: number): number => world.simulation.clock.wallMs() + ms;
  return { world, a, b, order, begin, inMs, seen };
}

describe('a drain with a deadline', () => {
  it('refuses what still runs when its time is over, deregisters the host, and has it ended once', async () => {
    const { world, b, order, begin, inMs, seen } = await standing();
    begin();
    await order({ deadlineWallMs: inMs(10_000) });
    await world.pass(9_500);
    expect(seen).toEqual({ told: [], departures: 0 });
    expect(b.sees).toBe('a draining, b');
    await world.pass(1_000);
    expect(seen).toEqual({ told: [{ type: 'depart' }], departures: 1 });
    expect(b.sees).toBe('b');
    await order({ deadlineWallMs: inMs(1_000) });
    await world.pass(5_000);
    expect(seen.departures).toBe(1);
  });

  it('is taken back by uncordon, and moved by another order', async () => {
    const { world, order, begin, inMs, seen } = await standing();
    begin();
    await order({ deadlineWallMs: inMs(5_000) });
    await order(undefined);
    await world.pass(10_000);
    expect(seen.departures).toBe(0);
    await order({ deadlineWallMs: inMs(2_000) });
    await order({ deadlineWallMs: inMs(20_000) });
    await world.pass(15_000);
    expect(seen.departures).toBe(0);
    await world.pass(10_000);
    expect(seen.departures).toBe(1);
  });

  it('ends the host also while the store is away, when its time is over', async () => {
    const { world, order, begin, inMs, seen } = await standing();
    begin();
    await order({ deadlineWallMs: inMs(5_000) });
    world.store.away();
    await world.pass(10_000);
    expect(seen).toEqual({ told: [{ type: 'depart' }], departures: 1 });
  });

  it('was meant for an earlier process when its deadline is older than this one', async () => {
    const { world, order, begin, inMs, seen } = await standing();
    await order({ deadlineWallMs: inMs(1_000) });
    await world.pass(2_000);
    begin();
    await world.pass(10_000);
    expect(seen).toEqual({ told: [], departures: 0 });
  });
});
