/**
 * What runs models on one device. The only port through which the product computes.
 *
 * It carries bytes and ids, never objects of an inference library, so that one contract suite (test/contract/executor.ts)
 * passes for an executor in a worker thread, in its own process, on another inference server, and emulated.
 *
 * Promises:
 * - `run` answers each call exactly once: a result, or an IntarsiaError. Calls may overlap; up to `concurrency` of one
 *   session compute at once, further ones wait in order; whether sessions compute beside each other is the executor's
 *   choice. The caller keeps the number in flight small (its permits).
 * - Input chunks are not written to and not kept after the answer. The bytes of a result belong to the caller.
 * - When the process or thread dies or hangs, everything in flight is rejected with EXECUTOR_LOST, `onLost` listeners are
 *   told, and every later call fails with EXECUTOR_LOST: an executor never comes back, its owner starts a new one.
 * - `close` refuses new work, waits for what is in flight up to `graceMs`, then ends the executor. Nobody ends a busy
 *   worker thread (ONNX Runtime aborts the whole process): a thread that does not come back is left alone and counted.
 */
import type { ArtifactDigest, SessionId } from '#core/ids.js';
import type { IntarsiaError } from '#core/errors.js';
import type { Datatype } from '#core/datatype.js';
import type { Isolation } from '#core/executor-isolation.js';
import type { HeldBytes } from '#core/held-bytes.js';
import type { ExecutionProvider, OptimizationLevel } from '#core/provider.js';
import type { Shape, Tensor, TensorSpec } from '#core/tensor.js';

export interface ExecutorDescription {
  readonly provider: ExecutionProvider;
  readonly isolation: Isolation;
  /** True when time, memory, power or price come from a profile rather than from the silicon. Shown wherever the device is. */
  readonly emulated: boolean;
  /** Name and version of the engine, such as `onnxruntime-node 1.30.0`. */
  readonly engine: string;
  /** Runs of one session that compute at once. */
  readonly concurrency: number;
  /** Process id where the executor is a process of its own, for memory and CPU accounting. */
  readonly pid?: number;
}

export interface SessionOptions {
  /** Threads inside one run. 0 lets the engine choose. */
  readonly intraOpThreads: number;
  readonly optimization: OptimizationLevel;
  /**
   * Beginning of a path: the engine then writes its own profile of every run, in its own format, to a file of that name
   * when the session is unloaded. Absent, or an engine that has none (wasm): nothing is written. Makes runs slower.
   */
  readonly profilePrefix?: string;
  /**
   * Where the engine writes the model as its optimiser left it, when the session is made. Absent, or an engine that has
   * none (wasm): nothing is written.
   */
  readonly optimizedModelPath?: string;
}

export interface LoadRequest {
  readonly session: SessionId;
  /** The artefact: its digest, and where its bytes lie on this machine. A remote executor reads `model` instead. */
  readonly artifact: { readonly digest: ArtifactDigest; readonly path: string };
  /** Name and version as the model is known to servers behind a remote executor. */
  readonly model: { readonly name: string; readonly version: string };
  readonly options: SessionOptions;
  /** What runs of this model cost, for an executor that emulates their time; without it, it estimates from the artefact. */
  readonly estimate?: RunEstimate;
}

/** The work of running a model once. */
export interface RunEstimate {
  /** Floating-point operations per item; a multiplication with its addition counts as two. */
  readonly flopsPerItem: number;
  /** Bytes of weights that every run reads, whatever the batch. */
  readonly weightBytes: number;
  /** Bytes of activations written and read per item. */
  readonly activationBytesPerItem: number;
  /** Operators launched one after the other. */
  readonly operators: number;
}

export interface LoadedSession {
  /** In the model's own order. Unknown sizes are -1. */
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly loadMs: number;
  /** Growth of the executor's memory while it loaded; 0 where it cannot be told. */
  readonly memoryBytes: number;
  /** The level the engine really used; lower than asked for when its optimiser failed. */
  readonly optimization: OptimizationLevel;
  /** What the operator should know, such as an optimisation level that had to be lowered and why. */
  readonly notes: readonly string[];
}

/** One input of a run. The bytes are the concatenation of `chunks`: one chunk an item group, nothing is joined before. */
export interface RunInput {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: Shape;
  readonly chunks: readonly Uint8Array[];
  /** Where the chunks lie, when all of them lie elsewhere: looking at `chunks` brings them here, which may not be needed. */
  readonly held?: readonly HeldBytes[];
}

export interface RunRequest {
  readonly session: SessionId;
  readonly inputs: readonly RunInput[];
  /** Names of the outputs wanted; empty for all, in the model's order. */
  readonly outputs: readonly string[];
  /** Outputs may stay where the executor has put them (held-bytes.ts): whoever asked sends them on. */
  readonly leaveOutputs?: boolean;
}

export interface RunResult {
  readonly outputs: readonly Tensor[];
  /** May be called once nobody reads the outputs any more: their memory is used again. Otherwise it is collected as any other. */
  readonly release?: (() => void) | undefined;
  /** Microseconds spent making the engine's tensors from bytes. */
  readonly computeInputUs: number;
  /** Microseconds inside the engine. */
  readonly computeInferUs: number;
  /** Microseconds turning the engine's tensors into bytes. */
  readonly computeOutputUs: number;
}

/** Live measurements of an executor; absent where the system does not say. */
export interface ExecutorUsage {
  /** Resident bytes of the executor's process. */
  readonly memoryBytes?: number;
  /** Share of one core over the last interval: 1 is one core busy. */
  readonly cpuCores?: number;
}

export interface Executor {
  readonly description: ExecutorDescription;
  /** @throws MODEL_INVALID (not loadable), OUT_OF_MEMORY, EXECUTOR_LOST, EXECUTION_FAILED. */
  load(request: LoadRequest): Promise<LoadedSession>;
  /** @throws EXECUTION_FAILED, EXECUTOR_LOST, NOT_FOUND (no such session), INVALID_ARGUMENT (the engine refuses the input). */
  run(request: RunRequest): Promise<RunResult>;
  /** Frees the session once its runs are over. Unknown sessions are ignored. */
  unload(session: SessionId): Promise<void>;
  usage(): ExecutorUsage;
  /** Called at most once, when the executor is gone without `close`. Added after it is gone: called soon. */
  onLost(listener: (reason: IntarsiaError) => void): void;
  close(options: { readonly graceMs: number }): Promise<void>;
}

/** Starts executors. One factory a kind of device; a start that fails rejects with DEVICE_UNAVAILABLE and the reason. */
export type ExecutorFactory = () => Promise<Executor>;
