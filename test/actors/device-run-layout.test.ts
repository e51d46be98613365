import { describe, expect, it } from 'vitest';
import { RunLayout } from '#actors/device/run-layout.js';
import { heldBytes, type HeldBytes } from '#core/held-bytes.js';
import { sessionId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { ModelConfig } from '#core/model-config.js';
import type { Batch } from '#core/model-queue.js';
import { decodeBytesElements, encodeBytesElements, heldTensor, type Shape, type Tensor } from '#core/tensor.js';
import type { RunResult } from '#ports/executor.js';
import { int32, modelConfig, numbers } from './device-world.js';

const session = sessionId('s');

function layoutOf(changes: Partial<ModelConfig> = {}, outputs = ['Y']): RunLayout {
  return new RunLayout({
    config: modelConfig('m', changes),
    inputs: [{ name: 'X', datatype: 'INT32', shape: [-1, 1] }],
    outputs: outputs.map((name) => ({ name, datatype: 'INT32', shape: [-1, 1] })),
  });
}

function batchOf(...tensors: Tensor[]): Batch<null> {
  const entries = tensors.map((tensor) => ({
    request: { inputs: [tensor], outputs: [], items: tensor.shape[0] ?? 1 } as unknown as InferenceRequest,
    waiter: null,
    enqueuedMs: 0,
  }));
  const items = entries.reduce((sum, entry) => sum + entry.request.items, 0);
  return { kind: 'batch', entries, items, reason: 'immediate', addedInputs: [] };
}
const x = (...values: number[]): Tensor => ({
  name: 'X',
  datatype: 'INT32',
  shape: [values.length, 1],
  data: int32(...values),
});
const y = (shape: Shape, data: Uint8Array, datatype: Tensor['datatype'] = 'INT32'): RunResult => ({
  outputs: [{ name: 'Y', datatype, shape, data }],
  computeInputUs: 0,
  computeInferUs: 0,
  computeOutputUs: 0,
});
function parts(layout: RunLayout, batch: Batch<null>, result: RunResult): readonly (readonly Tensor[])[] {
  const split = layout.split(batch, result);
  if (!('outputs' in split)) throw split;
  return split.outputs;
}

/** Counts how often it is looked at. */
class PretendHeld implements HeldBytes {
  readonly byteLength: number;
  reads = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.byteLength = bytes.byteLength;
  }

  read(): Uint8Array {
    this.reads += 1;
    return this.#bytes;
  }

  part(offset: number, byteLength: number): HeldBytes {
    return new PretendHeld(this.#bytes.subarray(offset, offset + byteLength));
  }
}

describe('a run of a batch', () => {
  it('takes the bytes of each request as they are, one chunk each', () => {
    const batch = batchOf(x(1, 2), x(3));
    const { inputs, outputs } = layoutOf().request(batch, session);
    expect(inputs[0]).toMatchObject({ name: 'X', shape: [3, 1] });
    expect(inputs[0]!.chunks).toEqual(batch.entries.map((entry) => entry.request.inputs[0]!.data));
    expect(inputs[0]!.chunks[0]).toBe(batch.entries[0]!.request.inputs[0]!.data);
    expect(outputs).toEqual([]);
  });

  it('leaves values where they lie when all of a batch do, and brings them here when one does not', () => {
    const [first, second] = [new PretendHeld(int32(1, 2)), new PretendHeld(int32(3))];
    const there = (held: PretendHeld, items: number) =>
      heldTensor({ name: 'X', datatype: 'INT32', shape: [items, 1] }, held);
    const [left] = layoutOf().request(batchOf(there(first, 2), there(second, 1)), session).inputs;
    expect(left).toMatchObject({ name: 'X', datatype: 'INT32', shape: [3, 1], held: [first, second] });
    expect([first.reads, second.reads]).toEqual([0, 0]);
    expect(left!.chunks).toEqual([int32(1, 2), int32(3)]);
    const [mixed] = layoutOf().request(batchOf(there(first, 2), x(4)), session).inputs;
    expect(mixed!.held).toBeUndefined();
    expect(mixed!.chunks).toEqual([int32(1, 2), int32(4)]);
  });

  it('gives each request its part of values that lie elsewhere without looking at them', () => {
    const held = new PretendHeld(int32(1, 2, 3));
    const outputs = [heldTensor({ name: 'Y', datatype: 'INT32', shape: [3, 1] }, held)];
    const split = parts(layoutOf(), batchOf(x(0, 0), x(0)), { ...y([3, 1], int32()), outputs });
    expect(split.map(([part]) => [part!.shape, part![heldBytes]?.byteLength])).toEqual([
      [[2, 1], 8],
      [[1, 1], 4],
    ]);
    expect(held.reads).toBe(0);
    expect(split.map(([part]) => numbers(part!))).toEqual([[1, 2], [3]]);
  });

  it('has outputs left where they are only when the request says so and the model keeps none of them', () => {
    const leaving = batchOf(x(1));
    Object.assign(leaving.entries[0]!.request, { leaveOutputs: true });
    expect(layoutOf().request(leaving, session).leaveOutputs).toBe(true);
    expect(layoutOf().request(batchOf(x(1)), session).leaveOutputs).toBeUndefined();
    const stateful = layoutOf({
      sequenceBatching: {
        ...{ idleUsMax: 1, controls: [], strategy: { kind: 'direct', minimumSlotUtilization: 0, queueDelayUsMax: 0 } },
        states: [{ inputName: 'S', outputName: 'T', datatype: 'INT32', dims: [1] }],
      },
    });
    expect(stateful.request(leaving, session).leaveOutputs).toBeUndefined();
  });

  it('asks by name only when the model has more outputs than the configuration', () => {
    expect(layoutOf({}, ['Y', 'Z']).request(batchOf(x(1)), session).outputs).toEqual(['Y']);
  });

  it('gives each request views on its rows', () => {
    const data = int32(10, 20, 30);
    const [first, second] = parts(layoutOf(), batchOf(x(1, 2), x(3)), y([3, 1], data));
    expect([first![0]!.shape, numbers(first![0]!)]).toEqual([
      [2, 1],
      [10, 20],
    ]);
    expect([second![0]!.shape, numbers(second![0]!)]).toEqual([[1, 1], [30]]);
    expect(second![0]!.data.buffer).toBe(data.buffer);
  });

  it('cuts texts by counting them', () => {
    const texts = encodeBytesElements(
      ['a', '', 'ccc', 'dd', 'e', 'ffff'].map((text) => new TextEncoder().encode(text)),
    );
    const [first, second] = parts(layoutOf(), batchOf(x(1, 2), x(3)), y([3, 2], texts, 'BYTES'));
    const read = (tensor: Tensor): string[] =>
      decodeBytesElements(tensor.data).map((each) => new TextDecoder().decode(each));
    expect([read(first![0]!), read(second![0]!)]).toEqual([
      ['a', '', 'ccc', 'dd'],
      ['e', 'ffff'],
    ]);
    expect(layoutOf().split(batchOf(x(1, 2), x(3)), y([3, 3], texts, 'BYTES'))).toMatchObject({
      code: 'EXECUTION_FAILED',
    });
  });

  it('fails when the model does not keep the batch dimension, or leaves an output out', () => {
    expect(layoutOf().split(batchOf(x(1), x(2)), y([1, 1], int32(0)))).toMatchObject({
      code: 'EXECUTION_FAILED',
      message: "model 'm' gave output 'Y' with shape [1,1] for a batch of 2 items",
    });
    expect(layoutOf().split(batchOf(x(1)), { ...y([1, 1], int32(0)), outputs: [] })).toMatchObject({
      message: "model 'm' gave no output 'Y'",
    });
  });

  it('reshapes as the configuration says, both ways, sizes that may vary included', () => {
    const layout = layoutOf({
      inputs: [{ name: 'X', datatype: 'INT32', dims: [-1, 2], reshape: [1, 2, -1], format: 'NONE', optional: false }],
      outputs: [{ name: 'Y', datatype: 'INT32', dims: [-1], reshape: [-1, 1, 1], labelFilename: '' }],
    });
    const tensor: Tensor = { name: 'X', datatype: 'INT32', shape: [1, 3, 2], data: new Uint8Array(24) };
    const batch = batchOf(tensor, tensor);
    expect(layout.request(batch, session).inputs[0]!.shape).toEqual([2, 1, 2, 3]);
    const [first] = parts(layout, batch, y([2, 5, 1, 1], new Uint8Array(40)));
    expect(first![0]).toMatchObject({ shape: [1, 5] });
  });

  it('reshapes where the model has no batch dimension', () => {
    const layout = layoutOf({
      maxBatchSize: 0,
      inputs: [{ name: 'X', datatype: 'INT32', dims: [3], reshape: [1, 3], format: 'NONE', optional: false }],
      outputs: [{ name: 'Y', datatype: 'INT32', dims: [2], reshape: [1, 2, 1, 1], labelFilename: '' }],
    });
    const batch = batchOf({ name: 'X', datatype: 'INT32', shape: [3], data: new Uint8Array(12) });
    expect(layout.request(batch, session).inputs[0]!.shape).toEqual([1, 3]);
    expect(parts(layout, batch, y([1, 2, 1, 1], new Uint8Array(8)))[0]![0]).toMatchObject({ shape: [2] });
  });
});

describe('runs without requests', () => {
  const layout = new RunLayout({
    config: modelConfig('m', {
      inputs: [
        { name: 'X', datatype: 'INT32', dims: [7], format: 'NONE', optional: false },
        { name: 'WORDS', datatype: 'BYTES', dims: [-1], format: 'NONE', optional: false },
      ],
    }),
    inputs: [
      { name: 'X', datatype: 'INT32', shape: [-1, -1] },
      { name: 'WORDS', datatype: 'BYTES', shape: [-1, -1] },
      { name: 'STATE', datatype: 'FP32', shape: [2, -1, 4] },
    ],
    outputs: [],
  });

  it('on invented values take sizes from the configuration, else 1', () => {
    expect(layout.trial(session, 0).inputs.map(({ shape, chunks }) => [shape, chunks[0]!.byteLength])).toEqual([
      [[1, 7], 28],
      [[1, 1], 5],
      [[2, 1, 4], 32],
    ]);
    expect(decodeBytesElements(layout.trial(session, 0).inputs[1]!.chunks[0]!)).toEqual([Uint8Array.of(0x30)]);
  });

  it.each([
    ['FP32', (view: DataView) => view.getFloat32(4, true)],
    ['FP64', (view: DataView) => view.getFloat64(8, true)],
    ['FP16', (view: DataView) => (view.getUint16(2, true) === 0x3c00 ? 1 : 0)],
    ['BF16', (view: DataView) => view.getFloat32(0, true) && (view.getUint16(2, true) === 0x3f80 ? 1 : 0)],
    ['INT64', (view: DataView) => Number(view.getBigInt64(8, true))],
    ['UINT16', (view: DataView) => view.getUint16(2, true)],
    ['BOOL', (view: DataView) => view.getUint8(1)],
  ] as const)('are zeros or ones of type %s', (datatype, second) => {
    const spec = { name: 'X', datatype, shape: [2] };
    const all = new RunLayout({ config: modelConfig('m', { maxBatchSize: 0 }), inputs: [spec], outputs: [] });
    for (const value of [0, 1] as const) {
      const data = all.trial(session, value).inputs[0]!.chunks[0]!;
      expect(second(new DataView(data.buffer))).toBe(value);
    }
  });

  it('to warm up fill what is left out with zeros of the same batch', () => {
    const given: Tensor = { name: 'X', datatype: 'INT32', shape: [3, 7], data: new Uint8Array(84).fill(1) };
    const { inputs } = layout.warmup(session, [given]);
    expect(inputs.map((input) => input.shape)).toEqual([
      [3, 7],
      [3, 1],
      [2, 1, 4],
    ]);
    expect(inputs[0]!.chunks).toEqual([given.data]);
  });
});
