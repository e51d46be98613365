/**
 * One large request over several devices at once: each ready device of the model takes a piece, and another when it has
 * answered, until nothing is left; how large pieces are is chunk-book.ts's business. Answers are put in order, and the client
 * sees one.
 *
 * Each piece is a request of its own to one device. A piece that fails in a way that may be tried again goes back, and its
 * device gets no more of this request; one that takes far longer than it should is given to another as well, when nothing
 * else is left to do. Deadline and cancellation reach every piece.
 */
import type { ServedModel } from '#core/catalog.js';
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import { isIn } from '#core/grid/standing.js';
import type { RequestId } from '#core/ids.js';
import {
  releaseOutputs,
  type InferenceOutcome,
  type InferenceRequest,
  type InferenceSuccess,
} from '#core/inference.js';
import type { InferRequestMessage } from '#core/inference-message.js';
import type { Candidate } from '#core/picker.js';
import { sharedReceipt, type SharePart } from '#core/receipt.js';
import { candidatesOf, deviceKey, reserveOf } from '#core/routing-table.js';
import { ChunkBook, chunkItems, type ItemRange } from '#core/split/chunk-book.js';
import { Gathering, ItemSlices } from '#core/split/item-slices.js';
import type { Timer } from '#ports/clock.js';
import type { InferReply, InferTicket } from '#ports/inference-gateway.js';
import { noSpan, type Span } from '#ports/tracing.js';
import { answerOf } from './infer-answer.js';
import { InferenceCall, type CallHost, type HopReply } from './inference-call.js';
import { noReplica } from './no-replica.js';

export interface SpreadParts {
  readonly gateway: CallHost;
  readonly model: ServedModel;
  readonly message: InferRequestMessage;
  /** For the whole model. */
  readonly request: InferenceRequest;
  /** The request as the model's first device takes it: to its first stage, of a model in pieces. */
  readonly routed: (request: InferenceRequest) => InferenceRequest;
  readonly nextId: () => RequestId;
  readonly classes: ReadonlyMap<string, number> | undefined;
  readonly bytes: number;
  readonly span: Span;
  readonly reply: InferReply;
}

/** A piece counts as late after this many times what it should take, and not before so many ms. */
const lateFactor = 3;
const lateMsMin = 100;
/** The same for devices of which nothing is known, ms. */
const lateMsUnknown = 5_000;

/** A device that takes part. */
interface Lane {
  /** `host/device`. */
  readonly key: string;
  readonly host: string;
  candidate: Candidate;
  chunk: Chunk | undefined;
  /** A piece failed there, or was late. */
  isClosed: boolean;
  itemsDone: number;
  busyMs: number;
}

/** The ready devices of the model, each once; those that are banned only when there are no others. */
export function spreadCandidates(
  { router, clock }: Pick<CallHost, 'router' | 'clock'>,
  { model, version }: Pick<InferenceRequest, 'model' | 'version'>,
): ReadonlyMap<string, Candidate> {
  const table = router.current;
  const nowMs = clock.nowMs();
  const first = candidatesOf(table, model, version);
  const reserve = reserveOf(table, model, version);
  const ready = first.filter(({ load }) => load.ready);
  const inUse = ready.filter(({ standing }) => standing === undefined || isIn(standing, nowMs));
  const chosen = [inUse, ready, reserve.filter(({ load }) => load.ready)].find((list) => list.length > 0) ?? [];
  const byDevice = new Map<string, Candidate>();
  for (const candidate of chosen) {
    const [stage] = candidate.replica.stages;
    if (stage === undefined) continue;
    const key = deviceKey(stage.host, stage.device);
    if (!byDevice.has(key)) byDevice.set(key, candidate);
  }
  return byDevice;
}

/** Items per ms that the replica was measured at; 0: not yet. */
export function speedOf({ load: { msPerItem } }: Candidate): number {
  return msPerItem > 0 ? 1 / msPerItem : 0;
}

export class SpreadCall implements InferTicket {
  readonly #parts: SpreadParts;
  readonly #host: CallHost;
  readonly #book: ChunkBook;
  readonly #slices: ItemSlices;
  readonly #gathering: Gathering;
  readonly #lanes = new Map<string, Lane>();
  readonly #chunks = new Set<Chunk>();
  readonly #shares: SharePart[] = [];
  #error: IntarsiaError | undefined;
  #timer: Timer | undefined;
  #wakeMs = Infinity;
  #answered = false;
  /** Pieces that devices have not given back. */
  #held = 0;
  #isFilling = false;
  #fillAgain = false;
  #released = false;

