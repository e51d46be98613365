import { describe, expect, it } from 'vitest';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { RandomStream } from '#core/random.js';
import { objectiveOf } from '#core/scheduling/objective.js';
import { featuresOf, planFeatureCount as featureCount, planSchema, stagesFeature } from '#core/scheduling/features.js';
import { drawLesson } from '#policies/learning/curriculum.js';
import { rolloutsHere } from '#policies/learning/environment.js';
import { capacityOf } from '#policies/learning/fleet-capacity.js';
import { fleetEnvironment, plainScenario, type FleetWorldData } from '#policies/learning/fleet-environment.js';
import { fleetTraining } from '#policies/learning/fleet-training.js';
import { initialLayers } from '#policies/learning/layers.js';
import { readFleet } from '#sim/fleet/read-fleet.js';

/** Two cheap slow devices and a dear fast one; a batch of 4 takes twice the time of one. */
const fleet = readFleet(
  {
    name: 'small',
    classes: { interactive: { share: 0.5 }, standard: { share: 0.5 } },
    models: [
      {
        name: 'm',
        share: 1,
        itemsMax: 4,
        memoryMiB: 1,
        sloMs: { interactive: 100, standard: 400, batch: 1000 },
        tables: { slow: { 1: 20, 4: 40 }, fast: { 1: 5, 4: 10 } },
      },
    ],
    devices: [
      { name: 'slow', count: 2, usdPerHour: 0.1, watts: 10, memoryGiB: 1, tier: 'edge', netMs: 0 },
      { name: 'fast', count: 1, usdPerHour: 2, watts: 200, memoryGiB: 1, tier: 'edge', netMs: 0 },
    ],
  },
  'small.yaml',
  builtInProfiles,
);
const world: FleetWorldData = { fleets: [fleet], traces: [], batching: 'deadline-cap' };
const environment = fleetEnvironment(world);
const planBusy = featuresOf(planSchema).indexOf('plan_busy');
const scenario = { ...plainScenario, requests: 400, load: 0.8, profileError: 0.2, priceSpread: 0.2 };
const layers = initialLayers(new RandomStream(1), [featureCount, 8, 1]);
const network = { kind: 'network', layers, choose: 'sample' } as const;

