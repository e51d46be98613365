/**
 * The fluid programme of dispatch as it goes on: every few seconds it is solved for the rates seen since, and between two
 * solutions each model's requests take turns by their shares (smooth weighted round robin). The rule `milp-rate` follows the
 * turns; a learned policy of schema `dispatch-2` sees them as features.
 *
 * It knows nothing of queues. Whoever decides tells it of every request, and of every choice, whether it was the plan's or not.
 */
import { busyUsd, type DispatchCandidate, type DispatchRequest, type FleetView } from './dispatch-view.js';
import { planFeatureNames } from './features.js';
import { solveTransport } from './transport-plan.js';

interface Model {
  items: number;
  /** By device: ms an item in full batches, or Infinity where it was not a candidate; what the plan sends; credit. */
  ms: Float64Array;
  share: Float64Array;
  credit: Float64Array;
  /** By device: whether it was there at the last request: 1 or 0; -1 before. */
  there: Int8Array;
}

/** Why a candidate is masked for all requests, not for the one at hand: the device is not there. */
const gone: ReadonlySet<string> = new Set(['not ready', 'banned']);

/** ms between two solutions. */
const periodMs = 5_000;
/** A drop costs as many times the dearest item. */
const dropFactor = 100;
/** A device that is chosen out of turn owes at most so many turns. */
const debtMax = 2;

export class RatePlan {
  readonly #models = new Map<string, Model>();
  readonly #busyShare: number;
  #usdPerMs = new Float64Array(8);
  /** By device: share of its time that the plan fills. */
  #busy = new Float64Array(8);
  #solvedMs = -Infinity;
  #seenMs = -Infinity;
  /** Of the request at hand: its model, and what the plan sends to the candidates that may be chosen. */
  #model: Model | undefined;
  #sum = 0;
  /** Device of the last choice, whose turn is not taken off yet; -1 where there is none. */
  #chosen = -1;

  /**
   * @param busyShare The plan may fill devices so far. With less than all of their time it sends to dear devices what queues of cheap ones
   * would bear: good for a rule that looks at nothing else, bad advice for a policy that sees queues.
   */
  constructor(busyShare = 1) {
    this.#busyShare = busyShare;
  }

