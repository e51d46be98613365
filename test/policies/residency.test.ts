import { describe, expect, it } from 'vitest';
import type { DeviceDescriptor } from '#core/device.js';
import { deviceId } from '#core/ids.js';
import type { InstanceGroup, ModelConfig } from '#core/model-config.js';
import { firstFit, type ResidencyDevice } from '#policies/residency/residency-first-fit.js';

function device(
  id: string,
  changes: Partial<DeviceDescriptor> & { free?: number; usable?: boolean } = {},
): ResidencyDevice {
  const { free = 1e9, usable = true, ...descriptor } = changes;
  return {
    descriptor: {
      id: deviceId(id),
      kind: 'cpu',
      name: id,
      vendor: 'none',
      provider: 'cpu',
      fallbackProviders: [],
      emulated: false,
      memoryBytes: 1e9,
      threads: 1,
      permits: 2,
      facts: {},
      ...descriptor,
    },
    usable,
    memoryFreeBytes: free,
  };
}
const cpu = device('cpu:0');
const gpu0 = device('cuda:0', { kind: 'gpu', provider: 'cuda' });
const gpu1 = device('cuda:1', { kind: 'gpu', provider: 'cuda' });
const wasm = device('wasm:0', { kind: 'wasm', provider: 'wasm' });
const software = device('webgpu:0', { kind: 'gpu', provider: 'webgpu', facts: { software: true } });
const emulated = device('emulated:0', { kind: 'emulated', emulated: true });
const all = [wasm, software, emulated, cpu, gpu0, gpu1];

function place(
  given: { groups?: Partial<InstanceGroup>[]; named?: string; weightBytes?: number },
  devices: readonly ResidencyDevice[] = all,
): unknown {
  const config = {
    name: 'm',
    maxBatchSize: 1,
    instanceGroups: (given.groups ?? []).map((group) => ({ name: '', kind: 'AUTO', count: 1, gpus: [], ...group })),
    parameters: new Map(given.named === undefined ? [] : [['intarsia_devices', given.named]]),
  } as unknown as ModelConfig;
  const plan = firstFit({ config, weightBytes: given.weightBytes ?? 1000, inputs: [], outputs: [] }, devices);
  return plan.ok ? [plan.devices, ...plan.notes] : plan.error;
}

describe('a model goes', () => {
  it('on the best accelerator by itself, else on the CPU', () => {
    expect(place({})).toEqual([['cuda:0']]);
    expect(place({ groups: [{ kind: 'MODEL' }] }, [wasm, software, emulated, cpu])).toEqual([['cpu:0']]);
  });

  it('never by itself on a software GPU, WebAssembly or an emulated device while there is a CPU', () => {
    expect(place({}, [software, wasm, emulated, cpu])).toEqual([['cpu:0']]);
    expect(place({}, [emulated, wasm])).toEqual([['wasm:0']]);
  });

  it('on every GPU, or the ones with the listed numbers', () => {
    expect(place({ groups: [{ kind: 'GPU' }] })).toEqual([['cuda:0', 'cuda:1']]);
    expect(place({ groups: [{ kind: 'GPU', gpus: [1] }] })).toEqual([['cuda:1']]);
  });

  it('on the GPUs there are, when the configuration names more, and says so', () => {
    expect(place({ groups: [{ kind: 'GPU', gpus: [0, 3] }] })).toEqual([
      ['cuda:0'],
      expect.stringMatching(/GPU 3.*has 2/) as unknown,
    ]);
    expect(place({ groups: [{ kind: 'GPU' }] }, [cpu])).toEqual([
      ['cpu:0'],
      expect.stringMatching(/does not have/) as unknown,
    ]);
  });

  it('on the union of its groups', () => {
    expect(place({ groups: [{ kind: 'GPU', gpus: [0] }, { kind: 'CPU' }] })).toEqual([['cuda:0', 'cpu:0']]);
  });

  it('where the parameter intarsia_devices says: ids or providers', () => {
    expect(place({ named: 'cpu:0, wasm', groups: [{ kind: 'GPU' }] })).toEqual([['cpu:0', 'wasm:0']]);
    expect(place({ named: 'cuda' })).toEqual([['cuda:0', 'cuda:1']]);
    expect(place({ named: 'tpu:0' })).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('"tpu:0"') as unknown,
    });
    const ill = device('cuda:0', { kind: 'gpu', provider: 'cuda', usable: false });
    expect(place({ named: 'cuda:0' }, [cpu, ill])).toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('on the next best device when the best has no room', () => {
    const small = device('cuda:0', { kind: 'gpu', provider: 'cuda', free: 100 });
    expect(place({}, [cpu, small])).toEqual([['cpu:0']]);
  });

  it('nowhere when no device has room, and the error says how many bytes each lacks', () => {
    const devices = [device('cpu:0', { free: 1000 }), device('cuda:0', { kind: 'gpu', free: 2000 })];
    expect(place({ weightBytes: 8000 }, devices)).toMatchObject({
      code: 'OUT_OF_MEMORY',
      message: expect.stringMatching(/cuda:0: 8000 bytes missing.*cpu:0: 9000 bytes missing/) as unknown,
      details: { bytesNeeded: 10_000, 'bytesMissing cuda:0': 8000, 'bytesMissing cpu:0': 9000 },
    });
  });

  it('nowhere when no device is usable', () => {
    expect(place({}, [device('cpu:0', { usable: false })])).toMatchObject({ code: 'UNAVAILABLE' });
  });
});
