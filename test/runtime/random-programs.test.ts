/**
 * Random programs of actors that spawn, tell, stash, fail, stop and respawn. Whatever they do: every message that was
 * sent is received once, waits, or is a dead letter once; in order per sender and receiver; at the incarnation it was
 * addressed to; within the bounds of the mailbox. And the same program with the same seed runs the same way.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ActorFactory, ActorRef, OverflowRule } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import { Simulation, actorChannelNames } from '#testing.js';

const names = ['a', 'b', 'c'] as const;
type Name = (typeof names)[number];

/** What an actor does on receiving a message, or the outside world at some moment. */
type Action =
  | { readonly kind: 'tell'; readonly to: Name; readonly script: readonly Action[] }
  | { readonly kind: 'later'; readonly delayMs: number }
  | { readonly kind: 'stop'; readonly name: Name }
  | { readonly kind: 'spawn'; readonly name: Name }
  | { readonly kind: 'child' }
  | { readonly kind: 'fail' }
  | { readonly kind: 'stop self' }
  | { readonly kind: 'unstash' }
  | { readonly kind: 'stash' };

interface Letter {
  readonly id: number;
  readonly from: string;
  /** Number among the letters of this sender to this receiver. */
  readonly number: number;
  readonly to: ActorRef<Letter>;
  readonly script: readonly Action[];
}

const { action } = fc.letrec<{ action: Action }>((tie) => ({
  action: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('stop' as const), name: fc.constantFrom(...names) }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('tell' as const),
        to: fc.constantFrom(...names),
        script: fc.array(tie('action'), { maxLength: 4 }),
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('spawn' as const), name: fc.constantFrom(...names) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('later' as const), delayMs: fc.nat(200) }) },
    ...(['child', 'fail', 'stop self', 'unstash', 'stash'] as const).map((kind) => ({
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant(kind) }),
    })),
  ),
}));

const program = fc.record({
  seed: fc.nat(),
  messagesMax: fc.integer({ min: 1, max: 6 }),
  overflow: fc.constantFrom<OverflowRule>('refuse', 'drop-oldest', 'drop-newest'),
  keepMailbox: fc.boolean(),
  moments: fc.array(fc.record({ waitMs: fc.nat(150), actions: fc.array(action, { maxLength: 6 }) }), { maxLength: 6 }),
});
type Program = typeof program extends fc.Arbitrary<infer Value> ? Value : never;

class Run {
  readonly world: Simulation;
  readonly system: ActorSystem;
  readonly refs = new Map<Name, ActorRef<Letter>>();
  readonly sent: Letter[] = [];
  readonly received: { readonly letter: Letter; readonly by: ActorRef<Letter> }[] = [];
  readonly stashed = new Set<number>();
  readonly dead: number[] = [];
  private readonly program: Program;
  private readonly numbers = new Map<string, number>();
  private children = 0;

  constructor(given: Program) {
    this.program = given;
    this.world = new Simulation({ seed: given.seed });
    this.system = this.world.system();
    this.world.diagnostics.subscribe(actorChannelNames.deadLetter, ({ message }) => {
      this.dead.push((message as Letter).id);
    });
  }

  play(): void {
    for (const { waitMs, actions } of this.program.moments) {
      this.world.clock.advance(waitMs);
      this.checkBounds();
      for (const each of actions) this.perform('outside', each);
      this.checkBounds();
    }
    this.world.clock.advance(100_000);
    this.checkBounds();
  }

  private actor(): ActorFactory<Letter> {
    return (context) => ({
      receive: (letter) => {
        expect(letter.to.address).toEqual(context.self.address);
        // Stashing ends the handling: the letter comes again.
        const stash = letter.script.some(({ kind }) => kind === 'stash') && !this.stashed.has(letter.id);
        if (stash) {
          this.stashed.add(letter.id);
          context.stash();
          return;
        }
        this.received.push({ letter, by: context.self });
        for (const each of letter.script) {
          if (each.kind === 'fail') throw new Error('as the program says');
          else if (each.kind === 'stop self') context.stop();
          else if (each.kind === 'unstash') context.unstashAll();
          else if (each.kind === 'child') context.spawn(`child-${(this.children += 1)}`, this.actor());
          else if (each.kind === 'later') {
            context.schedule(each.delayMs, this.letter(`timer of ${context.self.address.path}`, context.self, []));
          } else this.perform(context.self.address.path, each);
        }
      },
    });
  }

