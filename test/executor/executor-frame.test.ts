import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { datatypes } from '#core/datatype.js';
import { intarsiaError, IntarsiaError } from '#core/errors.js';
import {
  executorFrameKind,
  failureFrame,
  failureIn,
  resultFrame,
  resultIn,
  runFrame,
  runIn,
  sharedFrame,
  sharedPayload,
} from '#core/executor-frame.js';
import { decodeWholeFrame, encodeFrame, joinRanges, type Frame, type OutgoingFrame } from '#core/frame.js';

const through = (frame: OutgoingFrame): Frame => decodeWholeFrame(joinRanges(encodeFrame(frame)));

const noTimes = { computeInputUs: 0, computeInferUs: 0, computeOutputUs: 0 };
const name = fc.string({ maxLength: 40, unit: 'grapheme' });
const shape = fc.array(fc.nat(4096), { maxLength: 6 });
const datatype = fc.constantFrom(...datatypes);

describe('executor frames', () => {
  it('carries runs: chunks of one input arrive joined, every input aligned to 8 bytes', () => {
    const run = fc.record({
      session: name,
      inputs: fc.array(
        fc.record({ name, datatype, shape, chunks: fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 4 }) }),
        { maxLength: 4 },
      ),
      outputs: fc.array(name, { maxLength: 3 }),
    });
    fc.assert(
      fc.property(run, (sent) => {
        const frame = through(runFrame(7, sent));
        const received = runIn(frame);
        expect(frame.number).toBe(7);
        expect(received.session).toBe(sent.session);
        expect(received.outputs).toEqual(sent.outputs);
        expect(received.inputs.map((input) => ({ ...input, data: [...input.data] }))).toEqual(
          sent.inputs.map((input) => ({
            name: input.name,
            datatype: input.datatype,
            shape: input.shape,
            data: input.chunks.flatMap((chunk) => [...chunk]),
          })),
        );
        for (const input of received.inputs) {
          if (input.data.byteLength > 0) expect(input.data.byteOffset % 8).toBe(0);
        }
      }),
    );
  });

  it('carries where inputs lie, beside inputs that travel', () => {
    const slots = fc.array(fc.record({ slot: fc.nat(64), offset: fc.nat(4_194_304), bytes: fc.nat(4096) }), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(slots, fc.uint8Array({ maxLength: 100 }), (sent, chunk) => {
        const at = { datatype: 'UINT8', shape: [1] } as const;
        const frame = through(
          runFrame(7, {
            session: 's',
            inputs: [
              { ...at, name: 'there', chunks: [], slots: sent },
              { ...at, name: 'here', chunks: [chunk] },
            ],
            outputs: [],
          }),
        );
        const asked: unknown[] = [];
        const fetched = Uint8Array.of(1, 2, 3);
        const { inputs } = runIn(frame, (places) => {
          asked.push(places);
          return fetched;
        });
        expect(asked).toEqual([sent]);
        expect(inputs.map(({ data }) => [...data])).toEqual([[1, 2, 3], [...chunk]]);
        expect(() => runIn(frame)).toThrow(/"there" lies where this executor has nothing/);
      }),
    );
  });

  it('says where a payload in shared memory lies, and refuses a frame that does not', () => {
    const frame = through(sharedFrame(resultFrame(9, [], noTimes), 12));
    expect(frame.kind).toBe(executorFrameKind.resultShared);
    expect(sharedPayload(frame)).toEqual({ slot: 12, offset: 0, bytes: 0 });
    expect(() => sharedPayload(through(resultFrame(9, [], noTimes)))).toThrow(/does not say where its payload lies/);
  });

  it('carries results with whole microseconds', () => {
    const outputs = fc.array(fc.record({ name, datatype, shape, data: fc.uint8Array({ maxLength: 300 }) }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(outputs, (sent) => {
        const times = { computeInputUs: 1.4, computeInferUs: 2_000_000.6, computeOutputUs: 0 };
        const received = resultIn(through(resultFrame(9, sent, times)));
        expect(received.outputs).toEqual(sent);
        expect(received).toMatchObject({ computeInputUs: 1, computeInferUs: 2_000_001, computeOutputUs: 0 });
      }),
    );
  });

  it('carries failures with code and details', () => {
    const error = intarsiaError('OUT_OF_MEMORY', 'too little', { bytesMissing: 5 });
    const received = failureIn(through(failureFrame(3, error)));
    expect(received).toMatchObject({ code: 'OUT_OF_MEMORY', message: 'too little', details: { bytesMissing: 5 } });
    expect(failureIn(through(failureFrame(3, new Error('boom')))).code).toBe('INTERNAL');
  });

  it('answers a header that does not fit its payload with a typed error', () => {
    const sound = runFrame(1, {
      session: 's',
      inputs: [{ name: 'x', datatype: 'FP32', shape: [2], chunks: [new Uint8Array(8)] }],
      outputs: [],
    });
    expect(() => runIn(through({ ...sound, payload: [] }))).toThrow(/run past the payload/);
    expect(() => runIn(through({ ...sound, payload: [new Uint8Array(64)] }))).toThrow(/take 8 of 64 bytes/);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.uint8Array({ maxLength: 80 }), (header, payload) => {
        for (const read of [runIn, resultIn, failureIn]) {
          try {
            read(through({ kind: executorFrameKind.run, number: 1, header, payload: [payload] }));
          } catch (error) {
            expect(error).toBeInstanceOf(IntarsiaError);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});
