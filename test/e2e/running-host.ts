/** What tests do to a host that runs in a process of its own: load that counts, a look at its metrics and its children. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { InferenceClient } from '#client/index.js';
import { onTestFinished } from 'vitest';
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';

/** Where processes and their parents can be seen. */
export const procThere = process.platform === 'linux';

/** Process ids of the executors of a host. Linux. */
export function executorPids(hostPid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && parentOf(name) === hostPid && commandOf(name).includes('process-main'))
    .map(Number);
}

/** The only executor of a host. */
export function executorPid(hostPid: number): number {
  const [pid, ...others] = executorPids(hostPid);
  if (pid === undefined || others.length > 0) throw new Error(`the host has ${others.length} executors more than one`);
  return pid;
}

export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return !/^\d+ \(.*\) Z/s.test(readOrEmpty(`/proc/${pid}/stat`));
}

function parentOf(pid: string): number {
  const stat = readOrEmpty(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

function commandOf(pid: string): string {
  return readOrEmpty(`/proc/${pid}/cmdline`);
}

/** Processes end between being listed and being read. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Sum of a metric's series whose labels contain the given text; 0 when there is none. */
export async function metric(url: string, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(url)).text();
  return text
    .split('\n')
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** Asks again, every few milliseconds, until the condition holds. Fails with what it last saw. */
export async function until<T>(what: string, look: () => Promise<T> | T, holds: (seen: T) => boolean): Promise<T> {
  const endMs = performance.now() + 60_000;
  for (;;) {
    const seen = await look();
    if (holds(seen)) return seen;
    if (performance.now() > endMs) throw new Error(`${what}: not within 60 s; last seen: ${JSON.stringify(seen)}`);
    await delay(20);
  }
}

/** Failures without a single answer between them after which nobody expects answers any more. */
const failuresInRowMax = 1_000;

/**
 * So many requests in flight all the time, until it is stopped or the test ends. Answers and failures are counted, nothing
 * is thrown; but who waits for answers learns it when there are failures only, rather than wait until the test is over.
 */
export class Traffic {
  answers = 0;
  readonly failures: IntarsiaError[] = [];
  readonly #request: () => Promise<unknown>;
  readonly #workers: Promise<void>[];
  #stopped = false;
  #failuresInRow = 0;
  #waiting: {
    readonly atAnswers: number;
    readonly resolve: () => void;
    readonly reject: (reason: Error) => void;
  }[] = [];

  constructor(inFlight: number, request: () => Promise<unknown>) {
    this.#request = request;
    this.#workers = Array.from({ length: inFlight }, () => this.#work());
    onTestFinished(() => this.stop());
  }

  /** Resolves once so many more answers have come. Rejects with the last failure after a thousand of them in a row. */
  more(answers: number): Promise<void> {
    const atAnswers = this.answers + answers;
    return new Promise((resolve, reject) => this.#waiting.push({ atAnswers, resolve, reject }));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
  }

  async #work(): Promise<void> {
    while (!this.#stopped) {
      try {
        await this.#request();
        this.answers += 1;
        this.#failuresInRow = 0;
      } catch (error) {
        const failure = asIntarsiaError(error);
        this.failures.push(failure);
        this.#failuresInRow += 1;
        if (this.#failuresInRow >= failuresInRowMax) this.#giveUp(failure);
        // A client that fails at once must not spin.
        await delay(5);
      }
      for (const { resolve } of this.#waiting.filter(({ atAnswers }) => atAnswers <= this.answers)) resolve();
      this.#waiting = this.#waiting.filter(({ atAnswers }) => atAnswers > this.answers);
    }
  }

  #giveUp(failure: IntarsiaError): void {
    const message = `${this.#failuresInRow} requests in a row failed, the last with ${failure.code}: ${failure.message}`;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error(message, { cause: failure }));
  }
}

/** Requests to the model `affine` of faulty-models.ts, whose answers are checked. */
export function affineTraffic(client: InferenceClient, inFlight: number, factor = 2): Traffic {
  let sent = 0;
  return new Traffic(inFlight, async () => {
    sent += 1;
    const value = sent % 1000;
    const answer = await client.infer('affine', { x: [[value, 0, 0, 0]] });
    const [first] = answer.output().toArray();
    if (first !== factor * value + 1) throw new Error(`${factor} × ${value} + 1 came out as ${String(first)}`);
  });
}
