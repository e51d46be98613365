/**
 * What an executor and its owner say to each other in frames (frame.ts): kinds, and the headers of runs and results.
 *
 * Runs are the hot path: their headers are compact protobuf, written by hand. Everything else is rare and is JSON. The
 * payload of a run is the bytes of its inputs in order, of a result those of its outputs, each beginning at a multiple
 * of 8 bytes; chunks of one input follow each other, so that joining a batch costs nothing. Instead of in the payload, the
 * chunks of an input may lie in slots of memory that both ends have: then the header says where.
 */
import { tritonDatatypeNumber, type Datatype } from './datatype.js';
import { fromErrorData, intarsiaError, toErrorData, type ErrorData, type IntarsiaError } from './errors.js';
import { alignedBytes, framePadding, type Frame, type OutgoingFrame } from './frame.js';
import type { HeldBytes } from './held-bytes.js';
import { heldTensor, type Shape, type Tensor, type TensorSpec } from './tensor.js';
import { WireReader, WireWriter } from './wire.js';

/** Kinds of frames. Numbers are part of the format. */
export const executorFrameKind = {
  /** Answer to a request that failed; JSON ErrorData. */
  failure: 1,
  /** Executor → owner, once: it is up; JSON. */
  hello: 2,
  /** Owner → executor: are you there? */
  ping: 3,
  /** Executor → owner: yes, and what I use; JSON. */
  pong: 4,
  /** Owner → executor: start serving the lane that is named; JSON. */
  open: 5,
  /** Answer to `open`. */
  opened: 6,
  load: 16,
  loaded: 17,
  unload: 18,
  unloaded: 19,
  /** The tag of a run is the slot of shared memory that its result may be put into; 0 for none. */
  run: 20,
  result: 21,
  /** As `run` and `result`, but the payload lies in a slot: the frame carries its length and the slot, little-endian. */
  runShared: 22,
  resultShared: 23,
} as const;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });
const nothing: readonly Uint8Array[] = [];

/** Bytes in a slot of shared memory. */
export interface SlotRange {
  readonly slot: number;
  readonly offset: number;
  readonly bytes: number;
}

/** The same run or result with its payload in a slot of shared memory. */
export function sharedFrame(frame: OutgoingFrame, slot: number): OutgoingFrame {
  let bytes = 0;
  for (const range of frame.payload) bytes += range.byteLength;
  const where = new DataView(new ArrayBuffer(8));
  where.setUint32(0, bytes, true);
  where.setUint32(4, slot, true);
  const kind = frame.kind === executorFrameKind.run ? executorFrameKind.runShared : executorFrameKind.resultShared;
  return { ...frame, kind, payload: [new Uint8Array(where.buffer)] };
}

/** Where such a frame says that its payload lies. @throws INVALID_ARGUMENT. */
export function sharedPayload(frame: Frame): SlotRange {
  const { buffer, byteOffset, byteLength } = frame.payload;
  if (byteLength !== 8) {
    throw intarsiaError('INVALID_ARGUMENT', `frame of kind ${frame.kind} does not say where its payload lies`);
  }
  const where = new DataView(buffer, byteOffset, byteLength);
  return { slot: where.getUint32(4, true), offset: 0, bytes: where.getUint32(0, true) };
}

/** A frame whose header is JSON. */
export function jsonFrame(kind: number, number: number, value: unknown): OutgoingFrame {
  return { kind, number, header: encoder.encode(JSON.stringify(value)), payload: nothing };
}

/** The value in a JSON header; whoever reads it trusts the other end or checks. @throws INVALID_ARGUMENT. */
export function jsonHeader(frame: Frame): unknown {
  try {
    return JSON.parse(decoder.decode(frame.header)) as unknown;
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `frame of kind ${frame.kind} has a header that is not JSON`, {}, error);
  }
}

export function failureFrame(number: number, thrown: unknown): OutgoingFrame {
  return jsonFrame(executorFrameKind.failure, number, toErrorData(thrown));
}

export function failureIn(frame: Frame): IntarsiaError {
  const data = jsonHeader(frame) as Partial<ErrorData> | null;
  return fromErrorData({
    code: data?.code ?? 'INTERNAL',
    message: data?.message ?? 'a failure without a message',
    details: data?.details ?? {},
  });
}

/** A run as its frame carries it. */
export interface RunFrame {
  readonly session: string;
  readonly inputs: readonly {
    readonly name: string;
    readonly datatype: Datatype;
    readonly shape: Shape;
    readonly chunks: readonly Uint8Array[];
    /** Where the chunks lie already; absent: they travel in the frame. */
    readonly slots?: readonly SlotRange[] | undefined;
  }[];
  readonly outputs: readonly string[];
}

/** Microseconds of the three parts of a run. */
export interface RunTimes {
  readonly computeInputUs: number;
  readonly computeInferUs: number;
  readonly computeOutputUs: number;
}

export function runFrame(number: number, run: RunFrame, tag = 0): OutgoingFrame {
  const header = new WireWriter(192);
  const payload: Uint8Array[] = [];
  header.string(1, run.session);
  for (const input of run.inputs) {
    if (input.slots !== undefined) {
      writeTensor(header, input, 0, input.slots);
      continue;
    }
    let bytes = 0;
    for (const chunk of input.chunks) {
      bytes += chunk.byteLength;
      payload.push(chunk);
    }
    pad(payload, bytes);
    writeTensor(header, input, bytes);
  }
  for (const output of run.outputs) header.string(3, output);
  return { kind: executorFrameKind.run, tag, number, header: header.finish(), payload };
}

/**
 * A run, with its inputs as views on the payload.
 * @param fetch Bytes that lie in slots, one after the other.
 * @throws INVALID_ARGUMENT when header and payload do not fit.
 */
