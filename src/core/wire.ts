/**
 * Protocol Buffers' wire format, by hand: for ONNX files, whose bytes must survive, and for the messages of the hot path.
 *
 * The reader hands out views on the message, never copies, and bounds everything by the message's end. The writer keeps
 * large byte ranges by reference until `finish`, so that weights are held once.
 */
import { writeAscii } from './ascii.js';
import { intarsiaError } from './errors.js';

export const wireType = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

function malformed(what: string, offset: number): Error {
  return intarsiaError('INVALID_ARGUMENT', `protobuf message is malformed: ${what} at byte ${offset}`, { offset });
}

/** Reads one message field by field: `while (reader.next()) switch (reader.field) …`. */
export class WireReader {
  /** Number of the current field. */
  field = 0;
  /** Wire type of the current field. */
  type = 0;
  /** Offset of the current field's tag in `bytes`. */
  fieldStart = 0;
  /** Offset of the next unread byte. */
  position: number;
  readonly end: number;
  readonly source: Uint8Array;
  #view: DataView | undefined;

  constructor(source: Uint8Array, start = 0, end: number = source.byteLength) {
    this.source = source;
    this.position = start;
    this.end = end;
  }

  /** Moves to the next field. False at the end. @throws INVALID_ARGUMENT on a bad tag. */
  next(): boolean {
    if (this.position >= this.end) return false;
    this.fieldStart = this.position;
    const tag = this.varint();
    this.field = Math.floor(tag / 8);
    this.type = tag % 8;
    if (this.field === 0 || this.field > 0x1fffffff) throw malformed(`field number ${this.field}`, this.fieldStart);
    return true;
  }

  /** An unsigned varint. @throws INVALID_ARGUMENT when it runs past the end or past 2^53. */
  varint(): number {
    const { source, end } = this;
    let position = this.position;
    if (position < end) {
      const first = source[position] as number;
      if (first < 0x80) {
        this.position = position + 1;
        return first;
      }
    }
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 10; count += 1) {
      if (position >= end) throw malformed('a number runs past the end', this.position);
      const byte = source[position] as number;
      position += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw malformed('a number exceeds 2^53', this.position);
        this.position = position;
        return value;
      }
      scale *= 128;
    }
    throw malformed('a number is longer than ten bytes', this.position);
  }

  /** A varint as unsigned 64 bits. */
  uint64(): bigint {
    let position = this.position;
    let low = 0;
    let value = 0n;
    for (let count = 0; count < 10; count += 1) {
      if (position >= this.end) throw malformed('a number runs past the end', this.position);
      const byte = this.source[position] as number;
      position += 1;
      if (count < 4) low |= (byte & 0x7f) << (7 * count);
      else value |= BigInt(byte & 0x7f) << BigInt(7 * count);
      if (byte < 0x80) {
        this.position = position;
        return BigInt.asUintN(64, value | BigInt(low));
      }
    }
    throw malformed('a number is longer than ten bytes', this.position);
  }

  /** A varint as signed 64 bits. */
  int64(): bigint {
    return BigInt.asIntN(64, this.uint64());
  }

  /** A signed varint as a number. @throws INVALID_ARGUMENT beyond ±2^53. */
  int53(): number {
    const start = this.position;
    if (start < this.end && (this.source[start] as number) < 0x80) {
      this.position = start + 1;
      return this.source[start] as number;
    }
    const value = Number(this.int64());
    if (!Number.isSafeInteger(value)) throw malformed('a number exceeds 2^53', start);
    return value;
  }

  bool(): boolean {
    return this.uint64() !== 0n;
  }

  /** A length-delimited value as a view. */
  bytes(): Uint8Array {
    const length = this.varint();
    const start = this.position;
    if (length > this.end - start) throw malformed(`a value of ${length} bytes runs past the end`, start);
    this.position = start + length;
    return this.source.subarray(start, start + length);
  }

  /** A reader over a length-delimited message. */
  message(): WireReader {
    const length = this.varint();
    const start = this.position;
    if (length > this.end - start) throw malformed(`a message of ${length} bytes runs past the end`, start);
    this.position = start + length;
    return new WireReader(this.source, start, start + length);
  }

  /** A UTF-8 text. @throws INVALID_ARGUMENT when it is not UTF-8. */
  string(): string {
    const length = this.varint();
    const start = this.position;
    const end = start + length;
    if (end > this.end) throw malformed(`a text of ${length} bytes runs past the end`, start);
    this.position = end;
    const { source } = this;
    if (length < 32) {
      let text = '';
      let at = start;
      for (; at < end; at += 1) {
        const byte = source[at] as number;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (at === end) return text;
    }
    try {
      return decoder.decode(source.subarray(start, end));
    } catch {
      throw malformed('a text is not UTF-8', start);
    }
  }

  float(): number {
    return this.#fixed(4).getFloat32(this.position - 4, true);
  }

  double(): number {
    return this.#fixed(8).getFloat64(this.position - 8, true);
  }

  /** Repeated numbers, packed or not: calls `read` for each element of the current field. */
  repeated(read: (reader: WireReader) => void): void {
    if (this.type !== wireType.bytes) {
      read(this);
      return;
    }
    const packed = this.message();
    while (packed.position < packed.end) read(packed);
  }

  /** Passes over the current field. */
  skip(): void {
    switch (this.type) {
      case wireType.varint:
        this.uint64();
        return;
      case wireType.fixed64:
        this.#fixed(8);
        return;
      case wireType.bytes:
        this.message();
        return;
      case wireType.fixed32:
        this.#fixed(4);
        return;
      default:
        throw malformed(`wire type ${this.type}`, this.fieldStart);
    }
  }

  /** Checks the wire type of the current field. */
  expect(type: number): void {
    if (this.type !== type) throw malformed(`field ${this.field} has wire type ${this.type}`, this.fieldStart);
  }

  #fixed(bytes: number): DataView {
    if (this.position + bytes > this.end) throw malformed('a number runs past the end', this.position);
    this.position += bytes;
    this.#view ??= new DataView(this.source.buffer, this.source.byteOffset, this.source.byteLength);
    return this.#view;
  }
}

