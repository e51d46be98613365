/**
 * Numbers of 16 bits on a JavaScript that has `Float16Array` (Node 24 and later). ONNX Runtime's tensors then hold them in
 * such an array, but its native binding (1.30) finds no bytes in one: a run fails with "not enough space". It reads the same
 * bits from a `Uint16Array`, as it does where `Float16Array` does not exist.
 */
import type { Tensor } from 'onnxruntime-node';

export interface ViewConstructor {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): ArrayBufferView;
}

/** Absent on Node 20 and 22. */
export const float16Array = (globalThis as { readonly Float16Array?: ViewConstructor }).Float16Array;

/** Tensors whose half floats the native binding can read; the class as it is where `halves` does not exist. */
export function withReadableHalves(
  library: typeof Tensor,
  halves: ViewConstructor | undefined = float16Array,
): typeof Tensor {
  if (halves === undefined) return library;
  const readable = class extends (library as unknown as new (...values: never[]) => object) {};
  Object.defineProperty(readable.prototype, 'data', {
    get(this: object): unknown {
      const values: unknown = Reflect.get(library.prototype as object, 'data', this);
      if (!(values instanceof halves)) return values;
      return new Uint16Array(values.buffer, values.byteOffset, values.byteLength / 2);
    },
  });
  return readable as unknown as typeof Tensor;
}
