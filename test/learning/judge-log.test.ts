import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { calibrateWithLog, estimatePolicies } from '#compose/learning/judge-log.js';
import { RandomStream } from '#core/random.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { featureCount, featureNames } from '#core/scheduling/features.js';
import { encodePolicy } from '#core/scheduling/policy-file.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { LogWorld, temporaryFolder } from '../decision-log/log-world.js';

const fleet = `
name: one
noise: 0.2
classes: { standard: { share: 1 } }
models:
  - { name: m, itemsMax: 8, sloMs: { interactive: 300, standard: 1500, batch: 20000 }, tables: { cpu: { 1: 20, 8: 90 } } }
devices:
  - { name: cpu, usdPerHour: 0.2, watts: 10, netMs: 0 }
`;

describe('what a decision log says', () => {
  let folder = '';
  let remove: () => Promise<void>;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
  });
  afterEach(() => remove());

  /** Chooses evenly among three devices, and says so; the request takes 50 ms times one more than the device's number. */
  function writeLog(requests: number): void {
    const random = new RandomStream(2);
    const policy: DispatchPolicy = {
      name: 'even',
      trace: { propensity: 1 / 3, fallback: '' },
      choose: (_request, candidates) => random.below(candidates.length),
    };
    const world = new LogWorld({ policy, folder });
    for (let number = 0; number < requests; number += 1) {
      world.nowMs += 10;
      const { request, index } = world.ask({ sloMs: 100, sloClass: 'standard' });
      world.answer(request, index, 40 * (index + 1));
    }
    world.close();
  }

  /** A network whose score is the negative of one feature. */
  function writePolicy(feature: string): string {
    const weights = new Float32Array(featureCount);
    weights[featureNames.indexOf(feature)] = -1;
    const edge = (value: number): number[] => Array.from({ length: featureCount }, () => value);
    const path = join(folder, 'policy.onnx');
    writeFileSync(
      path,
      encodePolicy({
        ...{ name: 'one-feature', decides: 'dispatch', fallback: 'sed', notes: {} },
        network: {
          layers: [{ in: featureCount, out: 1, weights, bias: new Float32Array(1) }],
          activation: 'tanh',
        },
        ranges: { least: edge(-3), low: edge(-3), high: edge(3), greatest: edge(3) },
      }),
    );
    return path;
  }

  it('estimates a learned policy: cheaper by what its choices were paid, from the third that speaks for it', async () => {
    writeLog(3_900);
    const report = await estimatePolicies({ folder, policies: [writePolicy('cost')] });
    const [{ decisions, effectiveDecisions, logged, snips, doublyRobust }] = report.policies as [
      (typeof report.policies)[number],
    ];
    expect(decisions).toBe(3_900);
    // A weight is 3 or 0.
    expect(effectiveDecisions).toBeGreaterThan(1_150);
    expect(effectiveDecisions).toBeLessThan(1_450);
    // A third of the log took 120 ms of 100 and missed; the cheapest device answers in 40.
    expect(snips.low).toBeGreaterThan(logged.high + 2);
    expect(doublyRobust.value).toBeGreaterThan(logged.high + 2);
    expect(Math.abs(doublyRobust.value - snips.value)).toBeLessThan(1);
  });

  it('refuses a log that says too little, and policies that are rules', async () => {
    writeLog(1_200);
    const policy = writePolicy('cost');
    await expect(estimatePolicies({ folder, policies: [policy] })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await expect(estimatePolicies({ folder, policies: ['sed'] })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(estimatePolicies({ folder: join(folder, 'none'), policies: [policy] })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('holds the simulator against the log: it passes where it tells the truth, and fails where devices are slower', async () => {
    const path = join(folder, 'fleet.yaml');
    writeFileSync(path, fleet);
    for (const [factor, passed] of [
      [1, true],
      [1.5, false],
    ] as const) {
      // One device, rarely asked: an answer takes one run, lognormal around 20 ms.
      const random = new RandomStream(9);
      const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
      const own = join(folder, `log ${factor}`);
      const world = new LogWorld({ policy: dispatchByName('sed'), folder: own });
      for (let number = 0; number < 1_500; number += 1) {
        world.nowMs += 400 + 200 * random.next();
        const { request } = world.ask({ sloClass: 'standard', sloMs: 1_500 });
        world.answer(request, 0, factor * 20 * Math.exp(0.2 * normal() - 0.02));
      }
      world.close();
      const request = { folder: own, fleet: path, policy: '', batching: 'deadline-cap', seed: 1 };
      const { rows, policy, requests } = await calibrateWithLog(request);
      expect({ policy, requests }).toEqual({ policy: 'sed', requests: 1_500 });
      expect(rows.map((row) => [row.model, row.measured, row.simulated, row.passed])).toEqual([
        ['', 1_500, 1_500, passed],
        ['m', 1_500, 1_500, passed],
      ]);
    }
  });
});