describe('training on simulated fleets', () => {
  it('capacity is what the fluid programme can place in time', () => {
    // Best batches: 4 in 40 ms twice, 4 in 10 ms once.
    expect(capacityOf(fleet)).toBeCloseTo((2 * 4) / 0.04 + 4 / 0.01, 0);
  });

  it('the same order gives the same record; another seed of the dice changes choices and no arrival', async () => {
    const order = { scenario, player: network, dice: 'a', record: true };
    const [first, again, other] = [
      await environment.runEpisode(order),
      await environment.runEpisode(order),
      await environment.runEpisode({ ...order, dice: 'b' }),
    ];
    expect(again).toEqual(first);
    expect(other.hash).not.toBe(first.hash);
    expect(other.outcomes.arrivedMs).toEqual(first.outcomes.arrivedMs);
    expect(other.outcomes.sloClass).toEqual(first.outcomes.sloClass);
    expect(other.decisions!.choices).not.toEqual(first.decisions!.choices);
  });

  it('shows networks a fluid programme that fills devices as far as the world says', async () => {
    const busiest = async (planShare?: number): Promise<number> => {
      const shown = fleetEnvironment({ ...world, ...(planShare === undefined ? {} : { planShare }) });
      // More than the cheap devices can do: they are filled as far as the programme may.
      const long = { ...scenario, load: 0.9, requests: 5_000, seconds: 7 };
      const { decisions } = await shown.runEpisode({ scenario: long, player: network, dice: 'a', record: true });
      let most = 0;
      for (let at = planBusy; at < decisions!.rows.length; at += featureCount) {
        most = Math.max(most, decisions!.rows[at]!);
      }
      return most;
    };
    expect(await busiest()).toBeCloseTo(1, 3);
    expect(await busiest(0.8)).toBeCloseTo(0.8, 3);
  });

  it('ends after the seconds that are asked for or with its requests, whichever is first', async () => {
    const count = async (seconds: number, requests: number): Promise<number> => {
      const long = { ...scenario, ratePerSecond: 100, seconds, requests };
      const player = { kind: 'rule', name: 'cheapest-feasible' } as const;
      const { outcomes } = await environment.runEpisode({ scenario: long, player, dice: 'a', record: false });
      return outcomes.doneMs.length;
    };
    expect(await count(3, 5_000)).toBe(300);
    expect(await count(3, 50)).toBe(50);
    expect(await count(0, 70)).toBe(70);
  });

  it('decisions hold every allowed row, refusing where the class allows it, and the probability of the choice', async () => {
    const { decisions, outcomes } = await environment.runEpisode({
      scenario,
      player: network,
      dice: 'a',
      record: true,
    });
    const { rows, rowStarts, choices, logProbs, atMs } = decisions!;
    expect(choices.length).toBeGreaterThanOrEqual(outcomes.doneMs.length);
    expect(rows).toHaveLength(featureCount * rowStarts.at(-1)!);
    for (const [index, choice] of choices.entries()) {
      const count = rowStarts[index + 1]! - rowStarts[index]!;
      const last = rows.subarray((rowStarts[index + 1]! - 1) * featureCount, rowStarts[index + 1]! * featureCount);
      const isInteractive = last[28] === 1;
      expect(count).toBe(isInteractive ? 4 : 3);
      expect(last[stagesFeature] === 0).toBe(isInteractive);
      expect(choice).toBeLessThan(count);
      expect(logProbs[index]!).toBeLessThan(0);
      if (index > 0) expect(atMs[index]!).toBeGreaterThanOrEqual(atMs[index - 1]!);
    }
  });

  it('a teacher is asked and not followed', async () => {
    const order = { scenario, player: { kind: 'rule', name: 'rr' } as const, dice: 'a', record: true };
    const alone = await environment.runEpisode(order);
    const taught = await environment.runEpisode({ ...order, teacher: 'cheapest-feasible:0.6' });
    expect(taught.hash).toBe(alone.hash);
    expect(taught.decisions!.choices).toEqual(alone.decisions!.choices);
    expect(taught.decisions!.teacherChoices).not.toEqual(alone.decisions!.teacherChoices);
  });

  it('costs are measured by the cheapest way to serve a request alone, misses are counted', async () => {
    const calm = { ...plainScenario, requests: 50, load: 0.01 };
    const { outcomes } = await environment.runEpisode({
      scenario: calm,
      player: { kind: 'rule', name: 'cheapest-feasible:1' },
      dice: '',
      record: false,
    });
    // Alone on a slow device: the reference itself, but for the noise of run times.
    const mean = outcomes.cost.reduce((sum, cost) => sum + cost, 0) / 50;
    expect(mean).toBeGreaterThan(0.9);
    expect(mean).toBeLessThan(1.1);
    expect(outcomes.missed.every((missed) => missed === 0)).toBe(true);
    expect(objectiveOf(outcomes).total).toBeCloseTo(mean, 5);
  });

  it('scenarios of validation are the same in every run of a seed, and training ones become harder', () => {
    const training = fleetTraining(world, rolloutsHere(environment), 1);
    const again = fleetTraining(world, rolloutsHere(environment), 1);
    expect(training.scenario('validation 3', 0.4, 100)).toEqual(again.scenario('validation 3', 0.4, 100));
    expect(training.scenario('search 3 1', 0.5, 100)).not.toEqual(training.scenario('search 3 2', 0.5, 100));
    const mean = (progress: number): number => {
      let sum = 0;
      for (let draw = 0; draw < 400; draw += 1) sum += drawLesson(new RandomStream(draw), progress).load;
      return sum / 400;
    };
    expect(mean(1)).toBeGreaterThan(mean(0) + 0.03);
  });
});
