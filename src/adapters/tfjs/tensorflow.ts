/**
 * TensorFlow.js with the fastest backend that this machine has: the native addon when the user installed it, else
 * WebAssembly, else plain JavaScript. The API is the same for all three; the first two differ in the last bits.
 */
import { createRequire } from 'node:module';
import { dirname, sep } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';

/** Users install it themselves: it must not be a dependency, because its install script downloads. */
const nativePackage = '@tensorflow/tfjs-node';

export type TensorflowBackend = 'tensorflow' | 'wasm' | 'cpu';
export type Tensorflow = typeof tf;

export interface LoadedTensorflow {
  readonly tf: Tensorflow;
  readonly backend: TensorflowBackend;
  /** Why a faster backend was passed over; empty when the fastest is used. */
  readonly notes: readonly string[];
}

/** Loads TensorFlow.js once it is needed. Without `backend` it takes the fastest. @throws what the wanted backend says. */
export async function loadTensorflow(backend?: TensorflowBackend): Promise<LoadedTensorflow> {
  const notes: string[] = [];
  const wanted: readonly TensorflowBackend[] = backend === undefined ? ['tensorflow', 'wasm', 'cpu'] : [backend];
  for (const candidate of wanted) {
    try {
      await useBackend(candidate);
      return { tf, backend: candidate, notes };
    } catch (error) {
      notes.push(`${candidate}: ${error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)}`);
    }
  }
  throw new Error(`TensorFlow.js has no backend here: ${notes.join('; ')}`);
}

async function useBackend(backend: TensorflowBackend): Promise<void> {
  const require = createRequire(import.meta.url);
  if (backend === 'tensorflow') require(nativePackage);
  if (backend === 'wasm')
    setWasmPaths(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm')) + sep);
  if (!(await tf.setBackend(backend))) throw new Error('the backend could not be started');
  await tf.ready();
}
