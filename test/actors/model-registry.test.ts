import { describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { modelName } from '#core/ids.js';
import { identity, RegistryWorld } from './model-registry-world.js';

const allVersions = 'version_policy { all { } }';

describe('model control mode none', () => {
  it('loads every model at the first scan and looks never again', async () => {
    const world = new RegistryWorld();
    world.repository
      .write('a/1/model.onnx', identity(4))
      .write('b/1/model.onnx', identity(5))
      .write('c/1/model.onnx', 'junk');
    world.start({ mode: 'none' });
    expect(await world.scan()).toBe('ok');
    expect(world.index()).toEqual(['a/1 READY', 'b/1 READY', expect.stringMatching(/^c\/1 UNAVAILABLE not a/)]);
    world.repository.write('d/1/model.onnx', identity(4));
    expect(await world.scan()).toBe('ok');
    expect(world.repository.lists).toBe(1);
  });

  it('refuses to load and unload by request', async () => {
    const world = new RegistryWorld();
    world.start({ mode: 'none' });
    expect(await world.load('m')).toMatch(
      /^FAILED_PRECONDITION: models are loaded by request only in .* explicit; it is none/,
    );
    expect(await world.unload('m')).toMatch(/^FAILED_PRECONDITION/);
  });
});

describe('model control mode explicit', () => {
  it('shows what is there and loads what it is told', async () => {
    const world = new RegistryWorld();
    world.repository
      .write('a/1/model.onnx', identity(4))
      .write('b/1/model.onnx', identity(5))
      .write('b/2/model.onnx', identity(6));
    world.start({ startupModels: ['a', 'nowhere'] });
    expect(await world.scan()).toBe('ok');
    expect(world.index()).toEqual(['a/1 READY', 'b/1 UNAVAILABLE not loaded', 'b/2 UNAVAILABLE not loaded']);
    expect(await world.load('b')).toBe('ok');
    expect(world.index()).toEqual(['a/1 READY', 'b/2 READY']);
    expect(await world.unload('b')).toBe('ok');
    expect(world.index()).toEqual(['a/1 READY', 'b/2 UNAVAILABLE unloaded']);
    expect(world.repository.held).toBe(1);
    expect(await world.load('b')).toBe('ok');
    expect(world.served()).toBe('serving a/1 of width 4 on cpu:0, b/2 of width 6 on cpu:0');
  });

  it('answers for unknown models and remembers nothing of them', async () => {
    const world = new RegistryWorld();
    world.start();
    expect(await world.load('nowhere')).toBe('MODEL_NOT_FOUND: no model "nowhere"');
    expect(await world.unload('nowhere')).toMatch(/^MODEL_NOT_FOUND/);
    expect(await world.load('../etc')).toMatch(/^MODEL_NOT_FOUND/);
    expect(world.catalog.models.size).toBe(0);
  });

  it('takes configuration and files from the load request', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    expect(await world.load('m', { configJson: '{"max_batch_size": 2}' })).toBe('ok');
    expect(world.device.loaded.get('m/1')?.config.maxBatchSize).toBe(2);
    expect(await world.load('m', { configJson: '{"max_batch": 2}' })).toMatch(
      /^MODEL_INVALID: config.max_batch: unknown field/,
    );
    expect(world.index()).toEqual([
      expect.stringMatching(/^m\/1 READY serves as it was loaded before; reloading failed/),
    ]);
    expect(await world.load('m', { files: new Map([['7/model.onnx', identity(9)]]) })).toBe('ok');
    expect(world.served()).toBe('serving m/7 of width 9 on cpu:0');
    expect(await world.load('m')).toBe('ok');
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:0');
  });

  it('carries out requests for one model one after the other', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    const files = new Map<string, Uint8Array>();
    const answers = [
      world.begin((replyTo) => ({ type: 'load', model: 'm', overrides: { files }, replyTo })),
      world.begin((replyTo) => ({ type: 'unload', model: 'm', replyTo })),
      world.begin((replyTo) => ({ type: 'load', model: 'm', overrides: { files }, replyTo })),
    ];
    await world.pass(1000);
    expect(await Promise.all(answers)).toEqual(['ok', 'ok', 'ok']);
    expect(world.log).toEqual([
      'cpu:0: load m/1 of width 4',
      'cpu:0: unload m/1',
      'cpu:0: load m/1 of width 4',
      'serving m/1 of width 4 on cpu:0',
    ]);
  });

  it('bounds the requests that wait for one model', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start({ waitingMax: 2 });
    const files = new Map<string, Uint8Array>();
    const answers = [1, 2, 3, 4].map(() =>
      world.begin((replyTo) => ({ type: 'load', model: 'm', overrides: { files }, replyTo })),
    );
    await world.pass(1000);
    expect(await Promise.all(answers)).toEqual([
      'ok',
      'ok',
      'ok',
      'RESOURCE_EXHAUSTED: 2 requests for model "m" wait already; the limit is 2',
    ]);
  });
});

