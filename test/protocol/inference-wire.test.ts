/** The hand-written codec of the hot messages against golden bytes, the generated codec, and garbage. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IntarsiaError } from '#core/errors.js';
import type { InferParameter, InferRequestMessage, InferTensor } from '#core/inference-message.js';
import { noParameters } from '#core/inference-message.js';
import {
  decodeInferRequest,
  decodeInferResponse,
  decodeStreamInferResponse,
  encodeInferRequest,
  encodeInferResponse,
  encodeStreamInferError,
  encodeStreamInferResponse,
} from '#core/inference-wire.js';
import { encodeBytesElements } from '#core/tensor.js';
import type { Datatype } from '#core/datatype.js';
import * as gen from '#gen/inference.js';
import { hex, unhex } from './bytes.js';

/** model_name "m", id "7", one input "x" FP32 [1,2], raw 1.0 2.0; written down by hand from the field table. */
const goldenRawRequest = [
  '0a 01 6d', // 1: "m"
  '1a 01 37', // 3: "7"
  '2a 0d 0a 01 78 12 04 46 50 33 32 1a 02 01 02', // 5: { 1: "x", 2: "FP32", 3: [1, 2] }
  '3a 08 00 00 80 3f 00 00 00 40', // 7: raw
].join(' ');

/** The same with fp32_contents, and an unpacked shape. */
const goldenTypedRequest = [
  '0a 01 6d',
  '1a 01 37',
  '2a 19 0a 01 78 12 04 46 50 33 32 18 01 18 02 2a 0a 32 08 00 00 80 3f 00 00 00 40',
].join(' ');

const goldenRawResponse = [
  '0a 01 6d', // 1: "m"
  '12 01 31', // 2: "1"
  '1a 01 37', // 3: "7"
  '22 0a 0a 03 6b 65 79 12 03 1a 01 76', // 4: key → string "v"
  '2a 0d 0a 01 79 12 04 46 50 33 32 1a 02 01 02',
  '32 08 00 00 80 3f 00 00 00 40',
].join(' ');

const twoFloats = new Uint8Array(new Float32Array([1, 2]).buffer);

const goldenMessage: InferRequestMessage = {
  modelName: 'm',
  modelVersion: '',
  id: '7',
  parameters: noParameters,
  inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], parameters: noParameters, data: twoFloats }],
  outputs: [],
  rawContents: true,
};

describe('golden bytes', () => {
  it('a raw request is read and written byte for byte', () => {
    const decoded = decodeInferRequest(unhex(goldenRawRequest));
    expect(plain(decoded)).toEqual(plain(goldenMessage));
    expect(hex(encodeInferRequest(goldenMessage).toBytes())).toBe(hex(unhex(goldenRawRequest)));
  });

  it('a typed request becomes raw bytes when it is read', () => {
    const decoded = decodeInferRequest(unhex(goldenTypedRequest));
    expect(decoded.rawContents).toBe(false);
    expect(decoded.inputs[0]?.shape).toEqual([1, 2]);
    expect([...(decoded.inputs[0]?.data ?? [])]).toEqual([...twoFloats]);
  });

  it('a raw answer is written and read byte for byte', () => {
    const message = {
      modelName: 'm',
      modelVersion: '1',
      id: '7',
      parameters: new Map<string, InferParameter>([['key', { kind: 'string', value: 'v' }]]),
      outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 2], parameters: noParameters, data: twoFloats }],
      rawContents: true,
    };
    expect(hex(encodeInferResponse(message).toBytes())).toBe(hex(unhex(goldenRawResponse)));
    expect(plain(decodeInferResponse(unhex(goldenRawResponse)))).toEqual(plain(message));
    const inStream = encodeStreamInferResponse(message).toBytes();
    expect(hex(inStream)).toBe(hex(unhex(`12 ${byteHex(unhex(goldenRawResponse).byteLength)} ${goldenRawResponse}`)));
    expect(plain(decodeStreamInferResponse(inStream).response)).toEqual(plain(message));
  });

  it('an error in a stream carries the id of its request', () => {
    const bytes = encodeStreamInferError('no', '7').toBytes();
    expect(hex(bytes)).toBe(hex(unhex('0a 02 6e 6f 12 03 1a 01 37')));
    expect(decodeStreamInferResponse(bytes)).toEqual({ error: 'no' });
    expect(gen.ModelStreamInferResponse.fromBinary(bytes).errorMessage).toBe('no');
  });

  it('tensor bytes are views on the message, not copies', () => {
    const bytes = unhex(goldenRawRequest);
    const decoded = decodeInferRequest(bytes);
    expect(decoded.inputs[0]?.data.buffer).toBe(bytes.buffer);
  });
});

