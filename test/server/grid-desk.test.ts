import { describe, expect, it } from 'vitest';
import type { ModelConfig } from '#core/model-config.js';
import { whyNotSpread } from '#core/split/spread-rule.js';
import type { GridEventLine } from '#ports/grid-admin.js';
import { linksModel } from '#core/profile/profile-record.js';
import { timesOfMean } from '#core/profile/time-stats.js';
import type { Store } from '#ports/store.js';
import { modelConfig } from '../actors/device-world.js';
import { keys, PretendGrid } from './pretend-grid.js';

const call = { deadlineMs: Infinity } as Parameters<PretendGrid['desk']['status']>[0];
const wanted = (change: object = {}): string =>
  JSON.stringify({ name: 'd', model: 'm', version: '1', replicas: 1, ...change });

const sequences: NonNullable<ModelConfig['sequenceBatching']> = {
  idleUsMax: 1_000_000,
  controls: [],
  states: [],
  strategy: { kind: 'direct', queueDelayUsMax: 0, minimumSlotUtilization: 0 },
};

/** A store whose transactions are preceded by what somebody else does. */
function raced(before: (attempt: number) => Promise<void>): (store: Store) => Store {
  let attempts = 0;
  return (store) =>
    new Proxy(store, {
      get: (target, name) => {
        if (name === 'transact') {
          return async (...args: Parameters<Store['transact']>) => {
            attempts += 1;
            await before(attempts);
            return target.transact(...args);
          };
        }
        const value = Reflect.get(target, name) as unknown;
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
}

describe('deploying', () => {
  it('writes what is wanted once it fits, and says what changes', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { applied, refusals, differences } = await grid.desk.deploy(
      { deploymentJson: wanted(), dryRun: false },
      call,
    );
    expect({ applied, refusals }).toEqual({ applied: true, refusals: [] });
    expect(differences[0]).toBe('+ deployment d');
    expect(await grid.read(keys.deployment('d'))).toMatchObject({ name: 'd', replicas: 1, version: '1' });
    const again = await grid.desk.deploy({ deploymentJson: wanted({ replicas: 2 }), dryRun: false }, call);
    expect(again.differences).toEqual(['~ deployment d', '    ~ replicas: 1 -> 2']);
  });

  it('refuses what cannot be placed with what every host has against it, and writes nothing', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    grid.setHost('g', { role: 'gateway', devices: [] });
    const tooMany = await grid.desk.deploy({ deploymentJson: wanted({ replicas: 3 }), dryRun: false }, call);
    expect(tooMany.applied).toBe(false);
    expect(tooMany.refusals.join()).toMatch(/1 cop.* of m\/1 cannot be placed now: a: cpu:0 .*; b: cpu:0 /);
    expect(tooMany.refusals.join()).not.toContain('gateway');
    const constraints = { providers: ['cuda'] };
    const noSuch = await grid.desk.deploy({ deploymentJson: wanted({ constraints }), dryRun: false }, call);
    expect(noSuch.refusals.join()).toContain('cuda');
    const unknown = await grid.desk.deploy({ deploymentJson: wanted({ model: 'x' }), dryRun: false }, call);
    expect(unknown.refusals).toEqual(['no host of the grid has model x version 1 in its repository']);
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it("refuses strategy: 'data' for a model whose requests cannot be spread, with the reason, and writes nothing", async () => {
    const deploy = async (config: ModelConfig | undefined, strategy: string): Promise<PretendGrid> => {
      const grid = new PretendGrid(undefined, undefined, () => config);
      await grid.publish('m');
      const outcome = grid.desk.deploy({ deploymentJson: wanted({ strategy }), dryRun: false }, call);
      if (config !== undefined && strategy === 'data' && whyNotSpread(config) !== '') {
        await expect(outcome).rejects.toMatchObject({
          code: 'INVALID_ARGUMENT',
          message: `deployment d: strategy: 'data' is not possible for m/1, because ${whyNotSpread(config)}; it may be 'pipeline' or 'auto'`,
        });
        expect(await grid.read(keys.deployment('d'))).toBeUndefined();
      } else expect(await outcome).toMatchObject({ applied: true, refusals: [] });
      return grid;
    };
    const single = modelConfig('m', { maxBatchSize: 0 });
    const stateful = modelConfig('m', { sequenceBatching: sequences });
    expect(whyNotSpread(single)).toContain('max_batch_size');
    expect(whyNotSpread(stateful)).toContain('sequences');
    expect(whyNotSpread(modelConfig('m'))).toBe('');
    for (const config of [single, stateful, modelConfig('m'), undefined]) {
      for (const strategy of ['data', 'auto', 'pipeline']) await deploy(config, strategy);
    }
  });

  it('writes nothing in a dry run', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const { applied, refusals } = await grid.desk.deploy({ deploymentJson: wanted(), dryRun: true }, call);
    expect({ applied, refusals }).toEqual({ applied: false, refusals: [] });
    expect(await grid.read(keys.deployment('d'))).toBeUndefined();
  });

  it('looks again when somebody else deploys at the same time, and gives up after a few times', async () => {
    const others = async (attempt: number): Promise<void> => {
      if (attempt === 1) await grid.put(keys.deployment('d'), wanted({ replicas: 2 }));
    };
    const grid = new PretendGrid(raced(others));
    await grid.publish('m');
    const outcome = await grid.desk.deploy({ deploymentJson: wanted(), dryRun: false }, call);
    // The difference is to what the other one wrote, not to what was there at first.
    expect(outcome).toMatchObject({ applied: true, differences: ['~ deployment d', '    ~ replicas: 2 -> 1'] });

    const busy: PretendGrid = new PretendGrid(
      raced((attempt) => busy.put(keys.deployment('d'), wanted({ replicas: 1 + (attempt % 2) }))),
    );
    await busy.publish('m');
    await expect(busy.desk.deploy({ deploymentJson: wanted(), dryRun: false }, call)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('deployment d is being changed by somebody else') as unknown,
    });
  });
});

describe('what a plan asks', () => {
  it('is what hosts published of the model and of their links, and its names, without what is no profile', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    const [{ digest }] = [(await grid.read(keys.model('m', '1'))) as { readonly digest: string }];
    const times = timesOfMean(2, 1);
    const ends = { from: { host: 'b', device: '' }, to: { host: 'a', device: '' } };
    const link = { type: 'link', schema: 1, ...ends, bytes: 64, times, atMs: 0 };
    const b = 'b' as Parameters<typeof keys.profile>[1];
    await grid.put(
      keys.profile(linksModel, b),
      JSON.stringify({ host: 'b', model: linksModel, atMs: 0, records: [link] }),
    );
    await grid.put(keys.profile(digest, b), 'no snapshot');
    const { recordsJson, models } = await grid.desk.profiles({ digest }, call);
    expect(recordsJson.map((text) => JSON.parse(text) as unknown)).toEqual([[link]]);
    expect(models).toEqual([{ model: 'm', version: '1' }]);
    await expect(grid.desk.profiles({ digest: 'm' }, call)).rejects.toThrow('digest must be 64 hexadecimal digits');
  });
});

