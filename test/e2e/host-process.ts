/**
 * The program as a user runs it: `bin/intarsia.mjs` in a process of its own, on ports the system chooses. Tests get the
 * addresses from the ready document that `--json` prints, and wait for nothing but events.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { intarsiaError } from '#core/errors.js';

export const repositoryRoot = join(import.meta.dirname, '../..');
const launcher = join(repositoryRoot, 'bin/intarsia.mjs');

/** What the ready document of `serve --json` says; `start --json` adds `check` and `tryIt`. */
export interface HostFacts {
  readonly name: string;
  readonly endpoints: { readonly grpc: string; readonly http: string; readonly metrics: string };
  readonly devices: readonly {
    readonly device: { readonly id: string; readonly kind: string; readonly provider: string };
    readonly health: string;
    readonly reason: string;
  }[];
  readonly models: readonly {
    readonly name: string;
    readonly version: string;
    readonly state: string;
    readonly reason: string;
    readonly devices: readonly string[];
  }[];
  readonly warnings: readonly string[];
}

export interface ProgramOptions {
  /** Variables on top of this process's own, whose `INTARSIA_…` ones are left out. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Another launcher than this repository's. */
  readonly launcher?: string;
  /** Longest time, ms, that the program may take: to be ready, or to end. */
  readonly timeoutMs?: number;
  /** A command that becomes the program, such as `ip netns exec name`. Default: none. */
  readonly within?: readonly string[];
}

export interface ProgramResult {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface HostProcess {
  /** Process id of the host itself; its executors are children of it. */
  readonly pid: number;
  readonly facts: HostFacts;
  /** `host:port` of gRPC. */
  readonly grpc: string;
  /** URL of REST. */
  readonly http: string;
  /** URL of the metrics page. */
  readonly metrics: string;
  /** What it has written to its standard error so far. */
  stderr(): string;
  /** Resolves when the process has ended, for whatever reason. */
  readonly ended: Promise<ProgramResult>;
  /** Asks it to stop and waits; what came of it. */
  stop(signal?: NodeJS.Signals): Promise<ProgramResult>;
}

/** Ports of the system's choice on loopback, and a document when it is ready. */
const isolated = ['--json', '--http-port', '0', '--grpc-port', '0', '--metrics-port', '0'];
const readyMsMax = 120_000;

/** A program that says by a document that it is ready, and goes on until it is stopped. */
export interface StartedProgram {
  readonly pid: number;
  readonly document: unknown;
  /** What it has written to its standard error so far. */
  stderr(): string;
  readonly ended: Promise<ProgramResult>;
  stop(signal?: NodeJS.Signals): Promise<ProgramResult>;
}

/**
 * `intarsia serve …` (or `start …`), ready to answer. Rejects with what the program said when it ends before that, or is not
 * ready in time. The caller stops it; what is left when this process ends is killed.
 */
export async function startHostProcess(
  args: readonly string[],
  options: ProgramOptions & { readonly command?: 'serve' | 'start' } = {},
): Promise<HostProcess> {
  const { command = 'serve' } = options;
  const { document, ...program } = await startProgram([command, ...isolated, ...args], options);
  const facts = document as HostFacts;
  return { ...program, facts, ...facts.endpoints };
}

/** The same for any command that goes on; `--json` is among its arguments. */
export async function startProgram(args: readonly string[], options: ProgramOptions = {}): Promise<StartedProgram> {
  const { timeoutMs = readyMsMax } = options;
  const program = launch(args, options);
  const { child, ended } = program;
  const document = await new Promise<unknown>((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(failure('is not ready', `after ${timeoutMs} ms`));
    }, timeoutMs);
    child.stdout?.on('data', () => {
      // The document ends with a brace at the beginning of a line.
      if (!program.stdout().endsWith('\n}\n')) return;
      const said = JSON.parse(program.stdout()) as object;
      // A host that fails says so in the same way, and ends.
      if ('error' in said) return;
      clearTimeout(timer);
      resolve(said);
    });
    void ended.then(({ code, signal }) => {
      clearTimeout(timer);
      reject(failure('ended before it was ready', `with ${String(code ?? signal)}`));
    }, reject);
  });
  return {
    pid: child.pid ?? 0,
    document,
    stderr: program.stderr,
    ended,
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return ended;
    },
  };

  function failure(what: string, how: string): Error {
    return intarsiaError(
      'UNAVAILABLE',
      `intarsia ${args.join(' ')} ${what}, ${how}; it said: ${program.stdout()}${program.stderr()}`,
    );
  }
}

/** Runs a command of the program to its end. Rejects when it takes longer than `timeoutMs`; a failing command is a result. */
export async function runProgram(args: readonly string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  const { timeoutMs = readyMsMax } = options;
  const { child, ended, stderr } = launch(args, options);
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const result = await ended;
  clearTimeout(timer);
  if (result.signal !== 'SIGKILL') return result;
  throw new Error(`intarsia ${args.join(' ')} did not end within ${timeoutMs} ms; it said: ${stderr()}`);
}

interface Launched {
  readonly child: ChildProcess;
  readonly ended: Promise<ProgramResult>;
  stdout(): string;
  stderr(): string;
}

const textLengthMax = 4 * 1024 * 1024;

function launch(args: readonly string[], { env = {}, cwd = repositoryRoot, ...options }: ProgramOptions): Launched {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('INTARSIA_'));
  const words = [...(options.within ?? []), process.execPath, options.launcher ?? launcher, ...args];
  const [command = process.execPath, ...rest] = words;
  const child = spawn(command, rest, {
    cwd,
    env: { ...Object.fromEntries(own), NO_COLOR: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const said = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      said[stream] = (said[stream] + text).slice(-textLengthMax);
    });
  }
  const ended = new Promise<ProgramResult>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      process.removeListener('exit', kill);
      resolve({ code, signal, ...said });
    });
  });
  return { child, ended, stdout: () => said.stdout, stderr: () => said.stderr };
}
