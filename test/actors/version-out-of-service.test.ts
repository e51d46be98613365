import { describe, expect, it } from 'vitest';
import type { VersionOut } from '#actors/device/options.js';
import { intarsiaError, type ErrorCode } from '#core/errors.js';
import { modelName, modelVersion } from '#core/ids.js';
import { findServedModel } from '#server/find-model.js';
import { DeviceWorld, doubler, modelConfig, numbers, valueOf } from './device-world.js';
import { identity, RegistryWorld } from './model-registry-world.js';

describe('a device that puts a version out of service', () => {
  it('says so once, with the artefact and the words its requests are refused with', async () => {
    const told: VersionOut[] = [];
    const world = new DeviceWorld({
      models: { bad: doubler({ runCrashes: ([x]) => numbers(x!).includes(666) }), good: doubler() },
      hooks: { onVersionOut: (out) => told.push(out) },
    });
    await world.load('bad', modelConfig('m'));
    await world.load('good', modelConfig('n'));
    for (let round = 0; round < 3; round += 1) {
      expect(told).toEqual([]);
      world.infer('m', [666]);
      await world.pass(1000);
    }
    expect(told.map(({ model, version, error }) => `${model}/${version} ${error.code}`)).toEqual([
      'm/1 MODEL_QUARANTINED',
    ]);
    world.infer('m', [1]);
    await world.pass(60_000);
    expect(told).toHaveLength(1);
  });
});

describe('a session that does not come back at once', () => {
  it('is tried again each second while the reason may pass; its requests are told so and not kept', async () => {
    let isLoading = false;
    const model = doubler({
      runCrashes: ([x]) => numbers(x!).includes(666),
      loadFault: () => (isLoading ? intarsiaError('MODEL_NOT_READY', 'its server is loading it') : undefined),
    });
    const told: VersionOut[] = [];
    const world = new DeviceWorld({ models: { m: model }, hooks: { onVersionOut: (out) => told.push(out) } });
    await world.load('m', modelConfig('m'));
    isLoading = true;
    world.infer('m', [666]);
    await world.pass(500);
    const meanwhile = world.infer('m', [1]);
    await world.pass(4000);
    expect(valueOf(meanwhile)).toBe('MODEL_NOT_READY');
    isLoading = false;
    await world.pass(1100);
    const after = world.infer('m', [4]);
    await world.pass(1000);
    expect(valueOf(after)).toEqual([8]);
    expect(told).toEqual([]);
  });
});

describe('the registry, told that a version is out of service', () => {
  async function servedOn(...devices: string[]): Promise<RegistryWorld> {
    const world = new RegistryWorld(devices);
    world.repository.write('m/1/model.onnx', identity(4)).write('n/1/model.onnx', identity(5));
    const everywhere = { ok: true, devices: world.devices.map(({ descriptor }) => descriptor.id), notes: [] } as const;
    world.start({ residency: () => everywhere });
    await world.load('m');
    await world.load('n');
    return world;
  }

  async function takeOut(world: RegistryWorld, index: number, code: ErrorCode = 'MODEL_QUARANTINED'): Promise<void> {
    const served = world.catalog.models.get(modelName('m'))?.served.get(modelVersion('1'));
    const device = world.devices[index]?.descriptor.id;
    if (served === undefined || device === undefined) throw new Error('m is not served');
    world.registry.tell({
      type: 'version-out',
      device,
      model: served.name,
      version: served.version,
      digest: served.digest,
      error: intarsiaError(code, 'it crashes'),
    });
    await world.pass(100);
  }

  const refusal = (world: RegistryWorld): unknown => {
    try {
      return findServedModel(world.catalog.models.get(modelName('m')), 'm', '');
    } catch (error) {
      return error;
    }
  };

  it('takes it out of the catalogue with the reason, alone, and refuses its requests for good', async () => {
    const world = await servedOn('cpu:0');
    await takeOut(world, 0);
    expect(world.index()).toEqual(['m/1 UNAVAILABLE it crashes', 'n/1 READY']);
    expect(refusal(world)).toMatchObject({ code: 'MODEL_QUARANTINED', retryable: false });
    expect(world.repository.held).toBe(1);
  });

  it('loads it again when it is told to, though nothing has changed', async () => {
    const world = await servedOn('cpu:0');
    await takeOut(world, 0);
    expect(await world.load('m')).toBe('ok');
    expect(world.index()).toEqual(['m/1 READY', 'n/1 READY']);
    expect(refusal(world)).toMatchObject({ name: 'm' });
  });

  it('goes on serving it where it is well, and brings it back to the other device with the next load', async () => {
    const world = await servedOn('cpu:0', 'cpu:1');
    await takeOut(world, 0);
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:1, n/1 of width 5 on cpu:0 and cpu:1');
    expect(await world.load('m')).toBe('ok');
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:0 and cpu:1, n/1 of width 5 on cpu:0 and cpu:1');
  });

  it('does not take out what has been replaced meanwhile', async () => {
    const world = await servedOn('cpu:0');
    const before = world.catalog.models.get(modelName('m'))?.served.get(modelVersion('1'));
    if (before === undefined) throw new Error('m is not served');
    world.repository.write('m/1/model.onnx', identity(6));
    await world.load('m');
    const error = intarsiaError('MODEL_QUARANTINED', 'it crashes');
    const { name: model, version, digest } = before;
    world.registry.tell({ type: 'version-out', device: world.device.descriptor.id, model, version, digest, error });
    await world.pass(100);
    expect(world.index()).toEqual(['m/1 READY', 'n/1 READY']);
  });

  it('calls it not ready, not quarantined, when its session did not come back', async () => {
    const world = await servedOn('cpu:0');
    await takeOut(world, 0, 'MODEL_NOT_READY');
    expect(refusal(world)).toMatchObject({ code: 'MODEL_NOT_READY' });
  });
});
