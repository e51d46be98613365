import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseYaml } from '#adapters/yaml/read-yaml.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { checkArtifact } from '#core/scheduling/artifact-check.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { objectiveOf } from '#core/scheduling/objective.js';
import { readPolicy, schemaOf } from '#core/scheduling/policy-file.js';
import { shippedPolicy } from '#core/scheduling/shipped-policy.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { capacityOf } from '#policies/learning/fleet-capacity.js';
import { readPlan } from '#policies/learning/plan-file.js';
import { fullPlan } from '#policies/learning/training-plan.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { dispatchFromFile } from '#policies/placement/dispatch-from-file.js';
import type { LearnedDispatch } from '#policies/placement/dispatch-learned.js';
import { arrivalProcess } from '#sim/fleet/arrival-process.js';
import { drawArrivals } from '#sim/fleet/arrivals.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { objectiveRows } from '#sim/fleet/fleet-report.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { runFleet } from '#sim/fleet/run-fleet.js';

const folder = 'policies/checkpoints';
const names = readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory() ? [entry.name] : [],
);

function read(name: string, file: string): Buffer {
  return readFileSync(join(folder, name, file));
}

function fleetNamed(name: string) {
  const path = `policies/fleets/${name}.yaml`;
  return readFleet(parseYaml(readFileSync(path, 'utf8'), path), name, builtInProfiles);
}

interface Manifest {
  readonly policySha256: string;
  readonly schema: string;
  readonly seed: number;
  readonly plan: unknown;
  readonly batching: string;
  readonly teacher: string;
  readonly fallback?: string;
  readonly fleets: readonly { readonly name: string; readonly sha256: string }[];
  /** Of the policy that forms batches, where there is one. */
  readonly batchSha256?: string;
}

function manifestOf(name: string): Manifest {
  return JSON.parse(read(name, 'manifest.json').toString()) as Manifest;
}

const byDeadline = (): BatchingPolicy => batchingByName('deadline-cap');

/** Plays the same requests under whoever decides; answers the objective. */
function objectiveAt(
  fleet: Fleet,
  load: number,
  requests: number,
): (dispatch: DispatchPolicy, batching: () => BatchingPolicy) => Promise<number> {
  const ratePerSecond = load * capacityOf(fleet);
  const arrivals = drawArrivals(fleet, arrivalProcess('poisson:rate=1'), {
    seed: 'checkpoint',
    requests,
    ratePerSecond,
  });
  return async (dispatch, batching) => {
    const run = { fleet, arrivals, seed: 1, dispatch: fleetDispatch(dispatch), batching };
    return objectiveOf(objectiveRows(fleet, await runFleet(run))).total;
  };
}

function fallbackShare({ counts }: LearnedDispatch): number {
  return Object.values(counts.fallbacks).reduce((sum, count) => sum + count, 0) / counts.decisions;
}

describe('trained policies in the repository', () => {
  it('each is the file that its manifest and its card name, of the schema this version has, with a rule to fall back to', () => {
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      const bytes = read(name, 'policy.onnx');
      const manifest = manifestOf(name);
      const digest = createHash('sha256').update(bytes).digest('hex');
      expect(manifest).toMatchObject({ policySha256: digest, schema: schemaOf(readPolicy(bytes)) });
      expect(read(name, 'card.md').toString()).toContain(digest);
      const policy = readPolicy(bytes);
      expect(policy).toMatchObject({ decides: 'dispatch', fallback: manifest.fallback ?? manifest.teacher });
      expect(dispatchByName(policy.fallback).name).not.toBe('');
      if (manifest.batchSha256 !== undefined) {
        const batching = read(name, 'batching.onnx');
        expect(createHash('sha256').update(batching).digest('hex')).toBe(manifest.batchSha256);
        expect(read(name, 'card.md').toString()).toContain(manifest.batchSha256);
        expect(batchingFromFile(batching)().counts.decisions).toBe(0);
      }
      // The card is reproduced only from the fleets that the manifest names.
      for (const fleet of manifest.fleets) {
        const data = readFileSync(join('policies/fleets', fleet.name));
        expect(createHash('sha256').update(data).digest('hex')).toBe(fleet.sha256);
      }
    }
  });

  it('is of the very plan that the command on its card reads from the file beside it', () => {
    const { plan, seed } = manifestOf(shippedPolicy);
    const path = join(folder, shippedPolicy, 'plan.yaml');
    const asked = readPlan(fullPlan, parseYaml(readFileSync(path, 'utf8'), path), path);
    expect(plan).toEqual({ ...asked, seed });
    expect(read(shippedPolicy, 'card.md').toString()).toContain(`--seed ${seed} `);
  });

  it('pass the first gate of promotion: the kernel scores them as plain arithmetic does', () => {
    for (const name of names) {
      expect(checkArtifact(read(name, 'policy.onnx')).gate.passed).toBe(true);
      if (manifestOf(name).batchSha256 === undefined) continue;
      expect(checkArtifact(read(name, 'batching.onnx'), 'batching').gate.passed).toBe(true);
    }
  });

  it('does better than cheapest feasible of any share, shield on, on a fleet it was not trained on', async () => {
    for (const name of names) {
      const { fleets, batchSha256 } = manifestOf(name);
      const fleetName = fleets.some((fleet) => fleet.name === 'edge-and-core.yaml')
        ? 'judging/stadium'
        : 'edge-and-core';
      const objective = objectiveAt(fleetNamed(fleetName), 0.7, 4_000);
      const rules: number[] = [];
      for (const share of [0.4, 0.6, 0.8, 1]) {
        rules.push(await objective(dispatchByName(`cheapest-feasible:${share}`), byDeadline));
      }
      const learned = dispatchFromFile(read(name, 'policy.onnx'));
      const make = batchSha256 === undefined ? byDeadline : batchingFromFile(read(name, 'batching.onnx'));
      expect(await objective(learned, make)).toBeLessThan(0.97 * Math.min(...rules));
      expect(fallbackShare(learned)).toBeLessThan(0.05);
    }
  }, 120_000);

  it('the shipped one holds in a run in which queues settle, at high load on a fleet it was not trained on: better than each rule, seldom left to one', async () => {
    const fleet = fleetNamed('judging/foundry');
    const objective = objectiveAt(fleet, 0.9, Math.round(15 * 0.9 * capacityOf(fleet)));
    const rules: number[] = [];
    for (const name of ['cheapest-feasible:0.8', 'cf-risk:0.02', 'milp-rate', 'milp-rate:1']) {
      rules.push(await objective(dispatchByName(name), byDeadline));
    }
    const learned = dispatchFromFile(read(shippedPolicy, 'policy.onnx'));
    const batching = batchingFromFile(read(shippedPolicy, 'batching.onnx'));
    expect(await objective(learned, batching)).toBeLessThan(Math.min(...rules));
    expect(fallbackShare(learned)).toBeLessThan(0.05);
  }, 120_000);
});
