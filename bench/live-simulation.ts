/**
 * The requests of live hosts once more, in the simulated fleet that was measured in other stretches of time: what a policy costs
 * there, how long answers take, and of what that time is made.
 */
import { readFile } from 'node:fs/promises';
import { policyMaker } from '#compose/learning/contenders.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import { traceArrivals } from '#sim/fleet/arrivals.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { fleetReport } from '#sim/fleet/fleet-report.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { runFleet, type FleetRun } from '#sim/fleet/run-fleet.js';
import type { LoggedRequest } from './live-fleet.js';

/** Where an answered request was, ms. */
export interface TimeParts {
  readonly durationMs: number;
  readonly queueMs: number;
  readonly computeMs: number;
  /** Behind the batch in hand, on the way, and whatever else. */
  readonly restMs: number;
}

export interface LiveSimulation {
  /** Mean over all seeds. */
  readonly objective: number;
  /** By seed, and by request in order of arrival; undefined for one that was not answered. */
  readonly parts: readonly (readonly (TimeParts | undefined)[])[];
}

export interface LiveSimulationOptions {
  readonly fleet: Fleet;
  readonly model: string;
  readonly requests: readonly LoggedRequest[];
  readonly policy: string;
  /** A rule's name or a learned policy's file. */
  readonly batching: string;
  /** Run times as the host believed them when it began, by device of the fleet. */
  readonly believed: readonly (ServiceProfile | undefined)[];
}

/** What devices draw differs from seed to seed: choices answer to it, and one run is one of many that could have been. */
const seeds = [1, 2, 3, 4, 5];

export async function simulateLive(options: LiveSimulationOptions): Promise<LiveSimulation> {
  const { fleet, model, requests, policy, batching, believed } = options;
  const trace = requests.map(({ arrivedMs, sloClass }, index) => {
    return { line: index + 1, atMs: arrivedMs, model, items: 1, sloClass: sloClasses.indexOf(sloClass) };
  });
  const makePolicy = await policyMaker(policy);
  const makeBatching = batching.endsWith('.onnx')
    ? batchingFromFile(await readFile(batching))
    : () => batchingByName(batching);
  const partsBySeed: (TimeParts | undefined)[][] = [];
  let objective = 0;
  for (const seed of seeds) {
    const parts: (TimeParts | undefined)[] = requests.map(() => undefined);
    const result = await runFleet({
      ...{ fleet, seed, arrivals: traceArrivals(fleet, trace, { seed: 1 }) },
      devicesKnow: false,
      dispatch: withParts(fleetDispatch(makePolicy(), { believed: (device) => believed[device] }), parts),
      batching: makeBatching,
    });
    objective += fleetReport(fleet, result).objective.total / seeds.length;
    partsBySeed.push(parts);
  }
  return { objective, parts: partsBySeed };
}

/** Also takes down from each answer's receipt where its time went. */
function withParts(make: FleetRun['dispatch'], parts: (TimeParts | undefined)[]): FleetRun['dispatch'] {
  return (world) => {
    const dispatcher = make(world);
    const { observer } = dispatcher;
    return {
      picker: dispatcher.picker,
      finished: (request, ok, finishedMs) => dispatcher.finished?.(request, ok, finishedMs),
      observer: {
        began: (...told) => observer?.began(...told),
        ended: (...told) => {
          observer?.ended(...told);
          const [, request, nowMs, outcome] = told;
          if (outcome?.ok !== true) return;
          const { queueUs, computeInputUs, computeInferUs, computeOutputUs } = outcome.receipt;
          const computeMs = (computeInputUs + computeInferUs + computeOutputUs) / 1000;
          parts[request.id - 1] = partsOf(nowMs - request.arrivedMs, queueUs / 1000, computeMs);
        },
      },
    };
  };
}

export function partsOf(durationMs: number, queueMs: number, computeMs: number): TimeParts {
  return { durationMs, queueMs, computeMs, restMs: durationMs - queueMs - computeMs };
}
