/**
 * One run of an executor process as frames: there and back through its lane, with long payloads in slots of the shared area
 * where there is one. What inputs lie there already are told of instead of sent, and outputs stay there when they may.
 */
import type { BufferPool } from '#core/buffer-pool.js';
import { intarsiaError } from '#core/errors.js';
import { executorFrameKind, resultIn, runFrame, sharedFrame, sharedPayload } from '#core/executor-frame.js';
import type { Frame, OutgoingFrame } from '#core/frame.js';
import type { RunRequest, RunResult } from '#ports/executor.js';
import { fitsSlot, slotBytesMax, type SharedArea } from './shared-area.js';
import { heldResult, placedInputs, SlotLease } from './shared-bytes.js';

export interface RunWay {
  readonly area: SharedArea | undefined;
  /** Memory of results. */
  readonly results: BufferPool;
  /** Sends what is built under a number of its own, and gives the answer; rejects when the process is gone. */
  readonly flight: (build: (number: number) => OutgoingFrame) => Promise<Frame>;
  /** The process broke the protocol and is ended. */
  readonly broken: (what: string) => void;
}

export async function runThrough(way: RunWay, request: RunRequest): Promise<RunResult> {
  const { area, flight, results } = way;
  if (area !== undefined) return runShared(way, request, area);
  return resultOf(await flight((number) => runFrame(number, request)), results);
}

async function runShared(
  { flight, results, broken }: RunWay,
  request: RunRequest,
  area: SharedArea,
): Promise<RunResult> {
  const { inputs, leases } = placedInputs(request.inputs, area);
  const slots = { inputs: 0, outputs: area.take() };
  try {
    const frame = await flight((number) => {
      const outgoing = runFrame(number, { session: request.session, inputs, outputs: request.outputs }, slots.outputs);
      if (!fitsSlot(outgoing.payload)) return outgoing;
      slots.inputs = area.take();
      return area.write(slots.inputs, outgoing.payload) ? sharedFrame(outgoing, slots.inputs) : outgoing;
    });
    if (frame.kind !== executorFrameKind.resultShared) return resultOf(frame, results);
    const { slot, bytes } = sharedPayload(frame);
    if (slot === 0 || slot !== slots.outputs || bytes > slotBytesMax) {
      const what = `a result of ${bytes} bytes in slot ${slot} for a run that was given slot ${slots.outputs}`;
      broken(what);
      throw intarsiaError('EXECUTOR_LOST', `the executor process broke the protocol with ${what}`);
    }
    if (request.leaveOutputs === true) {
      slots.outputs = 0;
      return heldResult(frame, new SlotLease(area, slot, results), bytes);
    }
    const payload = results.allocate(bytes);
    area.read(slot, 0, payload);
    return resultOf({ ...frame, payload }, results);
  } finally {
    area.giveBack(slots.inputs);
    area.giveBack(slots.outputs);
    for (const lease of leases) lease.release();
  }
}

function resultOf(frame: Frame, results: BufferPool): RunResult {
  const { buffer } = frame.payload;
  // Not spread: that costs as much as all the rest of this function.
  const { outputs, computeInputUs, computeInferUs, computeOutputUs } = resultIn(frame);
  return { outputs, computeInputUs, computeInferUs, computeOutputUs, release: () => results.release(buffer) };
}
