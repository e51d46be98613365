/**
 * The two builds of ONNX Runtime, loaded on demand: `onnxruntime-node` for the providers of its native library,
 * `onnxruntime-web` for WebAssembly. Both speak the same JavaScript interface; what differs between them is kept here.
 */
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import type { EngineOptions } from '#core/engine-options.js';
import { intarsiaError } from '#core/errors.js';
import { withReadableHalves } from './half-floats.js';

/** What both builds export. */
export interface OnnxLibrary {
  readonly Tensor: typeof Tensor;
  readonly InferenceSession: typeof InferenceSession;
}

export interface LoadedLibrary {
  readonly library: OnnxLibrary;
  /** Such as `onnxruntime-node 1.30.0`. */
  readonly engine: string;
  /** Options of every session on this provider, but threads and optimisation. */
  readonly sessionOptions: InferenceSession.SessionOptions;
  /** Whether models are handed over as bytes, with their external data, because the build cannot read files. */
  readonly modelsAsBytes: boolean;
}

/**
 * Between two parts of a run its threads wait awake for some microseconds, because to be woken takes longer than that: 7 % of
 * ResNet-50 with two threads. After the run they sleep at once.
 */
const briefSpinning = { intra_op: { allow_spinning: '1', spin_duration_us: '50' }, force_spinning_stop: '1' };

/** Loads the build that has the provider. @throws DEVICE_UNAVAILABLE when the build here does not know it. */
export async function loadLibrary(options: EngineOptions): Promise<LoadedLibrary> {
  return options.provider === 'wasm' ? loadWebLibrary() : loadNativeLibrary(options);
}

async function loadNativeLibrary(options: EngineOptions): Promise<LoadedLibrary> {
  const native = await import('onnxruntime-node');
  const offered = native.listSupportedBackends();
  if (!offered.some((backend) => backend.name === options.provider)) {
    throw intarsiaError(
      'DEVICE_UNAVAILABLE',
      `onnxruntime-node has no execution provider ${options.provider} on ${process.platform} ${process.arch}; it offers ${offered.map((backend) => backend.name).join(', ')}`,
      { provider: options.provider },
    );
  }
  const indexed = options.provider === 'cuda' || options.provider === 'tensorrt' || options.provider === 'dml';
  return {
    library: { InferenceSession: native.InferenceSession, Tensor: withReadableHalves(native.Tensor) },
    engine: `onnxruntime-node ${native.env.versions.node ?? native.env.versions.common}`,
    sessionOptions: {
      executionProviders: [indexed ? { name: options.provider, deviceId: options.deviceIndex } : options.provider],
      executionMode: 'sequential',
      interOpNumThreads: 1,
      enableCpuMemArena: options.arena,
      enableMemPattern: options.arena,
      logSeverityLevel: 3,
      extra: { session: options.spinning ? { intra_op: { allow_spinning: '1' } } : briefSpinning },
    },
    modelsAsBytes: false,
  };
}

async function loadWebLibrary(): Promise<LoadedLibrary> {
  const web = await import('onnxruntime-web');
  // Threads of WebAssembly are further workers that nobody could supervise: one run, one thread.
  web.env.wasm.numThreads = 1;
  return {
    library: web as unknown as OnnxLibrary,
    engine: `onnxruntime-web ${web.env.versions.web ?? web.env.versions.common}`,
    sessionOptions: { executionProviders: ['wasm'], logSeverityLevel: 3 },
    modelsAsBytes: true,
  };
}
