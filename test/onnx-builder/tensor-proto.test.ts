import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { onnxTensor } from '#core/onnx/builder.js';
import { onnxDataType, onnxElementBits } from '#core/onnx/data-type.js';
import { encodeTensorProto, onnxOfTensor, readTensorProto, tensorOfOnnx } from '#core/onnx/tensor-proto.js';
import type { OnnxTensor } from '#core/onnx/tensor-proto.js';
import { IntarsiaError } from '#core/errors.js';
import { decodeBytesElements, elementCount, encodeBytesElements } from '#core/tensor.js';
import { WireWriter } from '#core/wire.js';

const dims = fc.array(fc.nat({ max: 5 }), { maxLength: 4 });

/** Any tensor whose data fits its type and shape. */
const tensors: fc.Arbitrary<OnnxTensor> = fc
  .tuple(fc.string(), fc.constantFrom(...Object.values(onnxDataType)), dims)
  .chain(([name, dataType, shape]) => {
    const elements = elementCount(shape);
    const bits = onnxElementBits(dataType)!;
    const data =
      bits === 0
        ? fc
            .array(fc.uint8Array({ maxLength: 9 }), { minLength: elements, maxLength: elements })
            .map((items) => encodeBytesElements(items))
        : fc.uint8Array({ minLength: Math.ceil((elements * bits) / 8), maxLength: Math.ceil((elements * bits) / 8) });
    return data.map((bytes) => ({ name, dataType, shape, data: bytes }));
  });

/** The typed field of a data type and how its entries are written, straight from the tables of the specification. */
function writeTyped(tensor: OnnxTensor, packed: boolean): Uint8Array {
  const writer = new WireWriter();
  for (const size of tensor.shape) writer.int64(1, size);
  writer.uint(2, tensor.dataType).string(8, tensor.name);
  const view = new DataView(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
  const names = new Map<number, string>(Object.entries(onnxDataType).map(([name, number]) => [number, name]));
  const name = names.get(tensor.dataType)!;
  const inner = new WireWriter();
  const fixed = (field: number, width: 4 | 8): void => {
    for (let at = 0; at < view.byteLength; at += width) {
      if (packed) inner.raw(tensor.data.subarray(at, at + width));
      else writer.tag(field, width === 4 ? 5 : 1).raw(tensor.data.subarray(at, at + width));
    }
    if (packed) writer.bytes(field, inner.finish());
  };
  const varints = (field: number, width: number, read: (at: number) => bigint): void => {
    for (let at = 0; at < view.byteLength; at += width) {
      if (packed) inner.varint64(read(at));
      else writer.tag(field, 0).varint64(read(at));
    }
    if (packed) writer.bytes(field, inner.finish());
  };
  switch (name) {
    case 'FLOAT':
    case 'COMPLEX64':
      fixed(4, 4);
      break;
    case 'DOUBLE':
    case 'COMPLEX128':
      fixed(10, 8);
      break;
    case 'INT64':
      varints(7, 8, (at) => view.getBigInt64(at, true));
      break;
    case 'UINT32':
      varints(11, 4, (at) => BigInt(view.getUint32(at, true)));
      break;
    case 'UINT64':
      varints(11, 8, (at) => view.getBigUint64(at, true));
      break;
    case 'INT32':
      varints(5, 4, (at) => BigInt(view.getInt32(at, true)));
      break;
    case 'INT16':
      varints(5, 2, (at) => BigInt(view.getInt16(at, true)));
      break;
    case 'UINT16':
    case 'FLOAT16':
    case 'BFLOAT16':
      varints(5, 2, (at) => BigInt(view.getUint16(at, true)));
      break;
    case 'INT8':
      varints(5, 1, (at) => BigInt(view.getInt8(at)));
      break;
    case 'STRING':
      for (const element of decodeBytesElements(tensor.data)) writer.bytes(6, element);
      break;
    default:
      varints(5, 1, (at) => BigInt(view.getUint8(at)));
  }
  return writer.finish();
}

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return error instanceof IntarsiaError ? error.code : `other: ${String(error)}`;
  }
  return 'none';
}

describe('TensorProto', () => {
  it('what is written is read back, for every data type and shape', () => {
    fc.assert(
      fc.property(tensors, (tensor) => {
        expect(readTensorProto(encodeTensorProto(tensor))).toEqual(tensor);
      }),
      { numRuns: 500 },
    );
  });

  it('typed fields, packed and unpacked, give the same bytes as raw data', () => {
    fc.assert(
      fc.property(tensors, fc.boolean(), (tensor, packed) => {
        expect(readTensorProto(writeTyped(tensor, packed))).toEqual(tensor);
      }),
      { numRuns: 500 },
    );
  });

  it('any bytes are either a tensor or INVALID_ARGUMENT', () => {
    const mutated = fc
      .tuple(tensors, fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 4 }), fc.nat())
      .map(([tensor, edits, cut]) => {
        const bytes = encodeTensorProto(tensor);
        for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
        return bytes.subarray(0, bytes.length - (cut % 3));
      });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 64 })), (bytes) => {
        expect(['none', 'INVALID_ARGUMENT']).toContain(codeOf(() => readTensorProto(bytes)));
      }),
      { numRuns: 1000 },
    );
  });

  it('raw data is a view on the message, not a copy', () => {
    const message = encodeTensorProto(onnxTensor('w', [2, 3], new Float32Array(6)));
    expect(readTensorProto(message).data.buffer).toBe(message.buffer);
  });

  it('a shape alone cannot make the reader take memory', () => {
    const writer = new WireWriter();
    writer
      .int64(1, 2 ** 20)
      .int64(1, 2 ** 20)
      .uint(2, onnxDataType.FLOAT);
    expect(codeOf(() => readTensorProto(writer.finish()))).toBe('INVALID_ARGUMENT');
    writer.int64(1, 2 ** 40);
    expect(codeOf(() => readTensorProto(writer.finish()))).toBe('INVALID_ARGUMENT');
  });

  it('data in another file is named with its place', () => {
    const external = { location: 'model.onnx.data', offset: 8192, length: 24 };
    const tensor: OnnxTensor = { name: 'w', dataType: 1, shape: [2, 3], data: new Uint8Array(0), external };
    expect(readTensorProto(encodeTensorProto(tensor))).toEqual(tensor);
    expect(codeOf(() => tensorOfOnnx(tensor))).toBe('INVALID_ARGUMENT');
  });

  it('a tensor of the protocol keeps its bytes and its type both ways', () => {
    const tensor = { name: 'x', datatype: 'FP16' as const, shape: [2], data: new Uint8Array([0, 60, 0, 64]) };
    expect(tensorOfOnnx(onnxOfTensor(tensor))).toEqual(tensor);
    expect(
      codeOf(() => tensorOfOnnx({ name: 'q', dataType: onnxDataType.INT4, shape: [2], data: new Uint8Array(1) })),
    ).toBe('INVALID_ARGUMENT');
  });
});
