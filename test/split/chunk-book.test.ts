/** A batch in pieces: nothing is lost, done twice or out of place, whoever takes what in which order and fails at it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChunkBook, chunkItems, isSpreadSooner, type ItemRange } from '#core/split/chunk-book.js';
import { Gathering, ItemSlices } from '#core/split/item-slices.js';
import { spreadRuleOf } from '#core/split/spread-rule.js';
import type { Tensor } from '#core/tensor.js';
import { modelConfig } from '../actors/device-world.js';

const speed = fc.oneof(fc.constant(0), fc.double({ min: 0.001, max: 100, noNaN: true }));

function int32(values: readonly number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(values).buffer);
}

function texts(values: readonly string[]): Uint8Array {
  return Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.from(value);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.byteLength);
      return Buffer.concat([length, bytes]);
    }),
  );
}

describe('a batch over several devices', () => {
  it('has every item exactly once, in order, whoever takes, fails and finishes in whatever order', () => {
    const turn = fc.record({ wish: fc.nat(20), pick: fc.nat(), fails: fc.boolean() });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), fc.array(turn, { maxLength: 300 }), (items, turns) => {
        const book = new ChunkBook(items);
        const taken: ItemRange[] = [];
        const seen = new Array<number>(items).fill(0);
        const end = (index: number, fails: boolean): void => {
          const [range] = taken.splice(index, 1) as [ItemRange];
          if (fails) {
            book.giveBack(range);
            return;
          }
          book.finish(range);
          for (let item = range.from; item < range.from + range.items; item += 1) seen[item]! += 1;
        };
        for (const { wish, pick, fails } of turns) {
          const range = book.take(wish);
          if (range !== undefined) {
            expect(range.items).toBeLessThanOrEqual(wish);
            taken.push(range);
          }
          if (taken.length > 3) end(pick % taken.length, fails);
          const away = taken.reduce((sum, one) => sum + one.items, 0);
          const done = seen.reduce((sum, count) => sum + count, 0);
          expect(book.remaining + away + done).toBe(items);
        }
        while (!book.isComplete) {
          const range = book.take(7);
          if (range !== undefined) taken.push(range);
          end(0, false);
        }
        expect(seen).toEqual(new Array<number>(items).fill(1));
        expect(book.take(1)).toBeUndefined();
      }),
    );
  });

  it('is always taken on by somebody, at most a batch at a time', () => {
    fc.assert(
      fc.property(
        fc.array(speed, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 5000 }),
        fc.integer({ min: 1, max: 64 }),
        (speeds, remaining, itemsMax) => {
          const wishes = speeds.map((own) => chunkItems({ remaining, underWay: 0, speed: own, speeds, itemsMax }));
          expect(Math.max(...wishes)).toBeGreaterThan(0);
          for (const wish of wishes) expect(wish).toBeLessThanOrEqual(Math.min(itemsMax, remaining));
          expect(chunkItems({ remaining: 0, underWay: 3, speed: 1, speeds, itemsMax })).toBe(0);
        },
      ),
    );
  });

  it('is shared in proportion to speed: done within one item of the slowest of the best there is, or a third later at most', () => {
    const check = (least: number, bound: (idealMs: number, speeds: readonly number[]) => number): void => {
      const lane = fc.double({ min: least, max: 4, noNaN: true });
      fc.assert(
        fc.property(
          fc.array(lane, { minLength: 2, maxLength: 6 }),
          fc.integer({ min: 50, max: 2000 }),
          (speeds, items) => {
            const idealMs = items / speeds.reduce((sum, one) => sum + one, 0);
            expect(simulated(speeds, items)).toBeLessThanOrEqual(bound(idealMs, speeds));
          },
        ),
      );
    };
    check(1, (idealMs, speeds) => idealMs + 1.25 / Math.min(...speeds));
    check(0.05, (idealMs, speeds) => 1.35 * idealMs + 2.5 / Math.max(...speeds));
  });

  it('is not spread where one device is nearly all of the speed', () => {
    expect(isSpreadSooner([10, 0.5])).toBe(false);
    expect(isSpreadSooner([10, 5])).toBe(true);
    expect(isSpreadSooner([10])).toBe(false);
    // Nobody knows without trying.
    expect(isSpreadSooner([10, 0])).toBe(true);
  });

  it('comes apart and together again, numbers and texts, in any order of pieces', () => {
    const rows = fc.array(fc.tuple(fc.integer(), fc.string({ maxLength: 5 }), fc.string({ maxLength: 3 })), {
      minLength: 1,
      maxLength: 40,
    });
    fc.assert(
      fc.property(
        rows,
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 9 }),
        fc.boolean(),
        (items, sizes, backwards) => {
          const inputs: readonly Tensor[] = [
            { name: 'n', datatype: 'INT32', shape: [items.length, 1], data: int32(items.map(([n]) => n | 0)) },
            {
              name: 't',
              datatype: 'BYTES',
              shape: [items.length, 2],
              data: texts(items.flatMap(([, one, two]) => [one, two])),
            },
          ];
          const slices = new ItemSlices(inputs, items.length);
          const gathering = new Gathering(items.length);
          const book = new ChunkBook(items.length);
          const ranges: ItemRange[] = [];
          while (book.remaining > 0) {
            const range = book.take(sizes[ranges.length % sizes.length] ?? 1);
            if (range !== undefined) ranges.push(range);
          }
          if (backwards) ranges.reverse();
          for (const range of ranges) gathering.add(range, slices.slice(range));
          const answer = gathering.finish();
          expect(answer.map(({ name, datatype, shape }) => ({ name, datatype, shape }))).toEqual(
            inputs.map(({ name, datatype, shape }) => ({ name, datatype, shape })),
          );
          answer.forEach(({ data }, index) => {
            expect(Buffer.from(data).equals(Buffer.from(inputs[index]!.data))).toBe(true);
          });
        },
      ),
    );
  });

  it('fails by name when an output does not have the batch in front', () => {
    const gathering = new Gathering(4);
    const piece: Tensor = { name: 'sum', datatype: 'INT32', shape: [1], data: int32([7]) };
    expect(() => gathering.add({ from: 0, items: 2 }, [piece])).toThrow(
      /output 'sum' of a piece of 2 items is INT32 \[1\]/,
    );
  });

  it('is asked for by the configuration of the model, within bounds', () => {
    const rule = (parameters: Record<string, string>, maxBatchSize = 8) =>
      spreadRuleOf(modelConfig('m', { maxBatchSize, parameters: new Map(Object.entries(parameters)) }));
    expect(rule({})).toBeUndefined();
    expect(rule({ intarsia_strategy: 'pipeline' })).toBeUndefined();
    expect(rule({ intarsia_strategy: 'data' })).toEqual({ strategy: 'data', itemsMin: 8, itemsMax: 1024 });
    expect(rule({ intarsia_strategy: 'auto', intarsia_data_min_items: '2', intarsia_data_max_items: '64' })).toEqual({
      strategy: 'auto',
      itemsMin: 2,
      itemsMax: 64,
    });
    expect(() => rule({ intarsia_strategy: 'both' })).toThrow(/is 'both'; it may be pipeline, data, auto/);
    expect(() => rule({ intarsia_strategy: 'data', intarsia_data_min_items: '1' })).toThrow(/from 2 to 65536/);
    expect(() => rule({ intarsia_strategy: 'data', intarsia_data_max_items: '4' })).toThrow(/from 8 to 65536/);
    expect(() => rule({ intarsia_strategy: 'data' }, 0)).toThrow(/needs max_batch_size above 0/);
  });
});

/** When the last of them is done: each takes when it is free, all speeds known. */
function simulated(speeds: readonly number[], items: number): number {
  const book = new ChunkBook(items);
  const lanes = speeds.map((own) => ({ own, freeAt: 0, range: undefined as ItemRange | undefined }));
  let now = 0;
  for (;;) {
    for (const lane of [...lanes].sort((a, b) => b.own - a.own)) {
      if (lane.range !== undefined) continue;
      const underWay = lanes.reduce((sum, { range }) => sum + (range?.items ?? 0), 0);
      const wish = { remaining: book.remaining, underWay, speed: lane.own, speeds, itemsMax: items };
      lane.range = book.take(chunkItems(wish));
      if (lane.range !== undefined) lane.freeAt = now + lane.range.items / lane.own;
    }
    const busy = lanes.filter(({ range }) => range !== undefined);
    if (busy.length === 0) return now;
    const next = busy.reduce((first, lane) => (lane.freeAt < first.freeAt ? lane : first));
    now = next.freeAt;
    book.finish(next.range!);
    next.range = undefined;
  }
}
