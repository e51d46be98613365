/** Child processes of a benchmark: started from built output, ready when they print one line of JSON, always ended. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export interface BenchChild {
  readonly pid: number;
  /** The JSON line it printed when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>;
  stop(): Promise<void>;
}

/**
 * Path of a built file, named from the project's root, such as `bench/baselines/grpc-echo-main.js`; also when this file itself
 * runs from source, as in tests.
 */
export function builtFile(path: string): string {
  const root = import.meta.url.endsWith('.ts') ? '../dist/' : '../';
  return fileURLToPath(new URL(`${root}${path}`, import.meta.url));
}

/** Starts a script of dist/ and waits for its first line of JSON. @throws when it ends before that, with its last words. */
export async function startChild(
  script: string,
  args: readonly string[],
  options: { readonly nodeArgs?: readonly string[]; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<BenchChild> {
  const child = spawn(process.execPath, [...(options.nodeArgs ?? []), builtFile(script), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  const lastWords = keepTail(child);
  const ready = await firstJsonLine(child, script, lastWords);
  const { pid } = child;
  if (pid === undefined) throw new Error(`${script} has no process id`);
  return {
    pid,
    ready,
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}

/** Runs a script of dist/ to its end and gives back the last line of JSON it printed. */
export async function runChild(script: string, args: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
  const child = spawn(process.execPath, [builtFile(script), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const lastWords = keepTail(child);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${script} ended with ${String(code)}: ${lastWords()}`);
  const line = output
    .trim()
    .split('\n')
    .findLast((text) => text.startsWith('{'));
  if (line === undefined) throw new Error(`${script} printed no result: ${output.slice(-500)}`);
  return JSON.parse(line) as Record<string, unknown>;
}

function keepTail(child: ChildProcess): () => string {
  let tail = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    tail = (tail + chunk.toString()).slice(-2000);
  });
  return () => tail.trim();
}

function firstJsonLine(
  child: ChildProcess,
  script: string,
  lastWords: () => string,
): Promise<Readonly<Record<string, unknown>>> {
  return new Promise((resolve, reject) => {
    if (child.stdout === null) {
      reject(new Error(`${script} has no output`));
      return;
    }
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) resolve(JSON.parse(line) as Record<string, unknown>);
    });
    child.once('exit', (code, signal) => {
      reject(new Error(`${script} ended (${String(code ?? signal)}) before it was ready: ${lastWords()}`));
    });
  });
}
