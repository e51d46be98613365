/** What the actor system tells: metrics when they are collected, events on diagnostics channels when somebody listens. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, expect, it } from 'vitest';
import { nodeDiagnostics } from '#adapters/node/diagnostics.js';
import { Simulation, actorChannelNames } from '#testing.js';
import type { Diagnostics } from '#ports/diagnostics.js';

describe('metrics of actors', () => {
  it('count messages, failures, restarts and dead letters by reason, and show what lives and waits', () => {
    const world = new Simulation();
    const system = world.system();
    const ref = system.spawn<string>(
      'a',
      () => ({
        receive: (word) => {
          if (word === 'fail') throw new Error('asked to');
        },
      }),
      { mailbox: { messagesMax: 3 } },
    );
    for (const word of ['one', 'fail', 'two', 'too many']) ref.tell(word);
    expect(world.metrics.value('intarsia_actor_mailbox_messages')).toBe(3);
    world.clock.runUntilIdle();
    expect(world.metrics.value('intarsia_actors')).toBe(1);
    expect(world.metrics.value('intarsia_actor_mailbox_messages')).toBe(0);
    expect(world.metrics.value('intarsia_actor_messages_total')).toBe(3);
    expect(world.metrics.value('intarsia_actor_failures_total')).toBe(1);
    expect(world.metrics.value('intarsia_actor_restarts_total')).toBe(1);
    expect(world.metrics.value('intarsia_actor_dead_letters_total', 'full')).toBe(1);
    expect(world.metrics.value('intarsia_actor_dead_letters_total', 'stopped')).toBe(0);
    system.terminate();
    expect(world.metrics.value('intarsia_actors')).toBe(0);
  });
});

describe('diagnostics of actors', () => {
  it('tell the life of an actor in order', () => {
    const world = new Simulation();
    const events = world.diagnostics.record(actorChannelNames.lifecycle);
    const system = world.system();
    const ref = system.spawn<string>('a', () => ({
      receive: () => {
        throw new Error('asked to');
      },
    }));
    ref.tell('fail');
    world.clock.runUntilIdle();
    system.stop(ref);
    expect(events.map(({ type }) => type)).toEqual([
      'spawned',
      'started',
      'failed',
      'restarting',
      'started',
      'stopped',
    ]);
    expect(new Set(events.map(({ address }) => address.incarnation)).size).toBe(1);
  });

  it('make no event while nobody listens', () => {
    const world = new Simulation();
    let published = 0;
    const deaf: Diagnostics = {
      channel: () => ({ hasSubscribers: false, publish: () => void (published += 1) }),
    };
    const system = world.system({ diagnostics: deaf });
    const ref = system.spawn<string>('a', (context) => ({ receive: () => context.stop() }));
    for (const word of ['one', 'two']) ref.tell(word);
    world.clock.runUntilIdle();
    expect(system.deadLetters.count()).toBe(1);
    expect(published).toBe(0);
  });

  it('reach subscribers of node:diagnostics_channel', () => {
    const world = new Simulation();
    const seen: unknown[] = [];
    const listen = (event: unknown): void => void seen.push(event);
    subscribe(actorChannelNames.message, listen);
    const system = world.system({ diagnostics: nodeDiagnostics });
    const ref = system.spawn<string>('a', () => ({ receive: () => {} }));
    ref.tell('word');
    world.clock.runUntilIdle();
    unsubscribe(actorChannelNames.message, listen);
    expect(seen).toEqual([{ address: ref.address, message: 'word' }]);
  });
});
