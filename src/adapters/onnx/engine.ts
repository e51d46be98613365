/**
 * ONNX Runtime behind a small interface: sessions by id, tensors as raw bytes. Runs inside a worker thread, because
 * creating a session and running it block the thread that asks.
 *
 * Calls are made one after the other by the thread's owner: nothing here waits, queues or measures load. What would take
 * the process down is refused before it can: 4-bit outputs make ONNX Runtime's binding abort Node at the first run.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { EngineOptions } from '#core/engine-options.js';
import { intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import { readModelFacts } from '#core/onnx/model-facts.js';
import { optimizationLevels, type OptimizationLevel } from '#core/provider.js';
import type { Tensor, TensorSpec } from '#core/tensor.js';
import type { LoadedSession, LoadRequest, RunResult } from '#ports/executor.js';
import { loadFailure, runFailure } from './failures.js';
import { loadLibrary, type LoadedLibrary } from './library.js';
import { datatypeOfOrt, fromOrtTensor, toOrtTensor } from './tensors.js';

/** A run whose inputs are joined already. */
export interface EngineRun {
  readonly session: SessionId;
  readonly inputs: readonly Tensor[];
  /** Names wanted; empty for all, in the model's order. */
  readonly outputs: readonly string[];
}

interface Session {
  readonly ort: InferenceSession;
  readonly inputs: ReadonlyMap<string, TensorSpec>;
  readonly outputNames: readonly string[];
  readonly isProfiled: boolean;
}

/** Loads the provider's build of ONNX Runtime. @throws DEVICE_UNAVAILABLE when it has no such provider. */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  return new Engine(await loadLibrary(options));
}

export class Engine {
  /** Name and version, such as `onnxruntime-node 1.30.0`. */
  readonly name: string;
  readonly #loaded: LoadedLibrary;
  readonly #sessions = new Map<SessionId, Session>();

  constructor(loaded: LoadedLibrary) {
    this.name = loaded.engine;
    this.#loaded = loaded;
  }