describe('orders', () => {
  it('cordon, drain with a time, keep a drain through a cordon, and take everything back', async () => {
    const grid = new PretendGrid();
    const order = (what: 'cordon' | 'uncordon' | 'drain', withinMs = 0) =>
      grid.desk.order({ host: 'b', order: what, reason: 'new disk', withinMs }, call);
    const key = keys.order('b' as Parameters<typeof keys.order>[0]);
    expect(await order('cordon')).toEqual({ cordoned: true, draining: false });
    expect(await grid.read(key)).toMatchObject({ cordoned: true, deadlineWallMs: 0, reason: 'new disk' });
    const beforeMs = grid.clock.wallMs();
    expect(await order('drain', 60_000)).toEqual({ cordoned: true, draining: true });
    const { deadlineWallMs } = (await grid.read(key)) as { readonly deadlineWallMs: number };
    expect(deadlineWallMs).toBeGreaterThanOrEqual(beforeMs + 60_000);
    expect(await order('cordon')).toEqual({ cordoned: true, draining: true });
    expect(await order('uncordon')).toEqual({ cordoned: false, draining: false });
    expect(await grid.read(key)).toBeUndefined();
  });

  it('of hosts that are not there name those that are', async () => {
    const grid = new PretendGrid();
    await expect(grid.desk.order({ host: 'z', order: 'drain', reason: '', withinMs: 0 }, call)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: 'there is no host z in the grid; there are a, b',
    });
  });
});

describe('events', () => {
  it('come in order and once, through a lost watch, until nobody wants them', async () => {
    const grid = new PretendGrid();
    await grid.event(2, 'second');
    await grid.event(1, 'first');
    const seen: string[] = [];
    let more: () => void = () => {};
    const arrival = (count: number): Promise<void> =>
      new Promise((resolve) => {
        more = () => {
          if (seen.length >= count) resolve();
        };
        more();
      });
    const stop = grid.desk.watchEvents(
      { after: 0, follow: true },
      {
        event: ({ text }: GridEventLine) => {
          seen.push(text);
          more();
        },
        end: (error) => seen.push(String(error)),
      },
    );
    await arrival(2);
    await grid.event(3, 'third');
    await arrival(3);
    grid.store.breakWatches('a');
    await grid.event(4, 'fourth');
    grid.store.compact();
    await arrival(4);
    expect(seen).toEqual(['first', 'second', 'third', 'fourth']);
    expect(grid.store.fired).toMatchObject({ 'watch-gap': 1, compaction: 1 });
    stop();
  });

  it('end with the reason when the store cannot be read', async () => {
    const grid = new PretendGrid();
    grid.store.away();
    const reason = await new Promise((resolve) => {
      grid.desk.watchEvents({ after: 0, follow: false }, { event: () => {}, end: resolve });
    });
    expect(reason).toMatchObject({ code: 'STORE_UNAVAILABLE' });
  });
});

describe('the status', () => {
  it('tells the hosts of the last view while the store is away, and that it is', async () => {
    const grid = new PretendGrid();
    await grid.publish('m');
    await grid.desk.deploy({ deploymentJson: wanted(), dryRun: false }, call);
    expect(await grid.desk.status(call)).toMatchObject({
      storeConnected: true,
      deployments: [{ name: 'd', wanted: 1, ready: 0, reason: 'nobody has looked at it yet' }],
    });
    grid.store.away();
    grid.tellView(true);
    const { storeConnected, leader, hosts, deployments } = await grid.desk.status(call);
    expect({ storeConnected, leader, deployments }).toEqual({ storeConnected: false, leader: '', deployments: [] });
    expect(hosts.map(({ host }) => host)).toEqual(['a', 'b']);
  });
});
