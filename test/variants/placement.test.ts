/** Which devices get a variant: a registry over a repository in memory, devices that note what they are asked to load. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { ModelRegistryOptions } from '#actors/model-registry/options.js';
import type { VariantExam } from '#core/variants/variant-difference.js';
import type { VariantRecord, VariantRow } from '#core/variants/variant-record.js';
import { MiB } from '#core/units.js';
import { identity, RegistryWorld } from '../actors/model-registry-world.js';
import { affine } from '../e2e/faulty-models.js';

const exact = identity(4);
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

function row(more: Partial<VariantRow> = {}): VariantRow {
  return {
    provider: 'cpu',
    engine: 'onnxruntime-node 1.30.0',
    verdict: 'equal',
    reason: '',
    maxAbsoluteError: 0,
    maxRelativeError: 0,
    errorShare: 0.01,
    argMaxAgreement: 1,
    cosine: 1,
    runMs: 1,
    exactRunMs: 2,
    ...more,
  };
}

interface Wanted {
  readonly parameters?: Readonly<Record<string, string>>;
  readonly variants: Readonly<Record<string, Partial<VariantRecord> & { readonly file?: Uint8Array }>>;
}

/** What the device was given, and what operators are told of variants that are left out. */
async function given({ parameters = {}, variants }: Wanted): Promise<string> {
  const world = new RegistryWorld(['cpu:0']);
  const config = Object.entries(parameters).map(
    ([key, value]) => `parameters { key: "${key}" value { string_value: "${value}" } }`,
  );
  world.repository.write('m/config.pbtxt', config.join('\n')).write('m/1/model.onnx', exact);
  for (const [index, [name, { file = identity(5 + index), ...more }]] of Object.entries(variants).entries()) {
    const record: VariantRecord = {
      kind: 'fp16',
      digest: sha256(file),
      bytes: file.byteLength,
      madeFrom: { digest: sha256(exact), bytes: exact.byteLength },
      tolerance: 0.01,
      vectors: [],
      rows: [row()],
      notes: [],
      ...more,
    };
    world.repository
      .write(`m/1/variants/${name}/model.onnx`, file)
      .write(`m/1/variants/${name}/variant.json`, JSON.stringify(record));
  }
  world.start({ engine: 'onnxruntime-node 1.30.0' });
  expect(await world.load('m')).toBe('ok');
  const held = world.repository.held;
  expect(await world.unload('m')).toBe('ok');
  expect([held > 0, world.repository.held]).toEqual([true, 0]);
  return world.device.placements.map(({ variant = 'exact' }) => variant).join();
}

const fast = { runMs: 0.5 };
const allow = { parameters: { intarsia_variants: 'allow' } };

