/** Order over several channels: whatever overtakes what on the way, a receiver sees what was sent to it in order. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IncomingOrder, OutgoingOrder, waitsForNone } from '#core/grid/link-order.js';

interface Sent {
  readonly receiver: string;
  readonly place: number;
}

const step = fc.oneof(
  fc.record({ type: fc.constant('send' as const), receiver: fc.constantFrom('a', 'b', 'c'), large: fc.boolean() }),
  fc.record({ type: fc.constant('arrive' as const), channel: fc.nat(3) }),
  fc.record({ type: fc.constant('acknowledge' as const) }),
);

describe('order over several channels', () => {
  it('is that of sending for each receiver, with nothing lost, however the channels race', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const outgoing = new OutgoingOrder(3);
        const seen = new Map<string, number[]>();
        const taken = [0, 0, 0];
        const incoming = new IncomingOrder<Sent>(3, ({ receiver, place }, channel) => {
          seen.set(receiver, [...(seen.get(receiver) ?? []), place]);
          if (channel >= 0) taken[channel] = (taken[channel] ?? 0) + 1;
        });
        const wires: (() => void)[][] = [[], [], [], []];
        let place = 0;
        const sent = new Map<string, number[]>();
        const send = (receiver: string, large: boolean): void => {
          place += 1;
          const item = { receiver, place };
          sent.set(receiver, [...(sent.get(receiver) ?? []), place]);
          if (large) {
            const { channel, number } = outgoing.large(receiver);
            wires[channel + 1]?.push(() => {
              incoming.large(item, channel, number);
            });
          } else {
            const { tag, number } = outgoing.small(receiver);
            wires[0]?.push(() => {
              incoming.small(item, tag === waitsForNone ? [] : [[tag, number]]);
            });
          }
        };
        for (const each of steps) {
          if (each.type === 'send') send(each.receiver, each.large);
          else if (each.type === 'arrive') wires[each.channel]?.shift()?.();
          else {
            for (const [channel, count] of taken.entries()) outgoing.taken(channel, count);
            taken.fill(0);
          }
        }
        for (const wire of [...wires].reverse()) for (const arrive of wire) arrive();
        expect(seen).toEqual(sent);
      }),
      { numRuns: 500 },
    );
  });

  it('lets a small message to another receiver pass a large one, and the news of an end wait for all', () => {
    const outgoing = new OutgoingOrder(2);
    const seen: string[] = [];
    const incoming = new IncomingOrder<string>(2, (item) => seen.push(item));
    const large = outgoing.large('a');
    const toA = outgoing.small('a');
    const toB = outgoing.small('b');
    incoming.small('small to a', [[toA.tag, toA.number]]);
    expect(toB.tag).toBe(waitsForNone);
    incoming.small('small to b', []);
    incoming.small('end', outgoing.allLarge(), false);
    expect(seen).toEqual(['small to b']);
    incoming.large('large to a', large.channel, large.number);
    expect(seen).toEqual(['small to b', 'large to a', 'small to a', 'end']);
  });
});
