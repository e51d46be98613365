/**
 * Devices of known speed on virtual time, below a plan whose reference is a real process: a run takes 10 ms alone, and more
 * while another of them runs. Time moves only when nobody has anything else to do.
 */
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import type { ProcessorTimes } from '#adapters/hardware/processor-times.js';
import type { Executor, RunRequest, RunResult } from '#ports/executor.js';
import { VirtualClock } from '#sim/virtual-clock.js';

export const aloneMs = 10;

export class SteadyDevices {
  readonly clock = new VirtualClock();
  readonly #slowdown: number;
  #running = 0;
  #ownMs = 0;
  /** Share of the two processors that others use. */
  othersShare = 0;
  /** Once so many executors were started, every run takes so many times as long. */
  slower = { fromExecutors: Infinity, times: 1 };
  #started = 0;

  /** @param slowdown Of a run that begins while another device runs. */
  constructor(slowdown: number) {
    this.#slowdown = slowdown;
  }

  /** As the system would tell. */
  processorTimes(): ProcessorTimes {
    const allMs = 2 * this.clock.nowMs();
    return { allMs, busyMs: this.#ownMs + this.othersShare * allMs, ownMs: this.#ownMs };
  }

  executor(provider: 'cpu' | 'wasm'): Executor {
    this.#started += 1;
    let before: Promise<unknown> = Promise.resolve();
    const run = async (): Promise<RunResult> => {
      const isSlower = this.#started >= this.slower.fromExecutors;
      const ms = (this.#running > 0 ? aloneMs * this.#slowdown : aloneMs) * (isSlower ? this.slower.times : 1);
      this.#running += 1;
      await new Promise<void>((resolve) => void this.clock.schedule(ms, resolve));
      this.#running -= 1;
      this.#ownMs += ms;
      return { outputs: [], computeInputUs: 0, computeInferUs: ms * 1000, computeOutputUs: 0 };
    };
    return {
      description: { provider, isolation: 'inline', emulated: false, engine: 'steady', concurrency: 1 },
      load: ({ options: { optimization } }) =>
        Promise.resolve({ inputs: [], outputs: [], loadMs: 0, memoryBytes: 0, optimization, notes: [] }),
      run: (_: RunRequest) => {
        const result = before.then(run);
        before = result;
        return result;
      },
      unload: () => Promise.resolve(),
      usage: () => ({}),
      onLost: () => undefined,
      close: () => Promise.resolve(),
    };
  }

  /** Lets time go on until the work is done. */
  async during<T>(work: Promise<T>): Promise<T> {
    const state = { isDone: false };
    const end = (): void => void (state.isDone = true);
    work.then(end, end);
    while (!state.isDone) {
      // Whatever is ready goes on first; what waits for a process or a file moves no time.
      await turn();
      if (!this.clock.step()) await delay(1);
    }
    return work;
  }
}
