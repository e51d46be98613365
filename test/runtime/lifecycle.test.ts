/** How actors fail, restart, end and are watched, with exact times. */
import { describe, expect, it } from 'vitest';
import { Simulation } from '#testing.js';
import type { ActorContext, ActorFactory, ActorRef, Signal, SpawnOptions, SupervisionOptions } from '#runtime/actor.js';

type Command = 'fail' | 'fail child' | 'stop' | 'stash' | 'unstash' | 'respawn' | number;

/** An actor that notes everything that happens to it, under a name. */
function scribe(into: string[], name: string, extra?: (context: ActorContext<Command>, command: Command) => void) {
  const factory: ActorFactory<Command> = (context) => {
    into.push(`${name} starts@${Math.round(context.clock.nowMs())}`);
    return {
      receive: (command) => {
        if (command === 'fail') throw new Error(`${name} fails`);
        if (command === 'stop') context.stop();
        else if (command === 'stash') context.stash();
        else if (command === 'unstash') context.unstashAll();
        else into.push(`${name} got ${command}`);
        extra?.(context, command);
      },
      signal: (signal) => into.push(`${name} ${describeSignal(signal)}`),
    };
  };
  return factory;
}

function describeSignal(signal: Signal): string {
  switch (signal.type) {
    case 'terminated':
      return `sees ${signal.address.path} ${signal.reason}`;
    case 'pre-restart':
      return 'is about to restart';
    case 'drain':
      return 'is asked to drain';
    case 'post-stop':
      return 'ends';
  }
}

const exactly = (backoffMs: number): Partial<SupervisionOptions> => ({
  backoffMsMin: backoffMs,
  backoffMsMax: backoffMs,
});

