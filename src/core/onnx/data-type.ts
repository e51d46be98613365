/**
 * ONNX's TensorProto.DataType: numbers, names, and how many bits an element takes.
 *
 * Wider than the protocol's datatypes (../datatype.ts): a model file may hold types that no client can send.
 */
import { datatypeOfOnnx, type Datatype } from '../datatype.js';

export const onnxDataType = {
  FLOAT: 1,
  UINT8: 2,
  INT8: 3,
  UINT16: 4,
  INT16: 5,
  INT32: 6,
  INT64: 7,
  STRING: 8,
  BOOL: 9,
  FLOAT16: 10,
  DOUBLE: 11,
  UINT32: 12,
  UINT64: 13,
  COMPLEX64: 14,
  COMPLEX128: 15,
  BFLOAT16: 16,
  FLOAT8E4M3FN: 17,
  FLOAT8E4M3FNUZ: 18,
  FLOAT8E5M2: 19,
  FLOAT8E5M2FNUZ: 20,
  UINT4: 21,
  INT4: 22,
  FLOAT4E2M1: 23,
  FLOAT8E8M0: 24,
  UINT2: 25,
  INT2: 26,
} as const;
export type OnnxDataTypeName = keyof typeof onnxDataType;

const nameOfNumber: ReadonlyMap<number, string> = new Map(
  Object.entries(onnxDataType).map(([name, number]) => [number, name]),
);

/** Bits per element by number; 0 for STRING. */
const bitsOfNumber: ReadonlyMap<number, number> = new Map([
  [onnxDataType.FLOAT, 32],
  [onnxDataType.UINT8, 8],
  [onnxDataType.INT8, 8],
  [onnxDataType.UINT16, 16],
  [onnxDataType.INT16, 16],
  [onnxDataType.INT32, 32],
  [onnxDataType.INT64, 64],
  [onnxDataType.STRING, 0],
  [onnxDataType.BOOL, 8],
  [onnxDataType.FLOAT16, 16],
  [onnxDataType.DOUBLE, 64],
  [onnxDataType.UINT32, 32],
  [onnxDataType.UINT64, 64],
  [onnxDataType.COMPLEX64, 64],
  [onnxDataType.COMPLEX128, 128],
  [onnxDataType.BFLOAT16, 16],
  [onnxDataType.FLOAT8E4M3FN, 8],
  [onnxDataType.FLOAT8E4M3FNUZ, 8],
  [onnxDataType.FLOAT8E5M2, 8],
  [onnxDataType.FLOAT8E5M2FNUZ, 8],
  [onnxDataType.UINT4, 4],
  [onnxDataType.INT4, 4],
  [onnxDataType.FLOAT4E2M1, 4],
  [onnxDataType.FLOAT8E8M0, 8],
  [onnxDataType.UINT2, 2],
  [onnxDataType.INT2, 2],
]);

const onnxOfDatatype: ReadonlyMap<Datatype, number> = new Map(
  [...datatypeOfOnnx].map(([number, datatype]) => [datatype, number]),
);

/** `FLOAT`, or `data type 99` for a number that ONNX does not know. */
export function onnxDataTypeName(dataType: number): string {
  return nameOfNumber.get(dataType) ?? `data type ${dataType}`;
}

/** Bits of one element as it lies in raw_data; 0 for STRING, undefined for an unknown number. */
export function onnxElementBits(dataType: number): number | undefined {
  return bitsOfNumber.get(dataType);
}

/** ONNX's number of a datatype of the protocol. */
export function onnxDataTypeOf(datatype: Datatype): number {
  return onnxOfDatatype.get(datatype) ?? 0;
}
