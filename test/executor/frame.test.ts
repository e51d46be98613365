import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import {
  alignedBytes,
  decodeWholeFrame,
  encodeFrame,
  FrameDecoder,
  joinRanges,
  type Frame,
  type OutgoingFrame,
} from '#core/frame.js';

const bytes = (max: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength: max });
/** Long enough to be written by reference, cheap enough to generate often. */
const longRange = fc
  .tuple(fc.integer({ min: 16 * 1024, max: 200 * 1024 }), fc.nat(255))
  .map(([length, seed]) => Uint8Array.from({ length }, (_, index) => (index * 31 + seed) & 0xff));
const outgoing: fc.Arbitrary<OutgoingFrame> = fc.record({
  kind: fc.nat(0xffff),
  tag: fc.nat(0xffff),
  number: fc.nat(0xffff_ffff),
  header: bytes(300),
  payload: fc.array(fc.oneof({ weight: 5, arbitrary: bytes(2000) }, { weight: 1, arbitrary: longRange }), {
    maxLength: 6,
  }),
});

interface PlainFrame {
  readonly kind: number;
  readonly tag: number;
  readonly number: number;
  readonly header: string;
  readonly payload: string;
}

/** The obviously right slow version: everything joined, as text. */
function expected(frame: OutgoingFrame): PlainFrame {
  return {
    kind: frame.kind,
    tag: frame.tag ?? 0,
    number: frame.number,
    header: text(frame.header),
    payload: frame.payload.map(text).join(''),
  };
}

function plain(frame: Frame): PlainFrame {
  return { ...frame, header: text(frame.header), payload: text(frame.payload) };
}

function text(range: Uint8Array): string {
  return Buffer.from(range).toString('latin1');
}

/** Cuts a stream into pieces at the given places. */
function cut(stream: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((place) => place % (stream.byteLength + 1)))].sort((left, right) => left - right);
  const pieces: Uint8Array[] = [];
  let from = 0;
  for (const place of [...at, stream.byteLength]) {
    pieces.push(stream.slice(from, place));
    from = place;
  }
  return pieces;
}

describe('frame codec', () => {
  it('gives back every frame, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(outgoing, { minLength: 1, maxLength: 5 }),
        fc.array(fc.nat(1_000_000), { maxLength: 12 }),
        (frames, places) => {
          const stream = joinRanges(frames.flatMap((frame) => encodeFrame(frame)));
          const decoder = new FrameDecoder({ frameBytesMax: 10_000_000 });
          const received: Frame[] = [];
          for (const piece of cut(stream, places)) decoder.push(piece, (frame) => received.push(frame));
          expect(received.map(plain)).toEqual(frames.map(expected));
          expect(decoder.atBoundary).toBe(true);
          for (const frame of received) expect(frame.payload.byteOffset % 8).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('gives every frame a buffer of its own when the reader fills the target it is given', () => {
    fc.assert(
      fc.property(
        fc.array(outgoing, { minLength: 1, maxLength: 5 }),
        fc.array(fc.integer({ min: 1, max: 100_000 }), { minLength: 1, maxLength: 8 }),
        (frames, reads) => {
          const stream = joinRanges(frames.flatMap((frame) => encodeFrame(frame)));
          const decoder = new FrameDecoder({ frameBytesMax: 10_000_000 });
          const received: Frame[] = [];
          for (let position = 0, turn = 0; position < stream.byteLength; turn += 1) {
            const target = decoder.target();
            expect(target.byteLength).toBeGreaterThan(0);
            const length = Math.min(
              target.byteLength,
              stream.byteLength - position,
              reads[turn % reads.length] as number,
            );
            target.set(stream.subarray(position, position + length));
            position += length;
            decoder.advance(length, (frame) => received.push(frame));
          }
          expect(received.map(plain)).toEqual(frames.map(expected));
          expect(new Set(received.map((frame) => frame.header.buffer)).size).toBe(received.length);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('writes long ranges by reference and the rest in as few pieces as can be', () => {
    const long = new Uint8Array(20_000);
    const small = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    const frame = { kind: 1, number: 1, header: small, payload: [small, small, long, small] };
    const ranges = encodeFrame(frame);
    expect(ranges).toHaveLength(3);
    expect(ranges[1]).toBe(long);
    expect(plain(decodeWholeFrame(joinRanges(ranges)))).toEqual(expected(frame));
  });

  it('refuses a frame above the limit before any memory is taken for it', () => {
    const frame = encodeFrame({ kind: 1, number: 1, header: new Uint8Array(0), payload: [new Uint8Array(4096)] });
    let allocated = 0;
    const decoder = new FrameDecoder({
      frameBytesMax: 1024,
      allocate: (size) => {
        allocated += size;
        return new Uint8Array(size);
      },
    });
    expect(() => decoder.push(joinRanges(frame).subarray(0, 24), () => {})).toThrow(
      /a frame of 4.02 KiB exceeds the limit of 1 KiB/,
    );
    expect(allocated).toBe(0);
    // The stream is lost from there on, and stays so.
    expect(() => decoder.push(new Uint8Array(8), () => {})).toThrow(/exceeds the limit/);
  });

  it('answers any bytes with frames or a typed error, and never takes more memory than one frame may have', () => {
    const frameBytesMax = 64 * 1024;
    const hostile = fc.oneof(
      bytes(400),
      // A true beginning with a random rest, so that lengths are reached.
      fc
        .tuple(bytes(60))
        .map(([rest]) => Uint8Array.from([0x49, 0x54, 0x46, 0x31, ...rest].map((b, i) => (i === 0 ? 0x49 : b)))),
      fc.tuple(outgoing, fc.nat(10_000), fc.nat(255)).map(([frame, at, value]) => {
        const stream = joinRanges(encodeFrame(frame));
        stream[at % stream.byteLength] = value;
        return stream;
      }),
    );
    fc.assert(
      fc.property(hostile, (stream) => {
        let largest = 0;
        const decoder = new FrameDecoder({
          frameBytesMax,
          allocate: (size) => {
            largest = Math.max(largest, size);
            return new Uint8Array(size);
          },
        });
        try {
          decoder.push(stream, (frame) =>
            expect(alignedBytes(frame.payload.byteLength)).toBeLessThanOrEqual(frameBytesMax),
          );
        } catch (error) {
          expect(error).toBeInstanceOf(IntarsiaError);
          expect(['INVALID_ARGUMENT', 'REQUEST_TOO_LARGE']).toContain((error as IntarsiaError).code);
        }
        expect(largest).toBeLessThanOrEqual(frameBytesMax);
      }),
      { numRuns: 300 },
    );
  });

  it('knows when a piece is not one whole frame', () => {
    const whole = joinRanges(encodeFrame({ kind: 1, number: 1, header: new Uint8Array(3), payload: [] }));
    expect(decodeWholeFrame(whole).kind).toBe(1);
    expect(() => decodeWholeFrame(joinRanges([whole, whole]))).toThrow(/not one whole frame/);
    expect(() => decodeWholeFrame(whole.subarray(0, 26))).toThrow(/not one whole frame/);
  });
});