  private perform(from: string, each: Action): void {
    if (each.kind === 'spawn') {
      const known = this.refs.get(each.name);
      if (known !== undefined && this.system.inspect().some(({ address }) => address.path === each.name)) return;
      this.refs.set(each.name, this.spawn(each.name));
    } else if (each.kind === 'stop') {
      const ref = this.refs.get(each.name);
      if (ref !== undefined) this.system.stop(ref);
    } else if (each.kind === 'tell') {
      const ref = this.refs.get(each.to);
      if (ref === undefined) return;
      const letter = this.letter(from, ref, each.script);
      const before = this.dead.length;
      const delivery = ref.tell(letter);
      const isDead = this.dead.slice(before).includes(letter.id);
      if (delivery !== 'accepted') expect(isDead).toBe(true);
      else if (this.program.overflow !== 'drop-newest') expect(isDead).toBe(false);
    }
  }

  private spawn(name: Name): ActorRef<Letter> {
    const { messagesMax, overflow, keepMailbox } = this.program;
    return this.system.spawn(name, this.actor(), {
      mailbox: { messagesMax, overflow },
      supervision: { keepMailbox, restartsMax: 2, backoffMsMin: 10, backoffMsMax: 40 },
    });
  }

  private letter(from: string, to: ActorRef<Letter>, script: readonly Action[]): Letter {
    const pair = `${from} to ${to.address.incarnation}`;
    const number = (this.numbers.get(pair) ?? 0) + 1;
    this.numbers.set(pair, number);
    const letter = { id: this.sent.length, from, number, to, script };
    this.sent.push(letter);
    return letter;
  }

  private checkBounds(): void {
    for (const { address, waiting, stashed } of this.system.inspect()) {
      const max = address.path.includes('/') ? 10_000 : this.program.messagesMax;
      expect(waiting + stashed).toBeLessThanOrEqual(max);
    }
  }
}

describe('random programs of actors', () => {
  it('lose nothing but to the dead letters, deliver once, in order, to one incarnation, within the bounds', () => {
    let receivedInAll = 0;
    fc.assert(
      fc.property(program, (given) => {
        const run = new Run(given);
        run.play();
        const stillThere = run.system.inspect().reduce((sum, { waiting, stashed }) => sum + waiting + stashed, 0);
        const timersDropped = run.sent.filter(({ from }) => from.startsWith('timer'));
        const receivedIds = run.received.map(({ letter }) => letter.id);
        expect(new Set(receivedIds).size).toBe(receivedIds.length);
        expect(new Set(run.dead).size).toBe(run.dead.length);
        expect(receivedIds.filter((id) => run.dead.includes(id))).toEqual([]);
        const told = run.sent.filter((letter) => !timersDropped.includes(letter)).map(({ id }) => id);
        const accounted = told.filter((id) => receivedIds.includes(id) || run.dead.includes(id));
        // What is neither received nor dead waits: stashed and never put back.
        const open = told.length - accounted.length;
        expect(open).toBeLessThanOrEqual(stillThere);
        for (const ref of new Set(run.sent.map(({ to }) => to))) {
          const lastNumber = new Map<string, number>();
          for (const { letter, by } of run.received) {
            if (by.address.incarnation !== ref.address.incarnation) continue;
            if (run.stashed.has(letter.id) || letter.from.startsWith('timer')) continue;
            expect(letter.number).toBeGreaterThan(lastNumber.get(letter.from) ?? 0);
            lastNumber.set(letter.from, letter.number);
          }
        }
        run.system.terminate();
        const afterwards = told.filter((id) => receivedIds.includes(id) || run.dead.includes(id));
        expect(afterwards.length).toBe(told.length);
        receivedInAll += run.received.length;
      }),
      { numRuns: 400 },
    );
    expect(receivedInAll).toBeGreaterThan(100);
  });

  it('run the same way with the same seed', () => {
    fc.assert(
      fc.property(program, (given) => {
        const hashes = [0, 1].map(() => {
          const run = new Run(given);
          run.play();
          return run.world.traceHash();
        });
        expect(hashes[0]).toBe(hashes[1]);
      }),
      { numRuns: 50 },
    );
  });

  it('run another way with another seed', () => {
    const given: Program = {
      seed: 1,
      messagesMax: 5,
      overflow: 'refuse',
      keepMailbox: true,
      moments: [
        {
          waitMs: 1,
          actions: [
            { kind: 'spawn', name: 'a' },
            { kind: 'tell', to: 'a', script: [{ kind: 'fail' }] },
          ],
        },
      ],
    };
    const hashOf = (seed: number): string => {
      const run = new Run({ ...given, seed });
      run.play();
      return run.world.traceHash();
    };
    expect(new Set([1, 2, 3, 4, 5].map(hashOf)).size).toBe(5);
  });
});
