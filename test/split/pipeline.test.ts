/** Requests through the stages of a split model: real actors, gateways and links on virtual time, executors that pretend. */
import { describe, expect, it } from 'vitest';
import { expectedY, PipelineWorld, stageMs, valueOf, whole } from './pipeline-world.js';

const three = { a: [0], b: [1], c: [2] };

describe('a model in three stages', () => {
  it('answers with values of every stage, carried past others and made early', async () => {
    const world = await PipelineWorld.start(three);
    const all = world.infer('a', 5);
    const some = world.infer('c', 7, { outputs: ['y'] });
    await world.pass(500);
    expect(all.error).toBeUndefined();
    expect(all.answer?.outputs.map(({ name }) => name)).toEqual(['y', 'a']);
    expect([valueOf(all, 'y'), valueOf(all, 'a')]).toEqual([expectedY(5), 6]);
    expect(some.answer?.outputs.map(({ name }) => name)).toEqual(['y']);
    expect(valueOf(some, 'y')).toBe(expectedY(7));
  });

  it('is one model to clients, and its shards are none', async () => {
    const world = await PipelineWorld.start(three);
    const { catalog, candidates } = world.host('b').router.current;
    expect([...catalog.models.keys()]).toEqual([whole]);
    expect([...candidates.keys()].length).toBe(4);
  });

  it('is not served while a stage has nobody, and says which', async () => {
    const world = await PipelineWorld.start({ a: [0], b: [], c: [2] });
    const entry = world.host('a').router.current.catalog.models.get(whole);
    expect(entry?.served.size).toBe(0);
    expect(entry?.versions[0]?.reason).toContain('stage 2');
  });

  it('has several requests in the pipe: each further one takes one stage longer, not three', async () => {
    const world = await PipelineWorld.start(three);
    const begunMs = world.nowMs;
    const answers = [1, 2, 3, 4, 5, 6].map((x) => world.infer('a', x));
    await world.pass(1000);
    expect(answers.map((each) => valueOf(each, 'y'))).toEqual([1, 2, 3, 4, 5, 6].map(expectedY));
    const lastMs = Math.max(...answers.map(({ atMs = Infinity }) => atMs)) - begunMs;
    // Three stages for the first, one more for each of the five behind it, and the way.
    expect(lastMs).toBeLessThan((3 + 5) * stageMs + 30);
    expect(lastMs).toBeGreaterThanOrEqual((3 + 5) * stageMs);
  });

  it('runs only the lost stage again when its host dies, on a standby, from the values that were kept', async () => {
    const world = await PipelineWorld.start({ a: [0], b: [1], c: [2], standby: [1] });
    const answers = [1, 2, 3, 4].map((x) => world.infer('a', x));
    await world.pass(stageMs + 5);
    const dead = world.runs('b', 1) > 0 ? 'b' : 'standby';
    world.kill(dead);
    await world.pass(3000);
    expect(answers.map((each) => each.error?.message)).toEqual([undefined, undefined, undefined, undefined]);
    expect(answers.map((each) => valueOf(each, 'y'))).toEqual([1, 2, 3, 4].map(expectedY));
    expect(world.runs('a', 0)).toBe(4);
    expect(world.runs('c', 2)).toBe(4);
    expect(world.host('a').counts.reruns.get(1)).toBeGreaterThan(0);
    expect([...world.host('c').counts.reruns]).toEqual([]);
    expect(world.host('a').stageDesk.bytesKept).toBe(0);
  });

  it('runs no later stage again when a host in the middle dies after it had sent its values on', async () => {
    const world = await PipelineWorld.start({ a: [0], b: [1], c: [2], standby: [1] });
    const answer = world.infer('a', 1);
    await world.pass(2 * stageMs + 8);
    // It is at the last stage; whoever sent it there is gone before the answer.
    expect(world.runs('c', 2)).toBe(1);
    const [dead, other] = world.runs('b', 1) > 0 ? ['b', 'standby'] : ['standby', 'b'];
    world.kill(dead);
    await world.pass(8000);
    expect(valueOf(answer, 'y')).toBe(expectedY(1));
    expect([world.runs('a', 0), world.runs(other, 1), world.runs('c', 2)]).toEqual([1, 1, 1]);
    expect(world.host('c').counts.joined).toBe(1);
    expect(world.host('c').stageDesk.bytesKept).toBe(0);
  });

  it('lets go of what nobody asks for again', async () => {
    const world = await PipelineWorld.start(three);
    const answer = world.infer('a', 1);
    await world.pass(2 * stageMs + 8);
    expect(world.runs('c', 2)).toBe(1);
    world.kill('b');
    await world.pass(100);
    expect(answer.error?.code).toBe('DEVICE_UNAVAILABLE');
    expect(world.host('c').stageDesk.requestsKept).toBe(1);
    await world.pass(6000);
    expect(world.host('c').stageDesk.requestsKept).toBe(0);
  });

  it('tells the last stage when the client cancels, and keeps nothing', async () => {
    const world = await PipelineWorld.start(three);
    const answers = [1, 2, 3].map((x) => world.infer('a', x));
    await world.pass(2 * stageMs + 8);
    expect(world.runs('c', 2)).toBe(1);
    for (const { ticket } of answers) ticket?.cancel();
    await world.pass(200);
    expect(answers.map(({ error }) => error?.code)).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED']);
    // The first ran already; the others were taken out of the pipe where they were.
    expect(world.runs('c', 2)).toBe(1);
    for (const name of Object.keys(three)) expect(world.host(name).stageDesk.requestsKept).toBe(0);
  });

  it('ends at the deadline wherever it is, and later stages do not run for nobody', async () => {
    const world = await PipelineWorld.start(three);
    const begunMs = world.nowMs;
    const late = world.infer('a', 1, { deadlineMs: stageMs + 6 });
    await world.pass(500);
    expect(late.error?.code).toBe('DEADLINE_EXCEEDED');
    expect(late.atMs).toBeLessThan(begunMs + stageMs + 10);
    expect(world.runs('c', 2)).toBe(0);
    for (const name of Object.keys(three)) expect(world.host(name).stageDesk.requestsKept).toBe(0);
  });

  it('refuses what it may not keep for a next stage, with the bytes', async () => {
    const world = await PipelineWorld.start(three, { bytesMax: 10 });
    const answers = [1, 2, 3].map((x) => world.infer('a', x));
    await world.pass(500);
    const refused = answers.filter(({ error }) => error !== undefined);
    expect(answers.length - refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeGreaterThan(0);
    for (const { error } of refused) {
      expect(error?.code).toBe('RESOURCE_EXHAUSTED');
      expect(error?.message).toContain('host a keeps');
    }
    expect(world.host('a').stageDesk.bytesKept).toBe(0);
  });

  it('fails with what the last stage failed with, and no stage before it runs again', async () => {
    const world = await PipelineWorld.start({ a: [0], b: [1], c: [2], standby: [1] });
    const answers = [1, 2].map((x) => world.infer('a', x));
    await world.pass(stageMs + 5);
    world.kill('c');
    await world.pass(5000);
    expect(answers.map(({ error }) => error?.code)).toEqual(['DEVICE_UNAVAILABLE', 'DEVICE_UNAVAILABLE']);
    expect(world.runs('a', 0)).toBe(2);
    expect(world.runs('b', 1) + world.runs('standby', 1)).toBe(2);
  });

  it('names every stage in the receipt, and adds up what they took', async () => {
    const world = await PipelineWorld.start(three);
    const { answer } = await (async () => {
      const each = world.infer('b', 5);
      await world.pass(500);
      return each;
    })();
    const parameter = (name: string): unknown => answer?.parameters.get(name)?.value;
    const stages = JSON.parse(String(parameter('intarsia_stages'))) as {
      host: string;
      device: string;
      emulated: boolean;
    }[];
    expect(stages.map(({ host }) => host)).toEqual(['a', 'b', 'c']);
    expect(stages.every(({ device, emulated }) => device === 'cpu:0' && emulated)).toBe(true);
    expect(Number(parameter('intarsia_compute_us'))).toBe(3 * (stageMs * 1000 + 20));
    expect(Number(parameter('intarsia_cost_usd'))).toBeCloseTo((3 * (stageMs + 0.02) * 3.6) / 3.6e6, 9);
  });
});
