/** Runs of a plan's shards on all devices at once, on devices of known speed and on virtual time. */
import { describe, expect, it } from 'vitest';
import { paceOfLoops, paceOfPipe, type CompanyRun, type Until } from '#compose/split/company-runs.js';
import { sessionId } from '#core/ids.js';
import type { Tensor } from '#core/tensor.js';
import type { Executor, RunInput, RunRequest, RunResult } from '#ports/executor.js';
import { VirtualClock } from '#sim/virtual-clock.js';

const tensor = (name: string, value: number): Tensor => ({
  ...{ name, datatype: 'INT32', shape: [1] },
  data: new Uint8Array(Int32Array.of(value).buffer),
});
const valueOf = ({ chunks }: RunInput): number => new Int32Array(chunks[0]!.slice().buffer)[0] ?? NaN;
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** A shard that takes `ms` for a run, and a moment more to be reached; it counts its input up by one. */
class Counting {
  readonly seen: number[] = [];
  readonly #clock: VirtualClock;
  readonly #ms: number;
  readonly #hopMs: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(clock: VirtualClock, ms: number, hopMs = 0) {
    this.#clock = clock;
    this.#ms = ms;
    this.#hopMs = hopMs;
  }

  shard(from: string, to: string, given: number): CompanyRun {
    const run = async ({ inputs }: RunRequest): Promise<RunResult> => {
      const value = valueOf(inputs[0]!);
      this.seen.push(value);
      const before = this.#last;
      const mine = (async () => {
        await before;
        await this.#pass(this.#ms);
      })();
      this.#last = mine;
      await mine;
      await this.#pass(this.#hopMs);
      const us = { computeInputUs: 0, computeInferUs: this.#ms * 1000, computeOutputUs: 0 };
      return { outputs: [tensor(to, value + 1)], ...us };
    };
    const { name, datatype, shape, data } = tensor(from, given);
    const inputs = [{ name, datatype, shape, chunks: [data] }];
    return {
      executor: { run } as unknown as Executor,
      request: { session: sessionId('s'), inputs, outputs: [] },
      outputs: [to],
    };
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#clock.schedule(ms, resolve));
  }
}

async function seen<T>(clock: VirtualClock, work: (isEnough: Until) => Promise<T>): Promise<T> {
  const result = work((answers) => answers >= 20);
  await clock.settleUntil(100_000);
  return result;
}

describe('the pace of a plan’s shards at work together', () => {
  it('as a pipe is that of its slowest, shared out by what each computes, with values handed on', async () => {
    const clock = new VirtualClock();
    const [first, second, third] = [new Counting(clock, 10), new Counting(clock, 25), new Counting(clock, 5)];
    const runs = [first.shard('x', 'a', 1), second.shard('a', 'b', 100), third.shard('b', 'y', 200)];
    const paces = await seen(clock, (isEnough) => paceOfPipe(runs, clock, isEnough));
    expect(paces.map(mean).map((ms) => Math.round(ms * 1e6) / 1e6)).toEqual([10, 25, 5]);
    expect([new Set(first.seen), new Set(second.seen), new Set(third.seen)]).toEqual([
      new Set([1]),
      new Set([2]),
      new Set([3]),
    ]);
  });

  it('as a pipe has in it what values wait for on their ways where nobody else computes meanwhile', async () => {
    const clock = new VirtualClock();
    // Four requests are not enough to hide 100 ms: 4 answers in 2 × 10 + 2 × 100 ms.
    const [first, second] = [new Counting(clock, 10, 100), new Counting(clock, 10, 100)];
    const runs = [first.shard('x', 'a', 1), second.shard('a', 'y', 1)];
    const paces = await seen(clock, (isEnough) => paceOfPipe(runs, clock, isEnough));
    expect(paces.map(mean)).toEqual([55, 55]);
  });

  it('in loops is that of each by itself, on what it was given', async () => {
    const clock = new VirtualClock();
    const [first, second] = [new Counting(clock, 10), new Counting(clock, 25)];
    const runs = [first.shard('x', 'a', 1), second.shard('a', 'y', 100)];
    const paces = await seen(clock, (isEnough) => paceOfLoops(runs, clock, isEnough));
    expect(paces.map(mean).map((ms) => Math.round(ms * 1e6) / 1e6)).toEqual([10, 25]);
    expect([new Set(first.seen), new Set(second.seen)]).toEqual([new Set([1]), new Set([100])]);
  });
});
