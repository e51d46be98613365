/**
 * Typed tensor contents (`InferTensorContents`: lists of numbers in protobuf) from and to raw bytes.
 *
 * Some KServe clients send them. Inside the product tensors are raw bytes only, so the conversion happens here, at the
 * edge, once. FP16 and BF16 have no typed form.
 */
import type { Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import { type WireReader, wireType } from './wire.js';

/** Field of InferTensorContents by datatype; 0 where there is none. */
const contentsField: Readonly<Record<Datatype, number>> = {
  BOOL: 1,
  INT8: 2,
  INT16: 2,
  INT32: 2,
  INT64: 3,
  UINT8: 4,
  UINT16: 4,
  UINT32: 4,
  UINT64: 5,
  FP32: 6,
  FP64: 7,
  BYTES: 8,
  FP16: 0,
  BF16: 0,
};

/** Whether lists of numbers can carry the datatype. */
export function hasTypedContents(datatype: Datatype): boolean {
  return contentsField[datatype] !== 0;
}

/** The typed contents of one tensor: where their parts lie in the message. */
interface ContentsParts {
  /** Number of elements. */
  count: number;
  /** Byte ranges of `source`: packed lists, or single elements, in order. */
  readonly ranges: { readonly start: number; readonly end: number }[];
  source: Uint8Array;
}

/**
 * Raw bytes of typed contents. `messages` are the parts of the contents field as they arrived; usually one.
 * @throws INVALID_ARGUMENT when the values do not belong to the datatype, or are out of its range.
 */
export function contentsToRaw(tensor: string, datatype: Datatype, messages: readonly WireReader[]): Uint8Array {
  const field = contentsField[datatype];
  const parts = gather(tensor, datatype, field, messages);
  switch (datatype) {
    case 'FP32':
      return joined(tensor, parts, 4);
    case 'FP64':
      return joined(tensor, parts, 8);
    case 'BYTES':
      return joinedStrings(parts);
    default:
      return fromVarints(tensor, datatype, parts);
  }
}

function gather(tensor: string, datatype: Datatype, field: number, messages: readonly WireReader[]): ContentsParts {
  const parts: ContentsParts = { count: 0, ranges: [], source: new Uint8Array(0) };
  const fixedBytes = datatype === 'FP32' ? 4 : datatype === 'FP64' ? 8 : 0;
  for (const reader of messages) {
    parts.source = reader.source;
    while (reader.next()) {
      const packed = reader.type === wireType.bytes;
      const start = reader.position;
      if (reader.field < 1 || reader.field > 8) {
        reader.skip();
        continue;
      }
      if (packed && reader.field !== 8 && reader.source[start] === 0) {
        reader.skip();
        continue;
      }
      if (reader.field !== field) throw wrongContents(tensor, datatype);
      if (field === 8) {
        reader.expect(wireType.bytes);
        const view = reader.bytes();
        parts.ranges.push({ start: reader.position - view.byteLength, end: reader.position });
        parts.count += 1;
      } else if (packed) {
        const view = reader.bytes();
        const end = reader.position;
        parts.ranges.push({ start: end - view.byteLength, end });
        parts.count += fixedBytes === 0 ? countVarints(view) : view.byteLength / fixedBytes;
      } else {
        reader.expect(fixedBytes === 4 ? wireType.fixed32 : fixedBytes === 8 ? wireType.fixed64 : wireType.varint);
        reader.skip();
        parts.ranges.push({ start, end: reader.position });
        parts.count += 1;
      }
    }
  }
  return parts;
}

function countVarints(packed: Uint8Array): number {
  let count = 0;
  for (let at = 0; at < packed.byteLength; at += 1) if ((packed[at] as number) < 0x80) count += 1;
  return count;
}

/** Fixed-size numbers are little-endian already: one range stays a view. */
function joined(tensor: string, parts: ContentsParts, elementBytes: number): Uint8Array {
  if (!Number.isInteger(parts.count)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `typed contents of tensor '${tensor}' are no multiple of ${elementBytes} bytes`,
      { elementBytes },
    );
  }
  const { ranges, source } = parts;
  const [only] = ranges;
  if (only !== undefined && ranges.length === 1) return source.subarray(only.start, only.end);
  const raw = new Uint8Array(parts.count * elementBytes);
  let offset = 0;
  for (const { start, end } of ranges) {
    raw.set(source.subarray(start, end), offset);
    offset += end - start;
  }
  return raw;
}

function joinedStrings({ ranges, source }: ContentsParts): Uint8Array {
  let bytes = 0;
  for (const { start, end } of ranges) bytes += 4 + end - start;
  const raw = new Uint8Array(bytes);
  const view = new DataView(raw.buffer);
  let offset = 0;
  for (const { start, end } of ranges) {
    view.setUint32(offset, end - start, true);
    raw.set(source.subarray(start, end), offset + 4);
    offset += 4 + end - start;
  }
  return raw;
}

/** Least and greatest value by datatype; absent: every 32-bit value fits. */
const integerRange: Partial<Record<Datatype, readonly [min: number, max: number]>> = {
  INT8: [-128, 127],
  INT16: [-32_768, 32_767],
  UINT8: [0, 255],
  UINT16: [0, 65_535],
};

const varintBytes = {
  BOOL: 1,
  INT8: 1,
  UINT8: 1,
  INT16: 2,
  UINT16: 2,
  INT32: 4,
  UINT32: 4,
  INT64: 8,
  UINT64: 8,
} as const;

