import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { startGrpcServer } from '#adapters/grpc/server.js';
import { silentLog } from '#ports/log.js';
import { keys, PretendGrid } from '../server/pretend-grid.js';
import { PretendHost } from '../server/pretend-host.js';
import { batchingBytes, calibrationJson, evaluationJson, policyBytes } from '../scheduling/policies.js';
import { pretendProgram, run as runWith, type Said } from './pretend-program.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-policy-'));
afterAll(() => rmSync(folder, { recursive: true }));
const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function serve(grid: PretendGrid): Promise<(...words: string[]) => Promise<Said>> {
  const server = await startGrpcServer({ ...new PretendHost().serverOptions(), log: silentLog, grid: grid.desk });
  opened.push(() => server.stop(0));
  const { program } = pretendProgram();
  return (...words) => runWith(['policy', ...words, '--endpoint', `127.0.0.1:${server.port}`], program);
}

const quick = file('quick.onnx', policyBytes('quick'));

/** What a gateway would have seen of the policy on trial. */
async function sighting(grid: PretendGrid, figures: Record<string, number> = {}): Promise<void> {
  const pointer = (await grid.read(keys.policyPointer)) as { readonly policy: string; readonly number: number };
  const none = { decisions: 0, fallbacks: 0, latencyUsP99: 20, answers: 0, late: 0, baseAnswers: 0, baseLate: 0 };
  await grid.put(`${keys.policySightings}a`, {
    ...{ format: 1, host: 'a', policy: pointer.policy, number: pointer.number, refused: '' },
    figures: { ...none, ...figures },
    groups: [{ model: 'digits', class: 'interactive', decisions: 200, disagreements: 50 }],
  });
}

/** As if the step that holds had been taken an hour before it was. */
async function anHourLater(grid: PretendGrid): Promise<void> {
  const pointer = (await grid.read(keys.policyPointer)) as { readonly wallMs: number };
  await grid.put(keys.policyPointer, { ...pointer, wallMs: pointer.wallMs - 3_600_000 });
}

