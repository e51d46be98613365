/**
 * Entry of a worker thread: one engine, asked either task by task (executor in a thread of the host) or through a socket
 * (executor process). piscina calls the default export.
 */
import { createEngine, type Engine } from '#adapters/onnx/engine.js';
import type { WorkerAnswer, WorkerTask } from '#adapters/piscina/worker-protocol.js';
import { transferring, workerSetup } from '#adapters/piscina/worker-side.js';
import { toErrorData, unreachable } from '#core/errors.js';
import { decodeWholeFrame } from '#core/frame.js';
import { runIn } from '#core/executor-frame.js';
import type { SessionId } from '#core/ids.js';
import type { RunResult } from '#ports/executor.js';
import { serveFrames } from './serve-frames.js';

let engine: Promise<Engine> | undefined;

function ready(): Promise<Engine> {
  engine ??= createEngine(workerSetup().engine);
  return engine;
}

export default async function work(task: WorkerTask): Promise<WorkerAnswer<unknown>> {
  try {
    if (task.type === 'run') {
      const value = await run(task.frame);
      return transferring(
        { ok: true, value },
        value.outputs.map((output) => output.data.buffer),
      );
    }
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
