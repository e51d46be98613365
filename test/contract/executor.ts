/**
 * What every executor promises (src/ports/executor.ts), as one suite: in a thread, in a process, emulated, on another
 * server. Whoever calls it says how to start one and what does not apply.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ArtifactDigest, SessionId } from '#core/ids.js';
import { datatypeBytes, type Datatype } from '#core/datatype.js';
import { encodeBytesElements, type Shape, type Tensor } from '#core/tensor.js';
import type { Executor, LoadedSession, LoadRequest, RunInput } from '#ports/executor.js';
import type { OptimizationLevel } from '#core/provider.js';
import { identityDatatypes, writeExecutorModels } from './executor-models.js';

export interface ExecutorSubject {
  readonly executor: Executor;
  /** Makes a model known where the executor looks for it; not needed where it reads the path. */
  readonly publish?: (name: string, path: string) => Promise<void>;
  /** Frees what the subject needs beside the executor. */
  readonly stop?: () => Promise<void>;
}

export interface ContractOptions {
  readonly isolation: Executor['description']['isolation'];
  readonly emulated?: boolean;
  /** Whether it loads the artefact itself, so that broken ones are its business. Default true. */
  readonly loadsArtifacts?: boolean;
  /** Datatypes its engine cannot carry. */
  readonly without?: readonly Datatype[];
  /** Largest tensor to send, bytes. Default 9 MiB. */
  readonly bytesMax?: number;
}

export const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
export const floatsOf = (tensor: Tensor | undefined): number[] => {
  if (tensor === undefined) throw new Error('no such output');
  return [...new Float32Array(tensor.data.slice().buffer)];
};

export const input = (name: string, datatype: Datatype, shape: Shape, ...chunks: Uint8Array[]): RunInput => ({
  name,
  datatype,
  shape,
  chunks,
});

export function loadRequest(name: string, path: string, optimization: OptimizationLevel = 'all'): LoadRequest {
  return {
    session: name as SessionId,
    artifact: { digest: '0'.repeat(64) as ArtifactDigest, path },
    model: { name, version: '1' },
    options: { intraOpThreads: 1, optimization },
  };
}