describe('intarsia policy', () => {
  it('takes a file step by step from shadow to all requests, when every gate is passed', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    expect((await policy('list')).out).toContain('every host decides by the policy it was started with');
    const report = file('evaluation.json', evaluationJson(policyBytes('quick')));
    const others = file('others.json', evaluationJson(policyBytes('other')));
    expect((await policy('shadow', quick, '--evaluation', others)).err).toContain('it is about other bytes');
    const worse = file('worse.json', evaluationJson(policyBytes('quick'), { worstMissChange: 0.01 }, false));
    await policy('shadow', quick, '--evaluation', worse);
    const held = await policy('promote', '--dry-run');
    expect(held.out).toMatch(/evaluation +refused .*; a class misses 1\.00 points more/);
    expect(held.out).toMatch(/stress +refused +0 of 1 cases passed; device-loss: 20\.0 %/);
    expect(held.out).toContain('would be refused: quick@');
    const shadow = await policy('shadow', quick, '--evaluation', report);
    expect(shadow).toMatchObject({ code: 0, err: '' });
    expect(shadow.out).toMatch(/artefact +passed/);
    expect(shadow.out).toMatch(/quick@[0-9a-f]{12} is asked beside own, which decides/);
    await sighting(grid, { decisions: 60_000, fallbacks: 600 });
    const shown = await policy('show');
    expect(shown.out).toMatch(/digits +interactive +200 +25\.0 %/);
    const uncalibrated = await policy('promote');
    expect(uncalibrated.code).toBe(1);
    expect(uncalibrated.out).toMatch(
      /calibration +refused +no report of intarsia evaluate --log DIR --calibrate --json/,
    );
    const far = file('far.json', calibrationJson(0.3));
    expect((await policy('promote', '--calibration', far)).out).toMatch(
      /calibration +refused +KS distance 0\.300 of 0\.1/,
    );
    const near = file('near.json', calibrationJson());
    expect((await policy('promote', '--calibration', near)).out).toContain(
      'decides in 1 % of the slices of 60 s, own in the others',
    );
    const soon = await policy('promote', 'quick', '--share', '10');
    expect(soon.code).toBe(1);
    expect(soon.out).toMatch(/duration +refused +its share for 0 minutes of 60/);
    await anHourLater(grid);
    const tenth = await policy('promote', 'quick', '--share', '10', '--slice-seconds', '300', '--seed', '7');
    expect(tenth.out).toContain('decides in 10 % of the slices of 300 s');
    await sighting(grid, { decisions: 60_000, answers: 30_000, late: 300, baseAnswers: 90_000, baseLate: 900 });
    await anHourLater(grid);
    expect((await policy('promote')).out).toContain('decides in 50 %');
    expect((await policy('promote', '--share', '50', '--reason', 'as it is')).code).toBe(0);
    expect((await policy('promote', '--min-minutes', '1')).out).toMatch(
      /duration +refused +its share for 0 minutes of 1\n/,
    );
    await anHourLater(grid);
    const all = await policy('promote', '--json');
    expect(JSON.parse(all.out)).toMatchObject({ applied: true, book: { pointer: { mode: 'all', previous: ['own'] } } });
    expect((await policy('list')).out).toMatch(/quick@[0-9a-f]{12} +decides/);
  });

  it('refuses a step that a gate refuses, with what was found, and passes over gates with --force and a reason only', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    await policy('shadow', quick);
    await sighting(grid, { decisions: 10, fallbacks: 9, latencyUsP99: 900 });
    const refused = await policy('promote');
    expect(refused.code).toBe(1);
    expect(refused.out).toMatch(/evaluation +refused +no report of intarsia evaluate --json was given/);
    expect(refused.out).toMatch(/shadow +refused +asked about 10 requests of 50000/);
    expect(refused.out).toMatch(/latency +refused +p99 of a choice 900 µs of 100 µs/);
    expect(refused.out).toMatch(/fallback +refused +90\.00 %/);
    expect(await grid.read(keys.policyPointer)).toMatchObject({ mode: 'shadow' });
    expect((await policy('promote', '--force')).err).toContain('with a reason only');
    const forced = await policy('promote', '--all', '--force', '--reason', 'drill');
    expect(forced).toMatchObject({ code: 0 });
    expect(await grid.read(keys.policyPointer)).toMatchObject({ mode: 'all', forced: 'drill' });
    const events = await grid.operator.range(keys.events, { deadlineMs: Infinity });
    const last = JSON.parse(events.entries.at(-1)?.value ?? '{}') as { readonly text: string; readonly level: string };
    expect(last.text).toMatch(
      /passed over evaluation, stress, calibration, shadow, latency, fallback, duration, trial; reason: drill/,
    );
    expect(last.level).toBe('warn');
  });

  it('tells of a step also where the leader, who has not seen it yet, takes its number for an event of its own', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    await grid.event(1, 'joined');
    await policy('shadow', quick);
    await grid.event(2, 'left');
    const told: string[] = [];
    await new Promise<void>((resolve) => {
      grid.desk.watchEvents(
        { after: 0, follow: false },
        { event: ({ text }) => told.push(text), end: () => resolve() },
      );
    });
    expect(told).toHaveLength(3);
    expect(told.filter((text) => /is asked beside own/.test(text))).toHaveLength(1);
  });

  it('goes back to what decided before, and says so as an event', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    await policy('shadow', quick);
    await policy('promote', '--all', '--force', '--reason', 'drill');
    expect((await policy('rollback', '--reason', 'late since noon')).out).toContain(
      'every host decides by the policy it was started with',
    );
    const again = await policy('rollback');
    expect(again.code).toBe(1);
    expect(again.err).toContain('there is nothing to go back to');
    expect((await policy('promote', 'cheapest-feasible:0.6')).out).toContain(
      'rule cheapest-feasible:0.6 decides about all requests',
    );
  });

  it('stores a batching file with its dispatch file as one version, and refuses one that is none', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    const batches = file('batches.onnx', batchingBytes('batches'));
    const report = file('both.json', evaluationJson(policyBytes('quick')));
    const shadow = await policy('shadow', quick, '--batching', batches, '--evaluation', report);
    expect(shadow).toMatchObject({ code: 0, err: '' });
    expect(shadow.out).toMatch(/artefact +passed +batches: 1000 decisions/);
    const { policy: both } = (await grid.read(keys.policyPointer)) as { readonly policy: string };
    expect(await grid.read(keys.policyVersion(both))).toMatchObject({
      batching: { bytes: batchingBytes('batches').length },
    });
    expect((await policy('show', both)).out).toMatch(/forms batches, too: sha256 [0-9a-f]{64}, /);
    const { entry } = await grid.operator.get(keys.policyBatching(both), { deadlineMs: Infinity });
    expect(entry?.value).toBe(Buffer.from(batchingBytes('batches')).toString('base64'));
    // The same dispatch file alone is another version.
    await policy('shadow', quick);
    const { policy: alone } = (await grid.read(keys.policyPointer)) as { readonly policy: string };
    expect(alone).not.toBe(both);
    expect((await policy('shadow', quick, '--batching', quick)).err).toMatch(/a file about batching is needed here/);
    expect((await policy('shadow', both, '--batching', batches)).err).toMatch(/with the file of its dispatch policy/);
    expect((await policy('shadow', batches)).err).toMatch(/a file about dispatch is needed here/);
  });

  it('refuses corrupt, wrong-schema and NaN-producing files with the reason, and stores nothing of them', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    const whole = policyBytes('quick');
    const corrupt = file('corrupt.onnx', whole.subarray(0, whole.length / 2));
    const schema = file('schema.onnx', policyBytes('quick', { schema: 'dispatch/999' }));
    const nan = file('nan.onnx', policyBytes('quick', { nan: true }));
    for (const [path, reason] of [
      [corrupt, /the model's bytes|protobuf|is damaged|ends/],
      [schema, /its features are of schema 'dispatch\/999'/],
      [nan, /not finite|not a finite number/],
    ] as const) {
      const said = await policy('promote', path, '--force', '--reason', 'drill');
      expect(said.code, path).not.toBe(0);
      expect(said.err).toMatch(reason);
    }
    const tooLarge = file('large.onnx', new Uint8Array(256 * 1024 + 1));
    expect((await policy('shadow', tooLarge)).err).toContain('256 KiB');
    expect((await grid.operator.range(keys.policyVersions, { deadlineMs: Infinity })).entries).toEqual([]);
    expect(await grid.read(keys.policyPointer)).toBeUndefined();
    expect((await policy('shadow', 'absent')).err).toContain("there is no dispatch rule 'absent'");
  });

  it('refuses the second of two operators who promote at once, and says what the first did', async () => {
    const grid = new PretendGrid();
    const policy = await serve(grid);
    await policy('shadow', quick, '--reason', 'mine');
    const call = { deadlineMs: Infinity, caller: { tenant: 'x', namesTenant: true, mayUse: () => true } } as never;
    const { revision } = await grid.desk.policies(call);
    const order = {
      ...{
        step: 'shadow' as const,
        policy: '',
        evaluationJson: '',
        calibrationJson: '',
        percent: 0,
        sliceSeconds: 0,
        seed: 0,
      },
      ...{
        reason: 'theirs',
        force: false,
        decisionsMin: 0,
        answersMin: 0,
        shareMinutesMin: 0,
        expectedRevision: revision,
        dryRun: false,
      },
    } as const;
    const outcomes = await Promise.allSettled([
      grid.desk.orderPolicy({ ...order, artifact: policyBytes('other') }, call),
      grid.desk.orderPolicy({ ...order, artifact: policyBytes('third') }, call),
    ]);
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const refused = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(String(refused.reason)).toMatch(
      /somebody else changed the policies at .* through host a: (other|third)@[0-9a-f]{12} is asked beside own, which decides \(theirs\)/,
    );
    expect((await policy('list')).out).toMatch(/(other|third)@[0-9a-f]{12} is asked beside own/);
  });
});
