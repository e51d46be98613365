/** Tell and ask between actors of one host: order, bounds, dead letters, and questions that always end. */
import { describe, expect, it } from 'vitest';
import { Simulation, ManualCancellation, actorChannelNames } from '#testing.js';
import type { ActorFactory, MailboxOptions, OverflowRule, ReplyTo } from '#runtime/actor.js';

type EchoMessage =
  | { readonly type: 'echo'; readonly text: string; readonly replyTo: ReplyTo<string> }
  | { readonly type: 'ignore'; readonly replyTo: ReplyTo<string> }
  | { readonly type: 'fail' }
  | { readonly type: 'stop' };

const echo: ActorFactory<EchoMessage> = (context) => ({
  receive: (message) => {
    switch (message.type) {
      case 'echo':
        message.replyTo.tell(message.text);
        return;
      case 'ignore':
        return;
      case 'fail':
        throw new Error('asked to fail');
      case 'stop':
        context.stop();
    }
  },
});

/** An actor that notes what it receives. */
const collector =
  <Message>(into: Message[]): ActorFactory<Message> =>
  () => ({ receive: (message) => void into.push(message) });

/** Its value or the error it failed with. Handles the failure from the start, so that time may be turned before it is looked at. */
const outcomeOf = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error);

describe('tell', () => {
  it('delivers once, in the order of the calls, one message at a time', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: number[] = [];
    let depth = 0;
    const ref = system.spawn<number>('a', (context) => ({
      receive: (message) => {
        expect(depth++).toBe(0);
        if (message === 2) context.self.tell(100);
        seen.push(message);
        depth -= 1;
      },
    }));
    for (let message = 0; message < 5; message += 1) expect(ref.tell(message)).toBe('accepted');
    expect(seen).toEqual([]);
    world.clock.runUntilIdle();
    expect(seen).toEqual([0, 1, 2, 3, 4, 100]);
  });

  it('reaches one incarnation of a name only', () => {
    const world = new Simulation();
    const system = world.system();
    const first: string[] = [];
    const second: string[] = [];
    const old = system.spawn<string>('name', collector(first));
    old.tell('one');
    world.clock.runUntilIdle();
    system.stop(old);
    const young = system.spawn<string>('name', collector(second));
    expect(young.address.path).toBe(old.address.path);
    expect(young.address.incarnation).toBeGreaterThan(old.address.incarnation);
    expect(old.tell('two')).toBe('stopped');
    expect(system.ref<string>(old.address).tell('three')).toBe('stopped');
    expect(system.ref<string>(young.address).tell('four')).toBe('accepted');
    world.clock.runUntilIdle();
    expect([first, second]).toEqual([['one'], ['four']]);
    expect(system.deadLetters.count('stopped')).toBe(2);
  });

  it.each<{ rule: OverflowRule; deliveries: string[]; kept: number[]; reason: 'full' | 'dropped' }>([
    { rule: 'refuse', deliveries: ['accepted', 'accepted', 'full', 'full'], kept: [0, 1], reason: 'full' },
    {
      rule: 'drop-oldest',
      deliveries: ['accepted', 'accepted', 'accepted', 'accepted'],
      kept: [2, 3],
      reason: 'dropped',
    },
    {
      rule: 'drop-newest',
      deliveries: ['accepted', 'accepted', 'accepted', 'accepted'],
      kept: [0, 1],
      reason: 'dropped',
    },
  ])('applies the overflow rule $rule at the bound of messages', ({ rule, deliveries, kept, reason }) => {
    const world = new Simulation();
    const system = world.system();
    const letters = world.diagnostics.record(actorChannelNames.deadLetter);
    const seen: number[] = [];
    const ref = system.spawn<number>('a', collector(seen), { mailbox: { messagesMax: 2, overflow: rule } });
    expect([0, 1, 2, 3].map((message) => ref.tell(message))).toEqual(deliveries);
    world.clock.runUntilIdle();
    expect(seen).toEqual(kept);
    const lost = [0, 1, 2, 3].filter((message) => !kept.includes(message));
    expect(letters.map((letter) => [letter.message, letter.reason])).toEqual(lost.map((each) => [each, reason]));
    expect(system.deadLetters.count()).toBe(2);
  });

  it('bounds a mailbox in bytes and refuses what could never fit without giving up others', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: number[] = [];
    const mailbox: Partial<MailboxOptions<number>> = {
      bytesMax: 10,
      sizeOf: (bytes) => bytes,
      overflow: 'drop-oldest',
    };
    const ref = system.spawn<number>('a', collector(seen), { mailbox });
    expect([4, 5, 11, 1, 6].map((bytes) => ref.tell(bytes))).toEqual([
      'accepted',
      'accepted',
      'full',
      'accepted',
      'accepted',
    ]);
    expect(system.inspect()[0]).toMatchObject({ waiting: 2, bytes: 7 });
    world.clock.runUntilIdle();
    expect(seen).toEqual([1, 6]);
    expect(system.inspect()[0]).toMatchObject({ waiting: 0, bytes: 0 });
    expect(ref.tell(10)).toBe('accepted');
  });

  it('gives what waits for a stopped actor to the dead letters', () => {
    const world = new Simulation();
    const system = world.system();
    const letters = world.diagnostics.record(actorChannelNames.deadLetter);
    const ref = system.spawn<EchoMessage>('a', echo);
    ref.tell({ type: 'stop' });
    ref.tell({ type: 'fail' });
    world.clock.runUntilIdle();
    expect(ref.tell({ type: 'stop' })).toBe('stopped');
    expect(letters.map(({ message, reason }) => [(message as EchoMessage).type, reason])).toEqual([
      ['fail', 'stopped'],
      ['stop', 'stopped'],
    ]);
    expect(system.deadLetters.recent().map((letter) => letter.messageType)).toEqual(['fail', 'stop']);
  });

  it('keeps no more than 256 descriptions of dead letters', () => {
    const system = new Simulation().system();
    const ref = system.spawn<number>('a', collector([]), { mailbox: { messagesMax: 1 } });
    for (let message = 0; message < 500; message += 1) ref.tell(message);
    expect(system.deadLetters.count('full')).toBe(499);
    expect(system.deadLetters.recent()).toHaveLength(256);
  });
});

