/**
 * Which models live on which devices for the next while: the problem in plain figures, and what a plan costs.
 *
 * Observed: for each device its memory, its price and what lives there now; for each stream of requests (a model at a class)
 *   its rate and the least busy time of an item on each device, as forecast for the horizon.
 * May be chosen: any set of models for each device whose bytes fit. What does not fit is no plan.
 * Costs: busy time by price, a price for each item that nobody can serve, loading time by price. Devices that stand idle cost
 *   what they cost whatever lives there, so that money is left out here; switching devices on and off is not decided.
 * Comes from: the leader's forecast and the devices' records. Nothing here is on the hot path.
 */
import { intarsiaError } from '#core/errors.js';
import { solveTransport } from '#core/scheduling/transport-plan.js';

export interface ResidencyProblem {
  readonly devices: readonly {
    readonly id: string;
    readonly memoryBytes: number;
    readonly usdPerHour: number;
    /** Indices of models that live there now. */
    readonly resident: readonly number[];
  }[];
  readonly models: readonly { readonly name: string; readonly bytes: number; readonly loadMs: number }[];
  readonly streams: readonly {
    readonly model: number;
    readonly itemsPerSecond: number;
    /** Least busy ms an item takes in time, by device; Infinity where it cannot be in time. */
    readonly busyMs: readonly number[];
  }[];
  /** For an item that nobody serves, above what serving any can cost. */
  readonly missUsd: number;
  /** Milliseconds that the plan is for, above 0: loading is paid once in it. */
  readonly horizonMs: number;
  /** Share of its time that a device may be busy, above 0, at most 1: the rest is for what means do not show. */
  readonly busyShare: number;
}

/** Whether a model lives on a device: `plan[device][model]`. */
export type ResidencyChoice = readonly (readonly boolean[])[];

export interface ResidencyPlanned {
  readonly lives: ResidencyChoice;
  /** US dollars over the horizon: busy time, misses, loading. */
  readonly usd: number;
  /** Items a second that nobody serves. */
  readonly missedPerSecond: number;
}

const hourMs = 3_600_000;

/** US dollars of a millisecond of a device. */
export function usdPerMs({ devices }: ResidencyProblem, device: number): number {
  return (devices[device]?.usdPerHour ?? 0) / hourMs;
}

/** US dollars of bringing a model to a device; nothing where it lives. */
export function loadUsd(problem: ResidencyProblem, device: number, model: number): number {
  if (problem.devices[device]?.resident.includes(model) === true) return 0;
  return (problem.models[model]?.loadMs ?? 0) * usdPerMs(problem, device);
}

/** What a choice costs when requests are shared out as well as can be. */
export function costOf(problem: ResidencyProblem, lives: ResidencyChoice): ResidencyPlanned {
  const { devices, streams, missUsd, horizonMs, busyShare } = problem;
  const ms = streams.map(({ model, busyMs }) =>
    busyMs.map((each, device) => (lives[device]?.[model] === true ? each : Infinity)),
  );
  const prices = devices.map((_, device) => usdPerMs(problem, device));
  const rates = streams.map(({ itemsPerSecond }) => itemsPerSecond / 1000);
  const plan = solveTransport({ rates, ms, usdPerMs: prices, dropUsd: missUsd, busyShare });
  let usd = 0;
  let missedPerMs = 0;
  for (const [stream, rate] of rates.entries()) {
    let placed = 0;
    for (let device = 0; device < devices.length; device += 1) {
      const items = plan[stream * devices.length + device] ?? 0;
      if (items === 0) continue;
      placed += items;
      usd += items * (ms[stream]?.[device] ?? 0) * (prices[device] ?? 0) * horizonMs;
    }
    missedPerMs += Math.max(0, rate - placed);
  }
  usd += missedPerMs * missUsd * horizonMs;
  for (const [device, row] of lives.entries()) {
    for (const [model, isThere] of row.entries()) if (isThere) usd += loadUsd(problem, device, model);
  }
  return { lives, usd, missedPerSecond: missedPerMs * 1000 };
}

/** Bytes of the models that live on a device. */
export function bytesOn(problem: ResidencyProblem, row: readonly boolean[]): number {
  return row.reduce((sum, isThere, model) => sum + (isThere ? (problem.models[model]?.bytes ?? 0) : 0), 0);
}

/** @throws INVALID_ARGUMENT for figures that make no problem. */
export function checkResidency(problem: ResidencyProblem): void {
  const { devices, models, streams, missUsd, horizonMs, busyShare } = problem;
  const isRight =
    missUsd > 0 &&
    horizonMs > 0 &&
    busyShare > 0 &&
    busyShare <= 1 &&
    models.every(({ bytes, loadMs }) => bytes >= 0 && loadMs >= 0) &&
    devices.every(({ memoryBytes, usdPerHour }) => memoryBytes >= 0 && usdPerHour >= 0) &&
    streams.every(
      ({ model, itemsPerSecond, busyMs }) =>
        models[model] !== undefined &&
        itemsPerSecond >= 0 &&
        busyMs.length === devices.length &&
        busyMs.every((ms) => ms > 0),
    );
  if (!isRight)
    throw intarsiaError('INVALID_ARGUMENT', 'the residency problem has a negative figure or one for nobody');
}
