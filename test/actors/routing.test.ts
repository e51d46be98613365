import { describe, expect, it } from 'vitest';
import { routingActor } from '#actors/routing/actor.js';
import type { RoutingMessage } from '#actors/routing/protocol.js';
import { gridKeys } from '#core/grid/keys.js';
import { hostId } from '#core/ids.js';
import { leastWorkPicker } from '#policies/placement/placement-least-work.js';
import { PretendStore } from '#sim/pretend-store.js';
import { Simulation } from '#sim/simulation.js';

const keys = gridKeys('test');

/** A routing actor alone with its store. */
function world() {
  const simulation = new Simulation({ seed: 1 });
  const store = new PretendStore({ clock: simulation.clock, latencyMs: [5, 5] });
  const system = simulation.system({ host: 'a' });
  let tables = 0;
  const begin = () =>
    system.spawn<RoutingMessage>(
      'routing',
      routingActor({
        host: hostId('a'),
        keys,
        store: store.client('a'),
        picker: leastWorkPicker(),
        publish: () => (tables += 1),
      }),
    );
  let answered = 0;
  const ask = (routing: ReturnType<typeof begin>): void => {
    void routing.ask((replyTo) => ({ type: 'whole', replyTo }), { deadlineMs: Infinity }).then(() => (answered += 1));
  };
  return { simulation, store, begin, ask, tables: () => tables, answered: () => answered };
}

describe('routing', () => {
  it('says that it is whole once everything was read, and at once from then on', async () => {
    const { simulation, begin, ask, answered } = world();
    const routing = begin();
    ask(routing);
    await simulation.clock.settleUntil(1);
    expect(answered()).toBe(0);
    await simulation.clock.settleUntil(200);
    expect(answered()).toBe(1);
    ask(routing);
    await simulation.clock.settleUntil(201);
    expect(answered()).toBe(2);
  });

  it('is not whole while the store is away, and is when it is back', async () => {
    const { simulation, store, begin, ask, answered } = world();
    store.away('refused');
    ask(begin());
    await simulation.clock.settleUntil(30_000);
    expect(answered()).toBe(0);
    store.back();
    await simulation.clock.settleUntil(90_000);
    expect(answered()).toBe(1);
  });
});
