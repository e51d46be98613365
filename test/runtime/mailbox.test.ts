/** The mailbox against a slow list that does the same by the book. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Deque } from '#core/deque.js';
import type { OverflowRule } from '#runtime/actor.js';
import { Mailbox } from '#runtime/mailbox.js';

interface Item {
  readonly id: number;
  readonly bytes: number;
}

/** What actor.ts promises of a mailbox, in as few words as possible. */
class SlowMailbox {
  waiting: Item[] = [];
  aside: Item[] = [];
  readonly dropped: number[] = [];
  readonly messagesMax: number;
  readonly bytesMax: number;
  readonly overflow: OverflowRule;

  constructor(messagesMax: number, bytesMax: number, overflow: OverflowRule) {
    this.messagesMax = messagesMax;
    this.bytesMax = bytesMax;
    this.overflow = overflow;
  }

  get bytes(): number {
    return [...this.waiting, ...this.aside].reduce((sum, item) => sum + item.bytes, 0);
  }

  fits(item: Item): boolean {
    return this.waiting.length + this.aside.length + 1 <= this.messagesMax && this.bytes + item.bytes <= this.bytesMax;
  }

  offer(item: Item): string {
    while (this.overflow === 'drop-oldest' && !this.fits(item) && item.bytes <= this.bytesMax) {
      const oldest = this.waiting.shift();
      if (oldest === undefined) return 'full';
      this.dropped.push(oldest.id);
    }
    if (!this.fits(item)) return this.overflow === 'drop-newest' ? 'dropped' : 'full';
    this.waiting.push(item);
    return 'accepted';
  }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('offer' as const), bytes: fc.nat(12) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('take' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stash' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unstash' as const) }) },
);

describe('mailbox', () => {
  it('does what a slow list does, for every overflow rule, bounded in messages and bytes', () => {
    const rules = fc.constantFrom<OverflowRule>('refuse', 'drop-oldest', 'drop-newest');
    const setting = fc.record({
      messagesMax: fc.integer({ min: 1, max: 40 }),
      bytesMax: fc.integer({ min: 1, max: 60 }),
    });
    fc.assert(
      fc.property(
        rules,
        setting,
        fc.boolean(),
        fc.array(step, { maxLength: 150 }),
        (overflow, limits, sized, steps) => {
          const slow = new SlowMailbox(limits.messagesMax, sized ? limits.bytesMax : Infinity, overflow);
          const dropped: number[] = [];
          const options = { messagesMax: limits.messagesMax, bytesMax: sized ? limits.bytesMax : Infinity, overflow };
          const mailbox = new Mailbox<Item>(
            sized ? { ...options, sizeOf: (item) => item.bytes } : options,
            (item) => void dropped.push(item.id),
          );
          steps.forEach((each, id) => {
            if (each.kind === 'offer') {
              const item = { id, bytes: each.bytes };
              expect(mailbox.offer(item)).toBe(slow.offer(item));
            } else if (each.kind === 'unstash') {
              mailbox.putBack();
              slow.waiting.unshift(...slow.aside);
              slow.aside = [];
            } else if (mailbox.length > 0) {
              const item = mailbox.take();
              expect(item).toBe(slow.waiting.shift());
              if (each.kind === 'take') return;
              if (slow.fits(item)) {
                mailbox.setAside(item);
                slow.aside.push(item);
              } else expect(() => mailbox.setAside(item)).toThrow('no room to stash');
            }
            expect(mailbox.length).toBe(slow.waiting.length);
            expect(mailbox.stashed).toBe(slow.aside.length);
            expect(mailbox.bytes).toBe(sized ? slow.bytes : 0);
            expect(dropped).toEqual(slow.dropped);
          });
          expect(mailbox.empty()).toEqual([...slow.aside, ...slow.waiting]);
          expect(mailbox.bytes).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('refuses sizes that are no sizes', () => {
    const mailbox = new Mailbox<number>(
      { messagesMax: 10, bytesMax: 10, overflow: 'refuse', sizeOf: (bytes) => bytes },
      () => {},
    );
    for (const bytes of [-1, NaN, Infinity]) expect(() => mailbox.offer(bytes)).toThrow('bytes from 0 up');
    expect(mailbox.length).toBe(0);
  });
});

describe('deque', () => {
  it('keeps order and numbering while it grows, at both ends', () => {
    const steps = fc.array(fc.constantFrom('push', 'front', 'shift'), { maxLength: 300 });
    fc.assert(
      fc.property(steps, (kinds) => {
        const deque = new Deque<number>();
        const slow: number[] = [];
        kinds.forEach((kind, item) => {
          if (kind === 'push') {
            deque.push(item);
            slow.push(item);
          } else if (kind === 'front') {
            deque.pushFront(item);
            slow.unshift(item);
          } else if (slow.length > 0) expect(deque.shift()).toBe(slow.shift());
          else expect(deque.shift()).toBeUndefined();
          expect(deque.length).toBe(slow.length);
          expect(deque.peek()).toBe(slow[0]);
        });
        while (slow.length > 0) expect(deque.shift()).toBe(slow.shift());
      }),
    );
  });
});