/** Byte ranges of at least this size are kept by reference until `finish`. */
const referenceBytesMin = 4096;

/** Writes one message. Fields leave in the order of the calls; defaults are written too: the caller decides. */
export class WireWriter {
  readonly #parts: Uint8Array[] = [];
  #buffer: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #start = 0;
  #position = 0;
  #flushedBytes = 0;

  constructor(capacity = 256) {
    this.#buffer = new Uint8Array(capacity);
    this.#view = new DataView(this.#buffer.buffer);
  }

  /** Bytes written so far. */
  get byteLength(): number {
    return this.#flushedBytes + this.#position - this.#start;
  }

  tag(field: number, type: number): this {
    return this.varint(field * 8 + type);
  }

  /** An unsigned varint of at most 2^53. */
  varint(value: number): this {
    this.#reserve(10);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#position] = (rest % 128) | 0x80;
      this.#position += 1;
      rest = Math.floor(rest / 128);
    }
    this.#buffer[this.#position] = rest;
    this.#position += 1;
    return this;
  }

  /** A varint of 64 bits, two's complement. */
  varint64(value: bigint): this {
    this.#reserve(10);
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.#buffer[this.#position] = Number(rest & 0x7fn) | 0x80;
      this.#position += 1;
      rest >>= 7n;
    }
    this.#buffer[this.#position] = Number(rest);
    this.#position += 1;
    return this;
  }

  uint(field: number, value: number): this {
    return this.tag(field, wireType.varint).varint(value);
  }

  int64(field: number, value: number | bigint): this {
    this.tag(field, wireType.varint);
    return typeof value === 'number' && value >= 0 ? this.varint(value) : this.varint64(BigInt(value));
  }

  bool(field: number, value: boolean): this {
    return this.uint(field, value ? 1 : 0);
  }

  float(field: number, value: number): this {
    this.tag(field, wireType.fixed32).#reserve(4);
    this.#view.setFloat32(this.#position, value, true);
    this.#position += 4;
    return this;
  }

  double(field: number, value: number): this {
    this.tag(field, wireType.fixed64).#reserve(8);
    this.#view.setFloat64(this.#position, value, true);
    this.#position += 8;
    return this;
  }

  string(field: number, text: string): this {
    this.tag(field, wireType.bytes);
    const { length } = text;
    if (length < 64) {
      this.#reserve(length + 1);
      const buffer = this.#buffer;
      if (writeAscii(text, buffer, this.#position + 1)) {
        buffer[this.#position] = length;
        this.#position += length + 1;
        return this;
      }
    }
    const encoded = encoder.encode(text);
    return this.varint(encoded.byteLength).raw(encoded);
  }

  bytes(field: number, data: Uint8Array): this {
    return this.tag(field, wireType.bytes).varint(data.byteLength).raw(data);
  }

  /** A nested message that `write` fills. */
  message(field: number, write: (nested: WireWriter) => void): this {
    const nested = new WireWriter(64);
    write(nested);
    return this.embed(field, nested);
  }

  /** A nested message that is there already. */
  embed(field: number, nested: WireWriter): this {
    this.tag(field, wireType.bytes).varint(nested.byteLength);
    for (const part of nested.parts()) this.raw(part);
    return this;
  }

  /** Bytes as they are: an encoded field, or the inside of a message. Large ranges are kept by reference. */
  raw(data: Uint8Array): this {
    if (data.byteLength >= referenceBytesMin) {
      this.#flush();
      this.#parts.push(data);
      this.#flushedBytes += data.byteLength;
      return this;
    }
    this.#reserve(data.byteLength);
    this.#buffer.set(data, this.#position);
    this.#position += data.byteLength;
    return this;
  }

  /** The message as ranges, in order; for files and sockets that take several buffers. */
  parts(): readonly Uint8Array[] {
    this.#flush();
    return this.#parts;
  }

  /** The message in one piece. */
  finish(): Uint8Array<ArrayBuffer> {
    const joined = new Uint8Array(this.byteLength);
    let offset = 0;
    for (const part of this.parts()) {
      joined.set(part, offset);
      offset += part.byteLength;
    }
    return joined;
  }

  #flush(): void {
    if (this.#position === this.#start) return;
    this.#parts.push(this.#buffer.subarray(this.#start, this.#position));
    this.#flushedBytes += this.#position - this.#start;
    this.#start = this.#position;
  }

  #reserve(bytes: number): void {
    if (this.#position + bytes <= this.#buffer.byteLength) return;
    this.#flush();
    this.#buffer = new Uint8Array(Math.max(bytes, this.#buffer.byteLength * 2));
    this.#view = new DataView(this.#buffer.buffer);
    this.#start = 0;
    this.#position = 0;
  }
}
