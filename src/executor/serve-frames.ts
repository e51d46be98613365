/**
 * Serves an engine on a socket, inside a worker thread of an executor process: runs come from the host and results go
 * back without passing through the process's main thread, which stays free to answer heartbeats.
 *
 * One request at a time, in order of arrival; while ONNX Runtime computes, what arrives waits in the socket. A result is
 * with the kernel before the next run begins, because a run blocks this thread's event loop.
 */
import type { Engine } from '#adapters/onnx/engine.js';
import { allocateRaw } from '#adapters/process/allocate-raw.js';
import { FrameSocket } from '#adapters/process/frame-socket.js';
import { SharedArea } from '#adapters/process/shared-area.js';
import { BufferPool } from '#core/buffer-pool.js';
import {
  executorFrameKind,
  failureFrame,
  jsonFrame,
  jsonHeader,
  resultFrame,
  runIn,
  sharedFrame,
  sharedPayload,
  type SlotRange,
} from '#core/executor-frame.js';
import { intarsiaError } from '#core/errors.js';
import type { Frame, OutgoingFrame } from '#core/frame.js';
import type { SessionId } from '#core/ids.js';
import { MiB } from '#core/units.js';
import type { LoadRequest } from '#ports/executor.js';

/** Longer requests are rare, and their memory is better given back. */
const pooledBytesMax = 64 * MiB;
/** A lane has one run at a time, and the next one waiting. */
const freeBytesMax = 128 * MiB;

/** Resolves once the other end has ended the stream and everything that came before is answered. */
export function serveFrames(
  engine: Engine,
  options: { readonly fd: number; readonly frameBytesMax: number; readonly sharedFd?: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const pool = new BufferPool({ bytesMax: pooledBytesMax, freeBytesMax, allocate: allocateRaw });
    const shared = options.sharedFd === undefined ? undefined : new SharedArea(options.sharedFd);
    const waiting: Frame[] = [];
    /** Of the run that is on. */
    const borrowed: Uint8Array[] = [];
    let busy = false;
    let over = false;
    const socket = FrameSocket.open(options.fd, {
      frameBytesMax: options.frameBytesMax,
      allocate: pool.allocate,
      onFrame: (frame) => {
        waiting.push(frame);
        if (!busy) void work();
      },
      onEnd: (error) => {
        over = true;
        if (error !== undefined) process.stderr.write(`executor lane: ${error.message}\n`);
        if (!busy) finish();
      },
    });

    async function work(): Promise<void> {
      busy = true;
      try {
        for (let frame = waiting.shift(); frame !== undefined; frame = waiting.shift()) {
          const taken = frame.kind === executorFrameKind.runShared ? fetched(frame) : frame;
          const reply = await answer(engine, taken, fetchSlots);
          const isShared = frame.tag > 0 && shared?.write(frame.tag, reply.payload) === true;
          socket.send(isShared ? sharedFrame(reply, frame.tag) : reply);
          pool.release(taken.payload.buffer);
          for (const { buffer } of borrowed.splice(0)) pool.release(buffer);
          if (socket.pendingBytes > 0) await socket.flushed();
        }
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
        socket.destroy();
        return;
      }
      busy = false;
      if (over) finish();
    }

    /** The run with its payload, which lies in the shared area. */
    function fetched(frame: Frame): Frame {
      const payload = pool.allocate(sharedPayload(frame).bytes);
      fill(payload, [sharedPayload(frame)]);
      return { ...frame, kind: executorFrameKind.run, payload };
    }

    /** Values that an executor process has left in the shared area. */
    function fetchSlots(slots: readonly SlotRange[]): Uint8Array {
      const bytes = pool.allocate(slots.reduce((sum, range) => sum + range.bytes, 0));
      borrowed.push(bytes);
      fill(bytes, slots);
      return bytes;
    }

    function fill(target: Uint8Array, slots: readonly SlotRange[]): void {
      if (shared === undefined) throw new Error('a payload is said to be in a shared area, and there is none');
      let at = 0;
      for (const { slot, offset, bytes } of slots) {
        shared.read(slot, offset, target.subarray(at, at + bytes));
        at += bytes;
      }
    }

    function finish(): void {
      socket.end();
      resolve(engine.dispose());
    }
  });
}

async function answer(
  engine: Engine,
  frame: Frame,
  fetchSlots: (slots: readonly SlotRange[]) => Uint8Array,
): Promise<OutgoingFrame> {
  try {
    switch (frame.kind) {
      case executorFrameKind.run: {
        const { session, inputs, outputs } = runIn(frame, fetchSlots);
        const result = await engine.run({ session: session as SessionId, inputs, outputs });
        return resultFrame(frame.number, result.outputs, result);
      }
      case executorFrameKind.load:
        return jsonFrame(executorFrameKind.loaded, frame.number, await engine.load(jsonHeader(frame) as LoadRequest));
      case executorFrameKind.unload:
        await engine.unload((jsonHeader(frame) as { readonly session: SessionId }).session);
        return jsonFrame(executorFrameKind.unloaded, frame.number, {});
      default:
        throw intarsiaError('UNIMPLEMENTED', `an executor lane has no frame of kind ${frame.kind}`);
    }
  } catch (error) {
    return failureFrame(frame.number, error);
  }
}
