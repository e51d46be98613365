/** Settings of an inference engine that belong to a device rather than to a model. Plain data: they cross into processes. */
import type { ExecutionProvider } from './provider.js';

export interface EngineOptions {
  readonly provider: ExecutionProvider;
  /** Number of the accelerator among those of its kind, for cuda, tensorrt and dml. Default 0. */
  readonly deviceIndex: number;
  /**
   * Whether idle threads of a run spin instead of sleeping, however long. That makes a lone run on many cores a little faster
   * and takes whole cores from everything else on the machine. Default false: they spin for 50 µs, within a run only.
   */
  readonly spinning: boolean;
  /** Whether memory of a run is kept for the next. Faster; the process stays as large as its largest run. Default true. */
  readonly arena: boolean;
}

export const defaultEngineOptions: Omit<EngineOptions, 'provider'> = { deviceIndex: 0, spinning: false, arena: true };
