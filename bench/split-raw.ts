/** Bare ONNX Runtime loops, each a process of its own, run at the same time: what Intarsia's devices are judged by. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Tensor } from '#core/tensor.js';
import { builtFile } from './child.js';

export interface RawLoop {
  /** The files of a chain up to the one that is looped. */
  readonly files: readonly string[];
  readonly provider: 'cpu' | 'wasm';
  readonly threads: number;
  readonly inputs: readonly Tensor[];
}

const readyMsMax = 60_000;

/** Runs a second of each loop, in the order given. @throws when one ends early or is not ready in time, or all are late. */
export async function rawLoops(
  loops: readonly RawLoop[],
  seconds: number,
  late: AbortSignal,
): Promise<readonly number[]> {
  late.throwIfAborted();
  const children = loops.map((loop) => startLoop(loop, seconds));
  const endAll = (): void => {
    for (const { end } of children) end();
  };
  late.addEventListener('abort', endAll, { once: true });
  try {
    await Promise.all(children.map(({ ready }) => ready));
    for (const { begin } of children) begin();
    return await Promise.all(children.map(({ result }) => result));
  } finally {
    late.removeEventListener('abort', endAll);
    endAll();
  }
}

interface LoopChild {
  readonly ready: Promise<void>;
  readonly result: Promise<number>;
  readonly begin: () => void;
  readonly end: () => void;
}

function startLoop({ files, provider, threads, inputs }: RawLoop, seconds: number): LoopChild {
  const given = inputs.map(({ name, datatype, shape }) => ({
    name,
    type: datatype === 'INT64' ? 'int64' : 'float32',
    shape,
  }));
  const child = spawn(
    process.execPath,
    [
      builtFile('bench/baselines/ort-shard-main.js'),
      ...files.flatMap((file) => ['--file', file]),
      ...['--inputs', JSON.stringify(given), '--provider', provider, '--threads', String(threads)],
      ...['--seconds', String(seconds)],
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let tail = '';
  child.stderr.on('data', (chunk: Buffer) => (tail = (tail + chunk.toString()).slice(-1000)));
  const lines = createInterface({ input: child.stdout });
  let isReady: () => void;
  let isDone: (runsPerSecond: number) => void;
  let fails: (error: Error) => void;
  const ready = new Promise<void>((resolve, reject) => {
    isReady = resolve;
    fails = reject;
  });
  const result = new Promise<number>((resolve, reject) => {
    isDone = resolve;
    const before = fails;
    fails = (error) => {
      before(error);
      reject(error);
    };
  });
  // Whoever waits for `ready` hears of it; nobody may be waiting for the result yet.
  result.catch(() => undefined);
  const timer = setTimeout(
    () =>
      fails(new Error(`a bare loop over ${files.join(', ')} was not done within ${readyMsMax + 2000 * seconds} ms`)),
    readyMsMax + 2000 * seconds,
  );
  lines.on('line', (line) => {
    if (!line.startsWith('{')) return;
    const said = JSON.parse(line) as { readonly ready?: true; readonly runsPerSecond?: number };
    if (said.ready === true) isReady();
    else if (said.runsPerSecond !== undefined) isDone(said.runsPerSecond);
  });
  child.once('exit', (code) => {
    clearTimeout(timer);
    fails(new Error(`a bare loop over ${files.join(', ')} ended with ${String(code)}: ${tail}`));
  });
  return {
    ready,
    result,
    begin: () => child.stdin.write('begin\n'),
    end: () => {
      clearTimeout(timer);
      child.kill('SIGKILL');
    },
  };
}
