/**
 * `ModelInferRequest`, `ModelInferResponse` and `ModelStreamInferResponse` from and to protobuf, by hand.
 *
 * These are the messages of the hot path, and the only ones not left to generated code: tensors are views on the message
 * in one direction and are copied once, into the frame itself, in the other. Typed contents become raw bytes here.
 * A test holds both directions equal to the generated codec. What names and shapes mean is the gateway's business.
 */
import { isDatatype, type Datatype } from './datatype.js';
import { intarsiaError } from './errors.js';
import { contentsToRaw, hasTypedContents, rawToContents } from './inference-contents.js';
import {
  dimensionsMax,
  noParameters,
  parametersMax,
  tensorsMax,
  type InferParameter,
  type InferParameters,
  type InferRequestMessage,
  type InferResponseMessage,
  type InferTensor,
  type RequestedOutput,
} from './inference-message.js';
import { ReverseWriter } from './reverse-writer.js';
import { WireReader, wireType } from './wire.js';

const noBytes = new Uint8Array(0);
/** Tensors shorter than this are copied beside what stands before them: a piece of its own costs about as much. */
const referenceBytesMin = 16 * 1024;
/** An input with this parameter lies in shared memory and takes no entry in the raw list. */
const sharedMemoryParameter = 'shared_memory_region';

/** @throws INVALID_ARGUMENT when the bytes are not such a message, or raw and typed contents contradict each other. */
export function decodeInferRequest(bytes: Uint8Array): InferRequestMessage {
  const reader = new WireReader(bytes);
  let modelName = '';
  let modelVersion = '';
  let id = '';
  let parameters: Map<string, InferParameter> | undefined;
  const inputs: TensorParts[] = [];
  const outputs: RequestedOutput[] = [];
  const raws: Uint8Array[] = [];
  while (reader.next()) {
    if (reader.field > 7) {
      reader.skip();
      continue;
    }
    reader.expect(wireType.bytes);
    switch (reader.field) {
      case 1:
        modelName = reader.string();
        break;
      case 2:
        modelVersion = reader.string();
        break;
      case 3:
        id = reader.string();
        break;
      case 4:
        parameters = decodeParameter(reader.message(), parameters);
        break;
      case 5:
        inputs.push(decodeTensor(reader.message()));
        if (inputs.length > tensorsMax) throw tooMany('inputs', tensorsMax);
        break;
      case 6:
        outputs.push(decodeRequestedOutput(reader.message()));
        if (outputs.length > tensorsMax) throw tooMany('requested outputs', tensorsMax);
        break;
      default:
        raws.push(reader.bytes());
        if (raws.length > tensorsMax) throw tooMany('raw contents', tensorsMax);
    }
  }
  return {
    modelName,
    modelVersion,
    id,
    parameters: parameters ?? noParameters,
    inputs: completeTensors(inputs, raws, 'input'),
    outputs,
    rawContents: raws.length > 0,
  };
}

/** @throws INVALID_ARGUMENT as `decodeInferRequest`. */
export function decodeInferResponse(bytes: Uint8Array): InferResponseMessage {
  return readInferResponse(new WireReader(bytes));
}

function readInferResponse(reader: WireReader): InferResponseMessage {
  let modelName = '';
  let modelVersion = '';
  let id = '';
  let parameters: Map<string, InferParameter> | undefined;
  const outputs: TensorParts[] = [];
  const raws: Uint8Array[] = [];
  while (reader.next()) {
    if (reader.field > 6) {
      reader.skip();
      continue;
    }
    reader.expect(wireType.bytes);
    switch (reader.field) {
      case 1:
        modelName = reader.string();
        break;
      case 2:
        modelVersion = reader.string();
        break;
      case 3:
        id = reader.string();
        break;
      case 4:
        parameters = decodeParameter(reader.message(), parameters);
        break;
      case 5:
        outputs.push(decodeTensor(reader.message()));
        if (outputs.length > tensorsMax) throw tooMany('outputs', tensorsMax);
        break;
      default:
        raws.push(reader.bytes());
        if (raws.length > tensorsMax) throw tooMany('raw contents', tensorsMax);
    }
  }
  return {
    modelName,
    modelVersion,
    id,
    parameters: parameters ?? noParameters,
    outputs: completeTensors(outputs, raws, 'output'),
    rawContents: raws.length > 0,
  };
}

/** One message of a stream of answers: an error's text, or an answer. */
export type StreamInferMessage =
  | { readonly error: string; readonly response?: undefined }
  | { readonly error?: undefined; readonly response: InferResponseMessage };