  /** @throws MODEL_INVALID, OUT_OF_MEMORY, DEVICE_UNAVAILABLE (the provider does not work here), ALREADY_EXISTS. */
  async load(request: LoadRequest): Promise<LoadedSession> {
    const what = `model ${request.model.name} version ${request.model.version}`;
    if (this.#sessions.has(request.session)) {
      throw intarsiaError('ALREADY_EXISTS', `session ${request.session} is loaded already`);
    }
    const startedMs = performance.now();
    const rssBefore = process.memoryUsage.rss();
    const created = await this.#createLowering(request, what);
    try {
      const inputs = created.ort.inputMetadata.map((metadata) => specOf(metadata, `${what}: input`));
      const outputs = created.ort.outputMetadata.map((metadata) => specOf(metadata, `${what}: output`));
      this.#sessions.set(request.session, {
        ort: created.ort,
        inputs: new Map(inputs.map((spec) => [spec.name, spec])),
        outputNames: outputs.map((spec) => spec.name),
        isProfiled: request.options.profilePrefix !== undefined && !this.#loaded.modelsAsBytes,
      });
      return {
        inputs,
        outputs,
        loadMs: performance.now() - startedMs,
        memoryBytes: Math.max(0, process.memoryUsage.rss() - rssBefore),
        optimization: created.optimization,
        notes: created.notes,
      };
    } catch (error) {
      await created.ort.release();
      throw error;
    }
  }

  /** @throws NOT_FOUND, INVALID_ARGUMENT, OUT_OF_MEMORY, EXECUTION_FAILED. */
  async run(request: EngineRun): Promise<RunResult> {
    const session = this.#sessions.get(request.session);
    if (session === undefined) throw intarsiaError('NOT_FOUND', `session ${request.session} is not loaded`);
    const startedMs = performance.now();
    const feeds: Record<string, OrtTensor> = {};
    for (const input of request.inputs) {
      checkInput(session, input);
      feeds[input.name] = toOrtTensor(this.#loaded.library, input);
    }
    for (const name of session.inputs.keys()) {
      if (feeds[name] === undefined) throw intarsiaError('INVALID_ARGUMENT', `input ${name} is missing`);
    }
    const names = request.outputs.length === 0 ? session.outputNames : request.outputs;
    for (const name of request.outputs) {
      if (!session.outputNames.includes(name))
        throw intarsiaError('INVALID_ARGUMENT', `the model has no output ${name}`);
    }
    const preparedMs = performance.now();
    let results: InferenceSession.OnnxValueMapType;
    try {
      results =
        request.outputs.length === 0
          ? await session.ort.run(feeds)
          : await session.ort.run(feeds, request.outputs as string[]);
    } catch (error) {
      throw runFailure(error);
    }
    const computedMs = performance.now();
    const outputs = names.map((name) => fromOrtTensor(name, results[name] as OrtTensor));
    return {
      outputs,
      computeInputUs: (preparedMs - startedMs) * 1000,
      computeInferUs: (computedMs - preparedMs) * 1000,
      computeOutputUs: (performance.now() - computedMs) * 1000,
    };
  }

  /** Frees a session. Unknown ones are ignored. */
  async unload(id: SessionId): Promise<void> {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.#sessions.delete(id);
    if (session.isProfiled) session.ort.endProfiling();
    await session.ort.release();
  }

  /** Frees every session: the thread is about to end. */
  async dispose(): Promise<void> {
    for (const id of [...this.#sessions.keys()]) await this.unload(id);
  }

  /** Creates a session; when the optimiser fails on a model that loads without it, uses the highest level that works. */
  async #createLowering(
    request: LoadRequest,
    what: string,
  ): Promise<{
    readonly ort: InferenceSession;
    readonly optimization: OptimizationLevel;
    readonly notes: readonly string[];
  }> {
    const wanted = request.options.optimization;
    let failure: IntarsiaError;
    try {
      return { ort: await this.#create(request, wanted), optimization: wanted, notes: [] };
    } catch (error) {
      failure = loadFailure(error, what);
      if (wanted === 'disabled' || failure.code !== 'MODEL_INVALID') throw failure;
    }
    let plain: InferenceSession;
    try {
      plain = await this.#create(request, 'disabled');
    } catch {
      throw failure;
    }
    const note = (level: OptimizationLevel): string =>
      `optimisation level ${wanted} failed, ${level} is used: ${failure.message}`;
    for (const level of optimizationLevels.slice(1, optimizationLevels.indexOf(wanted)).reverse()) {
      try {
        const better = await this.#create(request, level);
        await plain.release();
        return { ort: better, optimization: level, notes: [note(level)] };
      } catch {
        // The next lower level; `plain` is there already as the last.
      }
    }
    return { ort: plain, optimization: 'disabled', notes: [note('disabled')] };
  }

  async #create(request: LoadRequest, optimization: OptimizationLevel): Promise<InferenceSession> {
    const { library, sessionOptions, modelsAsBytes } = this.#loaded;
    const options: InferenceSession.SessionOptions = {
      ...sessionOptions,
      graphOptimizationLevel: optimization,
      ...(request.options.intraOpThreads > 0 && !modelsAsBytes
        ? { intraOpNumThreads: request.options.intraOpThreads }
        : {}),
      ...(request.options.profilePrefix !== undefined && !modelsAsBytes
        ? { enableProfiling: true, profileFilePrefix: request.options.profilePrefix }
        : {}),
      ...(request.options.optimizedModelPath !== undefined && !modelsAsBytes
        ? { optimizedModelFilePath: request.options.optimizedModelPath }
        : {}),
    };
    if (!modelsAsBytes) return library.InferenceSession.create(request.artifact.path, options);
    const bytes = await readModelFile(request.artifact.path);
    const externalData = [];
    for (const path of new Set(readModelFacts(bytes).externalTensors.map((tensor) => tensor.location))) {
      externalData.push({ path, data: await readModelFile(join(dirname(request.artifact.path), path)) });
    }
    return library.InferenceSession.create(bytes, externalData.length > 0 ? { ...options, externalData } : options);
  }
}

async function readModelFile(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw intarsiaError('MODEL_INVALID', `file of the model cannot be read: ${messageOf(error)}`, {}, error);
  }
}

function specOf(metadata: InferenceSession.ValueMetadata, what: string): TensorSpec {
  if (!metadata.isTensor) {
    throw intarsiaError(
      'MODEL_INVALID',
      `${what} ${metadata.name} is not a tensor: sequences, maps and optionals cannot be served`,
    );
  }
  const datatype = datatypeOfOrt(metadata.type);
  if (datatype === undefined) {
    throw intarsiaError('MODEL_INVALID', `${what} ${metadata.name} has type ${metadata.type}, which cannot be served`);
  }
  return {
    name: metadata.name,
    datatype,
    shape: metadata.shape.map((size) => (typeof size === 'number' && size >= 0 ? size : -1)),
  };
}

/** Shapes are left to ONNX Runtime: what a model declares may be less than what it takes. */
function checkInput(session: Session, input: Tensor): void {
  const spec = session.inputs.get(input.name);
  if (spec === undefined) throw intarsiaError('INVALID_ARGUMENT', `the model has no input ${input.name}`);
  if (spec.datatype !== input.datatype) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `input ${input.name} has type ${input.datatype}; the model takes ${spec.datatype}`,
    );
  }
}
