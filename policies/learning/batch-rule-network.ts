/**
 * A batching network that decides sensibly before it has learned anything, as `rule-network.ts` has one for dispatch: it waits
 * while waiting makes the batch cheaper and every queue of the device can still be in time with some margin; else it launches
 * what the rule would. Learning moves the weights of the answers.
 */
import { batchFeatureCount, batchFeatureNames } from '#core/scheduling/batch-features.js';
import type { Layer } from '#core/scheduling/network.js';
import { layersOfUnits, type Unit } from './rule-network.js';

/** Beyond any value that features have: closes a question to rows of launching, or to those of waiting. */
const closed = 70;

function ofWaiting(of: Readonly<Record<string, number>>, bias: number, weight: number): Unit {
  return { of: { ...of, launch: -closed }, bias, weight };
}

function ofLaunching(of: Readonly<Record<string, number>>, bias: number, weight: number): Unit {
  return { of: { ...of, launch: closed }, bias: bias - closed, weight };
}

const units: readonly Unit[] = [
  // Launching stands between waiting with all answers in its favour and waiting with one against it.
  { of: { launch: 2 * closed }, bias: -closed, weight: 9 },
  ofWaiting({ slack_after: 20 }, -3, 4),
  ofWaiting({ other_slack_after: 20 }, -2, 4),
  ofWaiting({ efficiency: 30, later_efficiency: -30 }, -0.6, 3),
  ofWaiting({ slack_after: 20 }, -1, 0),
  ofWaiting({ slack_after: 20 }, -6, 0),
  ofWaiting({ slack_after: 10 }, -5, 0),
  ofWaiting({ other_slack_after: 20 }, -6, 0),
  ofWaiting({ other_slack_after: 10 }, -5, 0),
  // Runs err in proportion to their length.
  ofWaiting({ slack_after: 10, run: -3 }, 0, 0),
  ofWaiting({ other_slack_after: 10, run: -3 }, 0, 0),
  ofWaiting({ other_slack_after: 10, other_work: -3 }, 0, 0),
  ofWaiting({ efficiency: 8, later_efficiency: -8 }, -0.8, 0),
  ofWaiting({ efficiency: 4 }, -1, 0),
  ofWaiting({ arrivals: 8 }, -1, 0),
  ofWaiting({ rate: 2 }, -1, 0),
  ofWaiting({ wait: 6 }, -1, 0),
  ofWaiting({ fill: 4 }, -2, 0),
  ofWaiting({ head_age: 6 }, -1.5, 0),
  ofWaiting({ other_queues: 12 }, -1.5, 0),
  ofWaiting({ other_work: 4 }, -1, 0),
  ofWaiting({ run: 6 }, -1, 0),
  // Which batch: what the rule launches, or all of its queue.
  ofLaunching({ slack_after: 20 }, -2, 0.5),
  ofLaunching({ other_slack_after: 20 }, -2, 0.5),
  ofLaunching({ fill: 1 }, 0, -0.5),
  ofLaunching({ efficiency: 4 }, -1, 0),
  ofLaunching({ fill: 4 }, -2, 0),
  ofLaunching({ left: 4 }, -1, 0),
  ofLaunching({ rate: 2 }, -1, 0),
  ofLaunching({ other_work: 4 }, -1, 0),
];

export function batchRuleLayers(): Layer[] {
  return layersOfUnits(units, batchFeatureNames, batchFeatureCount);
}