/** @throws INVALID_ARGUMENT when the bytes are not such a message. */
export function decodeStreamInferResponse(bytes: Uint8Array): StreamInferMessage {
  const reader = new WireReader(bytes);
  let error = '';
  let response: InferResponseMessage | undefined;
  while (reader.next()) {
    if (reader.field === 1) {
      reader.expect(wireType.bytes);
      error = reader.string();
    } else if (reader.field === 2) {
      reader.expect(wireType.bytes);
      response = readInferResponse(reader.message());
    } else reader.skip();
  }
  if (error !== '') return { error };
  return { response: response ?? readInferResponse(new WireReader(noBytes)) };
}

/** A tensor as far as it is known before the raw list is. */
interface TensorParts {
  name: string;
  datatype: string;
  shape: number[];
  parameters: InferParameters;
  data: Uint8Array;
  contents: WireReader[] | undefined;
}

function decodeTensor(reader: WireReader): TensorParts {
  let name = '';
  let datatype = '';
  const shape: number[] = [];
  let parameters: Map<string, InferParameter> | undefined;
  let contents: WireReader[] | undefined;
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        reader.expect(wireType.bytes);
        name = reader.string();
        break;
      case 2:
        reader.expect(wireType.bytes);
        datatype = reader.string();
        break;
      case 3:
        decodeShape(reader, shape);
        break;
      case 4:
        reader.expect(wireType.bytes);
        parameters = decodeParameter(reader.message(), parameters);
        break;
      case 5:
        reader.expect(wireType.bytes);
        contents ??= [];
        contents.push(reader.message());
        break;
      default:
        reader.skip();
    }
  }
  return { name, datatype, shape, parameters: parameters ?? noParameters, data: noBytes, contents };
}

function decodeShape(reader: WireReader, shape: number[]): void {
  if (reader.type === wireType.bytes) {
    const packed = reader.message();
    while (packed.position < packed.end) {
      shape.push(packed.int53());
      if (shape.length > dimensionsMax) throw tooMany('dimensions', dimensionsMax);
    }
    return;
  }
  reader.expect(wireType.varint);
  shape.push(reader.int53());
  if (shape.length > dimensionsMax) throw tooMany('dimensions', dimensionsMax);
}

function decodeRequestedOutput(reader: WireReader): RequestedOutput {
  let name = '';
  let parameters: Map<string, InferParameter> | undefined;
  while (reader.next()) {
    if (reader.field === 1) {
      reader.expect(wireType.bytes);
      name = reader.string();
    } else if (reader.field === 2) {
      reader.expect(wireType.bytes);
      parameters = decodeParameter(reader.message(), parameters);
    } else reader.skip();
  }
  return { name, parameters: parameters ?? noParameters };
}

/** Adds one map entry to the parameters; the last one of a key counts. */
function decodeParameter(
  reader: WireReader,
  parameters: Map<string, InferParameter> | undefined,
): Map<string, InferParameter> {
  let key = '';
  let value: InferParameter | undefined;
  while (reader.next()) {
    if (reader.field === 1) {
      reader.expect(wireType.bytes);
      key = reader.string();
    } else if (reader.field === 2) {
      reader.expect(wireType.bytes);
      value = decodeChoice(reader.message()) ?? value;
    } else reader.skip();
  }
  if (value === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' has no value of a known type`, {});
  }
  const into = parameters ?? new Map<string, InferParameter>();
  into.set(key, value);
  if (into.size > parametersMax) throw tooMany('parameters', parametersMax);
  return into;
}

function decodeChoice(reader: WireReader): InferParameter | undefined {
  let value: InferParameter | undefined;
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        reader.expect(wireType.varint);
        value = { kind: 'bool', value: reader.bool() };
        break;
      case 2:
        reader.expect(wireType.varint);
        value = { kind: 'int64', value: reader.int64() };
        break;
      case 3:
        reader.expect(wireType.bytes);
        value = { kind: 'string', value: reader.string() };
        break;
      case 4:
        reader.expect(wireType.fixed64);
        value = { kind: 'double', value: reader.double() };
        break;
      case 5:
        reader.expect(wireType.varint);
        value = { kind: 'uint64', value: reader.uint64() };
        break;
      default:
        reader.skip();
    }
  }
  return value;
}

