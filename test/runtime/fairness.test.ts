/** A busy actor starves nobody: neither other actors nor input, output and timers. */
import { describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { silentLog } from '#ports/log.js';
import type { ActorFactory } from '#runtime/actor.js';
import { ActorSystem } from '#runtime/system.js';
import { Simulation } from '#testing.js';

/** Always has one more message for itself. */
const busy =
  (onTurn: () => void): ActorFactory<'go'> =>
  (context) => ({
    receive: () => {
      onTurn();
      context.self.tell('go');
    },
  });

describe('fairness', () => {
  it('gives every actor its burst before one has a second', () => {
    const world = new Simulation();
    const system = world.system();
    const turns: string[] = [];
    const note = (name: string) => () => {
      if (turns.at(-1) !== name) turns.push(name);
    };
    for (const name of ['a', 'b', 'c']) system.spawn(name, busy(note(name))).tell('go');
    while (turns.length < 30 && world.clock.step());
    expect(turns.length).toBeGreaterThan(30);
    turns.forEach((name, index) => expect(name).toBe(['a', 'b', 'c'][index % 3]));
  });

  it('lets timers, immediates and other actors of a real system run beside an actor that never rests', async () => {
    const clock = new NodeClock();
    const system = new ActorSystem({ host: 'host', clock, random: new SeededRandom(1), log: silentLog });
    let turns = 0;
    const ref = system.spawn(
      'busy',
      busy(() => (turns += 1)),
    );
    ref.tell('go');
    const other = system.spawn<(value: string) => void>('other', () => ({ receive: (reply) => reply('other') }));
    const events = await Promise.all([
      new Promise<string>((resolve) => setImmediate(() => resolve('immediate'))),
      new Promise<string>((resolve) => setTimeout(() => resolve('timeout'), 1)),
      new Promise<string>((resolve) => clock.schedule(1, () => resolve('timer'))),
      new Promise<string>((resolve) => other.tell(resolve)),
    ]);
    expect(events).toEqual(['immediate', 'timeout', 'timer', 'other']);
    expect(turns).toBeGreaterThan(0);
    expect(system.isAlive(ref)).toBe(true);
    system.terminate();
  });

  it('lets the event loop run between questions that are asked without a rest', async () => {
    const clock = new NodeClock();
    const system = new ActorSystem({ host: 'host', clock, random: new SeededRandom(1), log: silentLog });
    const ref = system.spawn<{ tell(reply: number): unknown }>('a', () => ({
      receive: (replyTo) => void replyTo.tell(1),
    }));
    const loop = { isOver: false };
    setImmediate(() => (loop.isOver = true));
    let asked = 0;
    while (!loop.isOver) asked += await ref.ask<number>((replyTo) => replyTo, { deadlineMs: Infinity });
    expect(asked).toBeGreaterThan(0);
    system.terminate();
  });
});