describe('against the generated codec', () => {
  it('every request of the generated codec is read the same', () => {
    fc.assert(
      fc.property(requestArbitrary, ({ generated, expected }) => {
        expect(plain(decodeInferRequest(gen.ModelInferRequest.toBinary(generated)))).toEqual(plain(expected));
      }),
      { numRuns: 500 },
    );
  });

  it('every request written is read the same by the generated codec', () => {
    fc.assert(
      fc.property(requestArbitrary, ({ generated, expected }) => {
        const bytes = encodeInferRequest(expected).toBytes();
        expect(gen.ModelInferRequest.fromBinary(bytes)).toEqual(generated);
      }),
      { numRuns: 500 },
    );
  });

  it('answers survive both codecs, alone and in a stream', () => {
    fc.assert(
      fc.property(requestArbitrary, ({ generated, expected }) => {
        const message = {
          modelName: expected.modelName,
          modelVersion: expected.modelVersion,
          id: expected.id,
          parameters: expected.parameters,
          outputs: expected.inputs,
          rawContents: expected.rawContents,
        };
        const twin: gen.ModelInferResponse = {
          modelName: generated.modelName,
          modelVersion: generated.modelVersion,
          id: generated.id,
          parameters: generated.parameters,
          outputs: generated.inputs,
          rawOutputContents: generated.rawInputContents,
        };
        expect(gen.ModelInferResponse.fromBinary(encodeInferResponse(message).toBytes())).toEqual(twin);
        expect(plain(decodeInferResponse(gen.ModelInferResponse.toBinary(twin)))).toEqual(plain(message));
        const inStream = gen.ModelStreamInferResponse.fromBinary(encodeStreamInferResponse(message).toBytes());
        expect(inStream.inferResponse).toEqual(twin);
      }),
      { numRuns: 300 },
    );
  });

  it('a frame of large tensors is written at the place the caller gives', () => {
    const data = new Uint8Array(70_000).map((_, index) => index % 251);
    const message = {
      ...goldenMessage,
      inputs: [{ ...goldenMessage.inputs[0]!, datatype: 'UINT8', shape: [70_000], data }],
    };
    const encoded = encodeInferRequest(message);
    const frame = new Uint8Array(encoded.byteLength + 5);
    encoded.copy(frame, 5);
    expect(plain(decodeInferRequest(frame.subarray(5)))).toEqual(plain(message));
  });
});

describe('typed contents', () => {
  const typed = (datatype: string, contents: Partial<gen.InferTensorContents>, shape: bigint[] = [1n]): Uint8Array =>
    gen.ModelInferRequest.toBinary(
      gen.ModelInferRequest.create({
        inputs: [{ name: 'x', datatype, shape, contents: { ...emptyContents, ...contents } }],
      }),
    );

  it.each([
    ['INT8', { intContents: [128] }, 'out of range for INT8'],
    ['UINT8', { uintContents: [256] }, 'out of range for UINT8'],
    ['INT16', { intContents: [-40_000] }, 'out of range for INT16'],
    ['FP32', { intContents: [1] }, 'do not belong to its datatype FP32'],
    ['FP16', { fp32Contents: [1] }, 'send it as raw bytes'],
    ['COMPLEX', { fp32Contents: [1] }, "unknown datatype 'COMPLEX'"],
  ])('%s with contents %o is refused', (datatype, contents, message) => {
    expect(() => decodeInferRequest(typed(datatype, contents))).toThrow(message);
  });

  it('raw and typed contents together are refused', () => {
    const both = gen.ModelInferRequest.create({
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1n], contents: { ...emptyContents, fp32Contents: [1] } }],
      rawInputContents: [new Uint8Array(4)],
    });
    expect(() => decodeInferRequest(gen.ModelInferRequest.toBinary(both))).toThrow(
      "contents field must not be specified when using raw_input_contents for input tensor 'x'",
    );
  });

  it('a raw list of another length than the inputs is refused', () => {
    const short = gen.ModelInferRequest.create({
      inputs: [
        { name: 'x', datatype: 'FP32', shape: [1n] },
        { name: 'y', datatype: 'FP32', shape: [1n] },
      ],
      rawInputContents: [new Uint8Array(4)],
    });
    expect(() => decodeInferRequest(gen.ModelInferRequest.toBinary(short))).toThrow('2 wanted, 1 present');
  });

  it('numbers that are not packed, and contents in several parts, are joined', () => {
    // fp32_contents unpacked, twice, in two parts of the contents field.
    const bytes = unhex('2a 1a 0a 01 78 12 04 46 50 33 32 1a 01 02 2a 05 35 00 00 80 3f 2a 05 35 00 00 00 40');
    expect([...decodeInferRequest(bytes).inputs[0]!.data]).toEqual([...twoFloats]);
  });
});

