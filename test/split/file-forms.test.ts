/** Forms that ONNX files have and builders of this project do not write: functions, sparse weights, every version of the format. */
import { describe, expect, it } from 'vitest';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeShard } from '#core/split/shard-writer.js';
import type { Tensor } from '#core/tensor.js';
import type { WireWriter } from '#core/wire.js';
import { modelBytes, node, tensor, tensorType, value, type Write } from '../core/onnx-bytes.js';
import { join, loadBytes, loadPlan, prepare } from './direct-shards.js';

const float = 1;
const int64 = 7;
const domain = 'made.here';
const x: Tensor = { name: 'x', datatype: 'FP32', shape: [3], data: bytesOf(Float32Array.of(1, -2, 3)) };

function bytesOf(values: Float32Array | BigInt64Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(values.slice().buffer);
}

const raw =
  (values: Float32Array | BigInt64Array): Write =>
  (writer) =>
    writer.bytes(9, bytesOf(values));

const opset =
  (name: string, version: number): Write =>
  (writer) =>
    writer.string(1, name).uint(2, version);

/** A function of one input `v` and one output `w`. */
function localFunction(name: string, nodes: readonly Write[]): Write {
  return (writer) => {
    writer.string(1, name).string(4, 'v').string(5, 'w');
    for (const each of nodes) writer.message(7, each);
    writer.message(9, opset('', 17)).message(9, opset(domain, 1)).string(10, domain);
  };
}

const inDomain = (writer: WireWriter): void => void writer.string(7, domain);

/** Every cut in two answers bit by bit what the whole does. */
async function expectCutsEqual(bytes: Uint8Array): Promise<readonly string[]> {
  const { cutter, types } = await prepare(bytes);
  const whole = await loadBytes(bytes);
  const expected = await whole.run([x]);
  await whole.release();
  const found: string[] = [];
  for (let at = 1; at < cutter.graph.nodes.length; at += 1) {
    const plan = cutter.cut([at]);
    const shards = await loadPlan(plan, types);
    expect(await shards.run([x])).toEqual(expected);
    await shards.release();
    found.push(plan.shards.map(({ nodes }) => nodes.length).join('+'));
  }
  return found;
}

describe('files of other makers', () => {
  it('functions of a model, also those that functions call, go with the shards that call them', async () => {
    const bytes = modelBytes({
      nodes: [
        node('Twice', ['x'], ['a'], inDomain),
        node('Neg', ['a'], ['b']),
        node('Fourfold', ['b'], ['y'], inDomain),
      ],
      inputs: [value('x', tensorType(float, [3]))],
      outputs: [value('y', tensorType(float, [3]))],
      modelRest: (writer) => {
        writer.message(8, opset(domain, 1));
        writer.message(25, localFunction('Twice', [node('Add', ['v', 'v'], ['w'])]));
        writer.message(
          25,
          localFunction('Fourfold', [node('Twice', ['v'], ['t'], inDomain), node('Twice', ['t'], ['w'], inDomain)]),
        );
      },
    });
    expect(await expectCutsEqual(bytes)).toEqual(['1+2', '2+1']);
    const { cutter, types } = await prepare(bytes);
    const plan = cutter.cut([1]);
    const kept = plan.shards.map((shard) => readModel(join(encodeShard(plan, shard, types).parts)).functions);
    expect(kept.map((functions) => functions.map(({ name }) => name))).toEqual([['Twice'], ['Twice', 'Fourfold']]);
  });

  it('sparse weights go with the shard that uses them', async () => {
    const bytes = modelBytes({
      nodes: [node('Relu', ['x'], ['a']), node('Add', ['a', 's'], ['b']), node('Neg', ['b'], ['y'])],
      inputs: [value('x', tensorType(float, [3]))],
      outputs: [value('y', tensorType(float, [3]))],
      rest: (writer) => {
        writer.message(15, (sparse) => {
          sparse.message(1, tensor('s', float, [1], raw(Float32Array.of(5))));
          sparse.message(2, tensor('', int64, [1], raw(BigInt64Array.of(2n))));
          sparse.int64(3, 3);
        });
      },
    });
    expect(await expectCutsEqual(bytes)).toEqual(['1+2', '2+1']);
  });

  it('every version of the format from 3 to 14 is read and cut, with weights among the inputs where it is 3; others are refused', async () => {
    const ofVersion = (irVersion: number): Uint8Array =>
      modelBytes({
        irVersion,
        nodes: [node('Add', ['x', 'w'], ['a']), node('Mul', ['a', 'w'], ['y'])],
        initializers: [tensor('w', float, [3], raw(Float32Array.of(2, 3, 4)))],
        inputs: [value('x', tensorType(float, [3])), ...(irVersion < 4 ? [value('w', tensorType(float, [3]))] : [])],
        outputs: [value('y', tensorType(float, [3]))],
      });
    for (let version = 3; version <= 14; version += 1) {
      const bytes = ofVersion(version);
      expect(readModel(bytes).irVersion).toBe(version);
      // What the engine does not know yet it does not load, whole or cut.
      const isKnown = await loadBytes(bytes).then(
        async (session) => {
          await session.release();
          return true;
        },
        () => false,
      );
      expect(isKnown || version > 10).toBe(true);
      if (isKnown) expect(await expectCutsEqual(bytes)).toEqual(['1+1']);
    }
    for (const version of [2, 15]) expect(() => readModel(ofVersion(version))).toThrow(/3 to 14/);
  });
});
