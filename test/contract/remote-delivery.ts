/** What every way between hosts must do, pretend or real: the promises of ports/remote-delivery.ts and ports/links.ts. */
import { expect, it } from 'vitest';
import type { ActorAddress } from '#core/actor-address.js';
import type { LinkEvent, Links } from '#ports/links.js';
import type { ActorRef, ReplyTo } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';

export interface TestHost {
  readonly system: ActorSystem;
  readonly links: Links;
}

/** Two hosts, `near` and `far`, that can reach each other, and what may befall them. */
export interface LinkedHosts {
  readonly near: TestHost;
  readonly far: TestHost;
  /** Lets time pass until this is true. */
  until(what: string, condition: () => boolean): Promise<void>;
  /** Nothing gets through either way until `heal`. */
  cut(): void;
  heal(): void;
  /** Ends the far process and starts another of the same name; `far` is the new one afterwards. */
  restartFar(): Promise<void>;
  close(): Promise<void>;
}

export interface Numbered {
  readonly type: 'numbered';
  readonly number: number;
  readonly data: Uint8Array;
}
export interface Question {
  readonly type: 'question';
  readonly text: string;
  readonly replyTo: ReplyTo<string>;
}

/** An actor that keeps what it got and answers questions in capitals. */
export function collector(system: ActorSystem, name = 'collector') {
  const got: Numbered[] = [];
  const ref = system.spawn<Numbered | Question>(name, () => ({
    receive: (message) => {
      if (message.type === 'numbered') got.push(message);
      else message.replyTo.tell(message.text.toUpperCase());
    },
  }));
  return { got, ref };
}

const wellKnown = (host: string, path: string): ActorAddress => ({ host, path, incarnation: 0 });

function filled(bytes: number, seed: number): Uint8Array {
  const data = new Uint8Array(bytes);
  for (let index = 0; index < bytes; index += 97) data[index] = (seed + index) % 256;
  return data;
}

