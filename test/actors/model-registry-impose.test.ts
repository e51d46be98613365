import { describe, expect, it } from 'vitest';
import { deviceId, modelName, modelVersion, type DeviceId, type ModelVersion } from '#core/ids.js';
import type { ImposeOutcome } from '#actors/model-registry/protocol.js';
import { identity, RegistryWorld } from './model-registry-world.js';

async function impose(world: RegistryWorld, versions?: Readonly<Record<string, readonly string[]>>): Promise<string[]> {
  const imposed =
    versions === undefined
      ? undefined
      : new Map<ModelVersion, readonly DeviceId[]>(
          Object.entries(versions).map(([version, devices]) => [modelVersion(version), devices.map(deviceId)]),
        );
  const outcome = world.registry.ask<ImposeOutcome>(
    (replyTo) => ({ type: 'impose', model: modelName('m'), versions: imposed, forms: new Map(), replyTo }),
    { deadlineMs: Infinity },
  );
  await world.pass(1000);
  const { failures, error } = await outcome;
  return [
    ...(error === undefined ? [] : [error.code]),
    ...failures.map((failure) => `${failure.version} ${failure.device ?? 'nowhere'} ${failure.error.code}`),
  ];
}

async function world(mode: 'none' | 'explicit' = 'none'): Promise<RegistryWorld> {
  const made = new RegistryWorld(['cpu:0', 'cpu:1']);
  made.repository.write('m/1/model.onnx', identity(4)).write('m/2/model.onnx', identity(5));
  made.start({ mode });
  await made.scan();
  made.log.length = 0;
  return made;
}

describe('imposed versions', () => {
  it('are loaded on exactly the devices named, whatever the configuration says, and given back', async () => {
    const registry = await world();
    expect(registry.served()).toBe('serving m/2 of width 5 on cpu:0');
    expect(await impose(registry, { 1: ['cpu:1'], 2: ['cpu:0', 'cpu:1'] })).toEqual([]);
    expect(registry.served()).toBe('serving m/1 of width 4 on cpu:1, m/2 of width 5 on cpu:0 and cpu:1');
    expect(registry.log).not.toContain('cpu:0: load m/2 of width 5');
    expect(await impose(registry, { 2: ['cpu:1'] })).toEqual([]);
    expect(registry.served()).toBe('serving m/2 of width 5 on cpu:1');
    expect([...registry.devices[0]!.loaded.keys()]).toEqual([]);
    expect(await impose(registry, {})).toEqual([]);
    expect(registry.served()).toBe('serving nothing');
    expect(await impose(registry)).toEqual([]);
    expect(registry.served()).toBe('serving m/2 of width 5 on cpu:0');
    await registry.pass(60_000);
    expect(registry.repository.held).toBe(1);
  });

  it('leave what is there when some of it fails, and say what failed where', async () => {
    const registry = await world();
    registry.devices[1]!.failures.set('m:5', 'OUT_OF_MEMORY');
    expect(await impose(registry, { 2: ['cpu:0', 'cpu:1', 'cpu:9'], 7: ['cpu:0'] })).toEqual([
      '7 nowhere NOT_FOUND',
      '2 cpu:9 NOT_FOUND',
      '2 cpu:1 OUT_OF_MEMORY',
    ]);
    expect(registry.served()).toBe('serving m/2 of width 5 on cpu:0');
    registry.devices[1]!.failures.clear();
    expect(await impose(registry, { 2: ['cpu:0', 'cpu:1'] })).toEqual([]);
    expect(registry.served()).toBe('serving m/2 of width 5 on cpu:0 and cpu:1');
  });

  it('cannot be loaded or unloaded by request', async () => {
    const registry = await world('explicit');
    expect(await impose(registry, { 1: ['cpu:0'] })).toEqual([]);
    expect(await registry.unload('m')).toMatch(/^FAILED_PRECONDITION: model "m" is placed by a deployment/);
    expect(await registry.load('m')).toMatch(/^FAILED_PRECONDITION/);
    expect(await impose(registry)).toEqual([]);
    expect(registry.served()).toBe('serving nothing');
    expect(await registry.load('m')).toBe('ok');
  });
});