function fromVarints(
  tensor: string,
  datatype: Exclude<Datatype, 'FP32' | 'FP64' | 'BYTES'>,
  { count, ranges, source }: ContentsParts,
): Uint8Array {
  if (datatype === 'FP16' || datatype === 'BF16') throw wrongContents(tensor, datatype);
  const size = varintBytes[datatype];
  const raw = new Uint8Array(count * size);
  const view = new DataView(raw.buffer);
  const range = integerRange[datatype];
  let offset = 0;
  for (const { start, end } of ranges) {
    let at = start;
    while (at < end) {
      // 64 bits in two halves: bits 0 to 27 in three parts of `low`, 28 to 63 in `middle` and `high`.
      let low = 0;
      let high = 0;
      let shift = 0;
      let byte = 0x80;
      while (byte >= 0x80) {
        if (at >= end || shift > 63) throw malformedNumber(tensor, at);
        byte = source[at] as number;
        at += 1;
        const bits = byte & 0x7f;
        if (shift < 28) low |= bits << shift;
        else if (shift === 28) {
          low |= bits << 28;
          high = bits >>> 4;
        } else high |= bits << (shift - 32);
        shift += 7;
      }
      if (size === 8) {
        view.setUint32(offset, low, true);
        view.setUint32(offset + 4, high, true);
      } else if (datatype === 'BOOL') {
        raw[offset] = low === 0 && high === 0 ? 0 : 1;
      } else if (size === 4) {
        view.setInt32(offset, low, true);
      } else {
        const value = datatype.startsWith('U') ? low >>> 0 : low;
        if (range !== undefined && (value < range[0] || value > range[1])) {
          throw intarsiaError(
            'INVALID_ARGUMENT',
            `value ${value} of tensor '${tensor}' is out of range for ${datatype}: ${range[0]} to ${range[1]}`,
            { value, min: range[0], max: range[1] },
          );
        }
        if (size === 1) raw[offset] = value;
        else view.setUint16(offset, value & 0xffff, true);
      }
      offset += size;
    }
  }
  return raw;
}

/**
 * Typed contents (the bytes of an InferTensorContents message) of raw bytes, whose length fits the datatype.
 * The datatype has typed contents (`hasTypedContents`).
 */
export function rawToContents(datatype: Datatype, raw: Uint8Array): Uint8Array {
  if (raw.byteLength === 0) return raw;
  if (datatype === 'BYTES') return stringsToContents(raw);
  const packed = datatype === 'FP32' || datatype === 'FP64' ? raw : packVarints(datatype, raw);
  const head = 1 + varintLength(packed.byteLength);
  const contents = new Uint8Array(head + packed.byteLength);
  contents[0] = contentsField[datatype] * 8 + wireType.bytes;
  putVarint(contents, 1, packed.byteLength);
  contents.set(packed, head);
  return contents;
}

function stringsToContents(raw: Uint8Array): Uint8Array {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  let bytes = 0;
  for (let at = 0; at < raw.byteLength;) {
    const length = view.getUint32(at, true);
    bytes += 1 + varintLength(length) + length;
    at += 4 + length;
  }
  const contents = new Uint8Array(bytes);
  let offset = 0;
  for (let at = 0; at < raw.byteLength;) {
    const length = view.getUint32(at, true);
    contents[offset] = contentsField.BYTES * 8 + wireType.bytes;
    offset = putVarint(contents, offset + 1, length);
    contents.set(raw.subarray(at + 4, at + 4 + length), offset);
    offset += length;
    at += 4 + length;
  }
  return contents;
}

/** 64-bit two's complement of a negative 32-bit number is ten bytes long; small numbers take one. */
function packVarints(datatype: Datatype, raw: Uint8Array): Uint8Array {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const size = varintBytes[datatype as keyof typeof varintBytes];
  const count = raw.byteLength / size;
  const packed = new Uint8Array(count * (size === 1 && datatype === 'BOOL' ? 1 : 10));
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    const offset = index * size;
    let low: number;
    let high: number;
    switch (datatype) {
      case 'BOOL':
        low = raw[offset] === 0 ? 0 : 1;
        high = 0;
        break;
      case 'UINT8':
        low = raw[offset] as number;
        high = 0;
        break;
      case 'UINT16':
        low = view.getUint16(offset, true);
        high = 0;
        break;
      case 'UINT32':
        low = view.getUint32(offset, true);
        high = 0;
        break;
      case 'INT8':
        low = view.getInt8(offset);
        high = low >> 31;
        break;
      case 'INT16':
        low = view.getInt16(offset, true);
        high = low >> 31;
        break;
      case 'INT32':
        low = view.getInt32(offset, true);
        high = low >> 31;
        break;
      default:
        low = view.getUint32(offset, true);
        high = view.getUint32(offset + 4, true);
        break;
    }
    low >>>= 0;
    high >>>= 0;
    while (high > 0 || low > 0x7f) {
      packed[at] = (low & 0x7f) | 0x80;
      at += 1;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    packed[at] = low;
    at += 1;
  }
  return packed.subarray(0, at);
}

function varintLength(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length += 1;
  return length;
}

function putVarint(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at] = (rest % 128) | 0x80;
    at += 1;
    rest = Math.floor(rest / 128);
  }
  target[at] = rest;
  return at + 1;
}

function wrongContents(tensor: string, datatype: Datatype): Error {
  return intarsiaError(
    'INVALID_ARGUMENT',
    hasTypedContents(datatype)
      ? `typed contents of tensor '${tensor}' do not belong to its datatype ${datatype}`
      : `tensor '${tensor}' of datatype ${datatype} has no typed contents: send it as raw bytes`,
    { tensor: tensor.slice(0, 80), datatype },
  );
}

function malformedNumber(tensor: string, offset: number): Error {
  return intarsiaError(
    'INVALID_ARGUMENT',
    `typed contents of tensor '${tensor}' are malformed: a number runs past the end`,
    {
      offset,
    },
  );
}
