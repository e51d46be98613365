/** Reference runs over a real registry and a real device actor whose executor obeys a script. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { artifactDigest, modelName, modelVersion, type RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import { intarsiaError } from '#core/errors.js';
import type { ExecutorFactory, LoadRequest } from '#ports/executor.js';
import { ReferenceRuns } from '#server/reference-runs.js';
import { PretendExecutors, type PretendModel } from '#sim/pretend-executor.js';
import { silentMetrics } from '#sim/grid/silent-metrics.js';
import { descriptor, identity, RegistryWorld } from '../actors/model-registry-world.js';

const model = modelName('m');
const version = modelVersion('1');
const bytes = identity(4);
const digest = artifactDigest(createHash('sha256').update(bytes).digest('hex'));

function request(): InferenceRequest {
  const data = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);
  return {
    ...{ id: 1 as RequestId, model, version, items: 1, bytes: 16, batchKey: '', priority: 0, queueTimeoutUs: 0 },
    ...{ deadlineMs: Infinity, arrivedMs: 0, outputs: [] },
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data }],
  } as unknown as InferenceRequest;
}

/** @param accepts Levels at which the engine loads the model. */
async function world(accepts: readonly string[] = ['disabled', 'all']) {
  const registry = new RegistryWorld(['cpu:0']);
  registry.repository.write('m/1/model.onnx', bytes);
  registry.start();
  await registry.load('m');
  const heldBefore = registry.repository.held;
  const loads: LoadRequest[] = [];
  const state = { isBusy: false };
  const spec = (name: string) => ({ name, datatype: 'FP32', shape: [-1, 4] }) as const;
  const behaviour: PretendModel = {
    ...{ inputs: [spec('x')], outputs: [spec('y')], loadMs: 5, memoryBytes: 1_000, runMs: () => 10 },
    compute: ([x]) => [{ ...x!, name: 'y' }],
  };
  const executors = new PretendExecutors({
    clock: registry.simulation.clock,
    models: new Map([[`/held/${digest}/model.onnx`, behaviour]]),
  });
  const startExecutor: ExecutorFactory = async () => {
    const executor = await executors.start();
    const load = executor.load.bind(executor);
    executor.load = (wanted) => {
      loads.push(wanted);
      const { optimization } = wanted.options;
      if (accepts.includes(optimization)) return load(wanted);
      return Promise.reject(intarsiaError('MODEL_INVALID', `it does not load at ${optimization}`));
    };
    return executor;
  };
  let opened = 0;
  const warnings: string[] = [];
  const runs = new ReferenceRuns({
    registry: registry.registry,
    clock: registry.simulation.clock,
    log: {
      warn: (text: string, fields: { readonly reason: string }) => warnings.push(`${text}: ${fields.reason}`),
    } as never,
    isBusy: () => state.isBusy,
    open: () => {
      opened += 1;
      const ref = registry.system.spawn<DeviceMessage>(
        `reference-${opened}`,
        deviceActor({
          descriptor: descriptor('reference:0'),
          startExecutor,
          metrics: silentMetrics,
          canaryMs: 0,
          usageMs: 0,
        }),
      );
      return { ref, close: () => registry.system.stop(ref) };
    },
  });
  const run = async (of = digest): Promise<InferenceOutcome | undefined> => {
    const outcome = runs.run(request(), of);
    await registry.pass(2_000);
    return outcome;
  };
  const started = (): readonly boolean[] => executors.started.map(({ closed }) => closed);
  return { runs, run, loads, started, state, registry, warnings, held: () => registry.repository.held - heldBefore };
}

describe('runs on the reference', () => {
  it('load the very files without the optimiser, once for several runs, and free everything after a while', async () => {
    const { run, loads, started, registry, held } = await world();
    for (let at = 0; at < 3; at += 1) expect(await run()).toMatchObject({ ok: true, outputs: [{ name: 'y' }] });
    expect(loads.map(({ artifact, options }) => [artifact.digest, options.optimization])).toEqual([
      [digest, 'disabled'],
    ]);
    expect([started(), held()]).toEqual([[false], 1]);
    await registry.pass(61_000);
    expect([started(), held()]).toEqual([[true], 0]);
    expect(await run()).toMatchObject({ ok: true });
    expect(loads).toHaveLength(2);
  });

  it('come after everything else: none while work waits, and one at a time', async () => {
    const { runs, run, state, loads, registry } = await world();
    state.isBusy = true;
    expect([runs.isFree({ model, version, digest }), await run()]).toEqual([false, undefined]);
    expect(loads).toEqual([]);
    state.isBusy = false;
    const first = runs.run(request(), digest);
    expect(runs.isFree({ model, version, digest })).toBe(false);
    expect(await runs.run(request(), digest)).toBeUndefined();
    await registry.pass(2_000);
    expect(await first).toMatchObject({ ok: true });
  });

  it('use the configured optimisation for a model that loads no other way', async () => {
    const { run, loads } = await world(['all']);
    expect(await run()).toMatchObject({ ok: true });
    expect(loads.map(({ options }) => options.optimization)).toEqual(['disabled', 'all']);
  });

  it('do not happen with other files than those that are served, which is said once and not tried again at once', async () => {
    const { runs, run, warnings, registry, held } = await world();
    const other = artifactDigest('f'.repeat(64));
    expect(await run(other)).toBeUndefined();
    expect(await run(other)).toBeUndefined();
    expect(warnings).toEqual([
      'answers of m/1 cannot be compared with the reference: its files here are others than those that are served',
    ]);
    expect(held()).toBe(0);
    expect(runs.isFree({ model, version, digest: other })).toBe(false);
    await registry.pass(601_000);
    expect(runs.isFree({ model, version, digest: other })).toBe(true);
  });

  it('end with the host, also in the midst of one: nothing stays open, and nothing begins anew', async () => {
    const { runs, run, started, held, registry } = await world();
    const asked = runs.run(request(), digest);
    await registry.pass(1);
    await runs.end();
    await registry.pass(2_000);
    await asked;
    expect([started(), held()]).toEqual([[true], 0]);
    expect([runs.isFree({ model, version, digest }), await run()]).toEqual([false, undefined]);
  });
});
