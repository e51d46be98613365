import { expect, it } from 'vitest';
import { replanActor, type StageRow } from '#actors/replan/actor.js';
import type { Deployment } from '#core/grid/records.js';
import { defaultDrift, type ServingStage } from '#core/split/replan.js';
import { shardModelName, splitIdOf } from '#core/split/split-spec.js';
import { StageCounts } from '#server/stage-counts.js';
import { GridWorld, keys } from './grid-world.js';

const digest = 'a'.repeat(64) as never;

function deployment(cuts: readonly number[], replan: boolean, plannedMs?: readonly number[]): Deployment {
  const id = splitIdOf({ digest, cuts, compression: 'none' });
  const shards = [...cuts, 0].map((_, shard) => {
    const ms = plannedMs?.[shard];
    return { memoryBytes: 1000, ...(ms === undefined ? {} : { plannedMs: ms }) };
  });
  const split = { format: 1, id, digest, cuts, shards, compression: 'none', ...(replan ? { replan: true } : {}) };
  return {
    ...{ format: 1, name: 'd', model: 'm', version: '1', replicas: 1, constraints: {}, spread: 'host', memoryBytes: 0 },
    ...{ rollout: { surge: 1, progressMsMax: 300_000 }, split },
  } as unknown as Deployment;
}

async function drift(replan: boolean): Promise<{ asked: (readonly ServingStage[])[]; cuts: () => unknown }> {
  const world = new GridWorld({ elections: true });
  const hosts = await world.startMany(2);
  const operator = world.store.client('operator');
  const put = async (key: string, value: unknown): Promise<void> => {
    const operations = [{ type: 'put', key, value: JSON.stringify(value) } as const];
    void operator.transact({ conditions: [], operations }, { deadlineMs: Infinity });
    await world.pass(100);
  };
  const before = deployment([10], replan);
  const after = deployment([15], replan);
  await put(keys.deployment('d'), before);
  let slow = 1;
  const asked: (readonly ServingStage[])[] = [];
  for (const [shard, { name: host, system, store, election }] of hosts.entries()) {
    if (election === undefined) throw new Error('there is no election');
    const replicas = [{ deployment: 'd', split: before.split, shard, device: 'cpu:0' }];
    await put(keys.assignment(host), { format: 1, host, replicas });
    const rows = (): readonly StageRow[] => [
      ...[{ split: before.split?.id ?? '', shard, device: 'cpu:0' }].map((row) => ({
        ...row,
        expectedMs: 10,
        observedMs: shard === 1 ? 10 * slow : 10,
      })),
    ];
    const planAgain = (_: Deployment, stages: readonly ServingStage[]): Promise<Deployment> => {
      asked.push(stages);
      return Promise.resolve(after);
    };
    system.spawn('replan', replanActor({ host, store, keys, election, rows, planAgain }));
  }
  await world.pass(120_000);
  expect(asked).toEqual([]);
  slow = 5;
  await world.pass(defaultDrift.holdMs - 5_000);
  expect(asked).toEqual([]);
  await world.pass(60_000);
  const cuts = (): unknown => {
    const entry = world.store.entries().find(({ key }) => key === keys.deployment('d'));
    return (JSON.parse(entry?.value ?? '{}') as Deployment).split?.cuts;
  };
  return { asked, cuts };
}

it('the leader has a split cut anew when a device became five times slower for long enough, once, with the times it saw', async () => {
  const { asked, cuts } = await drift(true);
  expect(asked).toHaveLength(1);
  expect(asked[0]?.map(({ ms }) => ms)).toEqual([10, 50]);
  expect(asked[0]?.every(({ place }) => place.endsWith('/cpu:0'))).toBe(true);
  expect(cuts()).toEqual([15]);
});

it('a split that does not ask for it stays as it is cut', async () => {
  const { asked, cuts } = await drift(false);
  expect(asked).toEqual([]);
  expect(cuts()).toEqual([10]);
});

/** Stages that run for 10 and 30 ms from their first request on. @returns The times with which a new cut was asked for. */
async function steady(plannedMs?: readonly number[]): Promise<readonly (readonly number[])[]> {
  const world = new GridWorld({ elections: true });
  const hosts = await world.startMany(2);
  const operator = world.store.client('operator');
  const served = deployment([10], true, plannedMs);
  const { split } = served;
  if (split === undefined) throw new Error('there is no split');
  const asked: (readonly number[])[] = [];
  const put = async (key: string, value: unknown): Promise<void> => {
    const operations = [{ type: 'put', key, value: JSON.stringify(value) } as const];
    void operator.transact({ conditions: [], operations }, { deadlineMs: Infinity });
    await world.pass(100);
  };
  await put(keys.deployment('d'), served);
  for (const [shard, { name: host, system, store, election }] of hosts.entries()) {
    if (election === undefined) throw new Error('there is no election');
    await put(keys.assignment(host), {
      format: 1,
      host,
      replicas: [{ deployment: 'd', split, shard, device: 'cpu:0' }],
    });
    const counts = new StageCounts();
    counts.splits = new Map([[split.id, split]]);
    for (let run = 0; run < 100; run += 1) {
      counts.ran(shardModelName('m' as never, split.id, shard), 'cpu:0', shard === 0 ? 10 : 30);
    }
    const planAgain = (_: Deployment, stages: readonly ServingStage[]): Promise<undefined> => {
      asked.push(stages.map(({ ms }) => ms));
      return Promise.resolve(undefined);
    };
    system.spawn('replan', replanActor({ host, store, keys, election, rows: () => counts.rows(), planAgain }));
  }
  await world.pass(120_000);
  return asked;
}

it('a stage that never was as fast as its plan said drifts from the plan, one without a plan from its own first runs', async () => {
  expect(await steady([10, 10])).toEqual([[10, 30]]);
  expect(await steady([10, 28])).toEqual([]);
  expect(await steady()).toEqual([]);
});
