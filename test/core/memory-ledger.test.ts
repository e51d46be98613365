import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryLedger, estimateSessionBytes } from '#core/memory-ledger.js';

const everyone = (): boolean => true;

describe('the memory ledger', () => {
  it('estimates from weights, and from inputs and outputs of the largest batch', () => {
    const inputs = [{ name: 'x', datatype: 'FP32' as const, shape: [-1, 10] }];
    const outputs = [{ name: 'y', datatype: 'BYTES' as const, shape: [-1, 2] }];
    expect(estimateSessionBytes({ weightBytes: 1000, inputs, outputs, items: 8 })).toBe(1250 + 4 * 8 * (40 + 128));
    expect(estimateSessionBytes({ weightBytes: 1000, inputs, outputs, items: 0 })).toBe(1250 + 4 * (40 + 128));
  });

  it('names the longest unused idle sessions, no more than needed, and no busy one', () => {
    const ledger = new MemoryLedger(100);
    ledger.hold('a', 30, 1);
    ledger.hold('b', 30, 2);
    ledger.hold('c', 30, 3);
    ledger.touch('a', 4);
    expect(ledger.plan(10, everyone)).toEqual({ fits: true, evict: [] });
    expect(ledger.plan(20, everyone)).toEqual({ fits: true, evict: ['b'] });
    expect(ledger.plan(60, everyone)).toEqual({ fits: true, evict: ['b', 'c'] });
    expect(ledger.plan(60, (key) => key !== 'b')).toEqual({ fits: true, evict: ['c', 'a'] });
    expect(ledger.plan(90, (key) => key !== 'b')).toEqual({ fits: false, bytesMissing: 20 });
  });

  it('asks for nothing to be evicted when the rest would not be enough anyway', () => {
    const ledger = new MemoryLedger(100);
    ledger.hold('a', 50, 0);
    expect(ledger.plan(150, everyone)).toEqual({ fits: false, bytesMissing: 50 });
    expect(ledger.usedBytes).toBe(50);
  });

  it('adds up, whatever is held, measured and released', () => {
    const action = fc.record({
      kind: fc.constantFrom('hold', 'trueUp', 'release', 'touch'),
      key: fc.constantFrom('a', 'b', 'c', 'd'),
      bytes: fc.nat({ max: 100 }),
    });
    fc.assert(
      fc.property(fc.array(action), (actions) => {
        const ledger = new MemoryLedger(200);
        const held = new Map<string, number>();
        for (const { kind, key, bytes } of actions) {
          if (kind === 'hold' && !held.has(key)) {
            ledger.hold(key, bytes, 0);
            held.set(key, bytes);
          } else if (kind === 'trueUp') {
            ledger.trueUp(key, bytes);
            if (held.has(key)) held.set(key, bytes);
          } else if (kind === 'release') {
            ledger.release(key);
            held.delete(key);
          } else ledger.touch(key, bytes);
          expect(ledger.usedBytes).toBe([...held.values()].reduce((sum, each) => sum + each, 0));
          expect(ledger.bytesOf(key)).toBe(held.get(key) ?? 0);
          const plan = ledger.plan(bytes, everyone);
          const left = plan.fits
            ? ledger.usedBytes - plan.evict.reduce((sum, each) => sum + ledger.bytesOf(each), 0)
            : NaN;
          if (plan.fits) expect(left + bytes).toBeLessThanOrEqual(200);
          else expect(plan.bytesMissing).toBe(bytes - 200);
        }
      }),
    );
  });
});