describe('hostile bytes', () => {
  const decoders = [decodeInferRequest, decodeInferResponse, decodeStreamInferResponse];
  const survives = (bytes: Uint8Array): void => {
    for (const decode of decoders) {
      try {
        decode(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(IntarsiaError);
        expect((error as IntarsiaError).code).toBe('INVALID_ARGUMENT');
      }
    }
  };

  it('garbage is refused or read, never a crash', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), survives), { numRuns: 3000 });
  });

  it('a valid message with bytes changed, cut or doubled is refused or read, never a crash', () => {
    fc.assert(
      fc.property(
        requestArbitrary,
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
        fc.nat(),
        ({ generated }, changes, cut) => {
          const bytes = gen.ModelInferRequest.toBinary(generated);
          for (const [at, value] of changes) if (bytes.byteLength > 0) bytes[at % bytes.byteLength] = value;
          survives(bytes);
          survives(bytes.subarray(0, cut % (bytes.byteLength + 1)));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('a truncated message is INVALID_ARGUMENT at every length that cuts a field', () => {
    const bytes = unhex(goldenRawRequest);
    const boundaries = new Set([0, 3, 6, 21]);
    for (let length = 0; length < bytes.byteLength; length += 1) {
      const cut = bytes.subarray(0, length);
      if (boundaries.has(length)) expect(() => decodeInferRequest(cut)).not.toThrow();
      else expect(() => decodeInferRequest(cut)).toThrow(IntarsiaError);
    }
  });

  it('a message of nothing but empty inputs is refused early', () => {
    const bytes = new Uint8Array(2 * 100_000);
    for (let at = 0; at < bytes.byteLength; at += 2) bytes[at] = 0x2a;
    expect(() => decodeInferRequest(bytes)).toThrow('at most 4096 inputs');
  });
});

// What follows makes requests in both representations.

const emptyContents: gen.InferTensorContents = {
  boolContents: [],
  intContents: [],
  int64Contents: [],
  uintContents: [],
  uint64Contents: [],
  fp32Contents: [],
  fp64Contents: [],
  bytesContents: [],
};

interface Twin {
  readonly generated: gen.ModelInferRequest;
  readonly expected: InferRequestMessage;
}
interface ParameterTwin {
  readonly generated: gen.InferParameter;
  readonly expected: InferParameter;
}
interface TensorTwin {
  readonly tensor: InferTensor;
  readonly contents: gen.InferTensorContents;
}

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const text = fc.string({ unit: 'grapheme', maxLength: 150 });

const parameterArbitrary: fc.Arbitrary<ParameterTwin> = fc.oneof(
  fc.boolean().map((value) => ({
    generated: { parameterChoice: { oneofKind: 'boolParam' as const, boolParam: value } },
    expected: { kind: 'bool' as const, value },
  })),
  int64.map((value) => ({
    generated: { parameterChoice: { oneofKind: 'int64Param' as const, int64Param: value } },
    expected: { kind: 'int64' as const, value },
  })),
  uint64.map((value) => ({
    generated: { parameterChoice: { oneofKind: 'uint64Param' as const, uint64Param: value } },
    expected: { kind: 'uint64' as const, value },
  })),
  fc.double({ noNaN: true }).map((value) => ({
    generated: { parameterChoice: { oneofKind: 'doubleParam' as const, doubleParam: value } },
    expected: { kind: 'double' as const, value },
  })),
  text.map((value) => ({
    generated: { parameterChoice: { oneofKind: 'stringParam' as const, stringParam: value } },
    expected: { kind: 'string' as const, value },
  })),
);

const parametersArbitrary = fc.dictionary(
  fc.string({ maxLength: 12 }).filter((key) => key !== '__proto__'),
  parameterArbitrary,
  { maxKeys: 4 },
);

const tensorContents: readonly fc.Arbitrary<TensorTwin>[] = [
  numbers('BOOL', fc.boolean(), 'boolContents', (values) => Uint8Array.from(values, Number)),
  numbers('INT8', fc.integer({ min: -128, max: 127 }), 'intContents', (v) => bytesOf(Int8Array.from(v))),
  numbers('INT16', fc.integer({ min: -32768, max: 32767 }), 'intContents', (v) => bytesOf(Int16Array.from(v))),
  numbers('INT32', fc.integer(), 'intContents', (v) => bytesOf(Int32Array.from(v))),
  numbers('INT64', int64, 'int64Contents', (v) => bytesOf(BigInt64Array.from(v))),
  numbers('UINT8', fc.integer({ min: 0, max: 255 }), 'uintContents', (v) => bytesOf(Uint8Array.from(v))),
  numbers('UINT16', fc.integer({ min: 0, max: 65535 }), 'uintContents', (v) => bytesOf(Uint16Array.from(v))),
  numbers('UINT32', fc.integer({ min: 0, max: 0xffffffff }), 'uintContents', (v) => bytesOf(Uint32Array.from(v))),
  numbers('UINT64', uint64, 'uint64Contents', (v) => bytesOf(BigUint64Array.from(v))),
  numbers('FP32', fc.float({ noNaN: true }), 'fp32Contents', (v) => bytesOf(Float32Array.from(v))),
  numbers('FP64', fc.double({ noNaN: true }), 'fp64Contents', (v) => bytesOf(Float64Array.from(v))),
  numbers('BYTES', fc.uint8Array({ maxLength: 20 }), 'bytesContents', (v) => encodeBytesElements(v)),
];

const requestArbitrary: fc.Arbitrary<Twin> = fc
  .record({
    modelName: text,
    modelVersion: fc.string({ maxLength: 5 }),
    id: text,
    parameters: parametersArbitrary,
    inputs: fc.array(
      fc.record({
        twin: fc.oneof(...tensorContents),
        shape: fc.array(fc.integer({ min: -3, max: 2 ** 40 }), { maxLength: 6 }),
        parameters: parametersArbitrary,
      }),
      { maxLength: 4 },
    ),
    outputs: fc.array(fc.record({ name: text, parameters: parametersArbitrary }), { maxLength: 3 }),
    raw: fc.boolean(),
  })
  .map(({ modelName, modelVersion, id, parameters, inputs, outputs, raw }) => ({
    generated: {
      modelName,
      modelVersion,
      id,
      parameters: generatedOf(parameters),
      inputs: inputs.map(({ twin, shape, parameters: own }) => ({
        name: twin.tensor.name,
        datatype: twin.tensor.datatype,
        shape: shape.map(BigInt),
        parameters: generatedOf(own),
        ...(raw || twin.tensor.data.byteLength === 0 ? {} : { contents: twin.contents }),
      })),
      outputs: outputs.map(({ name, parameters: own }) => ({ name, parameters: generatedOf(own) })),
      rawInputContents: raw ? inputs.map(({ twin }) => twin.tensor.data) : [],
    },
    expected: {
      modelName,
      modelVersion,
      id,
      parameters: expectedOf(parameters),
      inputs: inputs.map(({ twin, shape, parameters: own }) => ({
        ...twin.tensor,
        shape,
        parameters: expectedOf(own),
      })),
      outputs: outputs.map(({ name, parameters: own }) => ({ name, parameters: expectedOf(own) })),
      rawContents: raw && inputs.length > 0,
    },
  }));

function numbers<Value>(
  datatype: Datatype,
  element: fc.Arbitrary<Value>,
  key: keyof gen.InferTensorContents,
  raw: (values: Value[]) => Uint8Array,
): fc.Arbitrary<TensorTwin> {
  return fc.tuple(fc.string({ maxLength: 8 }), fc.array(element, { maxLength: 12 })).map(([name, values]) => ({
    tensor: { name, datatype, shape: [], parameters: noParameters, data: raw(values) },
    contents: { ...emptyContents, [key]: values },
  }));
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
function generatedOf(parameters: Record<string, ParameterTwin>): Record<string, gen.InferParameter> {
  return Object.fromEntries(Object.entries(parameters).map(([key, { generated }]) => [key, generated]));
}
function expectedOf(parameters: Record<string, ParameterTwin>): ReadonlyMap<string, InferParameter> {
  return new Map(Object.entries(parameters).map(([key, { expected }]) => [key, expected]));
}
function byteHex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

/** Messages with their bytes as arrays and their maps in any order, for comparison. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, inner]) => [key, plain(inner)]));
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([key]) => key !== 'contents')
        .map(([key, inner]) => [key, plain(inner)]),
    );
  }
  return value;
}
