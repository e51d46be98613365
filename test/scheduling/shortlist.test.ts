import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expectedMs, marginalUsd, newDispatchCandidate, newFleetView } from '#core/scheduling/dispatch-view.js';
import { Shortlist } from '#policies/placement/shortlist.js';
import { interactiveRequest as request } from './candidates.js';

const fleet = newFleetView();

describe('shortlist', () => {
  it('holds all unmasked candidates when they fit, else the 16 soonest and the 16 cheapest that are in time', () => {
    const candidate = fc
      .record({
        serviceMs: fc.integer({ min: 1, max: 10_000 }).map((ms) => ms / 50),
        usdPerHour: fc.integer({ min: 1, max: 10_000 }),
        masked: fc.constantFrom('', '', '', 'banned'),
      })
      .map((part) => ({ ...newDispatchCandidate(), ...part }));
    const shortlist = new Shortlist();
    fc.assert(
      fc.property(fc.array(candidate, { maxLength: 120 }), (all) => {
        shortlist.fill(request, all, fleet);
        const able = all.flatMap((each, index) => (each.masked === '' ? [{ each, index }] : []));
        const chosen = [...shortlist.indices.subarray(0, shortlist.length)];
        if (able.length <= 32) {
          expect(chosen).toEqual(able.map(({ index }) => index));
          return;
        }
        const soonest = [...able].sort((a, b) => expectedMs(a.each) - expectedMs(b.each)).slice(0, 16);
        const cheapest = able
          .filter(({ each }) => expectedMs(each) <= 100)
          .sort((a, b) => marginalUsd(a.each, fleet) - marginalUsd(b.each, fleet))
          .slice(0, 16);
        const wanted = new Set([...soonest, ...cheapest].map(({ index }) => index));
        expect(chosen).toEqual([...wanted].sort((a, b) => a - b));
      }),
    );
  });
});