export function describeExecutor(title: string, start: () => Promise<ExecutorSubject>, options: ContractOptions): void {
  const { isolation, emulated = false, loadsArtifacts = true, without = [], bytesMax = 9 * 1024 * 1024 } = options;

  describe(`executor contract: ${title}`, () => {
    let folder = '';
    let pathOf: (name: string) => string = () => '';
    let subject: ExecutorSubject;
    let executor: Executor;
    const loaded = new Map<string, LoadedSession>();

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'intarsia-executor-'));
      pathOf = writeExecutorModels(folder);
      subject = await start();
      executor = subject.executor;
    });
    afterAll(async () => {
      await executor.close({ graceMs: 20_000 });
      await subject.stop?.();
      rmSync(folder, { recursive: true, force: true });
    });

    async function load(name: string): Promise<LoadedSession> {
      const present = loaded.get(name);
      if (present !== undefined) return present;
      await subject.publish?.(name, pathOf(name));
      const session = await executor.load(loadRequest(name, pathOf(name)));
      loaded.set(name, session);
      return session;
    }
    const run = (session: string, inputs: readonly RunInput[], outputs: readonly string[] = []) =>
      executor.run({ session: session as SessionId, inputs, outputs });

    it('describes itself truthfully', () => {
      const { description } = executor;
      expect(description.isolation).toBe(isolation);
      expect(description.emulated).toBe(emulated);
      expect(description.engine).not.toBe('');
      expect(description.concurrency).toBeGreaterThanOrEqual(1);
      expect(typeof description.pid).toBe(isolation === 'process' ? 'number' : 'undefined');
    });

    it('loads a model and tells its inputs and outputs in the model’s order, unknown sizes as -1', async () => {
      const affine = await load('affine');
      expect(affine.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: [-1, 4] }]);
      expect(affine.outputs).toEqual([{ name: 'y', datatype: 'FP32', shape: [-1, 4] }]);
      expect(affine.loadMs).toBeGreaterThan(0);
      expect(affine.notes).toEqual([]);
      const split = await load('split');
      expect(split.inputs.map((spec) => spec.name)).toEqual(['a', 'b']);
      expect(split.outputs.map((spec) => spec.name)).toEqual(['sum', 'difference']);
    });

    it('joins the chunks of an input and says how long each part took', async () => {
      await load('affine');
      const result = await run('affine', [
        input('x', 'FP32', [3, 4], floats(0, 1, 2, 3), floats(4, 5, 6, 7), floats(8, 9, 10, 11)),
      ]);
      expect(result.outputs).toHaveLength(1);
      expect(result.outputs[0]).toMatchObject({ name: 'y', datatype: 'FP32', shape: [3, 4] });
      expect(floatsOf(result.outputs[0])).toEqual([1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
      expect(result.computeInferUs).toBeGreaterThan(0);
      expect(result.computeInputUs).toBeGreaterThanOrEqual(0);
      expect(result.computeOutputUs).toBeGreaterThanOrEqual(0);
    });

    it('answers overlapping runs each with its own result, those of one session in order', async () => {
      await load('affine');
      await load('split');
      const order: number[] = [];
      const runs = Array.from({ length: 40 }, async (_, index) => {
        if (index % 4 === 3) {
          const { outputs } = await run('split', [
            input('a', 'FP32', [1], floats(index)),
            input('b', 'FP32', [1], floats(1)),
          ]);
          expect(outputs.map((output) => floatsOf(output))).toEqual([[index + 1], [index - 1]]);
        } else {
          const { outputs } = await run('affine', [input('x', 'FP32', [1, 4], floats(index, 0, 0, index))]);
          order.push(index);
          expect(floatsOf(outputs[0])).toEqual([2 * index + 1, 1, 1, 2 * index + 1]);
        }
      });
      await Promise.all(runs);
      expect(order).toEqual([...order].sort((left, right) => left - right));
    });

    it('gives only the outputs that are asked for, in the order asked for', async () => {
      await load('split');
      const inputs = [input('a', 'FP32', [2], floats(5, 6)), input('b', 'FP32', [2], floats(1, 2))];
      const one = await run('split', inputs, ['difference']);
      expect(one.outputs.map((output) => [output.name, floatsOf(output)])).toEqual([['difference', [4, 4]]]);
      const two = await run('split', inputs, ['difference', 'sum']);
      expect(two.outputs.map((output) => output.name)).toEqual(['difference', 'sum']);
    });

    it('carries every datatype bit for bit, from bytes at any address', async () => {
      for (const datatype of identityDatatypes) {
        if (datatype === 'BYTES' || without.includes(datatype)) continue;
        const session = `identity-${datatype}`;
        const specs = await load(session);
        expect(specs.inputs[0]?.datatype).toBe(datatype);
        const elements = 33;
        const length = elements * datatypeBytes(datatype);
        for (let shift = 0; shift < 3; shift += 1) {
          const memory = new Uint8Array(length + shift);
          for (let index = 0; index < memory.length; index += 1) {
            memory[index] = datatype === 'BOOL' ? index % 2 : (index * 37) & 0x7b;
          }
          const view = memory.subarray(shift);
          const { outputs } = await run(session, [input('x', datatype, [elements], view)]);
          expect(outputs[0]).toMatchObject({ name: 'y', datatype, shape: [elements] });
          expect(Buffer.from(outputs[0]!.data).equals(view), `${datatype} shifted by ${shift}`).toBe(true);
        }
      }
    });

    it('carries strings of UTF-8', async () => {
      await load('identity-BYTES');
      const encoder = new TextEncoder();
      const texts = ['', 'plain', 'Straße', '模型', '🧩'];
      const data = encodeBytesElements(texts.map((text) => encoder.encode(text)));
      const { outputs } = await run('identity-BYTES', [input('x', 'BYTES', [texts.length], data)]);
      expect(outputs[0]).toMatchObject({ datatype: 'BYTES', shape: [texts.length] });
      expect(Buffer.from(outputs[0]!.data).equals(data)).toBe(true);
    });

    it('refuses strings that the engine would change: not UTF-8, with U+0000, or not as many as the shape says', async () => {
      await load('identity-BYTES');
      const bad = encodeBytesElements([Uint8Array.of(0xff, 0xfe)]);
      await expect(run('identity-BYTES', [input('x', 'BYTES', [1], bad)])).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
      const zero = encodeBytesElements([Uint8Array.of(0x61, 0, 0x62)]);
      await expect(run('identity-BYTES', [input('x', 'BYTES', [1], zero)])).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
      const one = encodeBytesElements([Uint8Array.of(0x61)]);
      await expect(run('identity-BYTES', [input('x', 'BYTES', [2], one)])).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
      });
    });

    it('carries tensors without elements', async () => {
      await load('join');
      const { outputs } = await run('join', [
        input('x', 'FP32', [0, 2]),
        input('y', 'FP32', [2, 2], floats(1, 2, 3, 4)),
      ]);
      expect(outputs[0]).toMatchObject({ shape: [2, 2] });
      expect(floatsOf(outputs[0])).toEqual([1, 2, 3, 4]);
      const empty = await run('join', [input('x', 'FP32', [0, 2], new Uint8Array(0)), input('y', 'FP32', [0, 2])]);
      expect(empty.outputs[0]).toMatchObject({ shape: [0, 2] });
      expect(empty.outputs[0]!.data.byteLength).toBe(0);
    });

    it('passes NaN and infinities through', async () => {
      await load('affine');
      const { outputs } = await run('affine', [input('x', 'FP32', [1, 4], floats(Number.NaN, Infinity, -Infinity, 0))]);
      expect(floatsOf(outputs[0])).toEqual([Number.NaN, Infinity, -Infinity, 1]);
    });

    it('carries large tensors whole, several at once', async () => {
      await load('identity-FP32');
      const sizes = [1, 16 * 1024, 64 * 1024, 600_000, 4 * 1024 * 1024, 9 * 1024 * 1024]
        .map((bytes) => Math.max(4, bytes - (bytes % 4)))
        .filter((bytes) => bytes <= bytesMax);
      const one = async (bytes: number, seed: number): Promise<void> => {
        const data = new Uint8Array(bytes);
        // Finite numbers, different everywhere: the high byte stays clear of NaN.
        for (let index = 0; index < bytes; index += 1) data[index] = (index * 31 + (index >> 8) + seed) & 0x3f;
        const half = (bytes >> 3) << 2;
        const { outputs } = await run('identity-FP32', [
          input('x', 'FP32', [bytes / 4], data.subarray(0, half), data.subarray(half)),
        ]);
        expect(Buffer.from(outputs[0]!.data).equals(data), `${bytes} bytes`).toBe(true);
      };
      for (const bytes of sizes) await one(bytes, bytes);
      await Promise.all(Array.from({ length: 12 }, (_, index) => one(600_000 + index * 4, index)));
    });

    it('leaves inputs as they are and gives results that belong to the caller', async () => {
      await load('identity-FP32');
      const data = new Uint8Array(new Float32Array(50_000).fill(1.5).buffer);
      const first = await run('identity-FP32', [input('x', 'FP32', [50_000], data)]);
      expect(data.every((byte, index) => byte === [0, 0, 0xc0, 0x3f][index % 4])).toBe(true);
      first.outputs[0]!.data.fill(7);
      for (let round = 0; round < 5; round += 1) {
        const again = await run('identity-FP32', [input('x', 'FP32', [50_000], data)]);
        expect(again.outputs[0]!.data.subarray(0, 4)).toEqual(data.subarray(0, 4));
      }
      expect(first.outputs[0]!.data.every((byte) => byte === 7)).toBe(true);
    });

    it('refuses wrong inputs with the name of what is wrong, and goes on', async () => {
      await load('affine');
      await load('split');
      const invalid = (inputs: readonly RunInput[], outputs: readonly string[] = [], session = 'affine') =>
        expect(run(session, inputs, outputs)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      await invalid([input('nobody', 'FP32', [1, 4], floats(1, 2, 3, 4))]);
      await invalid([]);
      await invalid([input('x', 'FP64', [1, 2], floats(1, 2, 3, 4))]);
      await invalid([input('x', 'FP32', [2, 4], floats(1, 2, 3, 4))]);
      await invalid([input('x', 'FP32', [1, 3], floats(1, 2, 3))]);
      await invalid([input('x', 'FP32', [4], floats(1, 2, 3, 4))]);
      await invalid([input('x', 'FP32', [1, 4], floats(1, 2, 3, 4))], ['nothing']);
      await invalid([input('a', 'FP32', [1], floats(1))], [], 'split');
      const { outputs } = await run('affine', [input('x', 'FP32', [1, 4], floats(1, 2, 3, 4))]);
      expect(floatsOf(outputs[0])).toEqual([3, 5, 7, 9]);
    });

    it('knows no session before it is loaded nor after it is unloaded', async () => {
      await load('affine');
      await expect(run('never', [])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await executor.unload('never' as SessionId);
      await load('join');
      await executor.unload('join' as SessionId);
      loaded.delete('join');
      await expect(run('join', [])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      await load('join');
    });

    it('refuses to load a session twice', async () => {
      await load('affine');
      await expect(executor.load(loadRequest('affine', pathOf('affine')))).rejects.toMatchObject({
        code: 'ALREADY_EXISTS',
      });
    });

    if (loadsArtifacts) {
      it('refuses models that cannot be served, says why, and goes on', async () => {
        const refused = (name: string) => expect(executor.load(loadRequest(name, pathOf(name)))).rejects;
        await refused('corrupt').toMatchObject({ code: 'MODEL_INVALID' });
        await refused('missing').toMatchObject({ code: 'MODEL_INVALID' });
        await refused('unknown-operator').toMatchObject({
          code: 'MODEL_INVALID',
          message: expect.stringContaining('Frobnicate') as string,
        });
        await refused('int4').toMatchObject({ code: 'MODEL_INVALID' });
        await load('affine');
        expect((await run('affine', [input('x', 'FP32', [1, 4], floats(1, 1, 1, 1))])).outputs).toHaveLength(1);
      });

      it('loads weights from the file next to the model', async () => {
        await load('external');
        const { outputs } = await run('external', [input('x', 'FP32', [1, 4], floats(1, 2, 3, 4))]);
        expect(floatsOf(outputs[0])).toEqual([3, 5, 7, 9]);
      });

      it('uses the optimisation level that is asked for', async () => {
        const request = { ...loadRequest('mlp', pathOf('mlp'), 'disabled'), session: 'plain' as SessionId };
        expect((await executor.load(request)).optimization).toBe('disabled');
        await executor.unload(request.session);
      });
    }

    it('finishes what is in flight when it is closed, and takes nothing after', async () => {
      const other = await start();
      await other.publish?.('slow', pathOf('slow'));
      let lost = false;
      other.executor.onLost(() => (lost = true));
      await other.executor.load(loadRequest('slow', pathOf('slow')));
      const data = new Uint8Array(new Float32Array(512 * 512).fill(1).buffer);
      const request = { session: 'slow' as SessionId, inputs: [input('x', 'FP32', [1, 512, 512], data)], outputs: [] };
      const running = [other.executor.run(request), other.executor.run(request)];
      const closing = other.executor.close({ graceMs: 25_000 });
      await expect(other.executor.run(request)).rejects.toMatchObject({ code: 'DEVICE_UNAVAILABLE' });
      for (const { outputs } of await Promise.all(running)) expect(floatsOf(outputs[0])[0]).toBeCloseTo(1, 3);
      await closing;
      await other.executor.close({ graceMs: 0 });
      await expect(other.executor.load(loadRequest('slow', pathOf('slow')))).rejects.toMatchObject({
        code: 'DEVICE_UNAVAILABLE',
      });
      expect(lost).toBe(false);
      await other.stop?.();
    });
  });
}
