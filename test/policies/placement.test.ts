import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { replicaId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';
import { leastWorkPicker } from '#policies/placement/placement-least-work.js';
import { powerOfTwoPicker } from '#policies/placement/placement-power-of-two.js';
import { roundRobinPicker } from '#policies/placement/placement-round-robin.js';
import { seededRandom } from '#sim/random.js';

interface Load {
  readonly itemsInFlight?: number;
  readonly msPerItem?: number;
  readonly ready?: boolean;
}

function candidate(index: number, load: Load = {}): Candidate {
  return {
    replica: { id: replicaId(`r${index}`), stages: [] } as unknown as Candidate['replica'],
    load: { itemsInFlight: 0, msPerItem: 1, ready: true, ...load },
  };
}
const candidates = (...loads: Load[]): Candidate[] => loads.map((load, index) => candidate(index, load));
const request = (items = 1): InferenceRequest => ({ items }) as InferenceRequest;
const none: ReadonlySet<string> = new Set();

const pickers: [string, () => Picker][] = [
  ['least work', leastWorkPicker],
  ['power of two', () => powerOfTwoPicker(seededRandom(7))],
  ['round robin', roundRobinPicker],
];

describe.each(pickers)('%s', (_name, make) => {
  it('picks one that is ready and not excluded, whenever there is one', () => {
    const load = fc.record({
      itemsInFlight: fc.nat({ max: 100 }),
      msPerItem: fc.constantFrom(0, 0.1, 1, 50),
      ready: fc.boolean(),
      excluded: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(load, { maxLength: 8 }), fc.integer({ min: 1, max: 3 }), (loads, picks) => {
        const all = loads.map((each, index) => candidate(index, each));
        const exclude = new Set(loads.flatMap((each, index) => (each.excluded ? [`r${index}`] : [])));
        const able = loads.flatMap((each, index) => (each.ready && !each.excluded ? [index] : []));
        const picker = make();
        for (let pick = 0; pick < picks; pick += 1) {
          const index = picker.pick(request(), all, 0, exclude);
          if (able.length === 0) expect(index).toBe(-1);
          else expect(able).toContain(index);
        }
      }),
    );
  });

  it('reaches every one of equal replicas', () => {
    const picker = make();
    const all = candidates({}, {}, {});
    const picked = new Set(Array.from({ length: 60 }, () => picker.pick(request(), all, 0, none)));
    expect([...picked].sort()).toEqual([0, 1, 2]);
  });
});

describe('least work', () => {
  it('counts work in each replica’s own milliseconds, so that a slow one gets little', () => {
    const all = candidates({ msPerItem: 1 }, { msPerItem: 10 });
    const picker = leastWorkPicker();
    const sent = [0, 0];
    for (let count = 0; count < 110; count += 1) {
      const index = picker.pick(request(), all, 0, none);
      sent[index]! += 1;
      all[index]!.load.itemsInFlight += 1;
    }
    expect(sent).toEqual([100, 10]);
  });

  it('tries a replica that was never measured', () => {
    const all = candidates({ msPerItem: 2, itemsInFlight: 3 }, { msPerItem: 0 });
    expect(leastWorkPicker().pick(request(), all, 0, none)).toBe(1);
  });

  it('counts the items of the request itself', () => {
    const all = candidates({ msPerItem: 1, itemsInFlight: 10 }, { msPerItem: 3 });
    expect(leastWorkPicker().pick(request(1), all, 0, none)).toBe(1);
    expect(leastWorkPicker().pick(request(20), all, 0, none)).toBe(0);
  });
});

describe('power of two', () => {
  it('avoids the busiest of many, and draws the same for the same seed', () => {
    const all = candidates({ itemsInFlight: 50 }, {}, { itemsInFlight: 1 }, {});
    const draw = (): number[] => {
      const picker = powerOfTwoPicker(seededRandom('draws'));
      return Array.from({ length: 200 }, () => picker.pick(request(), all, 0, none));
    };
    expect(draw()).toEqual(draw());
    expect(draw()).not.toContain(0);
  });
});