describe('variants and devices', () => {
  it('devices get the exact model unless the configuration allows variants', async () => {
    const variants = { half: {} };
    expect(await given({ variants })).toBe('exact');
    expect(await given({ parameters: { intarsia_variants: 'none' }, variants })).toBe('exact');
    expect(await given({ ...allow, variants })).toBe('half');
  });

  it('a device gets the fastest variant that passed on its provider and is faster than the exact model', async () => {
    expect(await given({ ...allow, variants: { slow: { rows: [row({ runMs: 3 })] } } })).toBe('exact');
    expect(await given({ ...allow, variants: { a: {}, b: { rows: [row(fast)] } } })).toBe('b');
    expect(await given({ ...allow, variants: { a: {}, b: { rows: [row({ ...fast, verdict: 'different' })] } } })).toBe(
      'a',
    );
    expect(await given({ ...allow, variants: { a: { rows: [row({ provider: 'wasm' })] } } })).toBe('exact');
  });

  it('names restrict the choice, whether faster or not, and an error may be bounded further', async () => {
    const variants = { a: { rows: [row({ runMs: 3 })] }, b: { rows: [row(fast)] } };
    expect(await given({ parameters: { intarsia_variants: 'a, c' }, variants })).toBe('a');
    expect(await given({ parameters: { intarsia_variants: 'c' }, variants })).toBe('exact');
    const strict = { intarsia_variants: 'allow', intarsia_variants_error_max: '0.005' };
    expect(await given({ parameters: strict, variants })).toBe('exact');
  });

  it('a variant of another model, of a changed file, of another engine or processor, or of other sizes is not used', async () => {
    const other = { digest: 'c'.repeat(64), bytes: 1 };
    expect(await given({ ...allow, variants: { a: { madeFrom: other } } })).toBe('exact');
    expect(await given({ ...allow, variants: { a: { digest: 'd'.repeat(64) } } })).toBe('exact');
    const ort = (engine: string, processor: string): Wanted => ({
      ...allow,
      variants: { a: { kind: 'ort', boundTo: { engine, processor } } },
    });
    expect(await given(ort('onnxruntime-node 1.30.0', 'cpu:0'))).toBe('a');
    expect(await given(ort('onnxruntime-node 1.29.0', 'cpu:0'))).toBe('exact');
    expect(await given(ort('onnxruntime-node 1.30.0', 'cpu:1'))).toBe('exact');
    expect(await given({ ...allow, variants: { a: { kind: 'fixed', shapes: { x: [2, 4] } } } })).toBe('exact');
  });

  it('a parameter that is none is refused with what it must be', async () => {
    const world = new RegistryWorld(['cpu:0']);
    const parameter = 'parameters { key: "intarsia_variants" value { string_value: "a b" } }';
    world.repository.write('m/config.pbtxt', parameter).write('m/1/model.onnx', exact);
    world.start();
    expect(await world.load('m')).toMatch(/intarsia_variants is "a b"; it must be none, allow, or names of variants/);
  });
});

describe('a host without a grid', () => {
  it('gives a device the slower variant where the exact model has no room, and the faster one with room for both', async () => {
    const large = affine(2, 32 * MiB);
    const small = affine(2, MiB);
    const world = new RegistryWorld(['cpu:0']);
    Object.assign(world.device.descriptor, { memoryBytes: 20 * MiB });
    const record: VariantRecord = {
      ...{ kind: 'int8', digest: sha256(small), bytes: small.byteLength, tolerance: 0.05, vectors: [], notes: [] },
      madeFrom: { digest: sha256(large), bytes: large.byteLength },
      rows: [row({ runMs: 3 })],
    };
    world.repository
      .write('m/config.pbtxt', 'parameters { key: "intarsia_variants" value { string_value: "allow" } }')
      .write('m/1/model.onnx', large)
      .write('m/1/variants/int8/model.onnx', small)
      .write('m/1/variants/int8/variant.json', JSON.stringify(record));
    world.start();
    expect(await world.load('m')).toBe('ok');
    expect(world.device.placements.map(({ variant = 'exact' }) => variant)).toEqual(['int8']);
    expect(await world.unload('m')).toBe('ok');
    Object.assign(world.device.descriptor, { memoryBytes: 100 * MiB });
    expect(await world.load('m')).toBe('ok');
    expect(world.device.placements.map(({ variant = 'exact' }) => variant)).toEqual(['int8', 'exact']);
  });
});

