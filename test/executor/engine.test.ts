import type { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { Engine } from '#adapters/onnx/engine.js';
import { loadFailure, runFailure } from '#adapters/onnx/failures.js';
import type { OnnxLibrary } from '#adapters/onnx/library.js';
import { loadRequest } from '#test/contract/executor.js';

/** A library whose optimiser fails above some level, as ONNX Runtime's does on some pieces of models. */
function brittle(worksAt: readonly string[]): { library: OnnxLibrary; tried: string[]; released: string[] } {
  const tried: string[] = [];
  const released: string[] = [];
  const create = (_: string, options: InferenceSession.SessionOptions): Promise<InferenceSession> => {
    const level = options.graphOptimizationLevel ?? 'all';
    tried.push(level);
    if (!worksAt.includes(level)) return Promise.reject(new Error(`optimiser fell over at ${level}`));
    return Promise.resolve({
      inputMetadata: [{ name: 'x', isTensor: true, type: 'float32', shape: ['n', 3, ''] }],
      outputMetadata: [],
      release: () => {
        released.push(level);
        return Promise.resolve();
      },
    } as unknown as InferenceSession);
  };
  return { library: { InferenceSession: { create } } as unknown as OnnxLibrary, tried, released };
}
const engineOf = (library: OnnxLibrary): Engine =>
  new Engine({ library, engine: 'brittle 1', sessionOptions: {}, modelsAsBytes: false });

describe('engine', () => {
  it('uses the highest optimisation level that works and says so', async () => {
    const { library, tried, released } = brittle(['basic', 'disabled']);
    const loaded = await engineOf(library).load(loadRequest('piece', 'piece.onnx'));
    expect(loaded.optimization).toBe('basic');
    expect(loaded.notes).toEqual([
      'optimisation level all failed, basic is used: model piece version 1 cannot be loaded: optimiser fell over at all',
    ]);
    expect(tried).toEqual(['all', 'disabled', 'extended', 'basic']);
    expect(released).toEqual(['disabled']);
    expect(loaded.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: [-1, 3, -1] }]);
  });

  it('tells the first failure when no level works', async () => {
    const { library, tried } = brittle([]);
    await expect(engineOf(library).load(loadRequest('piece', 'piece.onnx'))).rejects.toMatchObject({
      code: 'MODEL_INVALID',
      message: expect.stringContaining('fell over at all') as string,
    });
    expect(tried).toEqual(['all', 'disabled']);
  });

  it('understands what ONNX Runtime’s messages mean', () => {
    expect(loadFailure(new Error('std::bad_alloc'), 'model m').code).toBe('OUT_OF_MEMORY');
    expect(loadFailure(new Error('Protobuf parsing failed.'), 'model m').code).toBe('MODEL_INVALID');
    expect(
      loadFailure(new Error('Failed to load library libonnxruntime_providers_cuda.so with error'), 'model m').code,
    ).toBe('DEVICE_UNAVAILABLE');
    expect(runFailure(new Error('Got invalid dimensions for input: x')).code).toBe('INVALID_ARGUMENT');
    expect(runFailure(new Error('Non-zero status code returned while running Reshape node')).code).toBe(
      'EXECUTION_FAILED',
    );
  });
});
