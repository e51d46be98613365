import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ModelCheck } from '#server/model-check.js';
import { findServedModel } from '#server/find-model.js';
import type { Catalog, ServedModel } from '#core/catalog.js';
import { GridTable } from '#core/grid/grid-table.js';
import type { PeerStatus } from '#core/grid/host-load.js';
import type { ActualReplica, HostActual, View, ViewHost } from '#core/grid/records.js';
import { publishedFacts, readFacts, type ServedFacts } from '#core/grid/served-facts.js';
import { banFor, defaultBanRules } from '#core/grid/standing.js';
import { deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import type { ModelConfig } from '#core/model-config.js';
import { beginOnReplica, finishOnReplica } from '#core/routing-table.js';

const picker = { policy: 'none', pick: () => -1 };
const own = hostId('own');

function facts(name: string, version: string, digest = 'a'): ServedFacts {
  const config = { name, platform: 'onnxruntime_onnx', maxBatchSize: 8, parameters: new Map([['p', '1']]) };
  return {
    name: modelName(name),
    version: modelVersion(version),
    config: config as unknown as ModelConfig,
    inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 4] }],
    optionalInputs: new Set(['z']),
    digest: digest.repeat(64) as ServedFacts['digest'],
    labels: new Map([['y', ['cat', 'dog']]]),
  };
}

function member(host: string, state: ViewHost['state'] = 'up', generation = 1): ViewHost {
  return { record: { host, devices: [] } as unknown as ViewHost['record'], generation, state, cordoned: false };
}

function view(revision: number, ...hosts: ViewHost[]): View {
  return { revision, hosts: new Map(hosts.map((host) => [host.record.host, host])) };
}

function replica(model: string, version: string, device: string, more: Partial<ActualReplica> = {}): ActualReplica {
  const known = facts(model, version);
  return {
    model: known.name,
    version: known.version,
    device: deviceId(device),
    state: 'ready',
    reason: '',
    digest: known.digest,
    memoryBytes: 1,
    facts: publishedFacts({ ...known, devices: [] }).fingerprint,
    deployment: '',
    ...more,
  };
}

function actual(host: string, replicas: readonly ActualReplica[], degraded: Record<string, string> = {}): HostActual {
  return { format: 1, host: hostId(host), assignmentRevision: 0, replicas, degraded };
}

function ownCatalog(...models: { readonly facts: ServedFacts; readonly devices: readonly string[] }[]): Catalog {
  const entries = models.map(({ facts: { name, version }, facts: known, devices }) => {
    const served: ServedModel = { ...known, devices: devices.map(deviceId) };
    const status = { version, state: 'READY' as const, reason: '', isQuarantined: false };
    const entry = {
      name,
      versions: [status],
      served: new Map([[version, served]]),
      defaultVersion: version,
      reason: '',
    };
    return [name, entry] as const;
  });
  return { revision: 1, models: new Map(entries) };
}

function tableWith(...known: ServedFacts[]): GridTable {
  const table = new GridTable({ host: own, picker });
  for (const each of known) {
    const { fingerprint, record } = publishedFacts({ ...each, devices: [] });
    table.setFacts(fingerprint, readFacts(record));
  }
  return table;
}

const peer = (more: Partial<PeerStatus>): PeerStatus => ({
  reachable: true,
  degraded: '',
  load: undefined,
  learnedMs: 0,
  viewRevision: 0,
  roundTripMs: 0,
  ...more,
});

function places(table: GridTable, model: string, version: string): { candidates: string[]; reserve: string[] } {
  const current = table.table();
  const shown = (of: 'candidates' | 'reserve'): string[] =>
    (current[of].get(modelName(model))?.get(modelVersion(version)) ?? []).map(({ replica: { stages } }) =>
      stages.map(({ host, device }) => `${host}/${device}`).join(),
    );
  return { candidates: shown('candidates'), reserve: shown('reserve') };
}

describe('facts of a served model', () => {
  it('come back as they were, under the same fingerprint for the same content', () => {
    const model = { ...facts('m', '3'), devices: [deviceId('cpu:0')] };
    const { fingerprint, record } = publishedFacts(model);
    const { devices: _devices, ...rest } = model;
    expect(readFacts(JSON.parse(JSON.stringify(record)) as typeof record)).toEqual(rest);
    expect(publishedFacts({ ...model, devices: [] }).fingerprint).toBe(fingerprint);
    expect(publishedFacts({ ...model, labels: new Map() }).fingerprint).not.toBe(fingerprint);
  });

  it('are refused when they are something else', () => {
    for (const text of ['', '[]', '{"name":"m"}', '{"$set":1}', '{"$no":1}']) {
      expect(() => readFacts({ format: 1, facts: text })).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
      );
    }
  });
});

