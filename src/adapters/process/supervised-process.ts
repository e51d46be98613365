/**
 * A program of ours in a process of its own that is kept running: started, watched, started again with back-off when it
 * ends by itself, stopped with patience. It tells that it is ready by one JSON document on its standard output; what it
 * says on its standard error goes on line by line. It ends with its parent: the channel between them closes.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { intarsiaError } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';

export interface SupervisedProcessOptions {
  /** For messages, such as `host-1`. */
  readonly name: string;
  /** Script and arguments, run by this process's own Node; asked for at each start. */
  readonly args: () => readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** Whether it is started again when it ends by itself. */
  readonly restarts: boolean;
  /** A line of its standard error. */
  readonly onLine: (line: string) => void;
  /** It is ready, with what it printed; told again after each restart. */
  readonly onReady: (document: unknown) => void;
  /** It ended by itself: code or signal; `again` says in how many ms it is started again, or undefined for never. */
  readonly onEnd: (how: string, again: number | undefined) => void;
}

const backOffMsMin = 200;
const backOffMsMax = 10_000;
/** A process that lived so long before it ended is started again without delay. */
const stableMs = 30_000;
/** Longest JSON document a process may print when it is ready, characters. */
const documentLengthMax = 4 * 1024 * 1024;

export class SupervisedProcess {
  readonly #options: SupervisedProcessOptions;
  #child: ChildProcess | undefined;
  #backOffMs = backOffMsMin;
  #again: Timer | undefined;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();

  constructor(options: SupervisedProcessOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts it and waits until it is ready. @throws UNAVAILABLE when it ends before, with its last words. */
  async start(): Promise<unknown> {
    return new Promise((resolve, reject) => this.#launch(resolve, reject));
  }

  /** Asks it to end (SIGTERM), insists after `graceMs` (SIGKILL), resolves when it is gone. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#again?.cancel();
    const child = this.#child;
    if (child === undefined) return;
    child.kill('SIGTERM');
    const insist = this.#options.clock.schedule(graceMs, () => child.kill('SIGKILL'));
    await this.#ended;
    insist.cancel();
  }

  #launch(onFirst?: (document: unknown) => void, onFailure?: (error: Error) => void): void {
    const { args, env, clock, name } = this.#options;
    const startedMs = clock.nowMs();
    const child = spawn(process.execPath, args(), { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    this.#child = child;
    let lastLine = '';
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (line) => {
      lastLine = line;
      this.#options.onLine(line);
    });
    let printed = '';
    let isReady = false;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (isReady) return;
      printed = (printed + text).slice(-documentLengthMax);
      const document = parsed(printed);
      // A program that fails says so in the same way, and ends.
      if (document === undefined || Object.hasOwn(document, 'error')) return;
      isReady = true;
      printed = '';
      this.#options.onReady(document);
      onFirst?.(document);
    });
    this.#ended = new Promise((resolve) => {
      let isOver = false;
      const over = (how: string): void => {
        if (isOver) return;
        isOver = true;
        this.#child = undefined;
        resolve();
        if (!isReady && onFailure !== undefined) {
          onFailure(intarsiaError('UNAVAILABLE', `${name} ended before it was ready (${how}): ${lastLine}`, { name }));
        } else if (!this.#stopping) this.#restart(how, clock.nowMs() - startedMs);
      };
      child.once('error', (error) => over(error.message));
      // Not `exit`: its last words may still be in the pipe then.
      child.once('close', (code, signal) => over(signal ?? `exit code ${code ?? 'unknown'}`));
    });
  }

  #restart(how: string, livedMs: number): void {
    if (!this.#options.restarts) {
      this.#options.onEnd(how, undefined);
      return;
    }
    if (livedMs >= stableMs) this.#backOffMs = backOffMsMin;
    const delayMs = this.#backOffMs;
    this.#backOffMs = Math.min(backOffMsMax, delayMs * 2);
    this.#options.onEnd(how, delayMs);
    this.#again = this.#options.clock.schedule(delayMs, () => this.#launch());
  }
}

/** The document, once it is whole. */
function parsed(text: string): object | undefined {
  const trimmed = text.trim();
  if (!trimmed.startsWith('{') || !trimmed.endsWith('}')) return undefined;
  try {
    return JSON.parse(trimmed) as object;
  } catch {
    // Not whole yet: more is to come.
    return undefined;
  }
}