describe('a variant on the device that is to serve it', () => {
  const exam: VariantExam = { kind: 'int8', limit: 0.05, usual: { relative: 1e-3, steps: new Map() }, questions: [] };
  const file = identity(9);
  const record: VariantRecord = {
    ...{ kind: 'int8', digest: sha256(file), bytes: file.byteLength },
    ...{ madeFrom: { digest: sha256(exact), bytes: exact.byteLength }, tolerance: 0.05, vectors: [] },
    ...{ rows: [row({ runMs: 1, exactRunMs: 2 })], notes: [] },
  };
  const worldWith = (examOf: ModelRegistryOptions['examOf'] & object): RegistryWorld => {
    const world = new RegistryWorld(['cpu:0']);
    world.repository
      .write('m/config.pbtxt', 'parameters { key: "intarsia_variants" value { string_value: "allow" } }')
      .write('m/1/model.onnx', exact)
      .write('m/1/variants/int8/model.onnx', file)
      .write('m/1/variants/int8/variant.json', JSON.stringify(record));
    world.start({ examOf });
    return world;
  };
  const given = ({ device }: RegistryWorld): readonly unknown[] =>
    device.placements.map(({ variant = 'exact', exam: asked }) => [variant, asked]);

  it('is asked what the exact model answers before it is ready', async () => {
    const asked: string[] = [];
    const world = worldWith(({ artifact }, { kind }) => {
      asked.push(`${artifact.digest} ${kind}`);
      return Promise.resolve(exam);
    });
    expect(await world.load('m')).toBe('ok');
    expect(asked).toEqual([`${sha256(exact)} int8`]);
    expect(given(world)).toEqual([['int8', exam]]);
  });

  it('is not served where it answers too far off: the device gets the next best form', async () => {
    const world = worldWith(() => Promise.resolve(exam));
    world.device.failures.set('m:int8', 'FAILED_PRECONDITION');
    expect(await world.load('m')).toBe('ok');
    expect(given(world)).toEqual([['exact', undefined]]);
    expect(world.served()).toContain('m/1');
  });

  it('is served by its record where the exact model cannot be asked', async () => {
    const world = worldWith(() => Promise.reject(new Error('there is no reference')));
    expect(await world.load('m')).toBe('ok');
    expect(given(world)).toEqual([['int8', undefined]]);
  });
});

const everywhere: ModelRegistryOptions['residency'] = (_, devices) => ({
  ok: true,
  devices: devices.map(({ descriptor }) => descriptor.id),
  notes: [],
});

describe('a foreign artefact', () => {
  const remoteRow = row({ provider: 'remote', engine: 'tritonserver', runMs: 3, errorShare: 0.004 });
  const { exactRunMs: _, ...timedAlone } = remoteRow;

  /** What each device was asked to load: form, name over there, and what is told of its comparison. */
  async function placed(record: Partial<VariantRecord>, parameters = 'allow') {
    const world = new RegistryWorld(['cpu:0', 'triton:0', 'triton:1']);
    for (const device of world.devices.slice(1))
      Object.assign(device.descriptor, { provider: 'remote', kind: 'remote' });
    const foreign: VariantRecord = {
      ...{ kind: 'foreign', digest: '', bytes: 0, madeFrom: { digest: sha256(exact), bytes: exact.byteLength } },
      ...{ tolerance: 0.01, vectors: [], rows: [timedAlone], notes: [] },
      remote: { device: 'triton:1', format: 'tensorrt_plan', model: 'm_plan', version: '7' },
      ...record,
    };
    world.repository
      .write('m/config.pbtxt', `parameters { key: "intarsia_variants" value { string_value: "${parameters}" } }`)
      .write('m/1/model.onnx', exact)
      .write('m/1/variants/plan/variant.json', JSON.stringify(foreign));
    world.start({ residency: everywhere });
    expect(await world.load('m')).toBe('ok');
    return world.devices.map(({ placements }) =>
      placements.map(({ variant = 'exact', remoteModel, variantGate = '' }) => [variant, remoteModel, variantGate]),
    );
  }

  it('is what the remote device that it is bound to serves, under its name there, with its own accuracy row', async () => {
    expect(await placed({})).toEqual([
      [['exact', undefined, '']],
      [['exact', undefined, '']],
      [
        [
          'plan',
          { name: 'm_plan', version: '7' },
          "within tolerance on remote: largest error 0.00400 of its output's largest value (0.0100 passes)",
        ],
      ],
    ]);
  });

  it('is not used when its row says that it differs, or is slower than the exact model there, or nobody allows it', async () => {
    const exactOnly = [[['exact', undefined, '']], [['exact', undefined, '']], [['exact', undefined, '']]];
    expect(await placed({ rows: [{ ...timedAlone, verdict: 'different' }] })).toEqual(exactOnly);
    expect(await placed({ rows: [{ ...timedAlone, exactRunMs: 2 }] })).toEqual(exactOnly);
    expect(await placed({}, 'none')).toEqual(exactOnly);
  });
});