describe('the table of a grid', () => {
  it('lets a gateway without the model check and route its requests', () => {
    const table = tableWith(facts('m', '1'));
    table.setView(view(1, member('own'), member('a'), member('b')));
    table.setActual(hostId('b'), actual('b', [replica('m', '1', 'cpu:0'), replica('m', '1', 'cuda:0')]));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0')]));
    expect(places(table, 'm', '1').candidates).toEqual(['a/cpu:0', 'b/cpu:0', 'b/cuda:0']);
    const served = table.table().catalog.models.get(modelName('m'));
    expect(served?.defaultVersion).toBe('1');
    expect(served?.versions).toEqual([{ version: '1', state: 'READY', reason: '', isQuarantined: false }]);
    expect(served?.served.get(modelVersion('1'))).toMatchObject({
      ...facts('m', '1'),
      devices: [],
      elsewhere: ['a/cpu:0', 'b/cpu:0', 'b/cuda:0'],
    });
  });

  it('names the own host first, and counts only replicas of the same artefact with it', () => {
    const table = tableWith(facts('m', '1'), facts('m', '1', 'b'));
    table.setView(view(1, member('own'), member('a'), member('b')));
    table.setOwn(ownCatalog({ facts: facts('m', '1'), devices: ['cuda:0', 'cpu:0'] }));
    const other = publishedFacts({ ...facts('m', '1', 'b'), devices: [] }).fingerprint;
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0')]));
    table.setActual(hostId('b'), actual('b', [replica('m', '1', 'cpu:0', { facts: other })]));
    expect(places(table, 'm', '1').candidates).toEqual(['own/cuda:0', 'own/cpu:0', 'a/cpu:0']);
  });

  it('keeps what is degraded, draining or suspected in reserve, in that order, and uses it when nothing else is left', () => {
    const table = tableWith(facts('m', '1'));
    table.setView(view(1, member('a'), member('b'), member('c', 'draining'), member('d', 'suspected')));
    for (const host of ['a', 'b', 'c', 'd']) table.setActual(hostId(host), actual(host, [replica('m', '1', 'cpu:0')]));
    table.setPeers(new Map([[hostId('b'), peer({ degraded: 'slow' })]]));
    expect(places(table, 'm', '1')).toEqual({ candidates: ['a/cpu:0'], reserve: ['b/cpu:0', 'c/cpu:0', 'd/cpu:0'] });
    table.setView(view(2, member('c', 'draining'), member('d', 'suspected')));
    expect(places(table, 'm', '1')).toEqual({ candidates: ['c/cpu:0'], reserve: ['d/cpu:0'] });
    table.setActual(hostId('c'), undefined);
    expect(places(table, 'm', '1')).toEqual({ candidates: ['d/cpu:0'], reserve: [] });
  });

  it('drains a device that its host calls degraded, or that this host cannot reach, from the picker', () => {
    const table = tableWith(facts('m', '1'));
    table.setView(view(1, member('a'), member('b')));
    table.setActual(
      hostId('a'),
      actual('a', [replica('m', '1', 'cpu:0'), replica('m', '1', 'cuda:0')], { 'cuda:0': 'hot' }),
    );
    table.setActual(hostId('b'), actual('b', [replica('m', '1', 'cpu:0')]));
    expect(places(table, 'm', '1')).toEqual({ candidates: ['a/cpu:0', 'b/cpu:0'], reserve: ['a/cuda:0'] });
    table.setPeers(new Map([[hostId('b'), peer({ reachable: false })]]));
    expect(places(table, 'm', '1')).toEqual({ candidates: ['a/cpu:0'], reserve: ['a/cuda:0', 'b/cpu:0'] });
    table.setPeers(new Map([[hostId('b'), peer({})]]));
    expect(places(table, 'm', '1')).toEqual({ candidates: ['a/cpu:0', 'b/cpu:0'], reserve: ['a/cuda:0'] });
  });

  it('takes the version a deployment says is current as the default, while it is served, else the highest', () => {
    const table = tableWith(facts('m', '1'), facts('m', '2'));
    table.setView(view(1, member('a'), member('b')));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0'), replica('m', '2', 'cpu:0')]));
    const standard = (): unknown => table.table().catalog.models.get(modelName('m'))?.defaultVersion;
    expect(standard()).toBe('2');
    table.setDefault(modelName('m'), modelVersion('1'));
    expect(standard()).toBe('1');
    table.setActual(hostId('a'), actual('a', [replica('m', '2', 'cpu:0')]));
    expect(standard()).toBe('2');
  });

  it('tells gateways what a deployment says of large requests, in place of what the configuration says', () => {
    const known = facts('m', '1');
    const table = tableWith(known);
    table.setView(view(1, member('b')));
    table.setActual(hostId('b'), actual('b', [replica('m', '1', 'cpu:0')]));
    const check = (): ModelCheck =>
      new ModelCheck(table.table().catalog.models.get(known.name)?.served.get(known.version) as ServedModel);
    expect(check().spread).toBeUndefined();
    table.setStrategy(known.name, 'data');
    expect(check().spread).toMatchObject({ strategy: 'data', itemsMin: 8 });
    table.setStrategy(known.name, 'auto');
    expect(check().spread?.strategy).toBe('auto');
    table.setStrategy(known.name, undefined);
    expect(check().spread).toBeUndefined();
  });

  it('knows a model that a deployment wants also while nobody serves it: asking again may help', () => {
    const table = tableWith(facts('m', '1'));
    table.setView(view(1, member('a')));
    table.setDefault(modelName('m'), modelVersion('1'));
    expect(table.table().catalog.models.get(modelName('m'))?.versions[0]).toMatchObject({ state: 'UNAVAILABLE' });
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0')]));
    expect(places(table, 'm', '1').candidates).toEqual(['a/cpu:0']);
    table.setActual(hostId('a'), undefined);
    const entry = table.table().catalog.models.get(modelName('m'));
    expect(() => findServedModel(entry, 'm', '')).toThrow(/no host serves it at the moment/);
    table.setDefault(modelName('m'), undefined);
    expect(table.table().catalog.models.has(modelName('m'))).toBe(false);
  });

  it('says why a version that nobody serves is not served', () => {
    const table = tableWith();
    table.setView(view(1, member('a')));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0', { state: 'failed', reason: 'too large' })]));
    expect(table.table().catalog.models.get(modelName('m'))?.versions).toEqual([
      { version: '1', state: 'UNAVAILABLE', reason: 'a/cpu:0: too large', isQuarantined: false },
    ]);
  });

  it('keeps what is in flight, who is banned and the candidates themselves through other tables', () => {
    const table = tableWith(facts('m', '1'), facts('n', '1'));
    table.setView(view(1, member('a')));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0'), replica('n', '1', 'cpu:0')]));
    const find = (model: string) => table.table().candidates.get(modelName(model))?.get(modelVersion('1'))?.[0];
    const before = find('m')!;
    beginOnReplica(before.load, 2);
    banFor(before.standing!.device, 0, defaultBanRules);
    table.setActual(hostId('a'), actual('a', [replica('n', '1', 'cpu:0')]));
    expect(find('m')).toBeUndefined();
    expect(find('n')?.standing?.device.failuresInRow).toBe(1);
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0'), replica('n', '1', 'cpu:0')]));
    expect(find('m')).toBe(before);
    finishOnReplica(before.load, 2, undefined);
  });

  it('takes views of a store that has begun anew, whose revisions are lower, and none before it was read', () => {
    const table = tableWith(facts('m', '1'));
    table.setView(view(70, member('a'), member('b')));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0')]));
    table.setActual(hostId('b'), actual('b', [replica('m', '1', 'cpu:0')]));
    const hosts = (): readonly string[] =>
      (table.table().candidates.get(modelName('m'))?.get(modelVersion('1')) ?? []).map(
        (each) => each.replica.stages[0]?.host ?? '',
      );
    expect(hosts()).toEqual(['a', 'b']);
    table.setView(view(0));
    expect(hosts()).toEqual(['a', 'b']);
    table.setView(view(5, member('b')));
    expect(hosts()).toEqual(['b']);
  });

  it('takes over what did not change, and is the same object when nothing did', () => {
    const table = tableWith(facts('m', '1'), facts('n', '1'));
    table.setView(view(1, member('a'), member('b')));
    table.setActual(hostId('a'), actual('a', [replica('m', '1', 'cpu:0')]));
    table.setActual(hostId('b'), actual('b', [replica('n', '1', 'cpu:0')]));
    const first = table.table();
    expect(table.hasChanges).toBe(false);
    expect(table.table()).toBe(first);
    table.setActual(hostId('b'), actual('b', [replica('n', '1', 'cpu:0'), replica('n', '1', 'cpu:1')]));
    const second = table.table();
    expect(second.candidates.get(modelName('m'))).toBe(first.candidates.get(modelName('m')));
    expect(second.catalog.models.get(modelName('m'))).toBe(first.catalog.models.get(modelName('m')));
    expect(second.candidates.get(modelName('n'))).not.toBe(first.candidates.get(modelName('n')));
    expect(second.catalog.revision).toBeGreaterThan(first.catalog.revision);
  });

  it('is after any changes what one made afresh from the last state would be', () => {
    const hosts = ['own', 'a', 'b', 'c'];
    const models = ['m', 'n'];
    const versions = ['1', '2'];
    const replicas = fc.uniqueArray(
      fc.record({
        model: fc.constantFrom(...models),
        version: fc.constantFrom(...versions),
        device: fc.constantFrom('cpu:0', 'cuda:0'),
        state: fc.constantFrom('ready' as const, 'loading' as const, 'failed' as const),
      }),
      { maxLength: 5, selector: ({ model, version, device }) => `${model}/${version}/${device}` },
    );
    const change = fc.oneof(
      fc.record({
        type: fc.constant('view' as const),
        members: fc.subarray(hosts),
        states: fc.array(fc.constantFrom<ViewHost['state']>('up', 'draining', 'suspected'), {
          minLength: 4,
          maxLength: 4,
        }),
      }),
      fc.record({
        type: fc.constant('actual' as const),
        host: fc.constantFrom('a', 'b', 'c'),
        replicas: fc.option(replicas),
        degraded: fc.subarray(['cpu:0', 'cuda:0']),
      }),
      fc.record({
        type: fc.constant('own' as const),
        models: fc.subarray(models),
        device: fc.constantFrom('cpu:0', 'cuda:0'),
      }),
      fc.record({ type: fc.constant('peers' as const), away: fc.subarray(['a', 'b']), slow: fc.subarray(['b', 'c']) }),
      fc.record({
        type: fc.constant('default' as const),
        model: fc.constantFrom(...models),
        version: fc.option(fc.constantFrom(...versions)),
      }),
      fc.record({
        type: fc.constant('facts' as const),
        model: fc.constantFrom(...models),
        version: fc.constantFrom(...versions),
        known: fc.boolean(),
      }),
      fc.constant({ type: 'table' as const }),
    );
    type Change = typeof change extends fc.Arbitrary<infer Value> ? Value : never;
    const apply = (table: GridTable, each: Change, revision: number): void => {
      if (each.type === 'view') {
        table.setView(view(revision, ...each.members.map((host, index) => member(host, each.states[index]))));
      } else if (each.type === 'actual') {
        const degraded = Object.fromEntries(each.degraded.map((device) => [device, 'hot']));
        const said = each.replicas?.map(({ model, version, device, state }) =>
          replica(model, version, device, { state }),
        );
        table.setActual(hostId(each.host), said === undefined ? undefined : actual(each.host, said, degraded));
      } else if (each.type === 'own') {
        table.setOwn(ownCatalog(...each.models.map((model) => ({ facts: facts(model, '1'), devices: [each.device] }))));
      } else if (each.type === 'peers') {
        const status = (host: string): [HostId, PeerStatus] => [
          hostId(host),
          peer({ reachable: !each.away.includes(host), degraded: each.slow.includes(host) ? 'slow' : '' }),
        ];
        table.setPeers(new Map(['a', 'b', 'c'].map(status)));
      } else if (each.type === 'default') {
        table.setDefault(modelName(each.model), each.version === null ? undefined : modelVersion(each.version));
      } else if (each.type === 'facts') {
        const known = facts(each.model, each.version);
        const { fingerprint } = publishedFacts({ ...known, devices: [] });
        table.setFacts(fingerprint, each.known ? known : undefined);
      } else table.table();
    };
    const shown = (table: GridTable): unknown => {
      const { catalog, candidates, reserve } = table.table();
      const plain = (map: typeof candidates): unknown =>
        [...map]
          .map(([model, byVersion]) => [
            model,
            [...byVersion].sort().map(([version, all]) => [version, all.map((one) => one.replica)]),
          ])
          .sort();
      const entries = [...catalog.models.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
      const sorted = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
      return { entries, candidates: sorted(plain(candidates)), reserve: sorted(plain(reserve)) };
    };
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
        const table = new GridTable({ host: own, picker });
        changes.forEach((each, index) => apply(table, each, index + 1));
        // Afresh: only the last word of each kind, all at once.
        const fresh = new GridTable({ host: own, picker });
        const last = new Map<string, { readonly each: Change; readonly index: number }>();
        changes.forEach((each, index) => {
          const key =
            each.type === 'actual'
              ? each.host
              : each.type === 'default'
                ? each.model
                : each.type === 'facts'
                  ? `${each.model}/${each.version}`
                  : '';
          last.set(`${each.type} ${key}`, { each, index });
        });
        for (const { each, index } of [...last.values()].reverse()) apply(fresh, each, index + 1);
        const whole = shown(fresh);
        const grown = shown(table);
        expect(grown).toEqual(whole);
      }),
      { numRuns: 300 },
    );
  });
});
