import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import type { TrainRequest, TrainReport } from '#cli/train-report.js';
import { trainFleets } from '#compose/learning/train-fleets.js';
import { planFeatureCount } from '#core/scheduling/features.js';
import { inputsOf } from '#core/scheduling/network.js';
import { readPolicy } from '#core/scheduling/policy-file.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-train-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

const fleet = `name: small
models:
  - name: m
    share: 1
    itemsMax: 4
    memoryMiB: 1
    tables: { slow: { 1: 20, 4: 40 }, fast: { 1: 5, 4: 10 } }
devices:
  - { name: slow, count: 2, usdPerHour: 0.1, watts: 10, memoryGiB: 1, tier: edge, netMs: 0 }
  - { name: fast, count: 1, usdPerHour: 2, watts: 200, memoryGiB: 1, tier: edge, netMs: 0 }
`;
const plan = `hidden: [4]
rules: [sed, 'cheapest-feasible:0.6']
imitation: { episodes: 2, requests: 150, corrections: 1, epochs: 1 }
search: { iterations: 2, population: 4, scenarios: 2, requests: 100 }
optimisation: { iterations: 2, sequences: 2, plays: 2, epochs: 1, decisionsMax: 200, requestsFirst: 60, requestsLast: 80 }
validation: { scenarios: 2, requests: 150, every: 1 }
`;

beforeAll(() => {
  writeFileSync(at('fleet.yaml'), fleet);
  writeFileSync(at('plan.yaml'), plan);
});

function train(change: Partial<TrainRequest>, stopAfter = Infinity): Promise<TrainReport> {
  let steps = -1;
  const request: TrainRequest = {
    ...{ configPath: at('plan.yaml'), fleets: [at('fleet.yaml')], traces: [], seed: 5, workers: 0, minutes: undefined },
    ...{ quick: true, out: at('run'), resume: '', backend: 'cpu', from: '' },
    ...change,
  };
  const watch = { onStep: () => (steps += 1), isStopWanted: () => steps >= stopAfter };
  return trainFleets(request, watch, new NodeClock());
}

describe('intarsia train', () => {
  it('leaves a folder with curves, a policy that can be read and a manifest that says what it was made of', async () => {
    const report = await train({ out: at('whole') });
    expect(report).toMatchObject({ isDone: true, backend: 'cpu', steps: 6 });
    const policy = readPolicy(readFileSync(report.policyPath));
    expect(policy).toMatchObject({ name: 'dispatch-5', decides: 'dispatch', fallback: report.fallback });
    const manifest = JSON.parse(readFileSync(at('whole/manifest.json'), 'utf8')) as Record<string, unknown>;
    expect(manifest).toMatchObject({
      seed: 5,
      backend: 'cpu',
      schema: 'dispatch-2',
      policySha256: report.policySha256,
      fleets: [{ name: 'fleet.yaml' }],
      ranges: { names: ['small'], devices: [3, 3], models: [1, 1] },
    });
    expect(readFileSync(at('whole/curves.html'), 'utf8')).toContain('<svg');
    expect(JSON.parse(readFileSync(at('whole/curves.json'), 'utf8'))).toHaveLength(6);
  });

  it('stopped and continued it ends with the same policy, byte for byte, as without a stop; another seed does not', async () => {
    const whole = await train({ out: at('straight') });
    const stopped = await train({ out: at('stopped') }, 3);
    expect(stopped).toMatchObject({ isDone: false, steps: 3 });
    // A kill while a checkpoint is written leaves half a file beside the whole one.
    writeFileSync(at('stopped/checkpoint.json.new'), '{"format":1,"sta');
    const resumed = await train({ resume: at('stopped') });
    expect(resumed.isDone).toBe(true);
    expect(resumed.policySha256).toBe(whole.policySha256);
    expect(readFileSync(at('stopped/manifest.json'))).toEqual(readFileSync(at('straight/manifest.json')));
    expect((await train({ out: at('other'), seed: 6 })).policySha256).not.toBe(whole.policySha256);
  });

  it('begins with the networks of a policy of an earlier schema, and its manifest names them', async () => {
    const search = 'search: { iterations: 1, population: 2, scenarios: 1, requests: 150, seconds: 1 }\n';
    const others = 'imitation: { episodes: 1, requests: 150 }\noptimisation: { iterations: 0 }\n';
    writeFileSync(at('from.yaml'), `${search}${others}validation: { scenarios: 1, requests: 150, every: 1 }\n`);
    const report = await train({ configPath: at('from.yaml'), from: 'dispatch-3', out: at('from') });
    expect(report.isDone).toBe(true);
    expect(inputsOf(readPolicy(readFileSync(report.policyPath)).network)).toBe(planFeatureCount);
    const { from } = JSON.parse(readFileSync(at('from/manifest.json'), 'utf8')) as { from: { name: string }[] };
    expect(from.map(({ name }) => name)).toEqual(['policy.onnx', 'batching.onnx']);
    await expect(train({ from: 'milp-rate', out: at('nowhere') })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('refuses a folder in use, a run that is not there, a plan with unknown fields, and data that changed since', async () => {
    await train({ out: at('used') }, 1);
    await expect(train({ out: at('used') })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(train({ resume: at('nothing') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    writeFileSync(at('bad.yaml'), 'search: { iteratoins: 3 }\n');
    await expect(train({ configPath: at('bad.yaml'), out: at('bad') })).rejects.toThrow(
      /search.iteratoins must be one of population/,
    );
    await expect(train({ fleets: [at('none.yaml')], out: at('bad') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    writeFileSync(at('fleet.yaml'), `${fleet}# changed\n`);
    await expect(train({ resume: at('used') })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    writeFileSync(at('fleet.yaml'), fleet);
  });
});
