/** Requests decided about by the production picker and taken down by the production recorder, written on this thread. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LogFolder } from '#adapters/parquet/log-folder.js';
import { runName } from '#core/decision-log/log-files.js';
import { LogRecorder } from '#core/decision-log/log-recorder.js';
import type { SliceSize } from '#core/decision-log/log-slice.js';
import { intarsiaError, type ErrorCode } from '#core/errors.js';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, replicaId, type RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';
import { RandomStream } from '#core/random.js';
import { makeReceipt } from '#core/receipt.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { unknownDevice, unknownReplica } from '#core/scheduling/fleet-book.js';
import { dispatchPicker } from '#policies/placement/dispatch-picker.js';

const host = hostId('h1');
const model = modelName('m');
const version = modelVersion('1');
/** Wall clock of the world's start. */
export const startWallMs = 1_790_000_000_000;
const pricePerHour = 0.36;

export interface LogWorldOptions {
  readonly policy: DispatchPolicy;
  readonly devices?: number;
  readonly share?: number;
  readonly size?: SliceSize;
  readonly slices?: number;
  readonly bytesMax?: number;
  readonly closeBytes?: number;
  readonly closeMs?: number;
  /** Slices are not given back: whoever writes is stuck. */
  readonly stuck?: boolean;
  readonly folder: string;
  readonly startedMs?: number;
}

export class LogWorld {
  readonly run: string;
  readonly recorder: LogRecorder;
  readonly folder: LogFolder;
  readonly candidates: readonly Candidate[];
  /** Told of every decision beside the recorder. */
  onDecision: ((decision: DispatchDecision) => void) | undefined;
  nowMs = 1000;
  readonly #picker: ReturnType<typeof dispatchPicker>;
  readonly #ledger: DispatchLedger;
  #nextRequest = 1;

  constructor(options: LogWorldOptions) {
    const { policy, folder, devices = 3, stuck = false } = options;
    this.run = runName(host, startWallMs + (options.startedMs ?? 0), 4711);
    this.folder = new LogFolder({
      ...{ folder, run: this.run, bytesMax: options.bytesMax ?? 2 ** 30, nowMs: () => this.nowMs },
      ...(options.closeBytes === undefined ? {} : { closeBytes: options.closeBytes }),
      ...(options.closeMs === undefined ? {} : { closeMs: options.closeMs }),
    });
    this.recorder = new LogRecorder({
      share: options.share ?? 1,
      wallOffsetMs: () => startWallMs - 1000,
      handOver: (number, texts) => {
        if (stuck) return;
        const slice = this.recorder.slices[number];
        if (slice !== undefined) this.folder.write(slice, texts);
        this.recorder.free(number);
      },
      ...(options.size === undefined ? {} : { size: options.size }),
      ...(options.slices === undefined ? {} : { slices: options.slices }),
    });
    this.#ledger = new DispatchLedger({
      book: {
        revision: 0,
        device: (key) => ({ ...unknownDevice, usdPerHour: pricePerHour * (1 + Number(key.at(-1))), watts: 50 }),
        replica: ({ id }) => ({
          ...unknownReplica,
          itemsMax: 8,
          profile: { batches: [1, 8], ms: [30 - 9 * Number(id.at(-1)), 90], spread: 0.1 },
        }),
      },
    });
    this.#picker = dispatchPicker({
      ...{ policy, ledger: this.#ledger, random: new RandomStream('log') },
      onDecision: (decision) => {
        this.recorder.decided(decision);
        this.onDecision?.(decision);
      },
    });
    this.candidates = Array.from({ length: devices }, (_, index): Candidate => {
      const device = deviceId(`cpu:${index}`);
      const stages = [{ digest: 'd'.repeat(64) as never, host, device }];
      return {
        replica: { id: replicaId(`${model}/${version}@${host}/${device}`), model, version, stages },
        load: { itemsInFlight: 0, msPerItem: 0, ready: true },
      };
    });
  }

  /** A request arrives and is dispatched; answers it and the index of its candidate. */
  ask(
    more: Partial<InferenceRequest> = {},
    waitedMs = 0,
  ): { readonly request: InferenceRequest; readonly index: number } {
    const request: InferenceRequest = {
      id: this.#nextRequest as RequestId,
      ...{ model, version, inputs: [], outputs: [], items: 1, batchKey: '', bytes: 0, priority: 0, queueTimeoutUs: 0 },
      deadlineMs: Infinity,
      sloMs: 200,
      sloClass: 'interactive',
      billing: { tenant: anonymousTenant, project: '', user: '' },
      arrivedMs: this.nowMs - waitedMs,
      ...more,
    };
    this.#nextRequest += 1;
    return { request, index: this.pickAgain(request) };
  }

  pickAgain(request: InferenceRequest): number {
    const index = this.#picker.pick(request, this.candidates, this.nowMs, new Set());
    const candidate = this.candidates[index];
    if (candidate !== undefined) {
      this.#ledger.sent(this.#ledger.laneOf(candidate.replica), request.items, 'interactive', this.nowMs);
    }
    return index;
  }

  answer(request: InferenceRequest, index: number, durationMs: number): void {
    const receipt = makeReceipt({
      device: {
        id: deviceId(`cpu:${index}`),
        emulated: true,
        price: { usdPerHour: pricePerHour, source: 'configured' } as never,
        busyWatts: { watts: 50, source: 'profile' },
      },
      ...{ billing: request.billing, items: 1, batchItems: 2, queueUs: 500, roundTripUs: 12_000 },
      ...{ computeInputUs: 1000, computeInferUs: 8000, computeOutputUs: 1000 },
    });
    this.end(request, durationMs, { ok: true, outputs: [], receipt });
  }

  fail(request: InferenceRequest, durationMs: number, code: ErrorCode, reason = ''): void {
    this.end(request, durationMs, { ok: false, error: intarsiaError(code, 'no', reason === '' ? {} : { reason }) });
  }

  end(request: InferenceRequest, durationMs: number, outcome: InferenceOutcome): void {
    this.recorder.finished({ request, outcome, finishedMs: request.arrivedMs + durationMs });
  }

  close(): void {
    this.recorder.flush();
    this.folder.close();
  }
}

/** A folder for a test, and what removes it. */
export async function temporaryFolder(): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'decision-log-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