describe('ask', () => {
  it('gives the reply, once', async () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn<EchoMessage>('a', (context) => ({
      receive: (message) => {
        if (message.type !== 'echo') return;
        expect(message.replyTo.tell(message.text)).toBe('accepted');
        expect(message.replyTo.tell('again')).toBe('stopped');
        expect(context.clock.nowMs()).toBe(0);
      },
    }));
    const reply = ref.ask<string>((replyTo) => ({ type: 'echo', text: 'hi', replyTo }), { deadlineMs: 1_000 });
    await world.clock.settle();
    expect(await reply).toBe('hi');
    expect(system.deadLetters.count('late-reply')).toBe(1);
    expect(world.clock.nowMs()).toBe(0);
  });

  it('fails with DEADLINE_EXCEEDED at its absolute deadline', async () => {
    const world = new Simulation({ startMs: 500 });
    const ref = world.system().spawn<EchoMessage>('a', echo);
    const late = ref.ask<string>((replyTo) => ({ type: 'ignore', replyTo }), { deadlineMs: 750 });
    const past = outcomeOf(ref.ask<string>((replyTo) => ({ type: 'echo', text: '', replyTo }), { deadlineMs: 500 }));
    const endedAt = late.catch(() => world.clock.nowMs());
    await world.clock.settle();
    expect(await endedAt).toBe(750);
    await expect(late).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED', details: { actor: 'a', deadlineMs: 750 } });
    expect(await past).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it('fails with CANCELLED as soon as it is cancelled, and forgets the cancellation once it has ended', async () => {
    const world = new Simulation();
    const ref = world.system().spawn<EchoMessage>('a', echo);
    const cancellation = new ManualCancellation();
    let listeners = 0;
    const counted = {
      get cancelled() {
        return cancellation.cancelled;
      },
      onCancel: (listener: () => void) => {
        listeners += 1;
        cancellation.onCancel(listener);
      },
      offCancel: (listener: () => void) => {
        listeners -= 1;
        cancellation.offCancel(listener);
      },
    };
    const options = { deadlineMs: Infinity, cancellation: counted };
    const answered = ref.ask<string>((replyTo) => ({ type: 'echo', text: 'x', replyTo }), options);
    await world.clock.settle();
    expect(await answered).toBe('x');
    expect(listeners).toBe(0);
    const waiting = outcomeOf(ref.ask<string>((replyTo) => ({ type: 'ignore', replyTo }), options));
    await world.clock.settle();
    expect(listeners).toBe(1);
    cancellation.cancel();
    expect(await waiting).toMatchObject({ code: 'CANCELLED' });
    const after = ref.ask<string>(() => expect.unreachable('a cancelled question builds no message'), options);
    await expect(after).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('fails with UNAVAILABLE promptly when the actor stops before it replies, or is stopped', async () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn<EchoMessage>('a', echo);
    const taken = outcomeOf(ref.ask<string>((replyTo) => ({ type: 'ignore', replyTo }), { deadlineMs: 60_000 }));
    ref.tell({ type: 'stop' });
    const waiting = outcomeOf(
      ref.ask<string>((replyTo) => ({ type: 'echo', text: '', replyTo }), { deadlineMs: Infinity }),
    );
    await world.clock.settleUntil(0);
    expect(await taken).toMatchObject({ code: 'UNAVAILABLE' });
    expect(await waiting).toMatchObject({ code: 'UNAVAILABLE' });
    const after = ref.ask<string>((replyTo) => ({ type: 'ignore', replyTo }), { deadlineMs: Infinity });
    await expect(after).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(world.clock.pending).toBe(0);
  });

  it('fails with UNAVAILABLE when the actor fails over the question, while questions that wait are kept', async () => {
    const world = new Simulation();
    const ref = world.system().spawn<EchoMessage>('a', echo);
    const consumed = outcomeOf(ref.ask<string>((replyTo) => ({ type: 'ignore', replyTo }), { deadlineMs: Infinity }));
    ref.tell({ type: 'fail' });
    const kept = ref.ask<string>((replyTo) => ({ type: 'echo', text: 'kept', replyTo }), { deadlineMs: Infinity });
    await world.clock.settleUntil(0);
    expect(await consumed).toMatchObject({ code: 'UNAVAILABLE' });
    await world.clock.settle();
    expect(await kept).toBe('kept');
  });

  it.each<OverflowRule>(['refuse', 'drop-newest'])(
    'fails with RESOURCE_EXHAUSTED at a full mailbox that answers overflow with %s',
    async (overflow) => {
      const world = new Simulation();
      const ref = world.system().spawn<EchoMessage>('a', echo, { mailbox: { messagesMax: 1, overflow } });
      const ask = () => ref.ask<string>((replyTo) => ({ type: 'echo', text: 'x', replyTo }), { deadlineMs: Infinity });
      const first = ask();
      await expect(ask()).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
      await world.clock.settle();
      expect(await first).toBe('x');
    },
  );

  it('fails with RESOURCE_EXHAUSTED when the rule drop-oldest gives its message up', async () => {
    const world = new Simulation();
    const ref = world.system().spawn<EchoMessage>('a', echo, { mailbox: { messagesMax: 1, overflow: 'drop-oldest' } });
    const first = ref.ask<string>((replyTo) => ({ type: 'echo', text: '1', replyTo }), { deadlineMs: Infinity });
    const second = ref.ask<string>((replyTo) => ({ type: 'echo', text: '2', replyTo }), { deadlineMs: Infinity });
    await expect(first).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    await world.clock.settle();
    expect(await second).toBe('2');
  });
});