describe('versions', () => {
  it.each([
    ['', ['m/10 READY']],
    [allVersions, ['m/1 READY', 'm/2 READY', 'm/10 READY']],
    ['version_policy { latest { num_versions: 2 } }', ['m/2 READY', 'm/10 READY']],
    ['version_policy { specific { versions: [2, 1] } }', ['m/1 READY', 'm/2 READY']],
  ])('are served as the policy %j says', async (config, index) => {
    const world = new RegistryWorld();
    for (const version of [1, 2, 10]) world.repository.write(`m/${version}/model.onnx`, identity(version));
    world.repository.write('m/config.pbtxt', config);
    world.start();
    expect(await world.load('m')).toBe('ok');
    expect(world.index()).toEqual(index);
    expect(world.catalog.models.get(modelName('m'))?.defaultVersion).toBe(index.at(-1)?.split(/[/ ]/)[1]);
  });

  it('that the policy names and nobody has are told, beside those that are there', async () => {
    const world = new RegistryWorld();
    world.repository
      .write('m/1/model.onnx', identity(4))
      .write('m/config.pbtxt', 'version_policy { specific { versions: [1, 3] } }');
    world.start();
    expect(await world.load('m')).toBe('NOT_FOUND: version_policy names version 3, which model "m" does not have');
    expect(world.index()).toEqual([
      'm/1 READY',
      'm/3 UNAVAILABLE version_policy names version 3, which model "m" does not have',
    ]);
  });

  it('fail alone: one broken version leaves the others serving', async () => {
    const world = new RegistryWorld();
    world.repository
      .write('m/1/model.onnx', identity(4))
      .write('m/2/model.onnx', 'junk')
      .write('m/3/model.onnx', identity(6))
      .write('m/config.pbtxt', allVersions);
    world.device.failures.set('m:6', 'MODEL_INVALID');
    world.start();
    expect(await world.load('m')).toMatch(/^MODEL_INVALID/);
    expect(world.index()).toEqual([
      'm/1 READY',
      expect.stringMatching(/^m\/2 UNAVAILABLE not a/),
      'm/3 UNAVAILABLE width 6 fails on cpu:0',
    ]);
    expect(world.repository.held).toBe(1);
  });
});

describe('reloading', () => {
  it('switches to the new artefact of a version and never serves nothing', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    await world.load('m');
    world.repository.write('m/1/model.onnx', identity(5));
    world.log.length = 0;
    expect(await world.load('m')).toBe('ok');
    // The device itself replaces a version it has: nothing is unloaded.
    expect(world.log).toEqual(['cpu:0: load m/1 of width 5', 'serving m/1 of width 5 on cpu:0']);
  });

  it('loads a new version first, switches, and unloads the old one after', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    await world.load('m');
    world.repository.write('m/2/model.onnx', identity(5));
    world.log.length = 0;
    expect(await world.load('m')).toBe('ok');
    expect(world.log).toEqual(['cpu:0: load m/2 of width 5', 'serving m/2 of width 5 on cpu:0', 'cpu:0: unload m/1']);
    expect(world.index()).toEqual(['m/2 READY']);
    expect(world.repository.held).toBe(1);
  });

  it('goes on serving the old artefact when the new one fails, and says so in the index', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:5', 'EXECUTION_FAILED');
    world.start();
    await world.load('m');
    world.repository.write('m/1/model.onnx', identity(5));
    expect(await world.load('m')).toBe('EXECUTION_FAILED: width 5 fails on cpu:0');
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:0');
    expect(world.index()).toEqual([
      'm/1 READY serves as it was loaded before; reloading failed: width 5 fails on cpu:0',
    ]);
    world.repository.write('m/1/model.onnx', 'junk');
    expect(await world.load('m')).toMatch(/^MODEL_INVALID/);
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:0');
    world.repository.write('m/1/model.onnx', identity(4));
    expect(await world.load('m')).toBe('ok');
    expect(world.index()).toEqual(['m/1 READY']);
  });

  it('goes on serving the old version when a newer one fails', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:5', 'EXECUTION_FAILED');
    world.start();
    await world.load('m');
    world.repository.write('m/2/model.onnx', identity(5));
    expect(await world.load('m')).toMatch(/^EXECUTION_FAILED/);
    expect(world.index()).toEqual(['m/1 READY', 'm/2 UNAVAILABLE width 5 fails on cpu:0']);
    expect(world.catalog.models.get(modelName('m'))?.defaultVersion).toBe('1');
  });

  it('does nothing when nothing changed', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    await world.load('m');
    const before = world.catalog.models.get(modelName('m'))?.served.values().next().value;
    world.log.length = 0;
    expect(await world.load('m')).toBe('ok');
    expect(world.log.filter((line) => line.startsWith('cpu:0'))).toEqual([]);
    expect(world.catalog.models.get(modelName('m'))?.served.values().next().value).toBe(before);
    expect(world.repository.held).toBe(1);
  });

  it('keeps the files of a replaced artefact for a while, and not for ever', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start({ keepReplacedMs: 30_000 });
    await world.load('m');
    world.repository.write('m/1/model.onnx', identity(5));
    await world.load('m');
    expect(world.repository.held).toBe(2);
    await world.pass(30_000);
    expect(world.repository.held).toBe(1);
  });
});

