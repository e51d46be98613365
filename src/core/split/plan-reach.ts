/**
 * Which stages a search through an order of devices can leave out once a plan is known: those through which no plan is as
 * good. A stage takes at least ρ times its share of work (plan-bound.ts), and what lies behind it at least what the devices
 * behind it need for the rest of the work (interval), or what that costs with the best device everywhere (sums).
 */
import type { PlanBounds } from './plan-bound.js';
import type { PlannerDevice } from './plan-problem.js';
import { weightOf, type Objective, type Reach, type SumObjective } from './plan-search.js';

/** Bounds are met up to rounding. */
const rounding = 1 + 1e-9;

/** @param upper Value of the plan that is known. @param slownessOf ρ of a device; default: as in `bounds`. */
export function reachOf(
  bounds: PlanBounds,
  objective: Objective,
  upper: number,
  slownessOf = (device: PlannerDevice): number => bounds.slowness.get(device.type) ?? 0,
): Reach | undefined {
  if (upper === Infinity) return undefined;
  return objective.kind === 'interval'
    ? intervalReach(bounds, upper * rounding, slownessOf)
    : sumReach(bounds, objective, { upper: upper * rounding, slownessOf });
}

function intervalReach({ work }: PlanBounds, upper: number, slownessOf: (device: PlannerDevice) => number): Reach {
  const segments = work.length - 1;
  const all = work[segments] as number;
  const workOf = (devices: readonly PlannerDevice[]): number =>
    devices.reduce((sum, device) => sum + upper / slownessOf(device), 0) * rounding;
  return {
    ofRow: ({ devices, behind }) => {
      const left = behind === undefined ? Infinity : workOf(behind);
      const mine = workOf(devices);
      // Rounding of sums: none of it may cost a stage.
      const leastWork = all - left - all * (rounding - 1);
      const least = firstWhere(work, (done) => done >= leastWork);
      return {
        first: (begin) => Math.max(begin + 1, least),
        last: (begin, value) => {
          if (value > upper) return -1;
          const mostWork = (work[begin] as number) + mine + all * (rounding - 1);
          return firstWhere(work, (done) => done > mostWork) - 1;
        },
      };
    },
  };
}

function sumReach(
  { work, behind }: PlanBounds,
  objective: SumObjective,
  { upper, slownessOf }: { readonly upper: number; readonly slownessOf: (device: PlannerDevice) => number },
): Reach | undefined {
  if (behind === undefined) return undefined;
  const segments = work.length - 1;
  return {
    ofRow: ({ devices: [device] }) => {
      const least = device === undefined ? 0 : slownessOf(device) * weightOf(objective, device);
      const slope = Number.isFinite(least) ? least : 0;
      // What it costs to end at a boundary, less what the work up to the begin would have cost: the least of all ends up to
      // one, and from one on.
      const upTo = new Float64Array(segments + 1).fill(Infinity);
      const fromOn = new Float64Array(segments + 1);
      for (let end = 1; end <= segments; end += 1) {
        const cost = slope * (work[end] as number) + (behind[end] as number);
        fromOn[end] = cost;
        upTo[end] = Math.min(upTo[end - 1] as number, cost);
      }
      for (let end = segments - 1; end >= 0; end -= 1) {
        fromOn[end] = Math.min(end === 0 ? Infinity : (fromOn[end] as number), fromOn[end + 1] as number);
      }
      const allowed = (begin: number, value: number): number =>
        upper - value + slope * (work[begin] as number) + upper * (rounding - 1);
      return {
        first: (begin, value) => {
          const most = allowed(begin, value);
          return Math.max(
            begin + 1,
            firstWhere(upTo, (cost) => cost <= most),
          );
        },
        last: (begin, value) => {
          const most = allowed(begin, value);
          return firstWhere(fromOn, (cost) => cost > most) - 1;
        },
      };
    },
  };
}

/** The first position from which on a condition holds; their number where it never does. */
function firstWhere(values: Float64Array, holds: (value: number) => boolean): number {
  let low = 0;
  for (let high = values.length; low < high;) {
    const middle = (low + high) >> 1;
    if (holds(values[middle] as number)) high = middle;
    else low = middle + 1;
  }
  return low;
}