describe('supervision', () => {
  it('restarts a failed actor after a back-off that doubles, within ±20 %, up to its maximum', () => {
    const world = new Simulation();
    const starts: number[] = [];
    const ref = world.system().spawn<Command>(
      'a',
      ({ clock }) => {
        starts.push(clock.nowMs());
        throw new Error('cannot start');
      },
      { supervision: { restartsMax: 6, intervalMs: 1e9, backoffMsMin: 100, backoffMsMax: 1_000 } },
    );
    world.clock.runUntilIdle();
    const waits = starts.slice(1).map((start, index) => start - (starts[index] ?? 0));
    const nominal = [100, 200, 400, 800, 1_000, 1_000];
    expect(waits).toHaveLength(nominal.length);
    waits.forEach((wait, index) => {
      expect(Math.abs(wait / (nominal[index] ?? 0) - 1)).toBeLessThanOrEqual(0.2);
    });
    expect(new Set(waits.map((wait, index) => wait / (nominal[index] ?? 1))).size).toBe(nominal.length);
    expect(ref.tell(1)).toBe('stopped');
  });

  it('keeps the address and what waited, and gives the failing message to nobody', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const ref = system.spawn('a', scribe(seen, 'a'), { supervision: exactly(50) });
    for (const command of [1, 'fail', 2, 3] as const) ref.tell(command);
    world.clock.runUntil(10);
    expect(ref.tell(4)).toBe('accepted');
    world.clock.runUntilIdle();
    expect(seen.map((line) => line.replace(/@\d+/, ''))).toEqual([
      'a starts',
      'a got 1',
      'a is about to restart',
      'a starts',
      'a got 2',
      'a got 3',
      'a got 4',
    ]);
    expect(world.clock.nowMs()).toBeGreaterThanOrEqual(40);
    expect(system.deadLetters.count()).toBe(0);
    expect(system.inspect()[0]).toMatchObject({ restarts: 1, state: 'running' });
    expect(world.log.find('warn', 'restarts')[0]?.fields).toMatchObject({ actor: 'a', error: 'a fails' });
  });

  it('gives what waited to the dead letters when the mailbox is not to be kept', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const ref = system.spawn('a', scribe(seen, 'a'), { supervision: { ...exactly(1), keepMailbox: false } });
    for (const command of ['stash', 'fail', 2, 3] as const) ref.tell(command);
    world.clock.runUntilIdle();
    expect(seen.filter((line) => line.includes('got'))).toEqual([]);
    expect(system.deadLetters.count('restarted')).toBe(3);
  });

  it('forgets restarts that lie further back than the interval', () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn('a', scribe([], 'a'), {
      supervision: { restartsMax: 1, intervalMs: 1_000, ...exactly(1) },
    });
    for (let failure = 0; failure < 5; failure += 1) {
      ref.tell('fail');
      world.clock.advance(1_001);
    }
    expect(system.inspect()[0]).toMatchObject({ restarts: 5 });
    ref.tell('fail');
    ref.tell('fail');
    world.clock.runUntilIdle();
    expect(system.isAlive(ref)).toBe(false);
  });

  it('escalates past the intensity limit: the parent fails with the same failure and its children end', () => {
    const world = new Simulation();
    const seen: string[] = [];
    const failures: unknown[] = [];
    const parent: ActorFactory<Command> = (context) => {
      const child = context.spawn('child', scribe(seen, 'child'), {
        supervision: { restartsMax: 1, intervalMs: 60_000, ...exactly(1) },
      });
      const sibling = context.spawn('sibling', scribe(seen, 'sibling'));
      sibling.tell(1);
      return {
        receive: () => child.tell('fail'),
        signal: (signal) => void seen.push(`parent ${describeSignal(signal)}`),
      };
    };
    const system = world.system();
    const ref = system.spawn('parent', parent, {
      supervision: {
        decide: (failure) => {
          failures.push(failure);
          return 'stop';
        },
      },
    });
    ref.tell(1);
    ref.tell(2);
    world.clock.runUntilIdle();
    expect(failures).toMatchObject([{ message: 'child fails' }]);
    expect(seen.slice(-3)).toEqual(['child ends', 'sibling ends', 'parent ends']);
    expect(system.inspect()).toEqual([]);
  });

  it('stops or escalates when its supervision decides so; a top-level escalation reaches the owner', () => {
    const world = new Simulation();
    const escalations: unknown[] = [];
    const system = world.system({ onEscalation: (failure, address) => escalations.push([failure, address.path]) });
    const failure = expect.objectContaining({ message: 'b fails' }) as unknown;
    const stops = system.spawn('a', scribe([], 'a'), { supervision: { decide: () => 'stop' } });
    const escalates = system.spawn('b', scribe([], 'b'), { supervision: { decide: () => 'escalate' } });
    stops.tell('fail');
    escalates.tell('fail');
    world.clock.runUntilIdle();
    expect(escalations).toEqual([[failure, 'b']]);
    expect(system.inspect()).toEqual([]);
  });

  it('cancels the timers and drops the promises of the incarnation that failed', async () => {
    const world = new Simulation();
    const seen: number[] = [];
    let incarnation = 0;
    const ref = world.system().spawn<number | 'fail'>(
      'a',
      (context) => {
        incarnation += 1;
        const label = incarnation * 10;
        context.schedule(100, label + 1);
        context.pipeToSelf(
          new Promise<void>((resolve) => world.clock.schedule(60, resolve)),
          () => label + 2,
          () => -1,
        );
        return {
          receive: (message) => {
            if (message === 'fail') throw new Error('asked to');
            seen.push(message);
          },
        };
      },
      { supervision: exactly(50) },
    );
    ref.tell('fail');
    await world.clock.settle();
    expect(seen).toEqual([22, 21]);
  });

  it('drops what an incarnation had sent itself when it failed before that was its turn', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    let incarnation = 0;
    const ref = system.spawn<string>(
      'a',
      (context) => {
        incarnation += 1;
        if (incarnation === 1) context.schedule(10, 'from a timer');
        return {
          receive: (word) => {
            if (word === 'fail') throw new Error('asked to');
            seen.push(word);
          },
        };
      },
      { supervision: exactly(1) },
    );
    world.clock.schedule(10, () => ref.tell('fail'));
    world.clock.schedule(10, () => ref.tell('kept'));
    world.clock.runUntilIdle();
    expect(incarnation).toBe(2);
    expect(seen).toEqual(['kept']);
    expect(system.deadLetters.count('restarted')).toBe(1);
  });
});