  /** Before each decision. Solves anew when it is time. */
  observe(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView): void {
    this.#settle();
    for (let index = 0; index < candidates.length; index += 1) {
      const { device } = candidates[index] as DispatchCandidate;
      if (device >= this.#usdPerMs.length) this.#grow(device + 1);
    }
    const model = this.#modelOf(request.model);
    for (let index = 0; index < candidates.length; index += 1) {
      const candidate = candidates[index] as DispatchCandidate;
      model.ms[candidate.device] = candidate.masked === '' ? candidate.fullMs / candidate.itemsMax : Infinity;
      this.#usdPerMs[candidate.device] = busyUsd(candidate, 1, fleet);
    }
    // Without requests for a while, as in a share of the time slices, what was counted before gives no rates.
    // Where devices went or came, the plan is one for others than there are, and queues are not what it takes them for.
    if (request.nowMs - this.#seenMs > periodMs || hasChanged(model, candidates)) this.#begin(request.nowMs);
    this.#seenMs = request.nowMs;
    model.items += request.items;
    if (request.nowMs - this.#solvedMs >= periodMs) this.#solve(request.nowMs);
    this.#model = model;
    this.#sum = 0;
    for (let index = 0; index < candidates.length; index += 1) {
      const { device, masked } = candidates[index] as DispatchCandidate;
      const share = model.share[device] as number;
      if (masked !== '' || share <= 0) continue;
      model.credit[device] = (model.credit[device] as number) + share;
      this.#sum += share;
    }
  }

  /** Whether the plan sends requests of the model at hand to any candidate: not before the first solution, nor where it drops the model. */
  get isKnown(): boolean {
    return this.#sum > 0;
  }

  /** What the plan sends to the device, items per ms; 0 where it sends nothing. */
  share({ device }: DispatchCandidate): number {
    return this.#model?.share[device] ?? 0;
  }

  /** Credit of the device for the model at hand: the greatest is next. */
  credit({ device }: DispatchCandidate): number {
    return this.#model?.credit[device] ?? 0;
  }

  /** After each decision that chose a candidate. Until the next one is observed, turns stay as they were decided by. */
  chose({ device }: DispatchCandidate): void {
    if (this.#sum > 0) this.#chosen = device;
  }

  /** Writes what schema `dispatch-2` has beyond `dispatch-1`; all 0 while there is no plan. */
  write(candidate: DispatchCandidate, out: Float32Array, offset: number): void {
    if (!this.isKnown) {
      out.fill(0, offset, offset + planFeatureNames.length);
      return;
    }
    const share = this.share(candidate);
    const turn = share > 0 ? this.credit(candidate) / this.#sum : -1;
    out[offset] = turn > 1 ? 1 : turn < -1 ? -1 : turn;
    out[offset + 1] = share / this.#sum;
    out[offset + 2] = this.#busy[candidate.device] as number;
    out[offset + 3] = 1;
  }

  #settle(): void {
    if (this.#chosen < 0 || this.#model === undefined) return;
    const left = (this.#model.credit[this.#chosen] as number) - this.#sum;
    this.#model.credit[this.#chosen] = Math.max(left, -debtMax * this.#sum);
    this.#chosen = -1;
  }

  #modelOf(name: string): Model {
    let model = this.#models.get(name);
    if (model === undefined) {
      const devices = this.#usdPerMs.length;
      model = {
        items: 0,
        ms: new Float64Array(devices).fill(Infinity),
        share: new Float64Array(devices),
        credit: new Float64Array(devices),
        there: new Int8Array(devices).fill(-1),
      };
      this.#models.set(name, model);
    }
    return model;
  }

  #begin(nowMs: number): void {
    this.#solvedMs = nowMs;
    for (const model of this.#models.values()) {
      model.items = 0;
      model.share.fill(0);
    }
  }

  #solve(nowMs: number): void {
    const spanMs = nowMs - this.#solvedMs;
    this.#solvedMs = nowMs;
    const all = [...this.#models.values()];
    const ms = all.map((model) => [...model.ms]);
    // Where nothing has a price, busy time is what is saved.
    const prices = this.#usdPerMs.some((usd) => usd > 0) ? [...this.#usdPerMs] : [...this.#usdPerMs].fill(1);
    let dearest = 0;
    for (const row of ms) {
      row.forEach((itemMs, device) => {
        if (itemMs < Infinity) dearest = Math.max(dearest, itemMs * (prices[device] as number));
      });
    }
    const devices = this.#usdPerMs.length;
    const plan = solveTransport({
      rates: all.map((model) => model.items / spanMs),
      ms,
      usdPerMs: prices,
      dropUsd: dropFactor * dearest,
      busyShare: this.#busyShare,
    });
    this.#busy.fill(0);
    all.forEach((model, index) => {
      model.share.set(plan.subarray(index * devices, (index + 1) * devices));
      model.credit.fill(0);
      model.items = 0;
      model.share.forEach((share, device) => {
        if (share > 0) this.#busy[device] = (this.#busy[device] as number) + share * (model.ms[device] as number);
      });
    });
  }

  #grow(devices: number): void {
    const length = 2 * devices;
    const wider = (array: Float64Array, filler: number): Float64Array<ArrayBuffer> => {
      const grown = new Float64Array(length).fill(filler);
      grown.set(array);
      return grown;
    };
    this.#usdPerMs = wider(this.#usdPerMs, 0);
    this.#busy = wider(this.#busy, 0);
    for (const model of this.#models.values()) {
      model.ms = wider(model.ms, Infinity);
      model.share = wider(model.share, 0);
      model.credit = wider(model.credit, 0);
      const there = new Int8Array(length).fill(-1);
      there.set(model.there);
      model.there = there;
    }
  }
}

/** Notes which devices are there for the model; whether they are others than at its last request. */
function hasChanged({ there }: Model, candidates: readonly DispatchCandidate[]): boolean {
  let changed = false;
  for (let index = 0; index < candidates.length; index += 1) {
    const { device, masked } = candidates[index] as DispatchCandidate;
    const now = gone.has(masked) ? 0 : 1;
    if (there[device] === 1 - now) changed = true;
    there[device] = now;
  }
  return changed;
}
