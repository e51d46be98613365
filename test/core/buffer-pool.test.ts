import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BufferPool } from '#core/buffer-pool.js';

const KiB = 1024;
const options = { bytesMax: 1024 * KiB, freeBytesMax: 2048 * KiB, allocate: (bytes: number) => new Uint8Array(bytes) };

describe('memory that is used again', () => {
  it('belongs to one user at a time, whatever is taken and given back in whatever order', () => {
    const step = fc.oneof(
      fc.record({ take: fc.integer({ min: 1, max: 1200 * KiB }) }),
      fc.record({ giveBack: fc.nat(20), twice: fc.boolean() }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const pool = new BufferPool(options);
        const held: { readonly bytes: Uint8Array; readonly mark: number }[] = [];
        let mark = 0;
        for (const each of steps) {
          if ('take' in each) {
            mark = (mark % 255) + 1;
            const bytes = pool.allocate(each.take).fill(mark);
            expect(bytes.byteLength).toBe(each.take);
            held.push({ bytes, mark });
          } else if (held.length > 0) {
            const [gone] = held.splice(each.giveBack % held.length, 1);
            pool.release(gone!.bytes.buffer);
            if (each.twice) pool.release(gone!.bytes.buffer);
          }
          expect(new Set(held.map(({ bytes }) => bytes.buffer)).size).toBe(held.length);
        }
        for (const { bytes, mark: own } of held) expect([bytes[0], bytes.at(-1)]).toEqual([own, own]);
      }),
    );
  });

  it('is handed out again, to requests of slightly different sizes too', () => {
    const pool = new BufferPool(options);
    const first = pool.allocate(600 * KiB);
    pool.release(first.buffer);
    expect(pool.allocate(610 * KiB).buffer).toBe(first.buffer);
    expect(pool.allocate(600 * KiB).buffer).not.toBe(first.buffer);
  });

  it('is not kept beyond its bounds: short and long buffers, and more than may lie idle', () => {
    const pool = new BufferPool(options);
    for (const bytes of [KiB, 1025 * KiB]) {
      const buffer = pool.allocate(bytes).buffer;
      pool.release(buffer);
      expect(pool.allocate(bytes).buffer).not.toBe(buffer);
    }
    const many = Array.from({ length: 4 }, () => pool.allocate(700 * KiB).buffer);
    for (const buffer of many) pool.release(buffer);
    const again = new Set(Array.from({ length: 4 }, () => pool.allocate(700 * KiB).buffer));
    // Each takes a quarter more than was asked for: two fit into what may lie idle.
    expect(many.filter((buffer) => again.has(buffer))).toHaveLength(2);
  });
});
