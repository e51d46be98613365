import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkServiceProfile, drainMs, serviceMs, type ServiceProfile } from '#core/scheduling/service-profile.js';

const gpu: ServiceProfile = { batches: [1, 4, 16], ms: [10, 13, 37], spread: 0.1 };

describe('service profile', () => {
  it('is exact at its points, linear between them and along the last slope beyond', () => {
    expect([0, 1, 2, 4, 10, 16, 32].map((items) => serviceMs(gpu, items))).toEqual([0, 10, 11, 13, 25, 37, 69]);
  });

  it('takes the smallest size for less, and scales a table of one point', () => {
    const padded: ServiceProfile = { batches: [8], ms: [16], spread: 0 };
    expect([1, 8, 12].map((items) => serviceMs(padded, items))).toEqual([16, 16, 24]);
  });

  it('never promises less than the last point for more than the last size', () => {
    const cliff: ServiceProfile = { batches: [1, 2, 4], ms: [5, 9, 3], spread: 0 };
    expect(serviceMs(cliff, 64)).toBe(3);
  });

  it('drains a queue as a loop over batches does', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 1, max: 32 }), (items, itemsMax) => {
        let slow = 0;
        for (let left = items; left > 0; left -= itemsMax) slow += serviceMs(gpu, Math.min(left, itemsMax));
        expect(drainMs(gpu, items, itemsMax)).toBeCloseTo(slow, 6);
      }),
    );
  });

  it('refuses tables with holes, out of order or with times that are not above 0, and says which', () => {
    const refusals: [ServiceProfile, RegExp][] = [
      [{ batches: [], ms: [], spread: 0 }, /1 to 256 batch sizes.*0 sizes/u],
      [{ batches: [1, 2], ms: [1], spread: 0 }, /2 sizes and 1 times/u],
      [{ batches: [2, 1], ms: [1, 2], spread: 0 }, /batch size 1 does not come after 2/u],
      [{ batches: [1], ms: [Number.NaN], spread: 0 }, /batch of 1 takes NaN ms/u],
      [{ batches: [1], ms: [1], spread: -1 }, /spread is -1/u],
    ];
    for (const [profile, message] of refusals) expect(() => checkServiceProfile(profile, 'm on d')).toThrow(message);
    expect(checkServiceProfile(gpu, 'm on d')).toBe(gpu);
  });
});
