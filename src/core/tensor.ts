/**
 * Tensors as they travel: a name, a datatype, a shape and raw bytes (little-endian, row-major, no padding).
 *
 * Inside the product tensors are always raw bytes; numbers are made of them only where a person or JSON needs numbers.
 */
import { datatypeBytes, type Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import { heldBytes, type HeldBytes } from './held-bytes.js';

/** Shape of a value: sizes per dimension; in a specification -1 is a dimension that may vary. */
export type Shape = readonly number[];

/** One named tensor with its bytes. `data` may be a view into a larger buffer that nobody may write to. */
export interface Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: Shape;
  readonly data: Uint8Array;
  /** Of a tensor whose bytes lie elsewhere: looking at `data` brings them here. */
  readonly [heldBytes]?: HeldBytes;
}

/** What a model takes or gives under a name. */
export interface TensorSpec {
  readonly name: string;
  readonly datatype: Datatype;
  /** -1 where the size may vary. Includes the batch dimension where the model batches. */
  readonly shape: Shape;
}

/** A tensor whose bytes lie elsewhere. A copy made by spreading has them here. */
export function heldTensor({ name, datatype, shape }: TensorSpec, held: HeldBytes): Tensor {
  return {
    name,
    datatype,
    shape,
    [heldBytes]: held,
    get data() {
      return held.read();
    },
  };
}

/** Bytes of the tensor's data, wherever they lie. */
export function dataBytes(tensor: Tensor): number {
  return (tensor[heldBytes] ?? tensor.data).byteLength;
}

/** Product of the sizes: 1 for a scalar, 0 when any dimension is empty. */
export function elementCount(shape: Shape): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

/** Bytes that a tensor of this type and shape takes; undefined for BYTES. */
export function tensorBytes(datatype: Datatype, shape: Shape): number | undefined {
  const bytes = datatypeBytes(datatype);
  return bytes === 0 ? undefined : bytes * elementCount(shape);
}

/** Whether a concrete shape fits a specification in which -1 stands for any size. */
export function shapeFits(shape: Shape, spec: Shape): boolean {
  if (shape.length !== spec.length) return false;
  for (let axis = 0; axis < shape.length; axis += 1) {
    const wanted = spec[axis];
    if (wanted !== -1 && wanted !== shape[axis]) return false;
  }
  return true;
}

/** `[1,3,224,224]`, as error messages and tables show shapes. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(',')}]`;
}

/** Number of elements in the bytes of a BYTES tensor. @throws INVALID_ARGUMENT when a length runs past the end. */
export function countBytesElements(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let count = 0;
  let offset = 0;
  while (offset < data.byteLength) {
    if (offset + 4 > data.byteLength) throw truncatedBytes(data.byteLength, offset);
    const end = offset + 4 + view.getUint32(offset, true);
    if (end > data.byteLength) throw truncatedBytes(data.byteLength, offset);
    offset = end;
    count += 1;
  }
  return count;
}

/** The elements of a BYTES tensor, as views on its bytes. @throws INVALID_ARGUMENT when a length runs past the end. */
export function decodeBytesElements(data: Uint8Array): Uint8Array[] {
  const elements: Uint8Array[] = [];
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let offset = 0;
  while (offset < data.byteLength) {
    if (offset + 4 > data.byteLength) throw truncatedBytes(data.byteLength, offset);
    const end = offset + 4 + view.getUint32(offset, true);
    if (end > data.byteLength) throw truncatedBytes(data.byteLength, offset);
    elements.push(data.subarray(offset + 4, end));
    offset = end;
  }
  return elements;
}

/** The bytes of a BYTES tensor with these elements. */
export function encodeBytesElements(elements: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let total = 0;
  for (const element of elements) total += 4 + element.byteLength;
  const data = new Uint8Array(total);
  const view = new DataView(data.buffer);
  let offset = 0;
  for (const element of elements) {
    view.setUint32(offset, element.byteLength, true);
    data.set(element, offset + 4);
    offset += 4 + element.byteLength;
  }
  return data;
}

function truncatedBytes(bytes: number, offset: number): Error {
  return intarsiaError(
    'INVALID_ARGUMENT',
    `BYTES tensor of ${bytes} bytes is cut short: the element that begins at byte ${offset} runs past the end`,
    { bytes, offset },
  );
}
