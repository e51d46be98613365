/** Places for models that have variants: bytes and speed are those of the form that a device will take. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { placeHosts } from '#core/grid/copies.js';
import { deploymentsOfFile } from '#core/grid/deployment-file.js';
import { DesiredState } from '#core/grid/desired-state.js';
import { gridKeys } from '#core/grid/keys.js';
import { modelRecords } from '#core/grid/model-records.js';
import { PlacementTable, type PlacementRequest } from '#core/grid/placement.js';
import type { PlacementForm } from '#core/grid/placement-forms.js';
import { reconcile } from '#core/grid/reconcile.js';
import { defaultReconcileOptions, emptyMemory } from '#core/grid/reconcile-memory.js';
import type { GridDevice, HostAssignment, HostRecord, View } from '#core/grid/records.js';
import type { DescribedVariant } from '#core/grid/variant-verification.js';
import { artifactDigest, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import type { VariantRow } from '#core/variants/variant-record.js';

const keys = gridKeys('g');
const exact = artifactDigest('e'.repeat(64));
const bytes8 = 'a'.repeat(64);
const manifest = {
  format: 1,
  ...{ model: modelName('m'), version: modelVersion('1'), digest: exact, memoryBytes: 100 },
  files: [
    { path: '1/model.onnx', bytes: 80, sha256: exact },
    { path: '1/variants/int8/model.onnx', bytes: 20, sha256: bytes8 },
  ],
} as const;

function row(more: Partial<VariantRow> = {}): VariantRow {
  return {
    ...{ provider: 'cpu', engine: 'onnxruntime-node 1.30.0', verdict: 'equal', reason: '', maxAbsoluteError: 0.002 },
    ...{ maxRelativeError: 0.01, errorShare: 0.01, argMaxAgreement: 1, cosine: 1, runMs: 2, exactRunMs: 1, ...more },
  };
}

function int8(more: Partial<DescribedVariant> = {}, rows: readonly VariantRow[] = [row()]): DescribedVariant {
  return {
    ...{ name: 'int8', isNamed: false, providers: ['cpu'], memoryBytes: 30 },
    record: {
      ...{ kind: 'int8', digest: bytes8, bytes: 20, madeFrom: { digest: exact, bytes: 80 }, tolerance: 0.05 },
      ...{ vectors: ['seed 1'], rows, notes: [] },
    },
    ...more,
  };
}

interface Memory {
  readonly bytes: number;
  readonly provider?: string;
  readonly speed?: number;
}

function view(hosts: Readonly<Record<string, Memory>>): View {
  const entries = Object.entries(hosts).map(([name, { bytes, provider = 'cpu', speed = 1 }]) => {
    const device: GridDevice = {
      ...{ id: deviceId(`${provider}:0`), provider, profile: '', emulated: false, memoryBytes: bytes, speed },
      pricePerHour: 0,
    };
    const record: HostRecord = {
      format: 1,
      host: hostId(name),
      ...{ process: '', linkAddress: '', grpcEndpoint: '', httpEndpoint: '', softwareVersion: '', zone: '' },
      role: 'host',
      linkVersions: [1, 1],
      tier: 'core',
      ...{ labels: {}, spot: false, devices: [device] },
    };
    return [hostId(name), { record, generation: 1, state: 'up', cordoned: false }] as const;
  });
  return { revision: 1, hosts: new Map(entries) };
}

/** One look of the leader at an empty grid: lines of what is placed, and why what is not. */
function placed(
  hosts: Readonly<Record<string, Memory>>,
  variants: readonly DescribedVariant[],
  more: object = {},
): {
  readonly lines: readonly string[];
  readonly refusal: string;
  readonly state: DesiredState;
} {
  const warnings: string[] = [];
  const state = new DesiredState(keys, (text) => warnings.push(text));
  for (const { key, value } of modelRecords({ keys, manifest, variants, host: 'a', wallMs: 5 })) {
    state.set(key.startsWith(keys.models) ? 'models' : 'verifications', key, { value, modRevision: 1 });
  }
  const wanted = { name: 'd', model: 'm', version: 1, replicas: 1, ...more };
  const [deployment] = deploymentsOfFile(wanted, 'd.yaml');
  const look = (assignments: ReadonlyMap<HostId, HostAssignment>) =>
    reconcile({
      ...{ nowMs: 0, epoch: 1, view: view(hosts), rollouts: new Map(), actuals: new Map() },
      deployments: new Map([['d', { deployment: deployment!, revision: 1 }]]),
      ...{
        assignments,
        manifestOf: state.manifestOf,
        verificationOf: state.verificationOf,
        variantsOf: state.variantsOf,
      },
      ...{ memory: emptyMemory, options: defaultReconcileOptions },
    });
  const output = look(new Map());
  const assignments = new Map<HostId, HostAssignment>();
  for (const [host, assignment] of output.assignments) if (assignment !== undefined) assignments.set(host, assignment);
  // Whoever looks again leaves it as it is.
  expect(look(assignments).assignments.size).toBe(0);
  expect(warnings).toEqual([]);
  const lines = [...assignments.values()].flatMap(({ host, replicas }) =>
    replicas.map(({ device, form }) => `${host} ${device} ${form?.variant ?? 'no word'}: ${form?.reason ?? ''}`),
  );
  return { lines, refusal: output.memory.refusals.get('d') ?? '', state };
}