describe('model control mode poll', () => {
  it('follows the repository: new, changed and removed models, and nothing when nothing changed', async () => {
    const world = new RegistryWorld();
    world.repository.write('a/1/model.onnx', identity(4));
    world.start({ mode: 'poll', pollMs: 15_000 });
    await world.scan();
    expect(world.served()).toBe('serving a/1 of width 4 on cpu:0');
    const { revision } = world.catalog;
    await world.pass(60_000);
    expect(world.repository.lists).toBe(5);
    expect(world.catalog.revision).toBe(revision);
    world.repository.write('b/1/model.onnx', identity(5));
    await world.pass(15_000);
    expect(world.served()).toBe('serving a/1 of width 4 on cpu:0, b/1 of width 5 on cpu:0');
    world.repository.write('a/1/model.onnx', identity(7));
    await world.pass(15_000);
    expect(world.served()).toBe('serving a/1 of width 7 on cpu:0, b/1 of width 5 on cpu:0');
    world.repository.remove('b/');
    await world.pass(15_000);
    expect(world.index()).toEqual(['a/1 READY']);
    expect(world.device.loaded.has('b/1')).toBe(false);
  });

  it('tries a broken model again when its files change, and not before', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:4', 'MODEL_INVALID');
    world.start({ mode: 'poll' });
    await world.scan();
    await world.pass(60_000);
    expect(world.log.filter((line) => line.includes('load m/1'))).toHaveLength(1);
    world.repository.write('m/1/model.onnx', identity(5));
    await world.pass(15_000);
    expect(world.index()).toEqual(['m/1 READY']);
  });

  it('tries again at the next look when the failure may pass', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:4', 'EXECUTOR_LOST');
    world.start({ mode: 'poll' });
    await world.scan();
    expect(world.index()).toEqual(['m/1 UNAVAILABLE width 4 fails on cpu:0']);
    world.device.failures.clear();
    await world.pass(15_000);
    expect(world.index()).toEqual(['m/1 READY']);
  });

  it('unloads nothing while the repository cannot be read, and goes on looking', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start({ mode: 'poll' });
    await world.scan();
    world.repository.listFailure = intarsiaError('UNAVAILABLE', 'the share is away');
    expect(await world.scan()).toBe('UNAVAILABLE: the share is away');
    await world.pass(30_000);
    expect(world.index()).toEqual(['m/1 READY']);
    world.repository.listFailure = undefined;
    world.repository.write('m/1/model.onnx', identity(5));
    await world.pass(15_000);
    expect(world.served()).toBe('serving m/1 of width 5 on cpu:0');
  });
});

describe('devices', () => {
  it('that refuse a model are left out; those that take it serve', async () => {
    const world = new RegistryWorld(['cpu:0', 'cpu:1']);
    world.repository
      .write('m/1/model.onnx', identity(4))
      .write('m/config.pbtxt', 'parameters { key: "intarsia_devices" value { string_value: "cpu:0,cpu:1" } }');
    world.start();
    await world.load('m');
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:0 and cpu:1');
    world.devices[1]?.failures.set('m:5', 'MODEL_INVALID');
    world.repository.write('m/1/model.onnx', identity(5));
    expect(await world.load('m')).toBe('ok');
    expect(world.served()).toBe('serving m/1 of width 5 on cpu:0');
    // The other one must not go on with the old artefact.
    expect(world.devices[1]?.loaded.size).toBe(0);
  });

  it('that turn out to be full give way to the next best', async () => {
    const world = new RegistryWorld(['cpu:0', 'cpu:1']);
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:4', 'OUT_OF_MEMORY');
    world.start();
    expect(await world.load('m')).toBe('ok');
    expect(world.served()).toBe('serving m/1 of width 4 on cpu:1');
  });

  it('that are all full say so', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.device.failures.set('m:4', 'OUT_OF_MEMORY');
    world.start();
    expect(await world.load('m')).toBe('OUT_OF_MEMORY: width 4 fails on cpu:0');
  });

  it('that stop leave the catalogue', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    await world.load('m');
    world.system.stop(world.device.ref);
    await world.pass(100);
    expect(world.index()).toEqual(['m/1 UNAVAILABLE device cpu:0 is gone']);
    expect(world.repository.held).toBe(0);
  });

  it('that never answer do not hold up other models, and their load fails in the end', async () => {
    const world = new RegistryWorld(['cpu:0', 'cpu:1']);
    world.repository.write('m/1/model.onnx', identity(4)).write('n/1/model.onnx', identity(5));
    const silent = world.system.spawn('silent', () => ({ receive: () => undefined }));
    const [, other] = world.devices;
    if (other === undefined) throw new Error('no second device');
    world.start({
      devices: [
        { descriptor: world.device.descriptor, ref: silent },
        { descriptor: other.descriptor, ref: other.ref },
      ],
      loadMsMax: 60_000,
      residency: ({ config }) => ({
        ok: true,
        devices: [config.name === 'm' ? world.device.descriptor.id : other.descriptor.id],
        notes: [],
      }),
    });
    const slow = world.begin((replyTo) => ({ type: 'load', model: 'm', overrides: { files: new Map() }, replyTo }));
    const quick = world.begin((replyTo) => ({ type: 'load', model: 'n', overrides: { files: new Map() }, replyTo }));
    await world.pass(10_000);
    expect(await quick).toBe('ok');
    expect(world.index()).toEqual(['m/1 LOADING', 'n/1 READY']);
    await world.pass(60_000);
    expect(await slow).toMatch(/^DEADLINE_EXCEEDED/);
  });
});

