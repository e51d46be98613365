import { describe, expect, it } from 'vitest';
import { routingActor } from '#actors/routing/actor.js';
import type { RoutingOptions } from '#actors/routing/options.js';
import type { RoutingMessage } from '#actors/routing/protocol.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import { gridKeys } from '#core/grid/keys.js';
import { emptyView } from '#core/grid/records.js';
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
  /** @param membership Where it hears who is in the grid. Default: nowhere. */
  const begin = (membership?: RoutingOptions['membership']) =>
    system.spawn<RoutingMessage>(
      'routing',
      routingActor({
        host: hostId('a'),
        keys,
        store: store.client('a'),
        picker: leastWorkPicker(),
        publish: () => (tables += 1),
        ...(membership === undefined ? {} : { membership }),
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

  it('is not whole before it knows who is in the grid: what others serve would seem not to be there', async () => {
    const { simulation, begin, ask, answered } = world();
    let hear: (news: ViewNews) => void = () => undefined;
    const routing = begin({
      tell: (message) => {
        if (message.type === 'subscribe') hear = (news) => void message.subscriber.tell(news);
        return 'accepted';
      },
    });
    const news = { view: emptyView, peers: new Map() } as unknown as ViewNews;
    ask(routing);
    hear(news);
    await simulation.clock.settleUntil(200);
    expect(answered()).toBe(0);
    const hosts: ViewNews['view']['hosts'] = new Map([[hostId('b'), { state: 'alive', generation: 1 } as never]]);
    hear({ ...news, view: { revision: 1, hosts } });
    await simulation.clock.settleUntil(400);
    expect(answered()).toBe(1);
  });
});
