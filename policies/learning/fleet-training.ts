/** Fleets and traces as the world of a training run: scenarios by name, the objective, what may be missed. */
import { RandomStream } from '#core/random.js';
import { planFeatureCount } from '#core/scheduling/features.js';
import type { Layer } from '#core/scheduling/network.js';
import { defaultObjective, objectiveOf } from '#core/scheduling/objective.js';
import { defaultSloRules, sloClasses } from '#core/scheduling/slo-class.js';
import { batchRuleLayers } from './batch-rule-network.js';
import { drawLesson } from './curriculum.js';
import type { Rollouts } from './environment.js';
import { plainScenario, type FleetScenario, type FleetWorldData } from './fleet-environment.js';
import { ruleLayers } from './rule-network.js';
import type { TrainingWorld } from './train.js';

/** Networks that learning begins with, instead of those with rules built in. */
export interface BeginWith {
  readonly layers: readonly Layer[];
  /** Empty: the one with a rule built in. */
  readonly batchLayers: readonly Layer[];
}

const allTimeMs = 86_400_000;

export function fleetTraining(
  world: FleetWorldData,
  rollouts: Rollouts<FleetScenario>,
  seed: number,
  begin?: BeginWith,
): TrainingWorld<FleetScenario> {
  const random = new RandomStream(`scenarios ${seed}`);
  return {
    featureCount: planFeatureCount,
    classes: sloClasses,
    rollouts,
    ruleLayers: begin === undefined ? ruleLayers : () => [...begin.layers],
    batchRuleLayers:
      begin === undefined || begin.batchLayers.length === 0 ? batchRuleLayers : () => [...begin.batchLayers],
    objective: (outcomes) => objectiveOf(outcomes).total,
    missWeights: defaultObjective.missWeight,
    allowedMisses: sloClasses.map((name) => defaultSloRules[name].allowedMiss),
    scenario: (name, progress, requests, seconds = 0) => {
      const own = random.stream(name);
      const isJudging = name.startsWith('validation');
      const lesson = drawLesson(own.stream('lesson'), progress);
      // Scenarios are numbered: fleets take turns, so that each step sees all of them.
      const number = Number(name.split(' ').at(-1));
      const { length } = world.fleets;
      const fleet = Number.isInteger(number) ? number % length : own.stream('fleet').below(length);
      const source = own.stream('arrivals');
      // Half of the scenarios come from traces where there are any. Training sees their first 60 %, validation the next 20 %;
      // the last 20 % belong to whoever judges.
      const fromTrace = world.traces.length > 0 && source.next() < 0.5;
      const share = source.next();
      const trace = {
        trace: source.below(Math.max(1, world.traces.length)),
        fromShare: isJudging ? 0.6 + 0.2 * share : 0.6 * share,
      };
      const device = world.fleets[fleet]?.devices[own.stream('slow').below(world.fleets[fleet].devices.length)];
      return {
        ...plainScenario,
        fleet,
        load: lesson.load,
        ...{ requests, seconds },
        arrivals: fromTrace ? trace : lesson.arrivals,
        seed: `${seed} ${name}`,
        profileError: lesson.profileError,
        priceSpread: lesson.priceSpread,
        fleetShare: lesson.fleetShare,
        faults: [
          ...(lesson.staleMs > 0 ? [{ kind: 'stale', atMs: 0, forMs: allTimeMs, ageMs: lesson.staleMs } as const] : []),
          // Of the devices that are there in every variation only this can be ordered by name.
          ...(lesson.slow && lesson.fleetShare >= 1 && device !== undefined
            ? [{ kind: 'straggler', device: device.id, atMs: 0, forMs: allTimeMs, factor: 3 } as const]
            : []),
        ],
      };
    },
  };
}
