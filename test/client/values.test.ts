import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RandomStream } from '#core/random.js';
import type { Datatype } from '#core/datatype.js';
import type { IntarsiaError } from '#core/errors.js';
import { OutputTensor, toTensor, type Scalar } from '#client/index.js';
import { EndpointPicker } from '#client/endpoint-picker.js';
import { bf16OfNumber, fp16OfNumber, numberOfBf16, numberOfFp16 } from '#client/half-float.js';
import { completeClientOptions } from '#client/options.js';
import { errorOfFailure } from '#client/remote-error.js';
import { backoffMs, RetryBudget } from '#client/retry-budget.js';

describe('values', () => {
  const integers = {
    INT8: fc.integer({ min: -128, max: 127 }),
    UINT8: fc.integer({ min: 0, max: 255 }),
    INT16: fc.integer({ min: -32_768, max: 32_767 }),
    UINT16: fc.integer({ min: 0, max: 65_535 }),
    INT32: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    UINT32: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    INT64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    UINT64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    FP64: fc.double(),
    FP32: fc.float(),
    BOOL: fc.boolean(),
    BYTES: fc.string({ unit: 'grapheme' }),
  } satisfies Partial<Record<Datatype, fc.Arbitrary<unknown>>>;

  it.each(Object.keys(integers) as (keyof typeof integers)[])(
    'of %s come back as they went, at any alignment',
    (datatype) => {
      fc.assert(
        fc.property(
          fc.array(integers[datatype] as fc.Arbitrary<Scalar>, { maxLength: 20 }),
          fc.integer({ min: 0, max: 7 }),
          (values, offset) => {
            const tensor = toTensor('x', { data: values, datatype, shape: [values.length] });
            const shifted = Buffer.concat([Buffer.alloc(offset), tensor.data]).subarray(offset);
            expect(new OutputTensor({ ...tensor, data: shifted }).toArray()).toEqual(values);
          },
        ),
      );
    },
  );

  it('nest as their shape says', () => {
    const tensor = toTensor('x', [[[1, 2, 3]], [[4, 5, 6]]]);
    expect(tensor).toMatchObject({ datatype: 'FP32', shape: [2, 1, 3] });
    expect(new OutputTensor(tensor).toNested()).toEqual([[[1, 2, 3]], [[4, 5, 6]]]);
    expect(new OutputTensor(toTensor('x', { data: 5n, datatype: 'INT64' })).toNested()).toBe(5n);
    expect(new OutputTensor(toTensor('x', { data: [], shape: [0, 2], datatype: 'FP32' })).toNested()).toEqual([]);
  });

  it('of a typed array may be sent as another datatype, and 16-bit patterns as they are', () => {
    expect(new OutputTensor(toTensor('x', { data: new Float64Array([0.5, 1]), datatype: 'FP16' })).toArray()).toEqual([
      0.5, 1,
    ]);
    const patterns = toTensor('x', { data: new Uint16Array([0x3c00]), datatype: 'FP16' });
    expect(new OutputTensor(patterns).asFloat32()).toEqual(new Float32Array([1]));
  });

  it.each([
    [{ data: [1, 2, 3], shape: [2] }, "input 'x': shape [2] has 2 elements, but 3 values are given"],
    [{ data: new Float32Array(3), shape: [2, 2] }, "input 'x': shape [2,2] has 4 elements, but 3 values are given"],
    [{ data: new Uint8Array(3), shape: [1], datatype: 'FP32' }, 'takes 4 bytes, but 3 bytes are given'],
    [[[1], [1, 2]], 'the lists are ragged'],
    [[[1], 2], 'the lists are ragged'],
    [{ data: [256], datatype: 'UINT8' }, "input 'x': 256 is not a value of UINT8"],
    [{ data: [1.5], datatype: 'INT32' }, "input 'x': 1.5 is not a value of INT32"],
    [{ data: ['a'], datatype: 'FP32' }, "input 'x': a is not a value of FP32"],
    [{ data: [2], datatype: 'BOOL' }, "input 'x': 2 is not a value of BOOL"],
  ] as const)('that contradict themselves are refused: %j', (value, message) => {
    expect(() => toTensor('x', value as never)).toThrow(message);
  });

  it('of 16 bits round to the nearest, like the conversion through every pattern', () => {
    // The obviously right slow version: of all finite patterns the nearest, the even one of two.
    const patterns = Array.from({ length: 0x7c00 }, (_, bits) => bits);
    const nearest = (value: number): number => {
      let best = 0;
      for (const bits of patterns) {
        const closer = Math.abs(numberOfFp16(bits) - value) - Math.abs(numberOfFp16(best) - value);
        if (closer < 0 || (closer === 0 && bits % 2 === 0)) best = bits;
      }
      return best;
    };
    fc.assert(
      fc.property(fc.double({ min: 0, max: 65_504, noNaN: true }), (value) => {
        expect(fp16OfNumber(value)).toBe(nearest(value));
      }),
      { numRuns: 200 },
    );
    for (const bits of [...patterns, 0x7c00]) {
      expect(fp16OfNumber(numberOfFp16(bits))).toBe(bits);
      expect(fp16OfNumber(-numberOfFp16(bits))).toBe(bits | 0x8000);
    }
    expect([fp16OfNumber(NaN), fp16OfNumber(65_519.99), fp16OfNumber(65_520)]).toEqual([0x7e00, 0x7bff, 0x7c00]);
    expect([bf16OfNumber(1), numberOfBf16(0x3f80), bf16OfNumber(NaN), bf16OfNumber(-Infinity)]).toEqual([
      0x3f80, 1, 0x7fc0, 0xff80,
    ]);
  });

  it('of the classification extension are read with and without labels', () => {
    const lines = toTensor('x', ['0.9:7:seven: the digit', '1e-3:1']);
    expect(new OutputTensor(lines).asClassifications()).toEqual([
      { value: 0.9, index: 7, label: 'seven: the digit' },
      { value: 0.001, index: 1, label: '' },
    ]);
    expect(() => new OutputTensor(toTensor('x', ['seven'])).asClassifications()).toThrow('is not value:index[:label]');
  });
});

