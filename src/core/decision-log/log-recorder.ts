/**
 * Takes decisions and outcomes down while requests are served: numbers into the slice at hand, texts as numbers. When the
 * slice is full, or when it is told to, it hands the slice on and goes on with the next free one. When none is free, whoever
 * writes is behind: rows are lost then and counted.
 */
import type { InferenceOutcome, InferenceRequest } from '../inference.js';
import type { Candidate } from '../picker.js';
import { deviceKey } from '../routing-table.js';
import type { DispatchDecision } from '../scheduling/dispatch-decision.js';
import { SHED } from '../scheduling/dispatch-view.js';
import { sloClasses, type SloClass } from '../scheduling/slo-class.js';
import { figureCount, writeFigures, writeFleetFigures } from './figures.js';
import {
  decisionIntegers as di,
  decisionNumbers as dn,
  LogSlice,
  outcomeIntegers as oi,
  outcomeNumbers as on,
  planWidth,
  rowIntegers as ri,
  sliceSizeDefault,
  type SliceSize,
} from './log-slice.js';

/** A request that is over. */
export interface EndedRequest {
  readonly request: InferenceRequest;
  readonly outcome: InferenceOutcome;
  /** Monotonic milliseconds, same clock as `request.arrivedMs`. */
  readonly finishedMs: number;
}

export interface LogRecorderOptions {
  /** Share of requests that are logged, 0 to 1: all decisions and the outcome of a request, or nothing of it. */
  readonly share: number;
  /** What to add to the monotonic clock for milliseconds since 1970. Asked once a slice. */
  readonly wallOffsetMs: () => number;
  /** Takes a full slice by its number and the texts that are new; gives it back by `free`. */
  readonly handOver: (slice: number, newTexts: readonly string[]) => void;
  readonly size?: SliceSize;
  /** Default 4. */
  readonly slices?: number;
}

export interface LogCounts {
  decisions: number;
  outcomes: number;
  /** Decisions and outcomes that there was no room for, or that came after the log had stopped. */
  lost: number;
}

/** Different texts of a run: devices, models, tenants, policies, reasons. Later ones become `(other)`. */
const textsMax = 65_536;

export class LogRecorder {
  readonly counts: LogCounts = { decisions: 0, outcomes: 0, lost: 0 };
  readonly slices: readonly LogSlice[];
  readonly #options: LogRecorderOptions;
  readonly #free: number[] = [];
  /** Requests whose scrambled number is below this are logged. */
  readonly #below: number;
  readonly #texts = new Map<string, number>();
  #newTexts: string[] = [];
  readonly #places = new WeakMap<readonly Candidate[], Int32Array>();
  /** Number of the slice at hand; -1 while none is free. */
  #current = -1;
  #stopped = false;

  constructor(options: LogRecorderOptions) {
    this.#options = options;
    this.#below = options.share * 2 ** 32;
    const size = options.size ?? sliceSizeDefault;
    this.slices = Array.from({ length: options.slices ?? 4 }, () => new LogSlice(size));
    for (let number = this.slices.length - 1; number >= 0; number -= 1) this.#free.push(number);
    this.#text('');
    this.#text('(other)');
    this.#next();
  }

