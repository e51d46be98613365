/**
 * Makes a dispatch policy the picker of a gateway: fills one row of figures for each candidate from the ledger, lets the
 * policy choose, and turns its answer into the picker's. Live hosts and the simulator run this same code.
 *
 * A request with neither a target, nor a deadline, nor a class is answered as soon as possible: money is only weighed against
 * a time that somebody named.
 */
import { isIn, linkCostMs } from '#core/grid/standing.js';
import type { InferenceRequest } from '#core/inference.js';
import { shedPick, type Candidate, type Picker, type ShedReason } from '#core/picker.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';
import type { DispatchLedger, Lane } from '#core/scheduling/dispatch-ledger.js';
import {
  expectedMs,
  newDispatchCandidate,
  NONE,
  SHED,
  type Chance,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
} from '#core/scheduling/dispatch-view.js';
import { defaultSloRules, type SloRules } from '#core/scheduling/slo-class.js';
import { shortestExpectedDelay } from './dispatch-sed.js';

export interface DispatchPickerOptions {
  readonly policy: DispatchPolicy;
  readonly ledger: DispatchLedger;
  readonly random: Chance;
  readonly rules?: SloRules;
  /** Picks for requests that name no time. Default: the shortest expected delay. */
  readonly untimed?: Picker;
  /** Told of every decision, on the hot path. Must not throw. */
  readonly onDecision?: (decision: DispatchDecision) => void;
}

/** Up to this many candidates all are looked at; of more, so many. */
const lookedAtMax = 128;

export function dispatchPicker(options: DispatchPickerOptions): DispatchPicker {
  return new DispatchPicker(options);
}

