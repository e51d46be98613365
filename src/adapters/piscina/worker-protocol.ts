/**
 * What is posted to a worker thread of an executor, and what comes back. Errors travel as data: a typed error does not
 * survive a thread.
 */
import type { EngineOptions } from '#core/engine-options.js';
import type { ErrorData } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import type { LoadedSession, LoadRequest, RunResult } from '#ports/executor.js';

/** Given to a thread when it starts. */
export interface WorkerSetup {
  readonly engine: EngineOptions;
}

export type WorkerTask =
  /** Load the engine and tell its name. */
  | { readonly type: 'describe' }
  | { readonly type: 'load'; readonly request: LoadRequest }
  /** A whole run frame of its own buffer, which is transferred. */
  | { readonly type: 'run'; readonly frame: Uint8Array<ArrayBuffer> }
  | { readonly type: 'unload'; readonly session: SessionId }
  /** Free every session: the thread is about to end. */
  | { readonly type: 'dispose' }
  /** Serve frames on a socket until it ends. */
  | { readonly type: 'serve'; readonly fd: number; readonly frameBytesMax: number; readonly sharedFd?: number };

export type WorkerAnswer<Value> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly error: ErrorData };

/** Answer of each task by its type. */
export interface WorkerValues {
  readonly describe: { readonly engine: string };
  readonly load: LoadedSession;
  /** The buffers of the outputs are transferred. */
  readonly run: RunResult;
  readonly unload: null;
  readonly dispose: null;
  readonly serve: null;
}
