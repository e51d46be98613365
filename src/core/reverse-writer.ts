/**
 * Writes a protobuf message from its end to its beginning, so that the length of a nested message is known when its tag is
 * written: one pass, one buffer, no sizes computed beforehand. For the small fields of hot messages; large byte ranges
 * stay outside (see `EncodedMessage`).
 */
import { wireType } from './wire.js';

const encoder = new TextEncoder();
/** Scratch space grows with the largest message and is given back above this size. */
const keptBytesMax = 1024 * 1024;

export class ReverseWriter {
  #buffer: Uint8Array<ArrayBuffer>;
  #view: DataView;
  /** Offset of the first byte written. */
  #position: number;

  constructor(capacity = 4096) {
    this.#buffer = new Uint8Array(capacity);
    this.#view = new DataView(this.#buffer.buffer);
    this.#position = capacity;
  }

  /** The one writer of this thread, emptied. Use it and `finish` before anybody else runs. */
  static shared(): ReverseWriter {
    sharedWriter.#position = sharedWriter.#buffer.byteLength;
    return sharedWriter;
  }

  /** The end of a nested message: bytes written so far. Hand it to `close` once the message's fields are written. */
  mark(): number {
    return this.#buffer.byteLength - this.#position;
  }

  /** Puts length and tag in front of what was written since `mark`; `extraBytes` follow later, outside of this writer. */
  close(field: number, mark: number, extraBytes = 0): this {
    return this.varint53(this.mark() - mark + extraBytes).tag(field, wireType.bytes);
  }

  tag(field: number, type: number): this {
    return this.varint53(field * 8 + type);
  }

  /** A whole number within ±2^53; negative ones as 64-bit two's complement. */
  varint53(value: number): this {
    if (value < 0) return this.varint64(BigInt(value));
    if (this.#position < 10) this.#grow(10);
    if (value < 0x80) {
      this.#position -= 1;
      this.#buffer[this.#position] = value;
      return this;
    }
    let length = 1;
    for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length += 1;
    this.#position -= length;
    let at = this.#position;
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[at] = (rest % 128) | 0x80;
      at += 1;
      rest = Math.floor(rest / 128);
    }
    this.#buffer[at] = rest;
    return this;
  }

  /** 64 bits, two's complement. */
  varint64(value: bigint): this {
    const unsigned = BigInt.asUintN(64, value);
    if (unsigned <= 0x1fffffffffffffn) return this.varint53(Number(unsigned));
    if (this.#position < 10) this.#grow(10);
    let length = 0;
    for (let rest = unsigned; rest > 0n; rest >>= 7n) length += 1;
    this.#position -= length;
    let rest = unsigned;
    for (let index = 0; index < length; index += 1) {
      this.#buffer[this.#position + index] = Number(rest & 0x7fn) | (index < length - 1 ? 0x80 : 0);
      rest >>= 7n;
    }
    return this;
  }

  double(value: number): this {
    if (this.#position < 8) this.#grow(8);
    this.#position -= 8;
    this.#view.setFloat64(this.#position, value, true);
    return this;
  }

  /** A text field; nothing when the text is empty, as proto3 wants. */
  string(field: number, text: string): this {
    if (text.length === 0) return this;
    return this.textWithLength(text).tag(field, wireType.bytes);
  }

  /** A text and, in front of it, its length in bytes. */
  textWithLength(text: string): this {
    const { length } = text;
    if (length < 128) {
      if (this.#position < length + 1) this.#grow(length + 1);
      const buffer = this.#buffer;
      let at = this.#position;
      let index = length - 1;
      for (; index >= 0; index -= 1) {
        const unit = text.charCodeAt(index);
        if (unit >= 0x80) break;
        at -= 1;
        buffer[at] = unit;
      }
      if (index < 0) {
        at -= 1;
        buffer[at] = length;
        this.#position = at;
        return this;
      }
    }
    const encoded = encoder.encode(text);
    return this.#raw(encoded).varint53(encoded.byteLength);
  }

  bytes(field: number, data: Uint8Array): this {
    return this.#raw(data).varint53(data.byteLength).tag(field, wireType.bytes);
  }

  /** A copy of what was written. */
  finish(): Uint8Array<ArrayBuffer> {
    const written = this.#buffer.slice(this.#position);
    if (this.#buffer.byteLength > keptBytesMax) {
      this.#buffer = new Uint8Array(4096);
      this.#view = new DataView(this.#buffer.buffer);
      this.#position = 4096;
    }
    return written;
  }

  #raw(data: Uint8Array): this {
    if (this.#position < data.byteLength) this.#grow(data.byteLength);
    this.#position -= data.byteLength;
    this.#buffer.set(data, this.#position);
    return this;
  }

  /** Makes room for `bytes` more in front; what is written keeps its distance from the end. */
  #grow(bytes: number): void {
    const written = this.#buffer.byteLength - this.#position;
    const capacity = Math.max(this.#buffer.byteLength * 2, written + bytes);
    const grown = new Uint8Array(capacity);
    grown.set(this.#buffer.subarray(this.#position), capacity - written);
    this.#buffer = grown;
    this.#view = new DataView(grown.buffer);
    this.#position = capacity - written;
  }
}

const sharedWriter = new ReverseWriter();