export class DispatchPicker implements Picker {
  /** Since the start: decisions by the policy, and of them those that refused, by class. */
  readonly counts = { decisions: 0, shed: { interactive: 0, standard: 0, batch: 0 } };
  #policy: DispatchPolicy;
  readonly #untimed: Picker | undefined;
  readonly #soonest = shortestExpectedDelay();
  readonly #ledger: DispatchLedger;
  readonly #random: Chance;
  readonly #rules: SloRules;
  readonly #onDecision: ((decision: DispatchDecision) => void) | undefined;
  readonly #lanes = new WeakMap<readonly Candidate[], readonly Lane[]>();
  /** Candidates for each count: the same objects, in arrays of that length. */
  readonly #views: DispatchCandidate[][] = [];
  readonly #pool: DispatchCandidate[] = [];
  readonly #dispatch: DispatchRequest = {
    model: '',
    items: 1,
    sloMs: 1,
    class: 'standard',
    nowMs: 0,
    arrivedMs: 0,
    mayShed: false,
  };
  readonly #shed = { class: '', sloMs: 0, soonestMs: 0 };
  readonly #news = { backlogMs: 0, atMs: 0 };
  #nowMs = 0;
  #lastId = -1;

  constructor(options: DispatchPickerOptions) {
    this.#policy = options.policy;
    this.#untimed = options.untimed;
    this.#ledger = options.ledger;
    this.#random = options.random;
    this.#rules = options.rules ?? defaultSloRules;
    this.#onDecision = options.onDecision;
  }

  get policy(): string {
    return this.#policy.name;
  }

  /** Another policy decides from the next request on. */
  use(policy: DispatchPolicy): void {
    this.#policy = policy;
  }

  /** Tells the policy what became of a request that it dispatched. */
  finished(request: InferenceRequest, ok: boolean, finishedMs: number): void {
    const { sloClass, arrivedMs } = request;
    if (this.#policy.finished === undefined || !isTimed(request)) return;
    const late = !ok || finishedMs - arrivedMs > this.#sloMsOf(request);
    this.#policy.finished(request.model, sloClass ?? 'standard', late, finishedMs, arrivedMs);
  }

  pick(request: InferenceRequest, replicas: readonly Candidate[], nowMs: number, exclude: ReadonlySet<string>): number {
    const all = replicas.length;
    if (all === 0) return -1;
    if (this.#untimed !== undefined && !isTimed(request)) {
      return this.#untimed.pick(request, replicas, nowMs, exclude);
    }
    // Without bans the moment is that of the pick before, of the same turn.
    if (nowMs !== Infinity) this.#nowMs = nowMs;
    const count = Math.min(all, lookedAtMax);
    const start = all > lookedAtMax ? this.#random.below(all) : 0;
    const candidates = this.#view(count);
    const itemsPerMs = this.#fill(request, replicas, candidates, start, nowMs, exclude);
    if (request.id !== this.#lastId) {
      this.#lastId = request.id;
      this.#ledger.arrived(request.items, itemsPerMs, this.#nowMs);
    }
    const policy = this.#describe(request);
    const fleet = this.#ledger.fleet(this.#nowMs);
    const chosen = policy.choose(this.#dispatch, candidates, fleet, this.#random);
    if (this.#onDecision !== undefined) {
      this.#onDecision({ request, dispatch: this.#dispatch, replicas, start, candidates, fleet, chosen, policy });
    }
    this.counts.decisions += 1;
    if (chosen === SHED) return this.#refuse(candidates);
    if (chosen === NONE || candidates[chosen]?.masked !== '') return -1;
    return all > count ? (start + chosen) % all : chosen;
  }

  explainShed(): ShedReason {
    return this.#shed;
  }

  /** Who decides, and the request as policies see it. */
  #describe(request: InferenceRequest): DispatchPolicy {
    const dispatch = this.#dispatch;
    const { sloClass, arrivedMs } = request;
    dispatch.model = request.model;
    dispatch.items = request.items;
    dispatch.class = sloClass ?? 'standard';
    dispatch.nowMs = this.#nowMs;
    dispatch.arrivedMs = arrivedMs;
    dispatch.mayShed = sloClass !== undefined && this.#rules[sloClass].onMiss === 'shed';
    dispatch.sloMs = this.#sloMsOf(request);
    return isTimed(request) ? this.#policy : this.#soonest;
  }

  /** The target: the request's own, else its class's, else its deadline. */
  #sloMsOf({ sloMs, sloClass, deadlineMs, arrivedMs }: InferenceRequest): number {
    if (sloMs !== undefined) return sloMs;
    const leftMs = deadlineMs - arrivedMs;
    if (sloClass === undefined) return leftMs < Infinity ? leftMs : this.#rules.standard.sloMs;
    return Math.min(leftMs, this.#rules[sloClass].sloMs);
  }

  /** Writes the candidates; answers how many items a millisecond those that may be chosen can do. */
  #fill(
    request: InferenceRequest,
    replicas: readonly Candidate[],
    candidates: readonly DispatchCandidate[],
    start: number,
    nowMs: number,
    exclude: ReadonlySet<string>,
  ): number {
    const lanes = this.#lanesOf(replicas);
    const all = replicas.length;
    const { items } = request;
    const workPerItem = workOfItem(replicas, lanes);
    let itemsPerMs = 0;
    for (let index = 0; index < candidates.length; index += 1) {
      const at = start === 0 ? index : (start + index) % all;
      const replica = replicas[at] as Candidate;
      const lane = lanes[at] as Lane;
      const candidate = candidates[index] as DispatchCandidate;
      const { load, standing } = replica;
      if (standing === undefined) {
        this.#ledger.fill(lane, candidate, items, workPerItem, this.#nowMs);
        candidate.telemetryAgeMs = 0;
      } else {
        if (standing.queueAtMs > 0) this.#hear(lane, standing.queueMs, standing.queueAtMs);
        this.#ledger.fill(lane, candidate, items, workPerItem / standing.speed, this.#nowMs);
        if (standing.host.local) candidate.telemetryAgeMs = 0;
        else candidate.netMs += linkCostMs(standing.host, this.#nowMs);
      }
      candidate.stages = replica.replica.stages.length;
      if (!load.ready) candidate.masked = 'not ready';
      else if (standing !== undefined && !isIn(standing, nowMs)) candidate.masked = 'banned';
      else if (exclude.size > 0 && exclude.has(replica.replica.id)) candidate.masked = 'failed this request';
      if (candidate.masked === '') itemsPerMs += candidate.itemsMax / candidate.fullMs;
    }
    return itemsPerMs;
  }

  #hear(lane: Lane, backlogMs: number, atMs: number): void {
    this.#news.backlogMs = backlogMs;
    this.#news.atMs = atMs;
    this.#ledger.hear(lane, this.#news, this.#nowMs);
  }

  #refuse(candidates: readonly DispatchCandidate[]): number {
    const shed = this.#shed;
    const { class: sloClass, sloMs, nowMs, arrivedMs } = this.#dispatch;
    this.counts.shed[sloClass] += 1;
    shed.class = sloClass;
    shed.sloMs = sloMs;
    shed.soonestMs = Infinity;
    for (let index = 0; index < candidates.length; index += 1) {
      const candidate = candidates[index] as DispatchCandidate;
      if (candidate.masked === '') shed.soonestMs = Math.min(shed.soonestMs, expectedMs(candidate));
    }
    shed.soonestMs += nowMs - arrivedMs;
    return shedPick;
  }

  #lanesOf(replicas: readonly Candidate[]): readonly Lane[] {
    let lanes = this.#lanes.get(replicas);
    if (lanes === undefined) {
      lanes = replicas.map(({ replica }) => this.#ledger.laneOf(replica));
      this.#lanes.set(replicas, lanes);
    }
    return lanes;
  }

  #view(count: number): readonly DispatchCandidate[] {
    const known = this.#views[count];
    if (known !== undefined) return known;
    while (this.#pool.length < count) this.#pool.push(newDispatchCandidate());
    const view = this.#pool.slice(0, count);
    this.#views[count] = view;
    return view;
  }
}

/** Milliseconds an item takes on a device of speed 1, by the best of those known; 1 when none is: so that all are tried. */
function workOfItem(replicas: readonly Candidate[], lanes: readonly Lane[]): number {
  let least = Infinity;
  let isNeeded = false;
  for (let index = 0; index < lanes.length; index += 1) {
    const { runs } = lanes[index] as Lane;
    if (!runs.known) isNeeded = true;
    else least = Math.min(least, runs.at(1) * ((replicas[index] as Candidate).standing?.speed ?? 1));
  }
  return !isNeeded || least === Infinity ? 1 : least;
}

/** Whether the client said by when it wants its answer. */
function isTimed({ sloMs, sloClass, deadlineMs }: InferenceRequest): boolean {
  return sloMs !== undefined || sloClass !== undefined || deadlineMs < Infinity;
}
