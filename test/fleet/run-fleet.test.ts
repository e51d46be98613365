import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import type { DispatchDecision } from '#core/scheduling/dispatch-decision.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import type { FleetFault } from '#sim/fleet/fleet-faults.js';
import { fleetReport } from '#sim/fleet/fleet-report.js';
import { fleetOutcomes, type SimulationResult } from '#sim/fleet/fleet-result.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import { arrivalsAt, mean, plainFleet, poisson, run, takenMs } from './fleets.js';

const folder = 'policies/fleets';
const close = (value: number, digits: number): unknown => expect.closeTo(value, digits);

async function ownFleet(name: string): Promise<Fleet> {
  return readFleet(await readYamlFile(`${folder}/${name}.yaml`), name, builtInProfiles);
}

function counts({ outcome }: SimulationResult): Record<string, number> {
  const found: Record<string, number> = {};
  for (const each of outcome) found[fleetOutcomes[each] ?? 'none'] = (found[fleetOutcomes[each] ?? 'none'] ?? 0) + 1;
  return found;
}

describe('a simulated fleet', () => {
  it('takes the time, the money and the energy its tables say', async () => {
    const fleet = plainFleet({ d: { 1: 10, 2: 12, 4: 20 } }, { itemsMax: 4 });
    // Alone; then three that wait for it and share the next batch.
    const result = await run(fleet, arrivalsAt(0, 1, 2, 3));
    expect([...takenMs(result)].map((ms) => Math.round(ms))).toEqual([10, 25, 24, 23]);
    expect([...result.batchItems]).toEqual([1, 3, 3, 3]);
    // 3.6 dollars an hour are a millionth of a dollar a millisecond; 100 W are a tenth of a joule.
    expect([...result.costUsd].map((usd) => usd * 1e6)).toEqual([10, 16 / 3, 16 / 3, 16 / 3].map((x) => close(x, 6)));
    expect([...result.joules]).toEqual([1, 16 / 30, 16 / 30, 16 / 30].map((x) => close(x, 9)));
    expect(result.devices[0]).toMatchObject({ runs: 2, items: 4, busyMs: close(26, 6), lostMs: 0 });
  });

  it('adds the way there and back, with the bytes on the link', async () => {
    const far = { name: 'far', tier: 'core', usdPerHour: 1, watts: 1, netMs: 40, linkMBs: 1 };
    const model = { name: 'm', itemsMax: 1, memoryMiB: 1, bytesPerItem: 5000, tables: { far: { 1: 10 } } };
    const fleet = readFleet({ name: 'far', noise: 0, models: [model], devices: [far] }, 'far', builtInProfiles);
    expect([...takenMs(await run(fleet, arrivalsAt(0)))]).toEqual([close(55, 6)]);
  });

  it('gives the same hash for the same seed, and another for another seed', async () => {
    const fleet = await ownFleet('edge-and-core');
    const arrivals = poisson(fleet, 1500, 3000);
    const [first, again, other] = [
      await run(fleet, arrivals, { seed: 7, dispatch: 'cheapest-feasible', batching: 'deadline-cap+shed' }),
      await run(fleet, arrivals, { seed: 7, dispatch: 'cheapest-feasible', batching: 'deadline-cap+shed' }),
      await run(fleet, arrivals, { seed: 8, dispatch: 'cheapest-feasible', batching: 'deadline-cap+shed' }),
    ];
    expect(again.hash).toBe(first.hash);
    expect([...again.doneMs]).toEqual([...first.doneMs]);
    expect(other.hash).not.toBe(first.hash);
  });

  it('ends every request exactly once, whatever is lost, slow, dear or unknown meanwhile', async () => {
    const fleet = await ownFleet('four');
    const faults: FleetFault[] = [
      { kind: 'loss', device: 'fast', atMs: 500, forMs: 2000 },
      { kind: 'loss', device: 'fast', atMs: 1500, forMs: 3000 },
      { kind: 'straggler', device: 'middle', atMs: 1000, forMs: 4000, factor: 5 },
      { kind: 'price', device: 'slow', atMs: 1000, forMs: 4000, factor: 10 },
      { kind: 'stale', atMs: 2000, forMs: 3000, ageMs: 1000 },
    ];
    for (const batching of ['greedy', 'delay:5', 'aimd', 'proteus', 'deadline-cap', 'deadline-cap+shed', 'smdp']) {
      for (const dispatch of ['cheapest-feasible', 'jsq']) {
        const result = await run(fleet, poisson(fleet, 200, 1000), { dispatch, batching, faults });
        const { none = 0, ...ended } = counts(result);
        expect(none).toBe(0);
        expect(Object.values(ended).reduce((sum, count) => sum + count, 0)).toBe(1000);
        expect(result.devices.find(({ id }) => id === 'fast')).toMatchObject({ losses: 2 });
      }
    }
  });

  it('tries a request again that a lost device had, and counts what was computed for nobody', async () => {
    const fleet = plainFleet({ a: { 1: 100 }, b: { 1: 150 } });
    const result = await run(fleet, arrivalsAt(0), { faults: [{ kind: 'loss', device: 'a', atMs: 60, forMs: 1000 }] });
    expect([...takenMs(result)]).toEqual([close(210, 6)]);
    expect(result.devices.map(({ lostMs }) => Math.round(lostMs))).toEqual([60, 0]);
    expect(result.decisions).toBe(2);
    expect(fleetReport(fleet, result).usdPerThousand).toBeCloseTo((60 + 150) * 1e-6 * 1000, 9);
  });

  it('takes devices away as often as their hazard says, from the seed alone', async () => {
    const fleet = plainFleet({ a: { 1: 1 }, b: { 1: 1 } });
    const risky = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, spotHazardPerHour: 3600, repairMs: 100 })),
    };
    const arrivals = poisson(risky, 20, 4000);
    const losses = (await run(risky, arrivals, { dispatch: 'sed' })).devices.map((each) => each.losses);
    const others = (await run(risky, arrivals, { dispatch: 'rr' })).devices.map((each) => each.losses);
    expect(others).toEqual(losses);
    // Once a second while it is there, for 200 s.
    for (const count of losses) expect(Math.abs(count / (200 / 1.1) - 1)).toBeLessThan(0.25);
  });

  it('slows a straggler and drifts as ordered', async () => {
    const fleet = plainFleet({ a: { 1: 10 } });
    const slow: FleetFault = { kind: 'straggler', device: 'a', atMs: 50, forMs: 100, factor: 5 };
    const taken = takenMs(await run(fleet, arrivalsAt(0, 60, 200), { faults: [slow] }));
    expect([...taken].map((ms) => Math.round(ms))).toEqual([10, 50, 10]);
    const drifting = { ...fleet, devices: fleet.devices.map((each) => ({ ...each, drift: 0.5, driftPeriodMs: 1000 })) };
    const drifted = takenMs(await run(drifting, poisson(drifting, 5, 2000)));
    expect(Math.max(...drifted)).toBeGreaterThan(14);
    expect(Math.min(...drifted)).toBeLessThan(5.1);
  });

  it('keeps mean service times whatever the noise', async () => {
    const fleet = plainFleet({ a: { 1: 10 } }, { noise: 0.4 });
    const result = await run(fleet, poisson(fleet, 1, 20_000));
    expect(Math.abs((result.devices[0]?.busyMs ?? 0) / 20_000 / 10 - 1)).toBeLessThan(0.02);
  });

  it('sheds interactive requests that would be late, and serves the others late', async () => {
    const classes = { interactive: { share: 1 }, standard: { share: 1 }, batch: { share: 1 } };
    const sloMs = { interactive: 30, standard: 30, batch: 30 };
    const fleet = plainFleet({ a: { 1: 20 } }, { classes, sloMs });
    const result = await run(fleet, poisson(fleet, 200, 600), {
      dispatch: 'cheapest-feasible',
      batching: 'deadline-cap+shed',
    });
    const late = fleetOutcomes.indexOf('late');
    const shed = fleetOutcomes.indexOf('shed');
    const of = (sloClass: number): Set<number> =>
      new Set([...result.outcome].filter((_, at) => result.arrivals.sloClass[at] === sloClass));
    expect(of(0).has(late)).toBe(false);
    expect(of(0).has(shed)).toBe(true);
    for (const sloClass of [1, 2]) {
      expect(of(sloClass).has(shed)).toBe(false);
      expect(of(sloClass).has(late)).toBe(true);
    }
  });

  it('shows policies prices, profiles and telemetry as the scenario has them', async () => {
    const fleet = plainFleet({ a: { 1: 10 }, b: { 1: 10 } });
    const seen: { atMs: number; usd: number; soloMs: number; ageMs: number }[] = [];
    const onDecision = ({ dispatch, candidates }: DispatchDecision): void => {
      const [first] = candidates;
      if (first === undefined) return;
      seen.push({ atMs: dispatch.nowMs, usd: first.usdPerHour, soloMs: first.soloMs, ageMs: first.telemetryAgeMs });
    };
    const dispatch = fleetDispatch(dispatchByName('sed'), {
      onDecision,
      profileError: (device) => (device === 0 ? 1.3 : 1),
    });
    const faults: FleetFault[] = [
      { kind: 'price', device: 'a', atMs: 500, forMs: 1000, factor: 4 },
      { kind: 'stale', atMs: 1000, forMs: 1000, ageMs: 700 },
    ];
    await runFleet({ fleet, arrivals: arrivalsAt(0, 600, 1200, 2500), seed: 1, dispatch, faults });
    expect(seen.map(({ usd }) => Math.round(usd * 10) / 10)).toEqual([3.6, 14.4, 14.4, 3.6]);
    expect(seen.map(({ ageMs }) => ageMs)).toEqual([0, 0, 700, 0]);
    expect(seen[0]?.soloMs).toBeCloseTo(13, 6);
  });

  it('refuses faults of devices it does not have, and a load that nobody can ever serve', async () => {
    const fleet = plainFleet({ a: { 1: 10 } });
    const loss = (device: string, atMs: number, forMs: number): FleetFault => ({ kind: 'loss', device, atMs, forMs });
    await expect(run(fleet, arrivalsAt(0), { faults: [loss('z', 0, 1)] })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(run(fleet, arrivalsAt(0), { faults: [loss('a', -1, 1)] })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    const flood = poisson(fleet, 1e7, 20_000);
    const slow = {
      ...fleet,
      devices: fleet.devices.map((each) => ({ ...each, service: [{ batches: [1], ms: [60_000], spread: 0 }] })),
    };
    await expect(run(slow, flood)).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });

  it('reports costs, misses and slowdown of a run that can be reckoned by hand', async () => {
    const fleet = plainFleet({ a: { 1: 10 } }, { sloMs: { interactive: 15, standard: 15, batch: 15 } });
    const report = fleetReport(fleet, await run(fleet, arrivalsAt(0, 0, 100, 200)));
    // The second waits for the first: 20 ms of 15, a third too late.
    expect(report).toMatchObject({ late: 1, shed: 0, lost: 0, requests: 4, slowdown: close(1.25, 9) });
    expect(report.objective).toMatchObject({
      cost: close(1, 9),
      misses: 2.5,
      lateness: close((0.2 * 10) / 3 / 4, 9),
    });
    expect(report.objective.missShare).toEqual([Number.NaN, 0.25, Number.NaN]);
    expect(report.goodput).toBeCloseTo(3 / 0.21, 6);
  });

  it('comes with fleets of unlike devices that serve their own mix', async () => {
    const names = readdirSync(folder).filter((file) => file.endsWith('.yaml'));
    expect(names.length).toBeGreaterThanOrEqual(3);
    for (const name of names) {
      const fleet = await ownFleet(name.replace('.yaml', ''));
      expect(new Set(fleet.devices.map(({ type }) => type)).size).toBeGreaterThanOrEqual(3);
      const result = await run(fleet, poisson(fleet, 5, 200), {
        dispatch: 'cheapest-feasible',
        batching: 'deadline-cap+shed',
      });
      expect(counts(result)['in-time']).toBeGreaterThan(190);
      expect(mean(takenMs(result))).toBeGreaterThan(0);
    }
  });
});