describe('a model with variants', () => {
  it('is placed as the exact model where that has room, and as the form that has, with the reason', () => {
    expect(placed({ a: { bytes: 100 } }, [int8()]).lines).toEqual(['a cpu:0 : ']);
    expect(placed({ a: { bytes: 60 } }, [int8()]).lines).toEqual([
      'a cpu:0 int8: int8, because the exact model takes 100 bytes (100 B) and cpu:0 has 60 free: 40 bytes missing',
    ]);
    // What the deployment says of a copy counts in place of the estimate, and for the variant the same part of it.
    expect(placed({ a: { bytes: 60 } }, [int8()], { memoryBytes: 50 }).lines).toEqual(['a cpu:0 : ']);
    expect(placed({ a: { bytes: 60 } }, [int8()], { memoryBytes: 200 }).lines.join()).toContain('a cpu:0 int8: ');
  });

  it('is given no variant where nothing is known of one, and none that was compared as another file', () => {
    expect(placed({ a: { bytes: 100 } }, []).lines).toEqual(['a cpu:0 no word: ']);
    const other = int8();
    const changed = { ...other, record: { ...other.record, digest: 'b'.repeat(64) } };
    const { lines, refusal } = placed({ a: { bytes: 60 } }, [changed]);
    expect([lines, refusal]).toEqual([
      [],
      expect.stringContaining('takes 100 bytes (100 B) and cpu:0 has 60 bytes in all'),
    ]);
    const wasmOnly = placed({ a: { bytes: 60 } }, [int8({ providers: ['wasm'] }, [row({ provider: 'wasm' })])]);
    expect(wasmOnly.lines).toEqual([]);
  });

  it('is refused with the bytes that its smallest form lacks where none fits', () => {
    const { lines, refusal } = placed({ a: { bytes: 20 }, b: { bytes: 29 } }, [int8()]);
    expect(lines).toEqual([]);
    expect(refusal).toContain('can never fit');
    expect(refusal).toContain(
      'a: a copy in its smallest form, int8, takes 30 bytes (30 B) and cpu:0 has 20 bytes in all: 10 bytes missing',
    );
    expect(refusal).toContain(
      'b: a copy in its smallest form, int8, takes 30 bytes (30 B) and cpu:0 has 29 bytes in all: 1',
    );
  });

  it('goes to the device on which its form was measured to gain most', () => {
    const fast = int8({ providers: ['wasm'] }, [row({ provider: 'wasm', runMs: 1, exactRunMs: 4 })]);
    const hosts = { a: { bytes: 500, speed: 2 }, b: { bytes: 400, provider: 'wasm' } };
    expect(placed(hosts, [fast]).lines).toEqual(['b wasm:0 int8: int8: 1.00 ms on wasm, the exact model 4.00 ms']);
    const slower = int8({ providers: ['wasm'] }, [row({ provider: 'wasm', runMs: 3, exactRunMs: 4 })]);
    expect(placed(hosts, [slower]).lines).toEqual(['a cpu:0 : ']);
    const named = int8({ isNamed: true });
    expect(placed({ a: { bytes: 500 } }, [named]).lines).toEqual([
      'a cpu:0 int8: int8, as the configuration names it (2.00 ms on cpu, the exact model 1.00 ms)',
    ]);
  });

  it('has its verdict in the store beside those of splits, with errors, tolerance and vectors', () => {
    const { state } = placed({ a: { bytes: 100 } }, [int8()]);
    expect(state.variantsOf(manifest.model, manifest.version)).toEqual([
      { format: 1, model: 'm', version: '1', digest: exact, host: 'a', wallMs: 5, ...int8() },
    ]);
    const warnings: string[] = [];
    const wrong = new DesiredState(keys, (text) => warnings.push(text));
    wrong.set('verifications', keys.verification('m', '1', 'variant:x'), { value: '{"format":1}', modRevision: 1 });
    expect(warnings.join()).toContain('variant:x is no verification of a variant: a field is missing or wrong');
  });

  it('takes the memory of its form and no more, whatever the devices, as a plain search over devices and forms does', () => {
    const formsArbitrary = fc.array(
      fc.record({ bytes: fc.integer({ min: 1, max: 40 }), gain: fc.constantFrom(0.5, 1, 2, 4) }),
      { minLength: 1, maxLength: 3 },
    );
    const device = fc.record({ bytes: fc.integer({ min: 0, max: 60 }), speed: fc.constantFrom(1, 2, 3) });
    fc.assert(
      fc.property(
        fc.array(device, { maxLength: 5 }),
        formsArbitrary,
        fc.integer({ min: 1, max: 4 }),
        (devices, shapes, models) => {
          const forms = shapes.map((shape, index): PlacementForm => ({ ...shape, variant: `v${index}`, reason: '' }));
          const hosts = placeHosts(
            view(Object.fromEntries(devices.map((shape, index) => [`h${index}`, shape]))),
            new Map(),
          );
          const table = new PlacementTable(hosts);
          const free = devices.map(({ bytes }) => bytes);
          const count = devices.map(() => 0);
          for (let model = 0; model < models; model += 1) {
            const request: PlacementRequest = {
              ...{ edition: `m${model}/1`, shardBytes: [forms[0]!.bytes], forms: () => forms, constraints: {} },
              ...{ tier: undefined, spread: 'none', placed: [], isAvoided: () => false },
            };
            const options = devices.flatMap(({ speed }, index) => {
              const form = forms.find(({ bytes }) => bytes <= free[index]!);
              return form === undefined ? [] : [{ index, form, load: (count[index]! + 1) / (speed * form.gain) }];
            });
            options.sort((a, b) => a.load - b.load || free[b.index]! - free[a.index]! || a.index - b.index);
            const [best] = options;
            const search = table.search(request);
            expect(search.couldPlace()).toBe(best !== undefined);
            const gang = search.place();
            expect(
              gang?.map(({ host, editions }) => `${host.host} ${editions.get(request.edition)?.form?.variant ?? ''}`),
            ).toEqual(best === undefined ? undefined : [`h${best.index} ${best.form.variant}`]);
            if (best === undefined) continue;
            free[best.index]! -= best.form.bytes;
            count[best.index]! += 1;
            expect(gang?.[0]?.takenBytes).toBe(devices[best.index]!.bytes - free[best.index]!);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
