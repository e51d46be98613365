/** Whole grids of the production code on virtual time: a few seeds, and a planted bug for every checker. */
import { describe, expect, it } from 'vitest';
import type { PlantedBug } from '#sim/grid/planted-bugs.js';
import { plantedBugs } from '#sim/grid/planted-bugs.js';
import { faultKindsOf, runSeed, runTwice, type SeedReport } from '#sim/grid/run-seeds.js';
import { drawScenario, faultKinds, readScenario, type FaultEvent, type GridScenario } from '#sim/grid/scenario.js';
import { runScenario } from '#sim/grid/simulated-grid.js';
import { checkers, type Checker } from '#sim/grid/violations.js';

const bites: Readonly<Record<PlantedBug, Checker>> = {
  'doubled-answer': 'answered-once',
  'lost-answer': 'answered-once',
  'wrong-answer': 'right-answer',
  'forgotten-state': 'right-answer',
  'unknown-error': 'known-code',
  'two-owners': 'one-owner',
  overtaking: 'order-kept',
  'doubled-message': 'order-kept',
  'boundless-memory': 'memory-kept',
  'lost-member': 'views-converge',
  'deaf-agent': 'desired-is-actual',
  'refusing-gateway': 'calm-requests',
  'stray-chance': 'same-trace',
};

/** Three hosts, so busy that every planted bug has something to spoil. */
const small: GridScenario = {
  ...drawScenario({ seed: 3, hosts: 3, kinds: [], requests: 150 }),
  deployments: [
    { name: 'd1', replicas: 3 },
    { name: 'd2', replicas: 3 },
    { name: 'd3', replicas: 3 },
  ],
  stormMs: [20_000, 40_000],
  operators: [
    { kind: 'update', atMs: 21_000, subject: 'd1', amount: 2 },
    { kind: 'update', atMs: 22_000, subject: 'd2', amount: 2 },
    { kind: 'scale', atMs: 30_000, subject: 'd3', amount: 4 },
  ],
};

/** With a stateful model. */
const withSequences: GridScenario = {
  ...drawScenario({ seed: 8, hosts: 4, kinds: [], requests: 100 }),
  deployments: [
    { name: 'd1', replicas: 2 },
    { name: 's1', replicas: 2, stateful: true },
  ],
  sequences: 20,
  stormMs: [20_000, 40_000],
  operators: [],
};

