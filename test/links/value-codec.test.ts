/** Messages between hosts as bytes: whatever plain data is sent arrives equal; bytes from a stranger harm nobody. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError, intarsiaError } from '#core/errors.js';
import { decodeValue, encodeValue, outOfBandBytesMin, type EncodedValue } from '#core/grid/value-codec.js';
import { joinRanges } from '#core/frame.js';

function roundTrip(value: unknown): unknown {
  const { header, payload } = encodeValue(value);
  return decodeValue(header, joinRanges(payload));
}

const bytes = fc.uint8Array({ maxLength: 40 }).chain((pattern) =>
  fc.constantFrom(1, 60).map((times) => {
    const long = new Uint8Array(pattern.length * times);
    for (let index = 0; index < long.length; index += 1) long[index] = pattern[index % pattern.length] ?? 0;
    return long;
  }),
);

const value: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.constantFrom(undefined, null, true, false, -0, NaN, Infinity, -Infinity, 2 ** 53, -(2 ** 53) + 1),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double(),
    fc.bigInt(),
    fc.string({ unit: 'grapheme' }),
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.constantFrom('\ud800', 'a\udfffb', '', 'x'.repeat(300), '\ufeffbom'),
    bytes,
    fc
      .tuple(fc.string(), fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.integer(), fc.boolean())))
      .map(([message, details]) => intarsiaError('QUEUE_FULL', message, { ...details })),
  ),
  node: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    tie('leaf'),
    fc.array(tie('node'), { maxLength: 5 }),
    fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('type', 'replyTo', '__proto__')), tie('node'), { maxKeys: 5 }),
    fc.array(fc.record({ a: tie('node'), b: tie('node') }), { maxLength: 4 }),
    fc.array(fc.tuple(tie('leaf'), tie('node')), { maxLength: 4 }).map((entries) => new Map(entries)),
    fc.array(tie('leaf'), { maxLength: 4 }).map((items) => new Set(items)),
  ),
}))['node'];

/** Prototypes of dictionaries differ (fast-check makes some without one); what matters is the content. */
function plain(given: unknown): unknown {
  if (Array.isArray(given)) return given.map(plain);
  if (given instanceof Map) return new Map([...given].map(([key, held]) => [plain(key), plain(held)]));
  if (given instanceof Set) return new Set([...given].map(plain));
  if (given instanceof IntarsiaError)
    return { code: given.code, message: given.message, details: plain(given.details) };
  if (given instanceof Uint8Array) return { bytes: [...given] };
  if (typeof given !== 'object' || given === null) return given;
  return Object.entries(given).map(([key, held]) => [key, plain(held)]);
}

describe('the value codec', () => {
  it('gives back whatever plain data it was given', () => {
    fc.assert(
      fc.property(value, (given) => {
        expect(plain(roundTrip(given))).toEqual(plain(given));
      }),
      { numRuns: 1_000 },
    );
  });

  it('keeps a detail of an error that is named like a prototype', () => {
    const details = Object.fromEntries([['__proto__', 'x']]);
    expect(plain(roundTrip(intarsiaError('QUEUE_FULL', 'm', details)))).toEqual(
      plain(intarsiaError('QUEUE_FULL', 'm', details)),
    );
  });

  it('keeps large bytes by reference, at multiples of eight, and gives out views', () => {
    const first = new Uint8Array(outOfBandBytesMin + 3).fill(7);
    const second = new Uint8Array(outOfBandBytesMin).fill(9);
    const encoded = encodeValue({ first, small: new Uint8Array([1]), second });
    expect(encoded.payload).toContain(first);
    expect(encoded.payload).toContain(second);
    const payload = joinRanges(encoded.payload);
    const decoded = decodeValue(encoded.header, payload) as { first: Uint8Array; second: Uint8Array };
    expect(decoded.first.buffer).toBe(payload.buffer);
    expect(decoded.second.byteOffset % 8).toBe(0);
    expect(decoded.second).toEqual(second);
  });

  it('sends references as addresses', () => {
    const address = { host: 'a', path: 'devices/cpu:0', incarnation: 2 ** 50 };
    const { header } = encodeValue({ replyTo: { address, tell: () => 'accepted' }, data: { address } });
    const seen: unknown[] = [];
    const decoded = decodeValue(header, new Uint8Array(), (each) => {
      seen.push(each);
      return 'reference';
    });
    expect(decoded).toEqual({ replyTo: 'reference', data: { address } });
    expect(seen).toEqual([address]);
  });

  it('names what cannot travel and where it is', () => {
    class Engine {
      readonly kind = 'v8';
    }
    const cycle: unknown[] = [];
    cycle.push(cycle);
    expect(() => encodeValue({ request: { inputs: [{ data: () => 1 }] } })).toThrow(
      'a message to another host cannot hold a function (at request.inputs.0.data)',
    );
    expect(() => encodeValue({ engine: new Engine() })).toThrow('an instance of Engine (at engine)');
    expect(() => encodeValue(new Float32Array(3))).toThrow('an instance of Float32Array');
    expect(() => encodeValue(cycle)).toThrow('nested deeper than 64 levels');
    expect(() => encodeValue(1n << 9000n)).toThrow('a bigint of');
  });

  it('answers hostile bytes with INVALID_ARGUMENT or a value, never with a crash', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.uint8Array({ maxLength: 50 }), (header, payload) => {
        expectNoHarm(header, payload);
      }),
      { numRuns: 2_000 },
    );
  });

  it('survives a flipped byte or a cut anywhere in a real message', () => {
    fc.assert(
      fc.property(value, fc.nat(), fc.integer({ min: 0, max: 255 }), fc.boolean(), (given, place, byte, cut) => {
        const encoded: EncodedValue = encodeValue(given);
        const header = encoded.header.slice();
        const at = place % header.byteLength;
        header[at] = byte;
        expectNoHarm(cut ? header.subarray(0, at) : header, joinRanges(encoded.payload));
      }),
      { numRuns: 1_000 },
    );
  });

  it('allocates nothing for counts that the bytes cannot hold', () => {
    for (const tagNumber of [7, 8, 9, 11, 12, 13, 14, 15, 16]) {
      const header = new Uint8Array([tagNumber, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0]);
      expect(() => decodeValue(header, new Uint8Array())).toThrow(IntarsiaError);
    }
    const deep = new Uint8Array(100_000);
    for (let at = 0; at < deep.length; at += 2) deep.set([13, 1], at);
    expect(() => decodeValue(deep, new Uint8Array())).toThrow('nesting deeper than 64 levels');
  });
});

function expectNoHarm(header: Uint8Array, payload: Uint8Array): void {
  try {
    decodeValue(header, payload);
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
}