/** Gives each tensor its bytes: from the raw list, or from its typed contents. */
function completeTensors(parts: TensorParts[], raws: readonly Uint8Array[], what: 'input' | 'output'): InferTensor[] {
  if (raws.length === 0) {
    for (const part of parts) {
      if (part.contents === undefined) continue;
      part.data = typedData(part, part.contents);
      part.contents = undefined;
    }
    return parts;
  }
  let next = 0;
  for (const part of parts) {
    if (part.contents !== undefined) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `contents field must not be specified when using raw_${what}_contents for ${what} tensor '${part.name}'`,
        {},
      );
    }
    if (part.parameters.has(sharedMemoryParameter)) continue;
    part.data = raws[next] ?? noBytes;
    next += 1;
  }
  if (next !== raws.length) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `expected one entry in raw_${what}_contents for each ${what} tensor: ${next} wanted, ${raws.length} present`,
      { tensors: next, raws: raws.length },
    );
  }
  return parts;
}

function typedData(part: TensorParts, contents: readonly WireReader[]): Uint8Array {
  if (!isDatatype(part.datatype)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `tensor '${part.name}' has the unknown datatype '${part.datatype.slice(0, 80)}'`,
      {},
    );
  }
  return contentsToRaw(part.name, part.datatype, contents);
}

function tooMany(what: string, max: number): Error {
  return intarsiaError('INVALID_ARGUMENT', `a message may have at most ${max} ${what}`, { max });
}

/**
 * A message ready to be sent: its small fields are encoded, its tensors are still where they were. `copy` writes all of
 * it into a frame, so that tensors are copied once on their way out.
 */
export class EncodedMessage {
  readonly byteLength: number;
  readonly #head: Uint8Array;
  readonly #rawTag: number;
  readonly #raws: readonly Uint8Array[];

  constructor(head: Uint8Array, rawField: number, raws: readonly Uint8Array[]) {
    this.#head = head;
    this.#rawTag = rawField * 8 + wireType.bytes;
    this.#raws = raws;
    this.byteLength = head.byteLength + rawsBytes(raws);
  }