describe('death watch', () => {
  it('keeps its place among the messages: after those sent before the end, before those sent later', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const watched = system.spawn('watched', scribe([], 'watched'));
    const watcher = system.spawn<string>('watcher', (context) => {
      context.watch(watched);
      return { receive: (word) => void seen.push(word), signal: (signal) => void seen.push(signal.type) };
    });
    world.clock.runUntilIdle();
    watcher.tell('before');
    system.stop(watched);
    watcher.tell('after');
    world.clock.runUntilIdle();
    expect(seen).toEqual(['before', 'terminated', 'after']);
  });

  it('forgets the end it was about to tell when it is called off, and with the incarnation that asked', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const [first, second, third] = ['first', 'second', 'third'].map((name) => system.spawn(name, scribe([], name)));
    let isFirst = true;
    const watcher = system.spawn<'call off' | 'fail'>(
      'watcher',
      (context) => {
        if (isFirst) for (const ref of [first!, second!, third!]) context.watch(ref);
        isFirst = false;
        return {
          receive: (command) => {
            if (command === 'fail') throw new Error('asked to');
            context.unwatch(first!);
          },
          signal: (signal) => void seen.push(describeSignal(signal)),
        };
      },
      { supervision: exactly(1) },
    );
    world.clock.runUntilIdle();
    watcher.tell('call off');
    system.stop(first!);
    world.clock.runUntilIdle();
    watcher.tell('fail');
    system.stop(second!);
    world.clock.runUntilIdle();
    system.stop(third!);
    world.clock.runUntilIdle();
    expect(seen).toEqual(['is about to restart']);
  });

  it('tells the end after the last message of the watched actor, once, with the reason', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const watcher = system.spawn('watcher', scribe(seen, 'watcher'));
    const make = (name: string): ActorRef<Command> =>
      system.spawn(
        name,
        scribe([], name, (_, command) => command === 1 && watcher.tell(7)),
        {
          supervision: { decide: () => 'stop' },
        },
      );
    const good = make('good');
    const bad = make('bad');
    watcher.tell(0);
    system.spawn<Command>('starter', (context) => {
      context.watch(good);
      return { receive: () => {}, signal: (signal) => void seen.push(`starter ${describeSignal(signal)}`) };
    });
    world.clock.runUntilIdle();
    const other = system.spawn<Command>('other', (context) => {
      for (const ref of [good, bad, bad]) context.watch(ref);
      context.unwatch(good);
      return { receive: () => {}, signal: (signal) => void seen.push(`other ${describeSignal(signal)}`) };
    });
    world.clock.runUntilIdle();
    good.tell(1);
    good.tell('stop');
    bad.tell('fail');
    world.clock.runUntilIdle();
    expect(seen).toEqual([
      'watcher starts@0',
      'watcher got 0',
      'watcher got 7',
      'starter sees good stopped',
      'other sees bad failed',
    ]);
    system.stop(other);
  });

  it('orders the end after messages that were sent before it', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    system.spawn<string>('watcher', (context) => {
      const child = context.spawn<string>('child', (inner) => ({
        receive: () => {
          for (const word of ['one', 'two']) context.self.tell(word);
          inner.stop();
        },
      }));
      context.watch(child);
      child.tell('go');
      return {
        receive: (word) => void seen.push(word),
        signal: (signal) => {
          seen.push(signal.type);
          context.self.tell('after');
        },
      };
    });
    world.clock.runUntilIdle();
    expect(seen).toEqual(['one', 'two', 'terminated', 'after']);
  });

  it('tells at once of an actor that has ended before', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const gone = system.spawn('gone', scribe([], 'gone'), { supervision: { decide: () => 'stop' } });
    gone.tell('fail');
    world.clock.runUntilIdle();
    system.spawn<Command>('watcher', (context) => {
      context.watch(gone);
      context.watch(system.ref({ host: 'host', path: 'never', incarnation: 99 }));
      return { receive: () => {}, signal: (signal) => void seen.push(describeSignal(signal)) };
    });
    world.clock.runUntilIdle();
    expect(seen).toEqual(['sees gone failed', 'sees never stopped']);
  });
});

