import { describe, expect, it } from 'vitest';
import { GridWorld } from './controller-world.js';

async function threeHosts(world = new GridWorld()): Promise<GridWorld> {
  for (const name of ['a', 'b', 'c']) world.host(name);
  await world.publish('m/1', 4);
  await world.publish('m/2', 5);
  await world.pass(5);
  return world;
}

describe('the controller and the host agents', () => {
  it('serve a deployment on as many hosts as it wants copies, spread', async () => {
    const world = await threeHosts();
    await world.deploy({ name: 'd', model: 'm', version: 1, replicas: 2 });
    await world.pass(5);
    expect(world.serving('m')).toEqual(['m/1 on a cpu:0', 'm/1 on b cpu:0']);
    expect(await world.rollout('d')).toMatchObject({ phase: 'complete', reason: '', stable: { version: '1' } });
  });
});