describe('the retry budget', () => {
  const options = { tokensMax: 10, tokensPerSuccess: 0.1, backoffMsMin: 50, backoffMsMax: 2000 };

  it('allows retries while more than half is left, and refills with successes', () => {
    const budget = new RetryBudget(options);
    for (let failure = 0; failure < 4; failure += 1) budget.failed();
    expect(budget.allowsRetry).toBe(true);
    budget.failed();
    expect(budget.allowsRetry).toBe(false);
    for (let success = 0; success < 10; success += 1) budget.succeeded();
    expect(budget.allowsRetry).toBe(true);
  });

  it('never leaves its bounds', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean()), (events) => {
        const budget = new RetryBudget(options);
        for (const good of events) {
          if (good) budget.succeeded();
          else budget.failed();
          expect(budget.tokens).toBeGreaterThanOrEqual(0);
          expect(budget.tokens).toBeLessThanOrEqual(10);
        }
      }),
    );
  });

  it('waits between nothing and a bound that doubles up to its maximum', () => {
    const random = new RandomStream('back-off');
    for (let attempt = 2; attempt < 12; attempt += 1) {
      const bound = Math.min(2000, 50 * 2 ** (attempt - 2));
      const waits = Array.from({ length: 200 }, () => backoffMs(options, attempt, random));
      expect(Math.max(...waits)).toBeLessThanOrEqual(bound);
      expect(Math.max(...waits)).toBeGreaterThan(bound * 0.9);
      expect(Math.min(...waits)).toBeLessThan(bound * 0.1);
    }
  });
});

