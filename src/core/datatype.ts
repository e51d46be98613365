/**
 * Datatypes of the Open Inference Protocol, and their names in ONNX and in Triton's model configuration.
 *
 * BYTES is a string tensor: each element is a 4-byte little-endian length and as many bytes.
 */

export const datatypes = [
  'BOOL',
  'UINT8',
  'UINT16',
  'UINT32',
  'UINT64',
  'INT8',
  'INT16',
  'INT32',
  'INT64',
  'FP16',
  'FP32',
  'FP64',
  'BF16',
  'BYTES',
] as const;
export type Datatype = (typeof datatypes)[number];

const elementBytes: Readonly<Record<Datatype, number>> = {
  BOOL: 1,
  UINT8: 1,
  UINT16: 2,
  UINT32: 4,
  UINT64: 8,
  INT8: 1,
  INT16: 2,
  INT32: 4,
  INT64: 8,
  FP16: 2,
  FP32: 4,
  FP64: 8,
  BF16: 2,
  BYTES: 0,
};

/** Whether the text names a datatype of the protocol. */
export function isDatatype(text: string): text is Datatype {
  return Object.hasOwn(elementBytes, text);
}

/** Bytes per element; 0 for BYTES, whose elements differ in size. */
export function datatypeBytes(datatype: Datatype): number {
  return elementBytes[datatype];
}

/** ONNX TensorProto.DataType number → datatype of the protocol; absent when the protocol has none (int4, float8, complex). */
export const datatypeOfOnnx: ReadonlyMap<number, Datatype> = new Map<number, Datatype>([
  [1, 'FP32'],
  [2, 'UINT8'],
  [3, 'INT8'],
  [4, 'UINT16'],
  [5, 'INT16'],
  [6, 'INT32'],
  [7, 'INT64'],
  [8, 'BYTES'],
  [9, 'BOOL'],
  [10, 'FP16'],
  [11, 'FP64'],
  [12, 'UINT32'],
  [13, 'UINT64'],
  [16, 'BF16'],
]);

/** Datatype → number of Triton's `inference.DataType` enum. */
export const tritonDatatypeNumber: Readonly<Record<Datatype, number>> = {
  BOOL: 1,
  UINT8: 2,
  UINT16: 3,
  UINT32: 4,
  UINT64: 5,
  INT8: 6,
  INT16: 7,
  INT32: 8,
  INT64: 9,
  FP16: 10,
  FP32: 11,
  FP64: 12,
  BYTES: 13,
  BF16: 14,
};

/** `TYPE_STRING` for BYTES, else `TYPE_` and the datatype: the names of config.pbtxt. */
export function tritonDatatypeName(datatype: Datatype): string {
  return datatype === 'BYTES' ? 'TYPE_STRING' : `TYPE_${datatype}`;
}