  decided(decision: DispatchDecision): void {
    const { request, dispatch, candidates, policy, chosen } = decision;
    if (!this.#isWanted(request)) return;
    const slice = this.#roomFor(1, candidates.length, 0);
    if (slice === undefined) return;
    const trace = policy.trace;
    const { decisions, rows } = slice;
    const places = this.#placesOf(decision.replicas);
    const all = places.length;
    for (let index = 0; index < candidates.length; index += 1) {
      const candidate = candidates[index];
      if (candidate === undefined) continue;
      const row = rows + index;
      writeFigures(candidate, slice.figures, row * figureCount);
      slice.scores[row] = trace?.scoreOf === undefined ? Number.NaN : trace.scoreOf(index);
      if (trace?.writePlan !== undefined) trace.writePlan(candidate, slice.plans, row * planWidth);
      else slice.plans.fill(0, row * planWidth, (row + 1) * planWidth);
      const at = row * ri.width;
      slice.rowIntegers[at + ri.place] = places[(decision.start + index) % all] as number;
      slice.rowIntegers[at + ri.masked] = candidate.masked === '' ? 0 : this.#text(candidate.masked);
    }
    const numbers = slice.decisionNumbers;
    const n = decisions * dn.width;
    numbers[n + dn.request] = request.id;
    numbers[n + dn.nowMs] = dispatch.nowMs;
    numbers[n + dn.arrivedMs] = dispatch.arrivedMs;
    numbers[n + dn.sloMs] = dispatch.sloMs;
    numbers[n + dn.propensity] = trace?.propensity ?? 1;
    numbers[n + dn.refusalScore] = trace?.scoreOf === undefined ? Number.NaN : trace.scoreOf(SHED);
    writeFleetFigures(decision.fleet, numbers, n + dn.fleet);
    const integers = slice.decisionIntegers;
    const i = decisions * di.width;
    integers[i + di.model] = this.#text(dispatch.model);
    integers[i + di.sloClass] = classNumber(dispatch.class);
    integers[i + di.items] = dispatch.items;
    integers[i + di.mayShed] = dispatch.mayShed ? 1 : 0;
    integers[i + di.rowStart] = rows;
    integers[i + di.rows] = candidates.length;
    integers[i + di.chosen] = chosen;
    integers[i + di.policy] = this.#text(policy.name);
    integers[i + di.fallback] = trace === undefined || trace.fallback === '' ? 0 : this.#text(trace.fallback);
    integers[i + di.hasPlan] = trace?.writePlan === undefined ? 0 : 1;
    slice.rows = rows + candidates.length;
    slice.decisions = decisions + 1;
    this.counts.decisions += 1;
  }

  finished({ request, outcome, finishedMs }: EndedRequest): void {
    if (!this.#isWanted(request)) return;
    const slice = this.#roomFor(0, 0, 1);
    if (slice === undefined) return;
    const { outcomes } = slice;
    const receipt = outcome.ok ? outcome.receipt : undefined;
    const numbers = slice.outcomeNumbers;
    const n = outcomes * on.width;
    numbers[n + on.request] = request.id;
    numbers[n + on.arrivedMs] = request.arrivedMs;
    numbers[n + on.finishedMs] = finishedMs;
    numbers[n + on.costUsd] = receipt?.costUsd ?? Number.NaN;
    numbers[n + on.joules] = receipt?.energyJoules ?? Number.NaN;
    numbers[n + on.queueUs] = receipt?.queueUs ?? Number.NaN;
    numbers[n + on.computeUs] =
      receipt === undefined ? Number.NaN : receipt.computeInputUs + receipt.computeInferUs + receipt.computeOutputUs;
    numbers[n + on.linkUs] = receipt?.linkUs ?? Number.NaN;
    const integers = slice.outcomeIntegers;
    const i = outcomes * oi.width;
    integers[i + oi.model] = this.#text(request.model);
    integers[i + oi.sloClass] = request.sloClass === undefined ? -1 : classNumber(request.sloClass);
    integers[i + oi.items] = request.items;
    integers[i + oi.tenant] = this.#text(request.billing.tenant);
    integers[i + oi.outcome] = this.#text(outcome.ok ? 'ok' : outcome.error.code);
    integers[i + oi.shed] = !outcome.ok && outcome.error.details['reason'] === 'shed' ? 1 : 0;
    integers[i + oi.device] = receipt === undefined ? 0 : this.#text(receipt.device);
    integers[i + oi.emulated] = receipt?.emulated === true ? 1 : 0;
    integers[i + oi.batchItems] = receipt?.batchItems ?? 0;
    slice.outcomes = outcomes + 1;
    this.counts.outcomes += 1;
  }

  /** Hands over what there is, if anything. */
  flush(): void {
    const slice = this.slices[this.#current];
    if (slice === undefined || (slice.decisions === 0 && slice.outcomes === 0)) return;
    const number = this.#current;
    const texts = this.#newTexts;
    this.#newTexts = [];
    this.#next();
    this.#options.handOver(number, texts);
  }

  /** The slice is written; its memory may be used again. */
  free(number: number): void {
    this.#free.push(number);
    if (this.#current < 0) this.#next();
  }

  /** Nothing is taken down any more. */
  stop(): void {
    this.#stopped = true;
  }

  /** By number alone, so that all of a request is logged or nothing of it, on every attempt. */
  #isWanted({ id }: InferenceRequest): boolean {
    return Math.imul(id, 0x9e3779b1) >>> 0 < this.#below;
  }

  /** The slice with room for so much, after handing a full one over; undefined, and counted, when there is none. */
  #roomFor(decisions: number, rows: number, outcomes: number): LogSlice | undefined {
    if (!this.#stopped) {
      let slice = this.slices[this.#current];
      if (slice !== undefined && !hasRoom(slice, decisions, rows, outcomes)) {
        this.flush();
        slice = this.slices[this.#current];
      }
      if (slice !== undefined && hasRoom(slice, decisions, rows, outcomes)) return slice;
    }
    this.counts.lost += 1;
    return undefined;
  }

  #next(): void {
    this.#current = this.#free.pop() ?? -1;
    this.slices[this.#current]?.begin(this.#options.wallOffsetMs());
  }

  #text(text: string): number {
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    if (this.#texts.size >= textsMax) return 1;
    const number = this.#texts.size;
    this.#texts.set(text, number);
    this.#newTexts.push(text);
    return number;
  }

  /** Text of each replica: the devices of its stages. Made once a routing table. */
  #placesOf(replicas: readonly Candidate[]): Int32Array {
    let places = this.#places.get(replicas);
    if (places === undefined) {
      places = Int32Array.from(replicas, ({ replica }) =>
        this.#text(replica.stages.map(({ host, device }) => deviceKey(host, device)).join(' > ')),
      );
      this.#places.set(replicas, places);
    }
    return places;
  }
}

function hasRoom(slice: LogSlice, decisions: number, rows: number, outcomes: number): boolean {
  const { size } = slice;
  return (
    slice.decisions + decisions <= size.decisions &&
    slice.rows + rows <= size.rows &&
    slice.outcomes + outcomes <= size.outcomes
  );
}

function classNumber(sloClass: SloClass): number {
  return sloClasses.indexOf(sloClass);
}