describe('a simulated grid', () => {
  it('violates nothing in two seeds of 120 virtual seconds, 1,000 requests and five faults that fired', async () => {
    const request = { hosts: 4, seed: 100, faults: undefined, requests: 1_000 };
    const reports: SeedReport[] = [];
    for (const seed of [100, 101]) reports.push(await runSeed(request, seed));
    for (const report of reports) {
      expect(report.violations).toEqual([]);
      expect(report.virtualMs).toBeGreaterThanOrEqual(120_000);
      expect(report.requests.sent).toBeGreaterThanOrEqual(1_000);
      expect(report.faults.filter(({ fired }) => fired > 0).length).toBeGreaterThanOrEqual(5);
    }
    expect(reports).toHaveLength(2);
  });

  it('lets a host go when its time to drain is over, and fails no request for it', async () => {
    const report = await runScenario({
      ...drawScenario({ seed: 11, hosts: 4, kinds: [], requests: 600 }),
      deployments: [
        { name: 'd1', replicas: 2 },
        { name: 'd2', replicas: 3 },
      ],
      stormMs: [20_000, 50_000],
      operators: [
        // Less than a copy takes to be ready elsewhere: work is under way when the time is over.
        { kind: 'drain', atMs: 25_000, subject: 'host-1', amount: 20 },
        { kind: 'drain', atMs: 32_000, subject: 'host-2', amount: 8_000 },
      ],
    });
    expect(report.departed).toEqual(['host-1', 'host-2']);
    expect(report.violations).toEqual([]);
    expect(report.requests.failed).toEqual({});
  });

  it('answers sequences with their sums and asks second replicas, with nothing violated', async () => {
    const slow: FaultEvent = { kind: 'slow-host', atMs: 24_000, durationMs: 10_000, hosts: ['host-2'], amount: 5 };
    const faults = [slow, { ...slow, hosts: ['host-3'] }];
    const { violations, sequences, requests } = await runScenario({ ...withSequences, faults });
    expect(violations).toEqual([]);
    expect(sequences.begun).toBeGreaterThanOrEqual(20);
    expect(sequences.ended).toBe(sequences.begun);
    expect(sequences.steps).toBeGreaterThanOrEqual(3 * sequences.ended);
    expect(requests.hedges).toBeGreaterThan(0);
  });

  it('has every kind of fault, and each fires', async () => {
    const spaced = faultKinds.map((kind, index): FaultEvent => {
      const hosts: Partial<Record<typeof kind, readonly string[]>> = {
        ...{ loss: [], delay: [], duplication: [], reordering: [], 'store-away': [], 'full-disk': [] },
        'one-way-partition': ['host-1', 'host-2'],
      };
      const amounts: Partial<Record<typeof kind, number>> = {
        ...{ loss: 0.1, delay: 100, duplication: 0.2, reordering: 0.2, 'slow-host': 5, 'one-way-partition': 2 },
        ...{ 'clock-drift': 1.02, 'clock-step': 3_600_000 },
      };
      const atMs = kind === 'clock-drift' ? 0 : 20_000 + index * 4_500;
      const atHosts = hosts[kind] ?? [`host-${(index % 3) + 2}`];
      return { kind, atMs, durationMs: 4_000, hosts: atHosts, amount: amounts[kind] ?? 0 };
    });
    const fullMs = spaced.find(({ kind }) => kind === 'full-disk')?.atMs ?? 0;
    const report = await runScenario({
      ...drawScenario({ seed: 5, hosts: 4, kinds: [], requests: 300 }),
      faults: spaced,
      operators: [{ kind: 'update', atMs: fullMs + 500, subject: 'd1', amount: 2 }],
      stormMs: [20_000, 95_000],
    });
    expect(report.violations).toEqual([]);
    const fired = new Map(report.faults.map(({ kind, fired: times }) => [kind, times > 0]));
    expect(fired).toEqual(new Map([...fired.keys()].map((kind) => [kind, true])));
    expect(fired.size).toBe(faultKinds.length);
  });

  it.each(plantedBugs)('finds the planted bug %s', async (bug) => {
    const run = bug === 'stray-chance' ? runTwice : runScenario;
    const { violations } = await run(bug === 'forgotten-state' ? withSequences : small, { bug });
    expect(violations.map(({ checker }) => checker)).toContain(bites[bug]);
  });

  it('finds nothing in the same scenario without a planted bug, and says when faults met nobody', async () => {
    expect((await runTwice(small)).violations).toEqual([]);
    const crash = (atMs: number): FaultEvent => ({
      kind: 'crash',
      atMs,
      durationMs: 9_000,
      hosts: ['host-3'],
      amount: 0,
    });
    const faults = [21_000, 22_000, 23_000, 24_000, 25_000].map(crash);
    const { violations } = await runScenario({ ...small, faults });
    expect(violations.map(({ checker }) => checker)).toEqual(['enough-faults']);
  });

  it('has a planted bug or a case here for every checker', () => {
    expect(new Set([...Object.values(bites), 'enough-faults'])).toEqual(new Set(checkers));
  });

  it('runs a scenario again that was written to a file, to the same trace', async () => {
    const read = readScenario(JSON.parse(JSON.stringify(small)));
    expect((await runScenario(read)).traceHash).toBe((await runScenario(small)).traceHash);
    expect((await runScenario({ ...small, seed: 4 })).traceHash).not.toBe((await runScenario(small)).traceHash);
  });

  it.each([
    [null, /is not an object/],
    [{ ...small, format: 2 }, /has format 2/],
    [{ ...small, hosts: 1 }, /needs `hosts`/],
    [{ ...small, requests: -1 }, /needs `requests`/],
    [{ ...small, operators: undefined }, /needs a list `operators`/],
    [{ ...small, faults: [{ kind: 'rain', hosts: [] }] }, /unknown kind "rain"/],
    [{ ...small, faults: [{ kind: 'loss', hosts: ['host-9'] }] }, /names host "host-9"/],
  ])('refuses a file that is no scenario, saying why', (data, reason) => {
    expect(() => readScenario(data)).toThrow(reason);
  });

  it('names the faults there are when asked for another', () => {
    expect(() => faultKindsOf(['loss', 'rain'])).toThrow(/no fault "rain"; there are loss, delay/);
  });
});
