import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { evaluatePolicies } from '#compose/learning/evaluate-policies.js';
import { simulateFleet } from '#compose/simulate-fleet.js';
import { readDecisions, readLogTrace } from '#compose/decision-log/log-trace.js';
import { SHED, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import {
  dispatchSchema,
  featureCount,
  planFeatureCount,
  planFeatureNames,
  planSchema,
  writeRows,
} from '#core/scheduling/features.js';
import { episodesOfLog, returnsOfLog } from '#policies/learning/logged-decisions.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { LogWorld, startWallMs, temporaryFolder } from './log-world.js';

const oneDevice = `
name: one
models:
  - { name: m, itemsMax: 8, sloMs: { interactive: 300, standard: 1500, batch: 20000 }, tables: { class-cloud-cpu: { 1: 20, 8: 90 } } }
devices:
  - { name: cpu, profile: class-cloud-cpu, usdPerHour: 0.2 }
`;
const reward = { multipliers: [10, 10, 10], latenessWeight: 0.2, energyWeight: 0, halfLifeMs: 1000 };

describe('the decision log as data', () => {
  let folder = '';
  let remove: () => Promise<void>;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
  });
  afterEach(() => remove());

  it('gives trainers the allowed rows, the one taken, its propensity and what its request came to', async () => {
    const seen: Float32Array[] = [];
    let turn = 0;
    const policy: DispatchPolicy = {
      name: 'turns',
      trace: { propensity: 0.5, fallback: '' },
      choose: (request, candidates, fleet) => {
        const rows = new Float32Array((candidates.length + 1) * featureCount);
        const scale = { usd: 0, joules: 0 };
        const count = writeRows(request, candidates, fleet, scale, rows);
        // The first is masked: its row is not among the allowed.
        seen.push(rows.slice(featureCount, count * featureCount));
        turn += 1;
        return turn === 2 ? SHED : turn === 3 ? 2 : 1;
      },
    };
    const world = new LogWorld({ policy, folder });
    const [first] = world.candidates;
    if (first !== undefined) first.load.ready = false;
    const asked = [0, 1, 2].map(() => {
      world.nowMs += 100;
      return world.ask({ sloMs: 100, sloClass: 'interactive' });
    });
    world.answer(asked[0]!.request, 1, 50);
    world.fail(asked[1]!.request, 0, 'RESOURCE_EXHAUSTED', 'shed');
    world.answer(asked[2]!.request, 2, 150);
    world.close();

    const { data } = await readDecisions(folder);
    const [episode] = episodesOfLog(data);
    expect([...(episode?.decisions.rows ?? [])]).toEqual(seen.flatMap((rows) => [...rows]));
    expect([...(episode?.decisions.rowStarts ?? [])]).toEqual([0, 3, 6, 9]);
    expect([...(episode?.decisions.choices ?? [])]).toEqual([0, 2, 1]);
    expect([...(episode?.propensities ?? [])]).toEqual([0.5, 0.5, 0.5]);
    expect([...(episode?.outcomeOf ?? [])]).toEqual([0, 1, 2]);
    expect([...(episode?.outcomes.missed ?? [])]).toEqual([0, 1, 1]);
    expect([...(episode?.outcomes.lateness ?? [])]).toEqual([-0.5, 0, 0.5]);
    // Cheapest alone: 21 ms at 0.72 USD an hour, or 12 ms at 1.08; each was billed 5 ms at 0.36.
    const reference = Math.min(21 * 0.72, 12 * 1.08);
    expect([...(episode?.outcomes.cost ?? [])]).toEqual([
      expect.closeTo((5 * 0.36) / reference, 9),
      0,
      expect.closeTo((5 * 0.36) / reference, 9),
    ]);

    // Rewards fall due at answer, refusal or target, and fade by half a second: by the definition.
    const cost = (5 * 0.36) / reference;
    const events = [
      [50, -cost],
      [100, -10],
      [300, -(cost + 10 + 2 * 0.5)],
    ] as const;
    const slow = [0, 100, 200].map((momentMs) =>
      events.reduce(
        (sum, [dueMs, value]) => sum + (dueMs >= momentMs ? value * 0.5 ** ((dueMs - momentMs) / 1000) : 0),
        0,
      ),
    );
    const logged = returnsOfLog(data, reward);
    for (const [index, value] of slow.entries()) expect(logged.returns[index]).toBeCloseTo(value, 4);
    expect(logged.rowStarts.at(-1)).toBe(9);
    expect(logged.choices).toEqual(episode?.decisions.choices);
  });

  it('gives evaluations the last fifth of its requests', async () => {
    const world = new LogWorld({ policy: dispatchByName('cheapest-feasible'), folder });
    for (let index = 0; index < 40; index += 1) {
      world.nowMs += 250;
      world.fail(world.ask({}).request, 1, 'CANCELLED');
    }
    world.close();
    const fleet = join(folder, 'one.yaml');
    writeFileSync(fleet, oneDevice);
    const { cells } = await evaluatePolicies(
      {
        ...{
          policies: ['sed'],
          rules: ['cheapest-feasible'],
          batching: ['deadline-cap'],
          fleets: [fleet],
          loads: [0.1],
        },
        ...{
          traces: [folder],
          arrivals: [],
          seeds: 1,
          requests: 1000,
          seconds: 0,
          stress: false,
          bounds: false,
          seed: 1,
        },
        ...{ workers: 0, htmlPath: '' },
      },
      { onProgress: () => undefined, isStopWanted: () => false },
    );
    expect(cells).toHaveLength(1);
    expect(cells[0]?.figures.map(({ contender, missRates }) => [contender, missRates])).toEqual([
      ['cheapest-feasible', [0, 0, 0]],
      ['sed', [0, 0, 0]],
    ]);
  });

  it('gives simulations its requests as a trace: times, models, classes and items, whoever took them', async () => {
    const world = new LogWorld({ policy: dispatchByName('cheapest-feasible'), folder });
    for (const [index, sloClass] of (['interactive', 'batch', undefined] as const).entries()) {
      world.nowMs += 250;
      const { request } = world.ask({ items: index + 1 });
      const { sloClass: _, ...rest } = request;
      // They end in another order than they came.
      world.fail({ ...rest, ...(sloClass === undefined ? {} : { sloClass }) }, 1000 - 400 * index, 'CANCELLED');
    }
    world.close();
    const rows = await readLogTrace(folder);
    expect(rows).toEqual([
      { line: 1, atMs: startWallMs + 250, model: 'm', items: 1, sloClass: 0 },
      { line: 2, atMs: startWallMs + 500, model: 'm', items: 2, sloClass: 2 },
      { line: 3, atMs: startWallMs + 750, model: 'm', items: 3 },
    ]);
    const fleet = join(folder, 'one.yaml');
    writeFileSync(fleet, oneDevice);
    const request = { fleet, trace: folder, arrivals: 'poisson', policies: ['sed'], batching: 'deadline-cap' } as const;
    const report = await simulateFleet(
      { ...request, residency: 'everywhere', seed: 1, bounds: false, load: undefined, requests: undefined },
      () => undefined,
      new NodeClock(),
    );
    expect(report).toMatchObject({ requests: 3, ratePerSecond: 4 });
    expect(report.runs[0]?.decisions).toBe(3);
  });

  it('says that there was no plan where the policy that decided saw none, and where an older release wrote the log', async () => {
    const world = new LogWorld({ policy: dispatchByName('sed'), folder });
    world.ask();
    world.close();
    const { data } = await readDecisions(folder);
    expect(data.decisions.columns.get('schema')).toEqual([dispatchSchema]);
    const columns = new Map(data.candidates.columns);
    for (const name of planFeatureNames) expect(columns.delete(name)).toBe(true);
    const older = { ...data, candidates: { ...data.candidates, columns } };
    for (const log of [data, older]) {
      const rows = episodesOfLog(log, planSchema)[0]?.decisions.rows ?? new Float32Array(0);
      expect(rows.length).toBeGreaterThan(0);
      for (let from = featureCount; from < rows.length; from += planFeatureCount) {
        expect([...rows.slice(from, from + planFeatureNames.length)]).toEqual([0, 0, 0, 0]);
      }
    }
  });

  it('refuses a log whose features mean something else', async () => {
    const world = new LogWorld({ policy: dispatchByName('sed'), folder });
    world.ask();
    world.close();
    const { data } = await readDecisions(folder);
    const columns = new Map(data.decisions.columns).set('schema', ['dispatch-0']);
    const older = { ...data, decisions: { ...data.decisions, columns } };
    expect(() => episodesOfLog(older)).toThrow(/schema dispatch-0/u);
  });
});
