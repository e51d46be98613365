/**
 * Rate matching, the slow and strong baseline (as Mélange, Proteus and Helix do it): every few seconds the fluid linear
 * programme is solved for the rates seen since, and requests follow its shares by smooth weighted round robin. It knows
 * nothing of queues between two solutions.
 */
import {
  busyUsd,
  expectedMs,
  NONE,
  type DispatchCandidate,
  type DispatchPolicy,
} from '#core/scheduling/dispatch-view.js';
import { solveTransport } from '#core/scheduling/transport-plan.js';
import { leastOf } from './least-of.js';

interface Model {
  items: number;
  /** By device: ms an item in full batches, or Infinity where it was not a candidate; what the plan sends; credit. */
  ms: Float64Array;
  share: Float64Array;
  credit: Float64Array;
}

/** ms between two solutions. */
const periodMs = 5_000;
/** Devices the plan may fill so far: the rest is for what rates do not show. */
const busyShare = 0.9;
/** A drop costs as many times the dearest item. */
const dropFactor = 100;

export function rateMatching(): DispatchPolicy {
  const models = new Map<string, Model>();
  let usdPerMs = new Float64Array(8);
  let solvedMs = -Infinity;
  let turn = 0;

  const solve = (nowMs: number): void => {
    const spanMs = Math.min(periodMs * 4, nowMs - solvedMs);
    solvedMs = nowMs;
    const all = [...models.values()];
    const ms = all.map((model) => [...model.ms]);
    // Where nothing has a price, busy time is what is saved.
    const prices = usdPerMs.some((usd) => usd > 0) ? [...usdPerMs] : [...usdPerMs].fill(1);
    let dearest = 0;
    for (const row of ms) {
      row.forEach((itemMs, device) => {
        if (itemMs < Infinity) dearest = Math.max(dearest, itemMs * (prices[device] as number));
      });
    }
    const devices = usdPerMs.length;
    const plan = solveTransport({
      rates: all.map((model) => model.items / spanMs),
      ms,
      usdPerMs: prices,
      dropUsd: dropFactor * dearest,
      busyShare,
    });
    all.forEach((model, index) => {
      model.share.set(plan.subarray(index * devices, (index + 1) * devices));
      model.credit.fill(0);
      model.items = 0;
    });
  };

  const grow = (devices: number): void => {
    const length = 2 * devices;
    const wider = (array: Float64Array, filler: number): Float64Array<ArrayBuffer> => {
      const grown = new Float64Array(length).fill(filler);
      grown.set(array);
      return grown;
    };
    usdPerMs = wider(usdPerMs, 0);
    for (const model of models.values()) {
      model.ms = wider(model.ms, Infinity);
      model.share = wider(model.share, 0);
      model.credit = wider(model.credit, 0);
    }
  };

  return {
    name: 'milp-rate',
    choose: (request, candidates, fleet) => {
      for (let index = 0; index < candidates.length; index += 1) {
        const { device } = candidates[index] as DispatchCandidate;
        if (device >= usdPerMs.length) grow(device + 1);
      }
      let model = models.get(request.model);
      if (model === undefined) {
        const devices = usdPerMs.length;
        model = {
          items: 0,
          ms: new Float64Array(devices).fill(Infinity),
          share: new Float64Array(devices),
          credit: new Float64Array(devices),
        };
        models.set(request.model, model);
      }
      turn = (turn + 1) % 65_536;
      model.items += request.items;
      for (let index = 0; index < candidates.length; index += 1) {
        const candidate = candidates[index] as DispatchCandidate;
        model.ms[candidate.device] = candidate.masked === '' ? candidate.fullMs / candidate.itemsMax : Infinity;
        usdPerMs[candidate.device] = busyUsd(candidate, 1, fleet);
      }
      if (solvedMs === -Infinity) solvedMs = request.nowMs;
      else if (request.nowMs - solvedMs >= periodMs) solve(request.nowMs);
      let best = NONE;
      let richest = 0;
      let sum = 0;
      for (let index = 0; index < candidates.length; index += 1) {
        const { device, masked } = candidates[index] as DispatchCandidate;
        const share = model.share[device] as number;
        if (masked !== '' || share <= 0) continue;
        const own = (model.credit[device] as number) + share;
        model.credit[device] = own;
        sum += share;
        if (best === NONE || own > richest) {
          best = index;
          richest = own;
        }
      }
      // Before the first solution, and where the plan drops the model.
      if (best === NONE) return leastOf(candidates, request, fleet, turn, expectedMs);
      const { device } = candidates[best] as DispatchCandidate;
      model.credit[device] = (model.credit[device] as number) - sum;
      return best;
    },
  };
}
