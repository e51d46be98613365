import { describe, expect, it } from 'vitest';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { readFleet } from '#sim/fleet/read-fleet.js';
import { linkMs, type Fleet } from '#sim/fleet/fleet.js';

const work = { flopsPerItem: 1e10, weightMB: 100, activationMBPerItem: 10, kernels: 100 };
const model = { name: 'm', itemsMax: 8, work };
const device = { name: 'd', profile: 'nvidia-l4' };

function read(change: object = {}): Fleet {
  return readFleet({ name: 'test', models: [model], devices: [device], ...change }, 'test.yaml', builtInProfiles);
}

describe('a fleet file', () => {
  it('takes figures from hardware profiles, and times from roofline or from tables', () => {
    const fleet = read({
      models: [{ ...model, tables: { 'nvidia-t4': { 1: 5, 8: 30 }, mine: { 1: 7, 4: 20 } } }],
      devices: [
        { name: 'l4', profile: 'nvidia-l4', count: 2, tier: 'core' },
        { name: 't4', profile: 'nvidia-t4' },
        { name: 'mine', usdPerHour: 1, watts: 5 },
        { name: 'spot', profile: 'nvidia-l4', spot: true },
      ],
    });
    expect(fleet.devices.map(({ id }) => id)).toEqual(['l4-0', 'l4-1', 't4', 'mine', 'spot']);
    const [l4, , t4, mine, spot] = fleet.devices;
    expect(l4).toMatchObject({ type: 'l4', usdPerHour: 0.8, watts: 72, tier: 'core', netMs: 45, spotHazardPerHour: 0 });
    expect(spot).toMatchObject({ usdPerHour: 0.375, spotHazardPerHour: 0.3 });
    // 1e10 operations at 0.6 of 121 TFLOPS, or 110 MB at 0.8 of 300 GB/s, whichever takes longer; 100 kernels of 3 µs.
    expect(l4?.service[0]?.ms[0]).toBeCloseTo(110e6 / (0.8 * 300e6) + 0.3, 6);
    expect(l4?.service[0]?.batches).toEqual([1, 2, 4, 8]);
    expect(t4?.service[0]).toMatchObject({ batches: [1, 8], ms: [5, 30] });
    expect(mine?.service[0]).toMatchObject({ batches: [1, 4], ms: [7, 20] });
  });

  it('shares classes and models out, and knows what the way to a device takes', () => {
    const fleet = read({
      classes: { interactive: { share: 3 }, batch: { share: 1, onMiss: 'shed' } },
      models: [
        { ...model, share: 2, bytesPerItem: 1e6 },
        { ...model, name: 'n', share: 6 },
      ],
      devices: [{ ...device, netMs: 10, linkMBs: 100 }],
    });
    expect(fleet.classShares).toEqual([0.75, 0, 0.25]);
    expect(fleet.classOnMiss).toEqual(['shed', 'serve-late', 'shed']);
    expect(fleet.models.map(({ share }) => share)).toEqual([0.25, 0.75]);
    expect(linkMs(fleet.devices[0]!, fleet.models[0]!, 3)).toBeCloseTo(10 + 30, 9);
  });

  const refused: readonly (readonly [what: string, change: object, words: string])[] = [
    ['nothing at all', { models: undefined }, 'models'],
    ['no device', { devices: [] }, 'devices'],
    ['a misspelt field', { noize: 0.1 }, 'noize'],
    ['noise above 1', { noise: 1.5 }, 'noise'],
    ['a text for a number', { devices: [{ ...device, usdPerHour: 'dear' }] }, 'usdPerHour'],
    ['a negative price', { devices: [{ ...device, usdPerHour: -1 }] }, 'usdPerHour'],
    ['an unknown profile', { devices: [{ ...device, profile: 'nvidia-l5' }] }, 'nvidia-l5'],
    ['an unknown tier', { devices: [{ ...device, tier: 'moon' }] }, 'tier'],
    [
      'a device without a price',
      { devices: [{ name: 'd', watts: 1 }], models: [{ ...model, tables: { d: { 1: 1 } } }] },
      'usdPerHour',
    ],
    [
      'a device without a table',
      { devices: [{ name: 'd', usdPerHour: 1, watts: 1 }] },
      'table of model m for device d',
    ],
    ['two devices of one name', { devices: [device, device] }, 'two devices'],
    ['two models of one name', { models: [model, model] }, 'two models'],
    [
      'a model that runs nowhere',
      { models: [model, { ...model, name: 'n' }], devices: [{ ...device, models: ['m'] }] },
      'model n',
    ],
    ['a list of unknown models', { devices: [{ ...device, models: ['x'] }] }, 'models'],
    ['a model without times', { models: [{ name: 'm' }] }, 'work'],
    ['a table with holes', { models: [{ ...model, tables: { d: { 2: 5, 1.5: 3 } } }] }, 'tables.d'],
    ['a table with a time of 0', { models: [{ ...model, tables: { d: { 1: 0 } } }] }, 'tables, d'],
    ['models that do not fit', { models: [{ ...model, memoryMiB: 50_000 }] }, 'memoryGiB'],
    ['shares that are all 0', { classes: { interactive: { share: 0 } } }, 'classes'],
    ['a batch of no items', { models: [{ ...model, itemsMax: 0 }] }, 'itemsMax'],
    ['a rule for tokens without tokens', { models: [{ ...model, tokens: { perItem: 0 } }] }, 'perItem'],
  ];
  it('is refused with the file, the device or model and the field that is wrong', () => {
    for (const [what, change, words] of refused) {
      expect(() => read(change), what).toThrow(
        expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(words) as unknown }),
      );
    }
  });
});
