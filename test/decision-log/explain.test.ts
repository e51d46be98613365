import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { explainRequest } from '#compose/decision-log/explain.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { pretendProgram, run } from '../cli/pretend-program.js';
import { LogWorld, temporaryFolder } from './log-world.js';

describe('intarsia explain', () => {
  let folder = '';
  let remove: () => Promise<void>;
  let world: LogWorld;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
    world = new LogWorld({ policy: dispatchByName('cheapest-feasible'), folder });
  });
  afterEach(() => remove());
  const explain = (request: string, free = '') => explainRequest({ folder, request, free, policyPath: '' });

  it('prints candidates, what masked them, predictions, the choice and what came of it', async () => {
    const [first] = world.candidates;
    if (first !== undefined) first.load.ready = false;
    const { request, index } = world.ask({ sloMs: 100 }, 7);
    world.answer(request, index, 40);
    world.close();
    const report = await explain('1');
    expect(report).toMatchObject({ run: world.run, request: 1, model: 'm', class: 'interactive', sloMs: 100 });
    const [decision] = report.decisions;
    expect(decision).toMatchObject({ policy: 'cheapest-feasible:0.6+shed', choice: 'h1/cpu:2', propensity: 1 });
    expect(decision?.waitedMs).toBe(7);
    expect(decision?.again).toBe(decision?.choice);
    expect(decision?.candidates.map(({ device, masked, isChosen }) => [device, masked, isChosen])).toEqual([
      ['h1/cpu:0', 'not ready', false],
      ['h1/cpu:1', '', false],
      ['h1/cpu:2', '', true],
    ]);
    expect(decision?.candidates.map(({ expectedMs, slackMs }) => [expectedMs, slackMs])).toEqual([
      [30, 63],
      [21, 72],
      [12, 81],
    ]);
    expect(report.outcome).toMatchObject({
      outcome: 'ok',
      durationMs: 40,
      missed: false,
      device: 'cpu:2',
      batchItems: 2,
    });
  });

  it('tells what the policy would have chosen had a device been free', async () => {
    // Cheapest is cpu:2, the dearest by the hour and by far the fastest; it is given work until others are cheaper in time.
    let last = world.ask({ sloMs: 60 });
    const fastest = last.index;
    for (let count = 0; count < 30 && last.index === fastest; count += 1) last = world.ask({ sloMs: 60 });
    expect(last.index).not.toBe(fastest);
    world.close();
    const busy = `h1/cpu:${fastest}`;
    const [decision] = (await explain('last', busy)).decisions;
    expect(decision?.choice).toBe(`h1/cpu:${last.index}`);
    expect(decision?.again).toBe(decision?.choice);
    expect(decision?.whenFree).toMatchObject({ device: busy, choice: busy, masked: '' });
    const before = decision?.candidates[fastest];
    expect(decision?.whenFree?.expectedMs).toBeLessThan(before?.expectedMs ?? 0);
    expect((await explain('last', 'cpu:7')).decisions[0]?.whenFree).toMatchObject({
      choice: decision?.choice,
      masked: 'no candidate',
    });
  });

  it('shows every attempt of a request that was sent again, and one without an outcome', async () => {
    const { request } = world.ask();
    world.nowMs += 50;
    world.pickAgain(request);
    world.close();
    const report = await explain(`${world.run}/1`);
    expect(report.decisions.map(({ waitedMs }) => waitedMs)).toEqual([0, 50]);
    expect(report.outcome).toBeUndefined();
  });

  it('says why a request is not there', async () => {
    world.fail({ ...world.ask().request, id: 50 as never }, 1, 'CANCELLED');
    world.close();
    await expect(explain('77')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(explain(`${world.run}/50`)).rejects.toThrow(/neither a time nor a class/u);
    await expect(explain('x')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    const asked = { folder, request: 'last', free: '' };
    await expect(explainRequest({ ...asked, policyPath: 'none.onnx' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const broken = join(folder, 'broken.onnx');
    writeFileSync(broken, 'no policy');
    await expect(explainRequest({ ...asked, policyPath: broken })).rejects.toThrow(/broken\.onnx: /u);
  });

  it('reads well on a terminal', async () => {
    const { request, index } = world.ask();
    world.answer(request, index, 400);
    world.close();
    const { program } = pretendProgram({ explainRequest });
    const said = await run(['explain', 'last', '--log', folder, '--free', 'cpu:0'], program);
    expect(said.err).toBe('');
    expect(said.code).toBe(0);
    expect(said.out).toContain(`request ${world.run}/1: model m, class interactive, 1 items`);
    expect(said.out).toMatch(/→ +h1\/cpu:\d/u);
    expect(said.out).toContain('chosen: h1/cpu:');
    expect(said.out).toContain('had h1/cpu:0 been free:');
    expect(said.out).toContain('answered after 400');
    expect(said.out).toContain('missed its target');
    expect(said.out).toContain('(emulated)');
  });
});