describe('the choice of an endpoint', () => {
  const ejection = { failuresMax: 2, ejectMsMin: 1000, ejectMsMax: 3000 };
  const none: ReadonlySet<number> = new Set();

  it('takes turns, or takes the one with the least in flight', () => {
    const turns = new EndpointPicker(3, 'round-robin', ejection);
    expect([0, 1, 2, 3].map(() => turns.acquire(none, 0).index)).toEqual([0, 1, 2, 0]);
    const least = new EndpointPicker(3, 'least-in-flight', ejection);
    const first = least.acquire(none, 0);
    least.acquire(none, 0);
    least.acquire(none, 0);
    least.release(first, 'healthy', 0);
    expect(least.acquire(none, 0).index).toBe(first.index);
  });

  it('leaves one alone that failed in a row, for longer each time, and takes it back', () => {
    const picker = new EndpointPicker(2, 'round-robin', ejection);
    const fail = (index: number, nowMs: number): void => {
      const state = picker.acquire(new Set([1 - index]), nowMs);
      expect(state.index).toBe(index);
      picker.release(state, 'failed', nowMs);
    };
    const picks = (nowMs: number): number[] => {
      const states = [0, 1].map(() => picker.acquire(none, nowMs));
      for (const state of states) picker.release(state, 'unknown', nowMs);
      return states.map(({ index }) => index).sort();
    };
    fail(0, 0);
    expect(picks(0)).toEqual([0, 1]);
    fail(0, 0);
    expect(picks(999)).toEqual([1, 1]);
    expect(picks(1000)).toEqual([0, 1]);
    fail(0, 1000);
    expect(picks(2999)).toEqual([1, 1]);
    fail(0, 3000);
    expect(picks(5999)).toEqual([1, 1]);
    expect(picks(6000)).toEqual([0, 1]);
    const back = picker.acquire(new Set([1]), 6000);
    picker.release(back, 'healthy', 6000);
    fail(0, 6000);
    expect(picks(6000)).toEqual([0, 1]);
  });

  it('sends one call ahead to one whose time out is over, and no other until an attempt there has ended', () => {
    const picker = new EndpointPicker(2, 'least-in-flight', ejection);
    const stuck = picker.acquire(new Set([1]), 0);
    picker.suspect(stuck, 500);
    const indexes = (nowMs: number): number[] => Array.from({ length: 4 }, () => picker.acquire(none, nowMs).index);
    expect(indexes(1499)).toEqual([1, 1, 1, 1]);
    expect(indexes(1500).filter((index) => index === 0)).toHaveLength(1);
    // Not ended yet: another one a whole time out later.
    expect(indexes(2499)).toEqual([1, 1, 1, 1]);
    expect(indexes(2500).filter((index) => index === 0)).toHaveLength(1);
    picker.suspect(stuck, 2600);
    expect(indexes(4599)).toEqual([1, 1, 1, 1]);
    picker.release(stuck, 'healthy', 4600);
    expect(indexes(4600)).toEqual([0, 0, 0, 0]);
  });

  it('uses the one that returns soonest when all are out', () => {
    const picker = new EndpointPicker(2, 'round-robin', { ...ejection, failuresMax: 1 });
    for (const [index, nowMs] of [
      [1, 0],
      [0, 500],
    ] as const) {
      picker.release(picker.acquire(new Set([1 - index]), nowMs), 'failed', nowMs);
    }
    expect(picker.acquire(none, 600).index).toBe(1);
  });
});

describe('errors of calls', () => {
  const failed = (status: number, message: string): IntarsiaError =>
    errorOfFailure({ status, message, metadata: {} }, 'host:8001');

  it('a connection that went before the call was sent is worth a retry, other internal errors are not', () => {
    const gone = failed(13, 'Failed to start HTTP/2 stream with error The session has been destroyed');
    expect([gone.code, gone.retryable]).toEqual(['UNAVAILABLE', true]);
    const broken = failed(13, 'something is broken');
    expect([broken.code, broken.retryable]).toEqual(['INTERNAL', false]);
  });
});

describe('options of a client', () => {
  it('know how endpoints are written', () => {
    const { endpoints } = completeClientOptions({ endpoints: ['host', '[::1]:9', 'grpc://a.b:7/', 'grpcs://c'] });
    expect(endpoints.map(({ target, tls }) => [target, tls !== undefined])).toEqual([
      ['host:8001', false],
      ['[::1]:9', false],
      ['a.b:7', false],
      ['c:8001', true],
    ]);
  });

  it('keep a token from plain text beyond loopback', () => {
    expect(() => completeClientOptions({ endpoints: 'far:8001', token: 't' })).toThrow(
      'client option token must be sent over TLS',
    );
    completeClientOptions({ endpoints: ['localhost:8001', '127.0.0.1', 'grpcs://far'], token: 't' });
    completeClientOptions({ endpoints: 'far:8001', token: 't', allowPlaintextToken: true });
  });

  it.each([
    [{ endpoints: [] }, 'endpoints must be a whole number from 1 to 256 entries'],
    [{ endpoints: 'no port:x' }, 'endpoints must be written host:port'],
    [{ endpoints: 'h:70000' }, 'endpoints must be written host:port'],
    [{ endpoints: 'h', attemptsMax: 11 }, 'attemptsMax must be a whole number from 1 to 10; it is 11'],
    [{ endpoints: 'h', timeoutMs: 0 }, 'timeoutMs must be a number of milliseconds above 0'],
    [{ endpoints: 'h', windowBytes: 1 }, 'windowBytes must be a whole number from 65535'],
    [{ endpoints: 'h', tls: { keyPath: 'k' } }, 'tls must be given with both certificatePath and keyPath'],
  ])('say what is wrong: %j', (options, message) => {
    expect(() => completeClientOptions(options)).toThrow(message);
  });
});
