/**
 * An output as callers read it: raw bytes with accessors that give typed arrays, numbers, text or nested lists.
 *
 * Accessors of the same type hand out a view where the bytes are aligned and a copy where they are not; nobody may write
 * to either. An accessor of another type than the tensor's throws: a silent conversion hides mistakes.
 */
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { intarsiaError } from '#core/errors.js';
import { decodeBytesElements, elementCount, type Shape, type Tensor } from '#core/tensor.js';
import { numberOfBf16, numberOfFp16 } from './half-float.js';
import type { NumberArray } from './tensor-input.js';

export type NestedOutput = number | bigint | boolean | string | readonly NestedOutput[];

/** One line of the classification extension: the server's `value:index[:label]`. */
export interface Classification {
  readonly value: number;
  readonly index: number;
  /** Empty when the model has no labels. */
  readonly label: string;
}

const utf8 = new TextDecoder();

export class OutputTensor implements Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: Shape;
  /** Little-endian, row-major; a view on the answer. */
  readonly data: Uint8Array;

  constructor(tensor: Tensor) {
    this.name = tensor.name;
    this.datatype = tensor.datatype;
    this.shape = tensor.shape;
    this.data = tensor.data;
  }

  /** FP32 as it is; FP16 and BF16 widened, which is exact. @throws INVALID_ARGUMENT for other datatypes. */
  asFloat32(): Float32Array {
    if (this.datatype === 'FP32') return new Float32Array(...this.#aligned());
    if (this.datatype === 'FP16') return Float32Array.from(this.#halves(), numberOfFp16);
    if (this.datatype === 'BF16') return Float32Array.from(this.#halves(), numberOfBf16);
    throw this.#otherType('asFloat32', 'FP32, FP16 or BF16');
  }

  asFloat64(): Float64Array {
    return this.#only('asFloat64', 'FP64', Float64Array);
  }
  asInt8(): Int8Array {
    return this.#only('asInt8', 'INT8', Int8Array);
  }
  asInt16(): Int16Array {
    return this.#only('asInt16', 'INT16', Int16Array);
  }
  asInt32(): Int32Array {
    return this.#only('asInt32', 'INT32', Int32Array);
  }
  asBigInt64(): BigInt64Array {
    return this.#only('asBigInt64', 'INT64', BigInt64Array);
  }
  asUint8(): Uint8Array {
    return this.#only('asUint8', 'UINT8', Uint8Array);
  }
  asUint16(): Uint16Array {
    return this.#only('asUint16', 'UINT16', Uint16Array);
  }
  asUint32(): Uint32Array {
    return this.#only('asUint32', 'UINT32', Uint32Array);
  }
  asBigUint64(): BigUint64Array {
    return this.#only('asBigUint64', 'UINT64', BigUint64Array);
  }

  asBooleans(): boolean[] {
    if (this.datatype !== 'BOOL') throw this.#otherType('asBooleans', 'BOOL');
    return Array.from(this.data, (byte) => byte !== 0);
  }

  /** The elements of a BYTES tensor, as views. */
  asBytes(): Uint8Array[] {
    if (this.datatype !== 'BYTES') throw this.#otherType('asBytes', 'BYTES');
    return decodeBytesElements(this.data);
  }

  /** The elements of a BYTES tensor as UTF-8 text; what is not UTF-8 becomes U+FFFD. */
  asStrings(): string[] {
    if (this.datatype !== 'BYTES') throw this.#otherType('asStrings', 'BYTES');
    return decodeBytesElements(this.data).map((element) => utf8.decode(element));
  }

  /** Any numeric datatype as numbers; 64-bit integers beyond ±2^53 lose precision. BOOL gives 0 and 1. */
  asNumbers(): number[] {
    return this.toArray().map((value) => {
      if (typeof value === 'string') throw this.#otherType('asNumbers', 'a numeric datatype');
      return Number(value);
    });
  }

  /** What `classification` asked for: the k best classes, best first. @throws INVALID_ARGUMENT when this is no such output. */
  asClassifications(): Classification[] {
    return this.asStrings().map((line) => {
      const parts = /^([^:]+):([0-9]+)(?::(.*))?$/s.exec(line);
      if (parts === null) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `output '${this.name}': ${JSON.stringify(line.slice(0, 80))} is not value:index[:label]; ask for classification`,
          { output: this.name },
        );
      }
      return { value: Number(parts[1]), index: Number(parts[2]), label: parts[3] ?? '' };
    });
  }

  /** All elements in row-major order: numbers, bigints for 64-bit integers, booleans for BOOL, text for BYTES. */
  toArray(): (number | bigint | boolean | string)[] {
    switch (this.datatype) {
      case 'BYTES':
        return this.asStrings();
      case 'BOOL':
        return this.asBooleans();
      case 'INT64':
        return Array.from(this.asBigInt64());
      case 'UINT64':
        return Array.from(this.asBigUint64());
      default:
        return Array.from(this.#numbers());
    }
  }

  /** The elements in lists nested as the shape says; the bare value for a scalar. */
  toNested(): NestedOutput {
    const flat = this.toArray();
    const build = (axis: number, start: number, size: number): NestedOutput => {
      const length = this.shape[axis];
      if (length === undefined) return flat[start] ?? NaN;
      const step = length === 0 ? 0 : size / length;
      return Array.from({ length }, (_, index) => build(axis + 1, start + index * step, step));
    };
    return build(0, 0, elementCount(this.shape));
  }

  #numbers(): Exclude<NumberArray, BigInt64Array | BigUint64Array> {
    switch (this.datatype) {
      case 'FP64':
        return this.asFloat64();
      case 'INT8':
        return this.asInt8();
      case 'INT16':
        return this.asInt16();
      case 'INT32':
        return this.asInt32();
      case 'UINT8':
        return this.asUint8();
      case 'UINT16':
        return this.asUint16();
      case 'UINT32':
        return this.asUint32();
      default:
        return this.asFloat32();
    }
  }

  #only<Values>(
    accessor: string,
    datatype: Datatype,
    type: new (buffer: ArrayBufferLike, offset: number, length: number) => Values,
  ): Values {
    if (this.datatype !== datatype) throw this.#otherType(accessor, datatype);
    return new type(...this.#aligned());
  }

  #halves(): Uint16Array {
    return new Uint16Array(...this.#aligned());
  }

  /** The bytes where a typed array can lie on them, and the number of elements. Copies only when unaligned. */
  #aligned(): [buffer: ArrayBufferLike, offset: number, length: number] {
    const size = datatypeBytes(this.datatype);
    const { data } = this;
    // Not `data.slice()`: a Buffer's own slice is another view.
    const bytes = data.byteOffset % size === 0 ? data : Uint8Array.prototype.slice.call(data);
    return [bytes.buffer, bytes.byteOffset, Math.floor(bytes.byteLength / size)];
  }

  #otherType(accessor: string, wanted: string): Error {
    return intarsiaError(
      'INVALID_ARGUMENT',
      `output '${this.name}' is ${this.datatype}; ${accessor}() reads ${wanted}`,
      {
        output: this.name,
        datatype: this.datatype,
      },
    );
  }
}