export function remoteDeliveryContract(start: () => Promise<LinkedHosts>): void {
  const on = (title: string, body: (hosts: LinkedHosts) => Promise<void>): void => {
    it(title, async () => {
      const hosts = await start();
      try {
        await body(hosts);
      } finally {
        await hosts.close();
      }
    });
  };
  const ask = async (hosts: LinkedHosts, ref: ActorRef<Question>, text: string): Promise<string> => {
    let answer: string | undefined;
    let failure: unknown;
    ref
      .ask<string>((replyTo) => ({ type: 'question', text, replyTo }), { deadlineMs: Infinity })
      .then(
        (reply) => (answer = reply),
        (error: unknown) => (failure = error),
      );
    await hosts.until(`an answer to ${text}`, () => answer !== undefined || failure !== undefined);
    if (answer === undefined) throw failure;
    return answer;
  };

  on('carries questions and replies both ways', async (hosts) => {
    const far = collector(hosts.far.system);
    const near = collector(hosts.near.system);
    expect(await ask(hosts, hosts.near.system.ref(far.ref.address), 'out')).toBe('OUT');
    expect(await ask(hosts, hosts.far.system.ref(near.ref.address), 'back')).toBe('BACK');
    expect(await ask(hosts, hosts.near.system.ref(wellKnown('far', 'collector')), 'by name')).toBe('BY NAME');
  });

  on('gives out references that work where they arrive', async (hosts) => {
    const near = collector(hosts.near.system);
    const introduced: ActorRef<Numbered>[] = [];
    const door = hosts.far.system.spawn<{ readonly friend: ActorRef<Numbered> }>('door', () => ({
      receive: ({ friend }) => void introduced.push(friend),
    }));
    hosts.near.system.ref<{ readonly friend: ActorRef<never> }>(door.address).tell({ friend: near.ref });
    await hosts.until('the introduction', () => introduced.length === 1);
    introduced[0]?.tell({ type: 'numbered', number: 7, data: new Uint8Array() });
    await hosts.until('the message', () => near.got.length === 1);
    expect(near.got[0]?.number).toBe(7);
  });

  on('keeps the order of messages of all sizes, each once and whole', async (hosts) => {
    const far = collector(hosts.far.system);
    const ref = hosts.near.system.ref<Numbered>(far.ref.address);
    const sizes = [0, 10, 700_000, 3, 2_000, 90_000, 1, 65_536, 2_500_000, 8];
    const sent: Numbered[] = [];
    for (let number = 0; number < 300; number += 1) {
      const message: Numbered = { type: 'numbered', number, data: filled(sizes[number % sizes.length] ?? 0, number) };
      expect(ref.tell(message)).toBe('accepted');
      sent.push(message);
      const outstanding = (): number => sent.length - far.got.length;
      if (outstanding() > 50) await hosts.until(`messages up to ${number - 40}`, () => outstanding() < 40);
    }
    await hosts.until('the last message', () => far.got.length === sent.length);
    expect(far.got.map(({ number }) => number)).toEqual(sent.map(({ number }) => number));
    expect(far.got.every(({ data }, index) => Buffer.compare(data, sent[index]?.data ?? Buffer.alloc(0)) === 0)).toBe(
      true,
    );
  });

  on('answers at once that a host is unknown, and that a message cannot travel', async (hosts) => {
    const far = collector(hosts.far.system);
    expect(hosts.near.links.send(wellKnown('nowhere', 'collector'), 1)).toBe('stopped');
    expect(hosts.near.links.send(far.ref.address, { callback: () => 1 })).toBe('full');
    expect(await ask(hosts, hosts.near.system.ref(far.ref.address), 'still here')).toBe('STILL HERE');
  });

  on('tells of the end of a watched actor, of one that was never there, and nothing after a cancel', async (hosts) => {
    const mortal = collector(hosts.far.system, 'mortal');
    const ends: string[] = [];
    hosts.near.links.watch(mortal.ref.address, (reason) => ends.push(`mortal ${reason}`));
    hosts.near.links.watch(mortal.ref.address, (reason) => ends.push(`mortal again ${reason}`));
    hosts.near.links.watch(mortal.ref.address, () => ends.push('cancelled')).cancel();
    hosts.near.links.watch(wellKnown('far', 'never'), (reason) => ends.push(`never ${reason}`));
    hosts.near.links.watch(wellKnown('nowhere', 'never'), (reason) => ends.push(`nowhere ${reason}`));
    expect(ends).toEqual([]);
    await hosts.until('the ends of those that are not', () => ends.length === 2);
    hosts.far.system.stop(mortal.ref);
    await hosts.until('the end of the mortal', () => ends.length === 4);
    expect([...ends].sort()).toEqual(['mortal again stopped', 'mortal stopped', 'never stopped', 'nowhere failed']);
  });

  on(
    'loses a link as a whole when nothing gets through, and begins anew after it without mixing the two',
    async (hosts) => {
      const far = collector(hosts.far.system);
      const ref = hosts.near.system.ref<Numbered | Question>(far.ref.address);
      expect(await ask(hosts, ref as ActorRef<Question>, 'up')).toBe('UP');
      const events: LinkEvent[] = [];
      hosts.near.links.subscribe((event) => events.push(event));
      let ended = '';
      hosts.near.links.watch(far.ref.address, (reason) => (ended = reason));
      for (let number = 0; number < 10; number += 1)
        ref.tell({ type: 'numbered', number, data: filled(100_000, number) });
      hosts.cut();
      for (let number = 10; number < 20; number += 1) ref.tell({ type: 'numbered', number, data: new Uint8Array() });
      const question = ref.ask<string>((replyTo) => ({ type: 'question', text: 'lost', replyTo }), {
        deadlineMs: Infinity,
      });
      const refused = expect(question).rejects.toMatchObject({ code: 'UNAVAILABLE', retryable: true });
      await hosts.until('word of the loss', () => ended !== '' && events.some(({ type }) => type === 'lost'));
      await refused;
      expect(ended).toBe('failed');
      hosts.heal();
      let sent = 100;
      await hosts.until('a message over the next link', () => {
        ref.tell({ type: 'numbered', number: sent, data: new Uint8Array(sent % 2 === 0 ? 10 : 80_000) });
        sent += 1;
        return far.got.some(({ number }) => number >= 100);
      });
      const numbers = far.got.map(({ number }) => number);
      expect(numbers).toEqual([...new Set(numbers)].sort((left, right) => left - right));
      expect(await ask(hosts, ref as ActorRef<Question>, 'again')).toBe('AGAIN');
    },
  );

  on('refuses more than its bounds while nothing is taken over there, and goes on afterwards', async (hosts) => {
    const far = collector(hosts.far.system);
    const ref = hosts.near.system.ref<Numbered | Question>(far.ref.address);
    expect(await ask(hosts, ref as ActorRef<Question>, 'up')).toBe('UP');
    hosts.cut();
    const data = new Uint8Array(1_000_000);
    let accepted = 0;
    while (accepted < 1_000 && ref.tell({ type: 'numbered', number: accepted, data }) === 'accepted') accepted += 1;
    expect(accepted).toBeLessThan(200);
    expect(accepted).toBeGreaterThan(1);
    expect(hosts.near.links.peers().find(({ host }) => host === 'far')?.queuedBytes).toBeLessThan(80 * 2 ** 20);
    hosts.heal();
    let heard = false;
    await hosts.until('messages flow again', () => {
      if (ref.tell({ type: 'numbered', number: 5_000, data: new Uint8Array() }) === 'full') return false;
      heard ||= far.got.some(({ number }) => number === 5_000);
      return heard;
    });
  });

  on('never gives the next process of a host what was meant for an actor of the one before', async (hosts) => {
    const before = collector(hosts.far.system);
    const old = hosts.near.system.ref<Numbered | Question>(before.ref.address);
    expect(await ask(hosts, old as ActorRef<Question>, 'first')).toBe('FIRST');
    await hosts.restartFar();
    const after = collector(hosts.far.system);
    const named = hosts.near.system.ref<Numbered | Question>(wellKnown('far', 'collector'));
    await hosts.until('the new process', () => {
      old.tell({ type: 'numbered', number: 1, data: new Uint8Array() });
      named.tell({ type: 'numbered', number: 2, data: new Uint8Array() });
      return after.got.length > 0;
    });
    expect(after.got.every(({ number }) => number === 2)).toBe(true);
    expect(hosts.far.system.deadLetters.count('stopped')).toBeGreaterThan(0);
  });
}