describe('a failure of the registry itself', () => {
  it('loses nothing that is loaded; what was under way is answered, and can be asked again', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4)).write('n/1/model.onnx', identity(5));
    let failures = 0;
    world.start({
      publish: (catalog) => {
        world.catalog = catalog;
        if (failures > 0) {
          failures -= 1;
          throw new Error('nobody expected this');
        }
      },
    });
    await world.load('m');
    await world.scan();
    const under = world.begin((replyTo) => ({ type: 'load', model: 'n', overrides: { files: new Map() }, replyTo }));
    failures = 1;
    await world.pass(1000);
    expect(failures).toBe(0);
    expect(await under).toMatch(/^UNAVAILABLE/);
    expect(await world.load('n')).toBe('ok');
    expect(world.index()).toEqual(['m/1 READY', 'n/1 READY']);
    expect(world.log.filter((line) => line.includes('load m/1'))).toHaveLength(1);
  });
});

describe('what a device is given', () => {
  it('is no warm-up when none is configured: the device makes a trial run of its own', async () => {
    const world = new RegistryWorld();
    world.repository.write('m/1/model.onnx', identity(4));
    world.start();
    await world.load('m');
    expect(world.device.placements[0]?.warmups).toEqual([]);
  });

  it('warms up as configured: batches, repetitions, random data, files', async () => {
    const world = new RegistryWorld();
    const sample = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);
    const input = (source: string): string => `inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 ${source} } }`;
    world.repository
      .write('m/1/model.onnx', identity(4))
      .write('m/warmup/sample', sample)
      .write(
        'm/config.pbtxt',
        `max_batch_size: 4
         model_warmup { name: "file" batch_size: 2 ${input('input_data_file: "sample"')} }
         model_warmup { name: "random" count: 2 ${input('random_data: true')} }`,
      );
    world.start();
    expect(await world.load('m')).toBe('ok');
    const warmups = world.device.placements[0]?.warmups ?? [];
    expect(warmups.map(({ name }) => name)).toEqual(['file', 'random', 'random']);
    expect(warmups[0]?.inputs[0]?.shape).toEqual([2, 4]);
    expect(warmups[0]?.inputs[0]?.data).toEqual(Uint8Array.from([...sample, ...sample]));
    const random = new Float32Array(warmups[1]?.inputs[0]?.data.slice().buffer ?? new ArrayBuffer(0));
    expect(random.every((value) => value >= 0 && value < 1)).toBe(true);
    expect(new Set(random).size).toBe(4);
    world.repository.write('m/warmup/sample', new Uint8Array(15));
    expect(await world.load('m')).toContain(
      'warm-up file warmup/sample of model "m" has 15 bytes; FP32 [4] of input "x" takes 16 bytes',
    );
  });

  it('reads labels for classification, one a line', async () => {
    const world = new RegistryWorld();
    world.repository
      .write('m/1/model.onnx', identity(4))
      .write('m/labels.txt', 'cat\r\ndog\n\nbird\n')
      .write('m/config.pbtxt', 'output { name: "y" label_filename: "labels.txt" }');
    world.start();
    await world.load('m');
    const served = world.catalog.models.get(modelName('m'))?.served.values().next().value;
    expect(served?.labels.get('y')).toEqual(['cat', 'dog', '', 'bird']);
  });
});
