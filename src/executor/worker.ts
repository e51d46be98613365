/**
 * Entry of a worker thread: one engine, asked either task by task (executor in a thread of the host) or through a socket
 * (executor process). piscina calls the default export.
 */
import { Piscina } from 'piscina';
import { createEngine, type Engine } from '#adapters/onnx/engine.js';
import type { WorkerAnswer, WorkerSetup, WorkerTask } from '#adapters/piscina/worker-protocol.js';
import { toErrorData, unreachable } from '#core/errors.js';
import { decodeWholeFrame } from '#core/frame.js';
import { runIn } from '#core/executor-frame.js';
import type { SessionId } from '#core/ids.js';
import type { RunResult } from '#ports/executor.js';
import { serveFrames } from './serve-frames.js';

const setup = Piscina.workerData as WorkerSetup;
let engine: Promise<Engine> | undefined;

function ready(): Promise<Engine> {
  engine ??= createEngine(setup.engine);
  return engine;
}

export default async function work(task: WorkerTask): Promise<WorkerAnswer<unknown>> {
  try {
    if (task.type === 'run') return movable(await run(task.frame));
    return { ok: true, value: await perform(task) };
  } catch (error) {
    return { ok: false, error: toErrorData(error) };
  }
}

async function perform(task: Exclude<WorkerTask, { type: 'run' }>): Promise<unknown> {
  const loaded = await ready();
  switch (task.type) {
    case 'describe':
      return { engine: loaded.name };
    case 'load':
      return loaded.load(task.request);
    case 'unload':
      await loaded.unload(task.session);
      return null;
    case 'dispose':
      await loaded.dispose();
      return null;
    case 'serve':
      await serveFrames(loaded, task);
      return null;
    default:
      return unreachable(task);
  }
}

async function run(frame: Uint8Array): Promise<RunResult> {
  const loaded = await ready();
  const { session, inputs, outputs } = runIn(decodeWholeFrame(frame));
  return loaded.run({ session: session as SessionId, inputs, outputs });
}

/** The answer with the buffers of its outputs on piscina's transfer list, each once. */
function movable(value: RunResult): WorkerAnswer<RunResult> {
  const buffers = new Set<ArrayBufferLike>();
  for (const output of value.outputs) buffers.add(output.data.buffer);
  return Piscina.move({
    [Piscina.transferableSymbol]: [...buffers],
    [Piscina.valueSymbol]: { ok: true, value },
  } as never) as never;
}
