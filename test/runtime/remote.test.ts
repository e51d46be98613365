/** What is addressed to other hosts goes through the remote delivery port, or to the dead letters when there is none. */
import { describe, expect, it } from 'vitest';
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { ActorFactory, ActorRef, ReplyTo } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import { Simulation } from '#testing.js';

interface Question {
  readonly text: string;
  readonly replyTo: ReplyTo<string>;
}

/** Two hosts in one process: what one sends, the other receives on the next turn, references rebuilt from addresses. */
class Wire implements RemoteDelivery {
  readonly systems = new Map<string, ActorSystem>();
  readonly sent: { readonly to: ActorAddress; readonly message: unknown }[] = [];
  readonly watches = new Map<string, (reason: 'stopped' | 'failed') => void>();
  answer: Delivery;
  private readonly world: Simulation;

  constructor(world: Simulation) {
    this.world = world;
    this.answer = 'accepted';
  }

  send(to: ActorAddress, message: unknown): Delivery {
    const { answer } = this;
    if (answer !== 'accepted') return answer;
    this.sent.push({ to, message });
    this.world.clock.defer(() => {
      const system = this.systems.get(to.host);
      if (system !== undefined) system.ref(to).tell(arrived(system, message));
    });
    return 'accepted';
  }

  watch(actor: ActorAddress, onEnd: (reason: 'stopped' | 'failed') => void): { cancel(): void } {
    this.watches.set(actor.path, onEnd);
    return { cancel: () => void this.watches.delete(actor.path) };
  }
}

/** The message as the other host sees it: what had an address is a reference there. */
function arrived(system: ActorSystem, message: unknown): unknown {
  if (typeof message !== 'object' || message === null || !('replyTo' in message)) return message;
  const { address } = message.replyTo as ActorRef<string>;
  return { ...message, replyTo: system.ref(address) };
}

const shout: ActorFactory<Question> = () => ({
  receive: ({ text, replyTo }) => void replyTo.tell(text.toUpperCase()),
});

function twoHosts() {
  const world = new Simulation();
  const wire = new Wire(world);
  const near = world.system({ host: 'near', remote: wire });
  const far = world.system({ host: 'far', remote: wire });
  wire.systems.set('near', near);
  wire.systems.set('far', far);
  const target = far.spawn('shout', shout);
  return { world, wire, near, far, target, ref: near.ref<Question>(target.address) };
}

describe('remote delivery', () => {
  it('carries a question to another host and its reply back, and forgets both', async () => {
    const { world, wire, ref } = twoHosts();
    const reply = ref.ask<string>((replyTo) => ({ text: 'hi', replyTo }), { deadlineMs: 1_000 });
    await world.clock.settle();
    expect(await reply).toBe('HI');
    expect(wire.sent.map(({ to }) => `${to.host}/${to.path}`)).toEqual([
      'far/shout',
      expect.stringMatching(/^near\/\$ask\//),
    ]);
    expect(wire.watches.size).toBe(0);
    expect(world.clock.pending).toBe(0);
  });

  it('gives local addresses to local actors without the port', () => {
    const { wire, far, target } = twoHosts();
    expect(far.ref(target.address)).toBe(target);
    expect(wire.sent).toEqual([]);
  });

  it.each<[Delivery, string]>([
    ['full', 'RESOURCE_EXHAUSTED'],
    ['stopped', 'UNAVAILABLE'],
  ])('says what the port says: %s', async (answer, code) => {
    const { world, wire, near, ref } = twoHosts();
    wire.answer = answer;
    expect(ref.tell({ text: '', replyTo: { tell: () => 'accepted' } })).toBe(answer);
    const asked = ref.ask<string>((replyTo) => ({ text: '', replyTo }), { deadlineMs: 1_000 });
    await expect(asked).rejects.toMatchObject({ code });
    expect(near.deadLetters.count()).toBe(2);
    world.clock.runUntilIdle();
    expect(world.clock.nowMs()).toBe(0);
  });

  it('ends a question and a watch when the other actor or its host is gone', async () => {
    const { world, wire, near, ref } = twoHosts();
    wire.systems.delete('far');
    const asked = ref.ask<string>((replyTo) => ({ text: '', replyTo }), { deadlineMs: Infinity });
    const failure = expect(asked).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await world.clock.settle();
    wire.watches.get('shout')?.('failed');
    await failure;
    const seen: unknown[] = [];
    near.spawn('watcher', (context) => {
      context.watch(ref);
      return { receive: () => {}, signal: (signal) => void seen.push(signal) };
    });
    world.clock.runUntilIdle();
    wire.watches.get('shout')?.('failed');
    world.clock.runUntilIdle();
    expect(seen).toEqual([{ type: 'terminated', address: ref.address, reason: 'failed' }]);
  });

  it('has no way to another host without a port', async () => {
    const system = new Simulation().system();
    const ref = system.ref<Question>({ host: 'elsewhere', path: 'a', incarnation: 1 });
    expect(ref.tell({ text: '', replyTo: { tell: () => 'accepted' } })).toBe('stopped');
    expect(system.deadLetters.count('unreachable')).toBe(1);
    const asked = ref.ask<string>((replyTo) => ({ text: '', replyTo }), { deadlineMs: Infinity });
    await expect(asked).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