describe('stash', () => {
  it('puts messages aside and back in front of what waits, oldest first', () => {
    const world = new Simulation();
    const seen: number[] = [];
    let isOpen = false;
    const ref = world.system().spawn<number | 'open'>('a', (context) => ({
      receive: (message) => {
        if (message === 'open') {
          isOpen = true;
          context.unstashAll();
        } else if (isOpen) seen.push(message);
        else context.stash();
      },
    }));
    for (const message of [1, 2, 'open', 3] as const) ref.tell(message);
    world.clock.runUntilIdle();
    expect(seen).toEqual([1, 2, 3]);
  });

  it('counts against the bounds of the mailbox and fails the actor beyond them', () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn<Command>('a', scribe([], 'a'), {
      mailbox: { messagesMax: 2 },
      supervision: { decide: () => 'stop' },
    });
    ref.tell('stash');
    ref.tell('stash');
    world.clock.runUntilIdle();
    expect(system.inspect()[0]).toMatchObject({ waiting: 0, stashed: 2 });
    expect(ref.tell(1)).toBe('full');
    ref.tell('unstash');
    expect(system.deadLetters.count('full')).toBe(2);
  });

  it('fails the actor when it stashes while the mailbox is full behind it', () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn<Command>(
      'a',
      scribe([], 'a', (context, command) => {
        if (command !== 1) return;
        context.self.tell(2);
        context.self.tell(3);
        context.stash();
      }),
      { mailbox: { messagesMax: 2 }, supervision: { decide: () => 'stop' } },
    );
    ref.tell(1);
    world.clock.runUntilIdle();
    expect(system.isAlive(ref)).toBe(false);
    expect(world.log.find('error')[0]?.fields['error']).toMatch(/no room to stash a message: 2 messages wait/);
  });

  it('gives stashed messages to the next incarnation, before what waits', () => {
    const world = new Simulation();
    const seen: Command[] = [];
    let isFirst = true;
    const ref = world.system().spawn<Command>(
      'a',
      (context) => {
        const stashes = isFirst;
        isFirst = false;
        return {
          receive: (command) => {
            if (command === 'fail') throw new Error('asked to');
            if (stashes) context.stash();
            else seen.push(command);
          },
        };
      },
      { supervision: exactly(1) },
    );
    for (const command of [1, 2, 'fail', 3] as const) ref.tell(command);
    world.clock.runUntilIdle();
    expect(seen).toEqual([1, 2, 3]);
  });
});

describe('stopping', () => {
  it('ends children before their parent, newest first, and lets the code on the stack finish', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const ref = system.spawn<Command>('a', (context) => {
      for (const name of ['b', 'c']) context.spawn(name, scribe(seen, name));
      return {
        receive: () => {
          context.stop();
          expect(context.self.tell(1)).toBe('stopped');
          expect(context.spawn('d', scribe(seen, 'd')).tell(1)).toBe('stopped');
          seen.push('a goes on to its end');
        },
        signal: (signal) => void seen.push(`a ${describeSignal(signal)}`),
      };
    });
    world.clock.runUntilIdle();
    seen.length = 0;
    ref.tell(1);
    ref.tell(2);
    world.clock.runUntilIdle();
    expect(seen).toEqual(['a goes on to its end', 'c ends', 'b ends', 'a ends']);
    expect(system.deadLetters.count('stopped')).toBe(3);
  });

  it('frees a name at once when a parent stops its child', () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const ref = system.spawn<Command>('a', (context) => {
      let child = context.spawn('child', scribe(seen, 'old'));
      return {
        receive: () => {
          context.stop(child);
          child = context.spawn('child', scribe(seen, 'new'));
          child.tell(1);
        },
      };
    });
    world.clock.runUntilIdle();
    ref.tell('respawn');
    world.clock.runUntilIdle();
    expect(seen).toEqual(['old starts@0', 'old ends', 'new starts@0', 'new got 1']);
  });

  it('refuses names that are taken or cannot be part of a path, and more actors than allowed', () => {
    const system = new Simulation().system({ actorsMax: 2 });
    system.spawn('a', scribe([], 'a'));
    expect(() => system.spawn('a', scribe([], 'a'))).toThrow(expect.objectContaining({ code: 'ALREADY_EXISTS' }));
    for (const name of ['', 'a/b', '../a', 'x'.repeat(256)]) {
      expect(() => system.spawn(name, scribe([], 'a'))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
    system.spawn('b', scribe([], 'b'));
    expect(() => system.spawn('c', scribe([], 'c'))).toThrow(expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }));
  });

  it.each<[string, SpawnOptions<Command>]>([
    ['mailbox.messagesMax', { mailbox: { messagesMax: 0 } }],
    ['mailbox.bytesMax', { mailbox: { bytesMax: 10 } }],
    ['supervision.restartsMax', { supervision: { restartsMax: 1.5 } }],
    ['supervision.backoffMsMax', { supervision: { backoffMsMin: 10, backoffMsMax: 5 } }],
  ])('refuses a wrong %s, naming it', (option, options) => {
    const system = new Simulation().system();
    expect(() => system.spawn('a', scribe([], 'a'), options)).toThrow(option);
    expect(system.inspect()).toEqual([]);
  });
});

