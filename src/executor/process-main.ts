/**
 * Entry of an executor process. Its main thread owns nothing but the control socket (descriptor 3) and the pool of worker
 * threads: it opens lanes, answers heartbeats and never computes, so that a missing answer means a hung process.
 *
 * The host decides when it ends: signals that a terminal or a service manager sends to everybody are ignored. When the
 * host ends the sockets, or dies, the threads finish what they compute, and only then the process exits: ending a thread
 * inside ONNX Runtime would abort it. A run without end must not outlive its host: after `drainMsMax` the process kills
 * itself.
 */
import { WorkerPool } from '#adapters/piscina/worker-pool.js';
import { FrameSocket } from '#adapters/process/frame-socket.js';
import {
  firstLaneFd,
  type ExecutorHello,
  type ExecutorPong,
  type ProcessSetup,
} from '#adapters/process/process-protocol.js';
import { executorFrameKind, failureFrame, jsonFrame, jsonHeader } from '#core/executor-frame.js';
import { messageOf } from '#core/errors.js';
import type { Frame } from '#core/frame.js';

const controlFd = 3;
const controlFrameBytesMax = 1024 * 1024;
/** Milliseconds that threads may go on after the host has ended the sockets, or died. */
const drainMsMax = 10_000;

const setup = JSON.parse(process.argv[2] ?? '{}') as ProcessSetup;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

const pool = new WorkerPool({ setup: { engine: setup.engine }, threads: setup.lanes, idle: 'events' });
const lanes: Promise<void>[] = [];

const control = FrameSocket.open(controlFd, {
  frameBytesMax: controlFrameBytesMax,
  onFrame,
  onEnd: () => void drainAndExit(),
});
const hello: ExecutorHello = { pid: process.pid };
control.send(jsonFrame(executorFrameKind.hello, 0, hello));

function onFrame(frame: Frame): void {
  switch (frame.kind) {
    case executorFrameKind.ping: {
      const cpu = process.cpuUsage();
      const pong: ExecutorPong = { memoryBytes: process.memoryUsage.rss(), cpuUs: cpu.user + cpu.system };
      control.send(jsonFrame(executorFrameKind.pong, frame.number, pong));
      return;
    }
    case executorFrameKind.open:
      void openLane(frame);
      return;
    default:
      control.send(failureFrame(frame.number, new Error(`the control socket has no frame of kind ${frame.kind}`)));
  }
}

/** Starts a thread, makes sure its engine works, and gives it the lane's socket. */
async function openLane(frame: Frame): Promise<void> {
  try {
    const { lane } = jsonHeader(frame) as { readonly lane: number };
    const described = await pool.run({ type: 'describe' });
    lanes.push(pool.run({ ...setup, type: 'serve', fd: firstLaneFd + lane }).then(() => {}, fail));
    control.send(jsonFrame(executorFrameKind.opened, frame.number, described));
  } catch (error) {
    control.send(failureFrame(frame.number, error));
  }
}

/** A thread is gone or cannot go on: so is the process, and the host starts another. */
function fail(error: unknown): void {
  process.stderr.write(`executor thread failed: ${messageOf(error)}\n`);
  process.exit(70);
}

async function drainAndExit(): Promise<void> {
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), drainMsMax);
  await Promise.all(lanes);
  process.exit(0);
}