  /** Writes the message at `offset`; `target` has room for `byteLength` bytes. */
  copy(target: Uint8Array, offset: number): void {
    target.set(this.#head, offset);
    let at = offset + this.#head.byteLength;
    for (const raw of this.#raws) {
      target[at] = this.#rawTag;
      at += 1;
      let rest = raw.byteLength;
      while (rest >= 0x80) {
        target[at] = (rest % 128) | 0x80;
        at += 1;
        rest = Math.floor(rest / 128);
      }
      target[at] = rest;
      at += 1;
      target.set(raw, at);
      at += raw.byteLength;
    }
  }

  /**
   * The message as pieces to be written in order. The first begins with `prefixBytes` bytes for the caller to write; long
   * tensors are among them by reference, so that they are not copied at all.
   */
  pieces(prefixBytes: number, allocate: (bytes: number) => Uint8Array): Uint8Array[] {
    if (this.byteLength < referenceBytesMin) {
      const piece = allocate(prefixBytes + this.byteLength);
      this.copy(piece, prefixBytes);
      return [piece];
    }
    const pieces: Uint8Array[] = [];
    let gathered: Uint8Array[] = [this.#head];
    let gatheredBytes = prefixBytes + this.#head.byteLength;
    let offset = prefixBytes;
    const flush = (): void => {
      if (gatheredBytes === 0) return;
      const piece = allocate(gatheredBytes);
      for (const part of gathered) {
        piece.set(part, offset);
        offset += part.byteLength;
      }
      pieces.push(piece);
      gathered = [];
      gatheredBytes = 0;
      offset = 0;
    };
    for (const raw of this.#raws) {
      const tag = rawHead(this.#rawTag, raw.byteLength);
      gathered.push(tag);
      gatheredBytes += tag.byteLength;
      if (raw.byteLength < referenceBytesMin) {
        gathered.push(raw);
        gatheredBytes += raw.byteLength;
        continue;
      }
      flush();
      pieces.push(raw);
    }
    flush();
    return pieces;
  }

  /** The message in one piece. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.byteLength);
    this.copy(bytes, 0);
    return bytes;
  }
}

/** Tag and length that stand before a tensor's bytes. */
function rawHead(tag: number, length: number): Uint8Array {
  const bytes = [tag];
  for (; length >= 0x80; length = Math.floor(length / 128)) bytes.push((length % 128) | 0x80);
  bytes.push(length);
  return Uint8Array.from(bytes);
}

function rawsBytes(raws: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const raw of raws) {
    bytes += 2 + raw.byteLength;
    for (let rest = raw.byteLength; rest >= 0x80; rest = Math.floor(rest / 128)) bytes += 1;
  }
  return bytes;
}

/** Encodes a request; typed when `rawContents` is false and every datatype has a typed form. */
export function encodeInferRequest(message: InferRequestMessage): EncodedMessage {
  const raw = message.rawContents || !typedPossible(message.inputs);
  const writer = ReverseWriter.shared();
  for (let index = message.outputs.length - 1; index >= 0; index -= 1) {
    const output = message.outputs[index] as RequestedOutput;
    const end = writer.mark();
    writeParameters(writer, 2, output.parameters);
    writer.string(1, output.name);
    writer.close(6, end);
  }
  writeTensors(writer, message.inputs, raw);
  writeParameters(writer, 4, message.parameters);
  writer.string(3, message.id).string(2, message.modelVersion).string(1, message.modelName);
  return new EncodedMessage(writer.finish(), 7, raw ? message.inputs.map(dataOf) : []);
}

/** Encodes an answer; typed when `rawContents` is false and every datatype has a typed form. */
export function encodeInferResponse(message: InferResponseMessage): EncodedMessage {
  return encodeResponse(message, false);
}

/** Encodes an answer inside a `ModelStreamInferResponse`. */
export function encodeStreamInferResponse(message: InferResponseMessage): EncodedMessage {
  return encodeResponse(message, true);
}

/**
 * Encodes an error as a `ModelStreamInferResponse`: its text, and in an otherwise empty answer the id of the request and,
 * as parameter `intarsia_code`, the error's code.
 */
export function encodeStreamInferError(error: string, id: string, code = ''): EncodedMessage {
  const writer = ReverseWriter.shared();
  const end = writer.mark();
  if (code !== '') writeParameters(writer, 4, new Map([['intarsia_code', { kind: 'string', value: code }]]));
  writer.string(3, id);
  if (id !== '' || code !== '') writer.close(2, end);
  writer.string(1, error);
  return new EncodedMessage(writer.finish(), 6, []);
}

function encodeResponse(message: InferResponseMessage, inStream: boolean): EncodedMessage {
  const raw = message.rawContents || !typedPossible(message.outputs);
  const raws = raw ? message.outputs.map(dataOf) : [];
  const writer = ReverseWriter.shared();
  const end = writer.mark();
  writeTensors(writer, message.outputs, raw);
  writeParameters(writer, 4, message.parameters);
  writer.string(3, message.id).string(2, message.modelVersion).string(1, message.modelName);
  if (inStream) writer.close(2, end, rawsBytes(raws));
  return new EncodedMessage(writer.finish(), 6, raws);
}

function dataOf(tensor: InferTensor): Uint8Array {
  return tensor.data;
}

function typedPossible(tensors: readonly InferTensor[]): boolean {
  for (const { datatype } of tensors) if (!isDatatype(datatype) || !hasTypedContents(datatype)) return false;
  return true;
}

function writeTensors(writer: ReverseWriter, tensors: readonly InferTensor[], raw: boolean): void {
  for (let index = tensors.length - 1; index >= 0; index -= 1) {
    const tensor = tensors[index] as InferTensor;
    const end = writer.mark();
    if (!raw && tensor.data.byteLength > 0) {
      writer.bytes(5, rawToContents(tensor.datatype as Datatype, tensor.data));
    }
    writeParameters(writer, 4, tensor.parameters);
    const { shape } = tensor;
    if (shape.length > 0) {
      const shapeEnd = writer.mark();
      for (let axis = shape.length - 1; axis >= 0; axis -= 1) writer.varint53(shape[axis] as number);
      writer.close(3, shapeEnd);
    }
    writer.string(2, tensor.datatype).string(1, tensor.name);
    writer.close(5, end);
  }
}

/** Entries leave in the opposite order of the map, which the protocol allows: a map has no order on the wire. */
function writeParameters(writer: ReverseWriter, field: number, parameters: InferParameters): void {
  if (parameters.size === 0) return;
  for (const [key, parameter] of parameters) {
    const end = writer.mark();
    switch (parameter.kind) {
      case 'bool':
        writer.varint53(parameter.value ? 1 : 0).tag(1, wireType.varint);
        break;
      case 'int64':
        writer.varint64(parameter.value).tag(2, wireType.varint);
        break;
      case 'string':
        writer.textWithLength(parameter.value).tag(3, wireType.bytes);
        break;
      case 'double':
        writer.double(parameter.value).tag(4, wireType.fixed64);
        break;
      case 'uint64':
        writer.varint64(parameter.value).tag(5, wireType.varint);
        break;
    }
    writer.close(2, end);
    writer.string(1, key);
    writer.close(field, end);
  }
}
