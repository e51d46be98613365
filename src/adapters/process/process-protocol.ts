/** What a host and the main thread of its executor process agree on, beside the frames of core/executor-frame.ts. */
import type { EngineOptions } from '#core/engine-options.js';

/** Descriptors of the executor process: 3 is the control socket, from here on one socket a lane. */
export const firstLaneFd = 4;

/** First argument of the process, as JSON. */
export interface ProcessSetup {
  readonly engine: EngineOptions;
  /** Threads that may be started. */
  readonly lanes: number;
  readonly frameBytesMax: number;
  /** Descriptor of the shared area (shared-area.ts); absent where the system has none. */
  readonly sharedFd?: number;
}

/** The process is up. */
export interface ExecutorHello {
  readonly pid: number;
}

/** Answer to a heartbeat. */
export interface ExecutorPong {
  /** Resident bytes. */
  readonly memoryBytes: number;
  /** Processor time since the start, microseconds. */
  readonly cpuUs: number;
}
