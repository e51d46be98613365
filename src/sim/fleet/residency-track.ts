/**
 * Residency over time: what planning again and again brings where popularity drifts or spot devices come and go. Windows of fluid
 * requests, not single ones: in each window the requests are shared out as well as what lives where allows. A model that
 * is being loaded serves nobody until it is there.
 *
 * A planner sees the rates of the window that has just passed, and who is there now; never what comes.
 */
import type { LinearSolver } from '#ports/linear-solver.js';
import { costOf, loadUsd, type ResidencyChoice, type ResidencyProblem } from '#policies/residency/residency-problem.js';
import { replanResidency, type ReplanOptions } from '#policies/residency/residency-replan.js';
import { seededRandom } from '../random.js';

/** A stretch of time with one rate a stream. */
export interface ResidencyWindow {
  /** Factor of each stream's mean rate. */
  readonly factors: readonly number[];
  readonly present: readonly boolean[];
}

export type ResidencyScenario = 'drift' | 'spot';

export interface TrackOptions {
  readonly windowMs: number;
  readonly windows: number;
  readonly seed: number;
}

/** Popularity goes round between the models; spot devices are lost and come back empty. The same for the same seed. */
export function residencyWindows(
  scenario: ResidencyScenario,
  problem: ResidencyProblem,
  spot: readonly boolean[],
  { windows, seed }: TrackOptions,
): readonly ResidencyWindow[] {
  const random = seededRandom(`residency ${scenario} ${seed}`);
  const count = problem.models.length;
  const present = problem.devices.map(() => true);
  return Array.from({ length: windows }, (_, window) => {
    const swing = scenario === 'drift' ? driftSwing : 0;
    const weights = problem.models.map((__, model) =>
      Math.exp(swing * Math.sin(2 * Math.PI * (window / windowsPerRound + model / count))),
    );
    const total = problem.streams.reduce((sum, { itemsPerSecond }) => sum + itemsPerSecond, 0);
    const drifted = problem.streams.reduce(
      (sum, { model, itemsPerSecond }) => sum + itemsPerSecond * (weights[model] ?? 1),
      0,
    );
    if (scenario === 'spot') {
      for (const [device, isSpot] of spot.entries()) {
        if (isSpot) present[device] = random.next() >= (present[device] === true ? lossChance : 1 - returnChance);
      }
    }
    return {
      factors: problem.streams.map(({ model }) => ((weights[model] ?? 1) * total) / Math.max(1e-12, drifted)),
      present: [...present],
    };
  });
}

/** Logarithm of how far a model's popularity swings, both ways, and windows of a round. */
const driftSwing = 1.5;
const windowsPerRound = 20;
/** Of a spot device in a window: to be lost, and to come back. */
const lossChance = 0.15;
const returnChance = 0.5;

export interface ResidencyTrack {
  /** US dollars of all windows: busy time, misses, loading. */
  readonly usd: number;
  readonly missedShare: number;
  readonly loads: number;
}

/** `replan` undefined: planned once for the mean, never again; a device that comes back is given what it had. */
export function trackResidency(
  problem: ResidencyProblem,
  start: ResidencyChoice,
  windows: readonly ResidencyWindow[],
  solver: LinearSolver,
  { windowMs, replan }: { readonly windowMs: number; readonly replan: ReplanOptions | undefined },
): ResidencyTrack {
  let lives = start.map((row) => [...row]);
  let [usd, missed, asked, loads] = [0, 0, 0, 0];
  let before: ResidencyWindow | undefined;
  for (const window of windows) {
    const left = lives.map((row, device) => row.map((isThere) => isThere && window.present[device] === true));
    const forecast = windowProblem(problem, { ...window, factors: (before ?? window).factors }, left, windowMs);
    const next =
      replan === undefined
        ? start.map((row, device) => row.map((isThere) => isThere && window.present[device] === true))
        : replanResidency(forecast, solver, replan).lives;
    const real = windowProblem(problem, window, left, windowMs);
    const settled = costOf(real, next);
    const stays = next.map((row, device) => row.map((isThere, model) => isThere && left[device]?.[model] === true));
    const fresh = next.flatMap((row, device) =>
      row.flatMap((isThere, model) => (isThere && left[device]?.[model] !== true ? [{ device, model }] : [])),
    );
    const loading = costOf(real, stays);
    // Until the slowest load is done only what stays serves.
    const slowestMs = Math.max(0, ...fresh.map(({ model }) => problem.models[model]?.loadMs ?? 0));
    const share = Math.min(1, slowestMs / windowMs);
    const loadingUsd = fresh.reduce((sum, { device, model }) => sum + loadUsd(real, device, model), 0);
    usd += share * loading.usd + (1 - share) * (settled.usd - loadingUsd) + loadingUsd;
    missed += share * loading.missedPerSecond + (1 - share) * settled.missedPerSecond;
    asked += real.streams.reduce((sum, { itemsPerSecond }) => sum + itemsPerSecond, 0);
    loads += fresh.length;
    lives = next.map((row) => [...row]);
    before = window;
  }
  return { usd, missedShare: asked === 0 ? 0 : missed / asked, loads };
}

/** The problem of one window: its rates, who is there, and what lives there when it begins. */
function windowProblem(
  problem: ResidencyProblem,
  { factors, present }: ResidencyWindow,
  lives: ResidencyChoice,
  windowMs: number,
): ResidencyProblem {
  return {
    ...problem,
    horizonMs: windowMs,
    devices: problem.devices.map((device, at) => ({
      ...device,
      memoryBytes: present[at] === true ? device.memoryBytes : 0,
      resident: (lives[at] ?? []).flatMap((isThere, model) => (isThere ? [model] : [])),
    })),
    streams: problem.streams.map((stream, at) => ({
      ...stream,
      itemsPerSecond: stream.itemsPerSecond * (factors[at] ?? 1),
      busyMs: stream.busyMs.map((ms, device) => (present[device] === true ? ms : Infinity)),
    })),
  };
}
