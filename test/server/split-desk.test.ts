import { describe, expect, it } from 'vitest';
import type { Deployment } from '#core/grid/records.js';
import type { PreparedSplit } from '#ports/grid-admin.js';
import { PretendGate } from './pretend-gate.js';
import { keys, PretendGrid } from './pretend-grid.js';

const call = { deadlineMs: Infinity } as Parameters<PretendGrid['desk']['status']>[0];
const digits = { name: 'd', model: 'm', version: '1', replicas: 1 };

interface World {
  readonly grid: PretendGrid;
  readonly gate: PretendGate;
  prepare(split: object, dryRun?: boolean): Promise<PreparedSplit>;
}

async function world(): Promise<World> {
  const gate = new PretendGate();
  const grid = new PretendGrid(undefined, gate);
  await grid.publish('m');
  return {
    grid,
    gate,
    prepare: (split, dryRun = false) =>
      grid.desk.prepareSplit({ deploymentJson: JSON.stringify({ ...digits, split }), dryRun }, call, () => {}),
  };
}

describe('preparing a split', () => {
  it('compares it on the providers where it will be, stores the verdict, and gives the deployment to apply', async () => {
    const { grid, gate, prepare } = await world();
    const prepared = await prepare({ cuts: [4, 9], standby: 1, compression: 'fp16' });
    expect(gate.verified).toEqual([{ providers: ['cpu', 'cpu', 'cpu'], compression: 'fp16' }]);
    expect(gate.closed).toBe(1);
    expect(prepared.refusal).toBe('');
    expect(prepared.verdict).toBe(
      'equal within tolerance over 1 vector, largest error 2.50e-7 absolute, 0.00000125 relative (0.00100 passes)',
    );
    const { split } = JSON.parse(prepared.deploymentJson) as { split: { id: string } };
    expect(split).toMatchObject({
      cuts: [4, 9],
      compression: 'fp16',
      splitBatches: true,
      shards: [1, 2, 3].map(() => ({ memoryBytes: 1_000_000, standby: 1 })),
      // With these, no host has to load the whole model to make its shard.
      values: { middle: { dataType: 1, shape: [-1, 4] }, loose: { dataType: 7 } },
    });
    expect(await grid.read(keys.verification('m', '1', split.id))).toMatchObject({
      verdict: 'equal',
      host: 'a',
      maxRelativeError: 1.25e-6,
      vectors: ['test_data_set_0'],
    });
    const applied = await grid.desk.deploy({ deploymentJson: prepared.deploymentJson, dryRun: false }, call);
    expect(applied).toMatchObject({ applied: true, refusals: [] });
    expect(applied.placements).toHaveLength(6);
    const status = await grid.desk.status(call);
    expect(status.deployments[0]).toMatchObject({ wanted: 1, ready: 0, gate: prepared.verdict });
  });

  it('is refused with the numbers when the pieces are not equal, and such a split is never applied', async () => {
    const { grid, gate, prepare } = await world();
    gate.findings = { verdict: 'different', reason: "output 'y' at 3 is 1, the reference 2", maxRelativeError: 0.5 };
    const { refusal, deploymentJson } = await prepare({ stages: 2 });
    expect(refusal).toContain("output 'y' at 3 is 1, the reference 2");
    expect(refusal).toContain('0.500 relative (0.00100 passes)');
    const { applied, refusals } = await grid.desk.deploy({ deploymentJson, dryRun: false }, call);
    expect(applied).toBe(false);
    expect(refusals.join()).toContain('is different over 1 vector');
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('of a split that nobody compared is a refusal to apply it', async () => {
    const { grid, prepare } = await world();
    const { deploymentJson, verdict } = await prepare({ stages: 2 }, true);
    expect(verdict).toBe('');
    const dry = await grid.desk.deploy({ deploymentJson, dryRun: true }, call);
    expect(dry).toMatchObject({ applied: false, refusals: [] });
    expect(dry.placements).toEqual([
      'copy 0, stage 1 of 2: a/cpu:0 (cpu), 977 KiB',
      'copy 0, stage 2 of 2: b/cpu:0 (cpu), 977 KiB',
    ]);
    const { refusals } = await grid.desk.deploy({ deploymentJson, dryRun: false }, call);
    expect(refusals.join()).toContain('was never compared with the whole model');
    const unmade = JSON.stringify({ ...digits, split: { stages: 2 } });
    await expect(grid.desk.deploy({ deploymentJson: unmade, dryRun: false }, call)).rejects.toThrow(
      'PrepareSplit makes it',
    );
  });

  it('compares nothing when a stage fits nowhere, and says by how many bytes', async () => {
    const { gate, prepare } = await world();
    gate.memoryBytes = 2 ** 30 + 5;
    const { refusal, stages } = await prepare({ cuts: [3] });
    expect(refusal).toContain('stage 1 of 2: a: the shard takes 1073741829 bytes');
    expect(refusal).toContain('5 bytes missing');
    expect(stages[1]).toBe('stage 2 of 2: 5 nodes, 1 GiB');
    expect(gate.verified).toEqual([]);
  });

  it('does not compare again what was found equal on the same providers', async () => {
    const { gate, prepare } = await world();
    await prepare({ stages: 2 });
    await prepare({ stages: 2, standby: 1 });
    expect(gate.verified).toHaveLength(1);
    await prepare({ stages: 2, tolerance: 1e-6 });
    await prepare({ stages: 3 });
    expect(gate.verified).toHaveLength(3);
  });

  it('is done one at a time, and frees the model whatever happens', async () => {
    const { gate, prepare } = await world();
    let go = (): void => {};
    gate.until = new Promise((resolve) => {
      go = resolve;
    });
    const first = prepare({ stages: 2 });
    await expect(prepare({ stages: 3 })).rejects.toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    go();
    await first;
    await expect(prepare({ cuts: [500] })).rejects.toThrow('positions ascend');
    await prepare({ stages: 3 });
    expect(gate.closed).toBe(2);
  });

  it('needs a model that some host has, and a host that can compare', async () => {
    const { grid } = await world();
    const deploymentJson = JSON.stringify({ ...digits, model: 'x', split: { stages: 2 } });
    const request = { deploymentJson, dryRun: false };
    await expect(grid.desk.prepareSplit(request, call, () => {})).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
    const without = new PretendGrid().desk.prepareSplit(request, call, () => {});
    await expect(without).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
  });
});

describe('planning a split again', () => {
  it('compares the new cut like any other, keeps what the deployment says of its stages, and says why', async () => {
    const { grid, gate, prepare } = await world();
    const prepared = await prepare({ cuts: [4, 9], standby: 1, replan: true });
    const before = JSON.parse(prepared.deploymentJson) as Deployment;
    const stages = ['a/cpu:0', 'b/cpu:0', 'c/cpu:0'].map((place, at) => ({ place, ms: at === 1 ? 50 : 10 }));
    expect(await grid.desk.planAgain(before, stages, call)).toBeUndefined();
    gate.better = { cuts: [6], kept: [0, 2], beforeMs: 50, afterMs: 15 };
    const after = await grid.desk.planAgain(before, stages, call);
    expect(after?.split).toMatchObject({
      cuts: [6],
      replan: true,
      why: 'planned again, because its slowest stage takes 50 ms and need not take more than 15 ms',
      shards: [
        { standby: 1, prefer: 'a/cpu:0' },
        { standby: 1, prefer: 'c/cpu:0' },
      ],
    });
    expect(gate.verified).toHaveLength(2);
    expect(await grid.read(keys.verification('m', '1', after?.split?.id ?? ''))).toMatchObject({ verdict: 'equal' });
    gate.findings = { verdict: 'different', reason: 'wrong' };
    gate.better = { cuts: [7], kept: [0, 2], beforeMs: 50, afterMs: 15 };
    await expect(grid.desk.planAgain(before, stages, call)).rejects.toThrow('a better cut [7] is refused');
  });

  it('a device of the plan that is gone when it is deployed is named with its stage, and nothing is applied', async () => {
    const { grid, prepare } = await world();
    const { refusal, deploymentJson } = await prepare({
      cuts: [4],
      stages: [{}, { constraints: { devices: ['wasm:7'] } }],
    });
    expect(refusal).toContain('can never fit: stage 2 of 2');
    expect(refusal).toContain('wasm:7');
    const { applied } = await grid.desk.deploy({ deploymentJson, dryRun: false }, call);
    expect(applied).toBe(false);
  });
});