describe('draining', () => {
  it('handles what waits, then asks children first and their parents after, and reports a clean end', async () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const draining =
      (name: string, children: readonly string[] = []): ActorFactory<Command> =>
      (context) => {
        for (const child of children) context.spawn(child, draining(child));
        return {
          receive: (command) => void seen.push(`${name} got ${command}`),
          signal: (signal) => {
            seen.push(`${name} ${describeSignal(signal)}`);
            if (signal.type === 'drain') context.stop();
          },
        };
      };
    const ref = system.spawn('parent', draining('parent', ['child']));
    const plain = system.spawn<number>('plain', () => ({
      receive: (message) => void seen.push(`plain got ${message}`),
    }));
    world.clock.runUntilIdle();
    ref.tell(1);
    plain.tell(2);
    const report = system.drain({ deadlineMs: 1_000 });
    expect(() => system.spawn('late', draining('late'))).toThrow(expect.objectContaining({ code: 'UNAVAILABLE' }));
    await world.clock.settle();
    expect(await report).toEqual({ abandoned: [] });
    expect(world.clock.nowMs()).toBe(0);
    expect(seen).toEqual([
      'parent got 1',
      'plain got 2',
      'child is asked to drain',
      'child ends',
      'parent is asked to drain',
      'parent ends',
    ]);
  });

  it('waits for work in flight, and at the deadline stops what has not ended and names it', async () => {
    const world = new Simulation();
    const system = world.system();
    const busy =
      (workMs: number): ActorFactory<'done'> =>
      (context) => ({
        receive: () => context.stop(),
        signal: (signal) => {
          if (signal.type === 'drain') context.schedule(workMs, 'done');
        },
      });
    const quick = system.spawn('quick', busy(50));
    const slow = system.spawn('slow', busy(5_000));
    world.clock.runUntilIdle();
    const quickEnd = system.whenStopped(quick).then(() => world.clock.nowMs());
    const report = system.drain({ deadlineMs: 200 });
    await world.clock.settle();
    expect(await report).toEqual({ abandoned: ['slow'] });
    expect(await quickEnd).toBe(50);
    expect(world.clock.nowMs()).toBe(200);
    expect(system.isAlive(slow)).toBe(false);
  });

  it('starts nothing again that fails meanwhile', async () => {
    const world = new Simulation();
    const system = world.system();
    const seen: string[] = [];
    const ref = system.spawn('a', scribe(seen, 'a'));
    const waiting = system.spawn('b', scribe(seen, 'b'));
    waiting.tell('fail');
    world.clock.runDue();
    ref.tell('fail');
    const report = system.drain({ deadlineMs: 60_000 });
    await world.clock.settle();
    expect(await report).toEqual({ abandoned: [] });
    expect(seen.filter((line) => line.includes('starts'))).toEqual(['a starts@0', 'b starts@0']);
    expect(world.clock.nowMs()).toBe(0);
  });

  it('can drain some actors while the others live on', async () => {
    const world = new Simulation();
    const system = world.system();
    const first = system.spawn<number>('first', () => ({ receive: () => {} }));
    const second = system.spawn<number>('second', () => ({ receive: () => {} }));
    const report = system.drain({ deadlineMs: 1_000, actors: [first] });
    await world.clock.settle();
    expect(await report).toEqual({ abandoned: [] });
    expect([system.isAlive(first), system.isAlive(second)]).toEqual([false, true]);
    system.spawn('third', () => ({ receive: () => {} }));
    system.terminate();
    expect(system.inspect()).toEqual([]);
  });
});
