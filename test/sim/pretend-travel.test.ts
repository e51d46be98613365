/** Messages between simulated hosts: a copy arrives as bytes do, and what bytes refuse it refuses. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ActorAddress } from '#core/actor-address.js';
import { IntarsiaError, intarsiaError } from '#core/errors.js';
import { asBytes, asCopy, type Dispatch } from '#sim/pretend-travel.js';

const reference = (address: ActorAddress): unknown => ({ to: `${address.host}/${address.path}` });

/** What arrives, or the code of the refusal. */
function arrived(dispatch: Dispatch, message: unknown): unknown {
  try {
    return dispatch(message).arrive(reference);
  } catch (error) {
    if (error instanceof IntarsiaError) return error.code;
    throw error;
  }
}

const referenceTo = fc
  .record({ host: fc.constantFrom('a', 'b'), path: fc.constantFrom('x', 'y/z'), incarnation: fc.nat() })
  .map((address) => ({ address, tell: () => 'accepted' }));

const { message } = fc.letrec((tie) => ({
  message: fc.oneof(
    { maxDepth: 5 },
    fc.constantFrom(undefined, null, true, false, -0, NaN, Infinity, '', '\ud800', 'ü', 12n, -(2n ** 70n)),
    fc.double(),
    fc.integer(),
    fc.string({ unit: 'binary' }),
    fc.uint8Array({ maxLength: 40 }),
    fc.uint8Array({ minLength: 1100, maxLength: 1200 }),
    referenceTo,
    fc.string().map((text) => intarsiaError('NOT_FOUND', text, { text, count: text.length })),
    fc.constantFrom(Symbol('s'), () => 1, new Date(0), new Error('plain')),
    fc.array(tie('message'), { maxLength: 4 }),
    fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('address', 'tell', '__proto__', 'type')), tie('message'), {
      maxKeys: 4,
    }),
    fc.array(fc.tuple(tie('message'), tie('message')), { maxLength: 3 }).map((entries) => new Map(entries)),
    fc.array(tie('message'), { maxLength: 3 }).map((items) => new Set(items)),
  ),
}));

describe('a message that travels as a copy', () => {
  it('arrives as it would as bytes, or is refused alike', () => {
    fc.assert(
      fc.property(message, (sent) => {
        const bytes = arrived(asBytes, sent);
        expect(arrived(asCopy, sent)).toEqual(bytes);
      }),
      { numRuns: 2_000 },
    );
  });

  it('shares nothing with what was sent', () => {
    const sent = { list: [{ deep: 1 }], bytes: Uint8Array.of(1, 2), map: new Map([['a', { deep: 1 }]]) };
    const copy = asCopy(sent).arrive(reference) as typeof sent;
    copy.list[0]!.deep = 2;
    copy.bytes[0] = 9;
    copy.map.get('a')!.deep = 3;
    expect(sent).toEqual({ list: [{ deep: 1 }], bytes: Uint8Array.of(1, 2), map: new Map([['a', { deep: 1 }]]) });
  });
});
