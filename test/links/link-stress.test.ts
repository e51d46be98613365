/** Links under everything at once: both ends full, sizes mixed; and with connections that break. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { hostId } from '#core/ids.js';
import { seededRandom } from '#testing.js';
import { collector, type Numbered, type Question } from '#test/contract/remote-delivery.js';
import { startRealHost, waitUntil, type RealHost } from './real-host.js';
import { TcpProxy } from './tcp-proxy.js';

async function pair(): Promise<{ a: RealHost; b: RealHost; proxy: TcpProxy }> {
  // Silence is judged late: a busy machine is no lost link.
  const patient = { silenceMsMax: 10_000, connectMsMax: 10_000 };
  const [a, b] = [await startRealHost({ name: 'a', ...patient }), await startRealHost({ name: 'b', ...patient })];
  const proxy = await TcpProxy.start(b.server.port);
  a.links.setPeer(hostId('b'), `127.0.0.1:${proxy.port}`);
  onTestFinished(async () => {
    await proxy.close();
    await Promise.all([a.close(), b.close()]);
  });
  a.links.peer('b').connect();
  await waitUntil('the link', () => [a, b].every(({ links }) => links.peers()[0]?.state === 'up'));
  return { a, b, proxy };
}

/** Sends so many messages of that size as fast as they are taken, never more than `aheadMax` ahead of the receiver. */
async function send(from: RealHost, to: ReturnType<typeof collector>, count: number, bytes: number, aheadMax: number) {
  const ref = from.system.ref<Numbered>(to.ref.address);
  const data = new Uint8Array(bytes);
  for (let number = 0; number < count;) {
    if (number - to.got.length < aheadMax && ref.tell({ type: 'numbered', number, data }) === 'accepted') number += 1;
    else await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('links under load', { timeout: 120_000 }, () => {
  const cases = [
    { what: 'tensors', count: 120, bytes: 600_000, aheadMax: 100 },
    { what: 'messages just below the size of a tensor', count: 1_000, bytes: 60_000, aheadMax: 900 },
    { what: 'more small messages than the credit allows', count: 9_000, bytes: 20, aheadMax: 9_000 },
  ];

  it('carry both ways at once when both ends have full queues, whatever the size', async () => {
    for (const { what, count, bytes, aheadMax } of cases) {
      const { a, b } = await pair();
      // Many receivers, so that no mailbox is the bound.
      const receivers = 10;
      const inA = Array.from({ length: receivers }, (_, index) => collector(a.system, `in-a-${index}`));
      const inB = Array.from({ length: receivers }, (_, index) => collector(b.system, `in-b-${index}`));
      const each = Math.ceil(count / receivers);
      const flows = [...inB.map((to) => ({ from: a, to })), ...inA.map((to) => ({ from: b, to }))];
      await Promise.all(flows.map(({ from, to }) => send(from, to, each, bytes, Math.ceil(aheadMax / receivers))));
      await waitUntil(`all ${what}`, () => flows.every(({ to }) => to.got.length === each), 60_000);
      for (const { to } of flows) expect(to.got.map(({ number }) => number)).toEqual(to.got.map((_, index) => index));
      await waitUntil('nothing on the way', () => [a, b].every(({ links }) => links.peers()[0]?.queuedMessages === 0));
      expect([a.links.counts.lost, b.links.counts.lost]).toEqual([0, 0]);
    }
  });

  it('keep order and settle every question while connections break, for three seeds', async () => {
    // How many are answered is a matter of when connections break: over all seeds some are.
    let answered = 0;
    for (const seed of [1, 2, 3]) {
      const random = seededRandom(seed);
      const { a, b, proxy } = await pair();
      const ends = { a: collector(a.system), b: collector(b.system) };
      const settled = { answered: 0, failed: 0 };
      let asked = 0;
      for (let step = 0; step < 400; step += 1) {
        const [from, to] = random.next() < 0.5 ? [a, ends.b] : [b, ends.a];
        const ref = from.system.ref<Numbered | Question>(to.ref.address);
        if (random.next() < 0.2) {
          asked += 1;
          ref
            .ask<string>((replyTo) => ({ type: 'question', text: 'q', replyTo }), { deadlineMs: Infinity })
            .then(
              () => (settled.answered += 1),
              () => (settled.failed += 1),
            );
        } else {
          const bytes = [10, 1_000, 60_000, 100_000, 1_500_000][Math.floor(random.next() * 5)] ?? 0;
          ref.tell({ type: 'numbered', number: step, data: new Uint8Array(bytes) });
        }
        if (random.next() < 0.01) proxy.break();
        if (random.next() < 0.3) await new Promise((resolve) => setImmediate(resolve));
      }
      await waitUntil('an end of every question', () => settled.answered + settled.failed === asked, 60_000);
      for (const { got } of Object.values(ends)) {
        const numbers = got.map(({ number }) => number);
        expect(numbers).toEqual([...new Set(numbers)].sort((left, right) => left - right));
      }
      answered += settled.answered;
    }
    expect(answered).toBeGreaterThan(0);
  });
});