export function runIn(
  frame: Frame,
  fetch?: (slots: readonly SlotRange[]) => Uint8Array,
): {
  readonly session: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly string[];
} {
  const reader = new WireReader(frame.header);
  const { payload } = frame;
  const tensors = new TensorReader(payload.byteLength, (spec, { start, end }, slots) => {
    if (slots.length === 0) return { ...spec, data: payload.subarray(start, end) };
    if (fetch === undefined)
      throw malformed(`tensor ${JSON.stringify(spec.name)} lies where this executor has nothing`);
    return { ...spec, data: fetch(slots) };
  });
  let session = '';
  const outputs: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) session = reader.string();
    else if (reader.field === 2) tensors.read(reader.message());
    else if (reader.field === 3) outputs.push(reader.string());
    else reader.skip();
  }
  return { session, inputs: tensors.finish(), outputs };
}

export function resultFrame(number: number, outputs: readonly Tensor[], times: RunTimes): OutgoingFrame {
  const header = new WireWriter(192);
  const payload: Uint8Array[] = [];
  header.uint(3, microseconds(times.computeInputUs));
  header.uint(4, microseconds(times.computeInferUs));
  header.uint(5, microseconds(times.computeOutputUs));
  for (const output of outputs) {
    payload.push(output.data);
    pad(payload, output.data.byteLength);
    writeTensor(header, output, output.data.byteLength);
  }
  return { kind: executorFrameKind.result, number, header: header.finish(), payload };
}

/**
 * A result, with its outputs as views on the payload.
 * @param held The payload, where it is not in the frame: outputs are parts of that.
 * @throws INVALID_ARGUMENT when header and payload do not fit.
 */
export function resultIn(frame: Frame, held?: HeldBytes): RunTimes & { readonly outputs: readonly Tensor[] } {
  const reader = new WireReader(frame.header);
  const { payload } = frame;
  const tensors = new TensorReader((held ?? payload).byteLength, (spec, { start, end }) =>
    held === undefined
      ? { ...spec, data: payload.subarray(start, end) }
      : heldTensor(spec, held.part(start, end - start)),
  );
  const us = [0, 0, 0];
  while (reader.next()) {
    if (reader.field === 2) tensors.read(reader.message());
    else if (reader.field >= 3 && reader.field <= 5) us[reader.field - 3] = reader.varint();
    else reader.skip();
  }
  return {
    outputs: tensors.finish(),
    computeInputUs: us[0] ?? 0,
    computeInferUs: us[1] ?? 0,
    computeOutputUs: us[2] ?? 0,
  };
}

function microseconds(us: number): number {
  return Math.max(0, Math.round(us));
}

function pad(payload: Uint8Array[], bytes: number): void {
  const padding = framePadding(bytes);
  if (padding.byteLength > 0) payload.push(padding);
}

function writeTensor(header: WireWriter, tensor: TensorSpec, bytes: number, slots: readonly SlotRange[] = []): void {
  const nested = new WireWriter(64);
  nested.string(1, tensor.name);
  nested.uint(2, tritonDatatypeNumber[tensor.datatype]);
  for (const size of tensor.shape) nested.uint(3, size);
  nested.uint(4, bytes);
  for (const range of slots) nested.uint(5, range.slot).uint(6, range.offset).uint(7, range.bytes);
  header.embed(2, nested);
}

const datatypeOfNumber = new Map<number, Datatype>(
  Object.entries(tritonDatatypeNumber).map(([datatype, number]) => [number, datatype as Datatype]),
);

interface Extent {
  readonly start: number;
  readonly end: number;
}

/** Cuts a payload into tensors, in the order of their headers. */
class TensorReader {
  readonly #payloadBytes: number;
  readonly #make: (spec: TensorSpec, extent: Extent, slots: readonly SlotRange[]) => Tensor;
  readonly #tensors: Tensor[] = [];
  #offset = 0;

  /** @param make The tensor that lies there in the payload, or, where there are any, in those slots. */
  constructor(payloadBytes: number, make: (spec: TensorSpec, extent: Extent, slots: readonly SlotRange[]) => Tensor) {
    this.#payloadBytes = payloadBytes;
    this.#make = make;
  }

  read(reader: WireReader): void {
    let name = '';
    let datatype: Datatype | undefined;
    let bytes = 0;
    const shape: number[] = [];
    const slots: SlotRange[] = [];
    let slot = 0;
    let offset = 0;
    while (reader.next()) {
      if (reader.field === 1) name = reader.string();
      else if (reader.field === 2) datatype = datatypeOfNumber.get(reader.varint());
      else if (reader.field === 3) shape.push(reader.varint());
      else if (reader.field === 4) bytes = reader.varint();
      else if (reader.field === 5) slot = reader.varint();
      else if (reader.field === 6) offset = reader.varint();
      else if (reader.field === 7) slots.push({ slot, offset, bytes: reader.varint() });
      else reader.skip();
    }
    const start = this.#offset;
    const end = start + bytes;
    if (datatype === undefined || end > this.#payloadBytes) {
      throw malformed(
        `tensor ${JSON.stringify(name)} has ${datatype === undefined ? 'no known datatype' : `${bytes} bytes, which run past the payload of ${this.#payloadBytes}`}`,
      );
    }
    this.#tensors.push(this.#make({ name, datatype, shape }, { start, end }, slots));
    this.#offset = alignedBytes(end);
  }

  finish(): readonly Tensor[] {
    if (this.#offset !== alignedBytes(this.#payloadBytes)) {
      throw malformed(`its tensors take ${this.#offset} of ${this.#payloadBytes} bytes of payload`);
    }
    return this.#tensors;
  }
}

function malformed(what: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `frame is malformed: ${what}`);
}