  constructor(parts: SpreadParts) {
    const { request, gateway } = parts;
    this.#parts = parts;
    this.#book = new ChunkBook(request.items);
    this.#slices = new ItemSlices(request.inputs, request.items);
    this.#gathering = new Gathering(request.items);
    this.#host = {
      router: gateway.router,
      clock: gateway.clock,
      sequences: gateway.sequences,
      receipts: false,
      // Where a piece goes next is decided here.
      attemptsMax: 1,
      desk: gateway.desk,
      attemptObserver: gateway.attemptObserver,
      onFinished: undefined,
      begin: () => {
        this.#held += 1;
      },
      end: () => {
        this.#held -= 1;
        this.#releaseWhenBack();
      },
    };
  }

  start(): void {
    this.#parts.gateway.begin(this.#parts.bytes);
    this.#fill();
  }

  cancel(): void {
    if (this.#answered) return;
    // What one piece says of it is what the client is told; the others are taken back with it.
    const [chunk] = this.#chunks;
    chunk?.call?.cancel();
  }

  /** A device answered a piece. */
  succeeded(chunk: Chunk, outcome: InferenceSuccess): void {
    const { lane, range } = chunk;
    this.#free(chunk);
    if (this.#answered || chunk.work.isDone) return;
    const nowMs = this.#parts.gateway.clock.nowMs();
    lane.itemsDone += range.items;
    lane.busyMs += nowMs - chunk.sentMs;
    try {
      this.#gathering.add(range, outcome.outputs);
    } catch (error) {
      this.#fail(asIntarsiaError(error));
      return;
    }
    outcome[releaseOutputs]?.();
    chunk.work.isDone = true;
    this.#book.finish(range);
    this.#shares.push({ host: lane.host, items: range.items, receipt: outcome.receipt });
    for (const other of this.#chunks) {
      if (other.work === chunk.work) {
        if (other.sentMs < chunk.sentMs) other.lane.isClosed = true;
        other.call?.cancel();
      }
    }
    if (this.#book.isComplete) this.#succeed();
    else this.#fill();
  }

  failed(chunk: Chunk, error: IntarsiaError): void {
    this.#free(chunk);
    if (this.#answered || chunk.work.isDone) return;
    chunk.lane.isClosed = true;
    this.#error = error;
    const others = [...this.#chunks].some(({ work }) => work === chunk.work);
    if (!error.retryable) this.#fail(error);
    else if (others) this.#fill();
    else if (this.#parts.gateway.desk.takeRetry('failed')) {
      this.#book.giveBack(chunk.range);
      this.#fill();
    } else this.#fail(error);
  }

  /** Gives every idle device a piece. */
  #fill(): void {
    if (this.#isFilling) {
      this.#fillAgain = true;
      return;
    }
    this.#isFilling = true;
    do {
      this.#fillAgain = false;
      this.#fillOnce();
    } while (this.#mustFillAgain());
    this.#isFilling = false;
    this.#arm();
  }

  /** A piece came back while others were given out. A method, because the compiler does not see that it may. */
  #mustFillAgain(): boolean {
    return this.#fillAgain && !this.#answered;
  }

  #fillOnce(): void {
    const { model, request } = this.#parts;
    const open = this.#openLanes();
    const speeds = open.map(laneSpeed);
    const { maxBatchSize } = model.config;
    for (const lane of open) {
      if (this.#answered) return;
      if (lane.chunk !== undefined) continue;
      const underWay = [...this.#chunks].reduce((sum, { range }) => sum + range.items, 0);
      const wish = {
        remaining: this.#book.remaining,
        underWay,
        speed: laneSpeed(lane),
        speeds,
        itemsMax: maxBatchSize,
      };
      const range = this.#book.take(chunkItems(wish));
      if (range !== undefined) this.#run(lane, range, { isDone: false });
    }
    if (this.#fillAgain || this.#chunks.size > 0) return;
    const table = this.#host.router.current;
    const routed = this.#parts.routed(request);
    const known = [
      ...candidatesOf(table, routed.model, routed.version),
      ...reserveOf(table, routed.model, routed.version),
    ];
    this.#fail(this.#error ?? noReplica(model, known, ''));
  }

  /** Devices that may get pieces, the fastest first. */
  #openLanes(): readonly Lane[] {
    const first = this.#parts.routed(this.#parts.request);
    const open: Lane[] = [];
    for (const [key, candidate] of spreadCandidates(this.#host, first)) {
      let lane = this.#lanes.get(key);
      if (lane === undefined) {
        const host = candidate.standing?.host.host ?? '';
        lane = { key, host, candidate, chunk: undefined, isClosed: false, itemsDone: 0, busyMs: 0 };
        this.#lanes.set(key, lane);
      }
      lane.candidate = candidate;
      if (!lane.isClosed) open.push(lane);
    }
    return open.sort((a, b) => laneSpeed(b) - laneSpeed(a));
  }

  #run(lane: Lane, range: ItemRange, work: Work): void {
    const { request, model, routed, nextId } = this.#parts;
    const inputs = this.#slices.slice(range);
    const bytes = inputs.reduce((sum, { data }) => sum + data.byteLength, 0);
    const arrivedMs = this.#host.clock.nowMs();
    const piece = routed({ ...request, id: nextId(), inputs, items: range.items, bytes, arrivedMs });
    const chunk: Chunk = new Chunk(this, { lane, range, work, sentMs: arrivedMs });
    lane.chunk = chunk;
    this.#chunks.add(chunk);
    chunk.call = new InferenceCall({
      gateway: this.#host,
      model,
      request: piece,
      device: lane.key,
      bytes,
      span: noSpan,
      hop: chunk,
    });
    chunk.call.start();
  }

  #free(chunk: Chunk): void {
    this.#chunks.delete(chunk);
    if (chunk.lane.chunk === chunk) chunk.lane.chunk = undefined;
  }

  /** Once nothing is left to be taken, sees to pieces that are late. */
  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#wakeMs = Infinity;
    if (this.#answered || this.#book.remaining > 0) return;
    for (const chunk of this.#chunks) {
      if (!chunk.work.isTwice) this.#wakeMs = Math.min(this.#wakeMs, chunk.sentMs + lateMsOf(chunk));
    }
    if (this.#wakeMs === Infinity) return;
    this.#timer = this.#host.clock.scheduleAt(this.#wakeMs, () => this.#wake());
  }

  #wake(): void {
    this.#timer = undefined;
    const nowMs = this.#host.clock.nowMs();
    for (const chunk of [...this.#chunks]) {
      if (this.#answered) return;
      if (chunk.work.isTwice === true || chunk.work.isDone || chunk.sentMs + lateMsOf(chunk) > nowMs) continue;
      chunk.work.isTwice = true;
      const free = this.#openLanes().find((lane) => lane.chunk === undefined);
      if (free !== undefined && this.#host.desk.takeRetry('overdue')) this.#run(free, chunk.range, chunk.work);
    }
    this.#arm();
  }

  #succeed(): void {
    const { gateway, message, model, classes, reply } = this.#parts;
    const [first, ...rest] = this.#shares;
    if (first === undefined) return;
    try {
      const outcome: InferenceSuccess = {
        ok: true,
        outputs: this.#gathering.finish(),
        receipt: { ...sharedReceipt([first, ...rest]), billing: this.#parts.request.billing },
      };
      const host = outcome.receipt.shares?.[0]?.host ?? '';
      const answer = answerOf(outcome, { message, model, classes, receipts: gateway.receipts, host });
      this.#answered = true;
      reply.succeed(answer, false);
      this.#end(outcome);
    } catch (error) {
      this.#fail(asIntarsiaError(error));
    }
  }

  #fail(error: IntarsiaError): void {
    if (this.#answered) return;
    this.#answered = true;
    this.#parts.reply.fail(error);
    this.#end({ ok: false, error });
  }

  #end(outcome: InferenceOutcome): void {
    const { gateway, request, span } = this.#parts;
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const chunk of [...this.#chunks]) chunk.call?.cancel();
    if (span.recording) {
      span.set({
        'intarsia.model': request.model,
        'intarsia.items': request.items,
        'intarsia.devices': this.#lanes.size,
      });
    }
    if (span !== noSpan) span.end(outcome.ok ? undefined : outcome.error.code);
    gateway.onFinished?.({ request, outcome, finishedMs: gateway.clock.nowMs() });
    this.#releaseWhenBack();
  }

  /** Lets the request's bytes go once it is answered and no device of this host reads them. */
  #releaseWhenBack(): void {
    if (!this.#answered || this.#held > 0 || this.#released) return;
    this.#released = true;
    this.#parts.gateway.end(this.#parts.bytes);
  }
}

/** What is to be done once, perhaps by two devices. */
interface Work {
  isDone: boolean;
  isTwice?: boolean;
}

/** One piece at one device. */
class Chunk implements HopReply {
  readonly lane: Lane;
  readonly range: ItemRange;
  readonly work: Work;
  readonly sentMs: number;
  call: InferenceCall | undefined;
  readonly #request: SpreadCall;

  constructor(request: SpreadCall, parts: Pick<Chunk, 'lane' | 'range' | 'work' | 'sentMs'>) {
    this.#request = request;
    this.lane = parts.lane;
    this.range = parts.range;
    this.work = parts.work;
    this.sentMs = parts.sentMs;
  }

  succeed(outcome: InferenceSuccess): void {
    this.#request.succeeded(this, outcome);
  }

  fail(error: IntarsiaError): void {
    this.#request.failed(this, error);
  }

  sentAgain(): void {
    // One attempt each.
  }
}

function laneSpeed({ itemsDone, busyMs, candidate }: Lane): number {
  return itemsDone > 0 && busyMs > 0 ? itemsDone / busyMs : speedOf(candidate);
}

function lateMsOf({ lane, range }: Chunk): number {
  const speed = laneSpeed(lane);
  return speed > 0 ? Math.max(lateMsMin, (lateFactor * range.items) / speed) : lateMsUnknown;
}
