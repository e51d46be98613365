import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { withReadableHalves } from '#adapters/onnx/half-floats.js';

/** Stands for Float16Array, which older versions of Node do not have. */
class Halves extends Uint8Array {
  constructor(buffer: ArrayBufferLike, byteOffset: number, length: number) {
    super(buffer as ArrayBuffer, byteOffset, length * 2);
  }
}

describe('half floats for the native binding', () => {
  it('are shown as their bits, in place, where JavaScript has an array for them', () => {
    const memory = Uint16Array.of(9, 0x3c00, 0xc000, 9);
    const Readable = withReadableHalves(Tensor, Halves);
    const { data } = new Readable('uint8', new Halves(memory.buffer, 2, 2), [4]);
    expect(data).toEqual(Uint16Array.of(0x3c00, 0xc000));
    expect((data as unknown as Uint16Array).buffer).toBe(memory.buffer);
  });

  it('leave every other tensor as it is', () => {
    const values = Float32Array.of(1, 2);
    const Readable = withReadableHalves(Tensor, Halves);
    expect(new Readable('float32', values, [2]).data).toBe(values);
  });
});
