import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { figureCount, readFigures, writeFigures } from '#core/decision-log/figures.js';
import { currentLogFiles, logFileName, parseLogFileName, runStartMs } from '#core/decision-log/log-files.js';
import { newDispatchCandidate, SHED, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { featureCount, featureNames, writeRows } from '#core/scheduling/features.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { LogWorld, startWallMs, temporaryFolder } from './log-world.js';

let folder = '';
let remove: () => Promise<void>;
beforeEach(async () => {
  ({ path: folder, remove } = await temporaryFolder());
});
afterEach(() => remove());

const rule = (): DispatchPolicy => dispatchByName('cheapest-feasible');

describe('the decision log', () => {
  it('keeps exactly the rows that the policy saw, the mask, the choice, its chance, scores and reason', async () => {
    const seen: { readonly rows: Float32Array; readonly chosen: number }[] = [];
    const policy: DispatchPolicy = {
      name: 'seeing',
      trace: { propensity: 0.25, fallback: 'rare', scoreOf: (choice) => (choice === 1 ? Number.NaN : choice + 0.5) },
      choose: (request, candidates, fleet) => {
        const rows = new Float32Array((candidates.length + 1) * featureCount);
        const count = writeRows(request, candidates, fleet, { usd: 0, joules: 0 }, rows);
        const chosen = seen.length === 5 ? SHED : candidates.findIndex(({ masked }) => masked === '');
        seen.push({ rows: rows.slice(0, count * featureCount), chosen });
        return chosen;
      },
    };
    const world = new LogWorld({ policy, folder, size: { decisions: 4, rows: 12, outcomes: 4 } });
    for (let index = 0; index < 10; index += 1) {
      world.nowMs += 13.7;
      const [first] = world.candidates;
      if (first !== undefined) first.load.ready = index % 3 !== 0;
      world.ask(index % 2 === 0 ? {} : { sloClass: 'batch', sloMs: 900 }, index);
    }
    world.close();
    const decisions = await readLogTable(folder, 'decisions');
    const candidates = await readLogTable(folder, 'candidates');
    const column = (table: typeof decisions, name: string): readonly unknown[] => table.columns.get(name) ?? [];
    expect(decisions.rows).toBe(10);
    expect(column(decisions, 'chosen')).toEqual(seen.map(({ chosen }) => chosen));
    expect(column(decisions, 'device').slice(3, 7)).toEqual(['h1/cpu:1', 'h1/cpu:0', '', 'h1/cpu:1']);
    expect(new Set(column(decisions, 'propensity'))).toEqual(new Set([0.25]));
    expect(new Set(column(decisions, 'fallback'))).toEqual(new Set(['rare']));
    expect(new Set(column(decisions, 'policy'))).toEqual(new Set(['seeing']));
    expect((column(decisions, 'time')[0] as Date).getTime()).toBe(Math.floor(startWallMs + 13.7));
    for (const [index, { rows }] of seen.entries()) {
      const members = column(candidates, 'decision').flatMap((decision, row) => (decision === index ? [row] : []));
      expect(members.length).toBe(rows.length / featureCount);
      const logged = members.flatMap((row) => featureNames.map((name) => column(candidates, name)[row] as number));
      expect(logged).toEqual([...rows]);
      const masks = members.map((row) => column(candidates, 'masked')[row]);
      expect(masks.slice(0, 3)).toEqual([index % 3 === 0 ? 'not ready' : '', '', '']);
      const scores = members.map((row) => column(candidates, 'score')[row]);
      expect(scores).toEqual([0.5, null, 2.5, -0.5].slice(0, scores.length));
    }
  });

  it('keeps every figure of a candidate bit by bit', () => {
    const keys = Object.keys(newDispatchCandidate()).filter((key) => key !== 'masked');
    expect(keys).toHaveLength(figureCount);
    const value = fc.double({ noNaN: false });
    fc.assert(
      fc.property(
        fc.array(value, { minLength: keys.length, maxLength: keys.length }),
        fc.boolean(),
        (values, resident) => {
          const given = newDispatchCandidate();
          for (const [index, key] of keys.entries()) Object.assign(given, { [key]: values[index] });
          given.resident = resident;
          const figures = new Float64Array(figureCount + 2);
          writeFigures(given, figures, 1);
          const back = newDispatchCandidate();
          readFigures(figures, 1, '', back);
          expect(back).toEqual(given);
        },
      ),
    );
  });

  it('keeps what became of each request: answer, refusal or error, time, device, cost and energy', async () => {
    const world = new LogWorld({ policy: rule(), folder });
    const { request, index } = world.ask();
    world.answer(request, index, 80);
    world.fail(world.ask().request, 3, 'RESOURCE_EXHAUSTED', 'shed');
    world.fail(world.ask({ model: 'other' as never }).request, 250, 'DEADLINE_EXCEEDED');
    world.close();
    const { columns, rows } = await readLogTable(folder, 'outcomes');
    expect(rows).toBe(3);
    expect(columns.get('outcome')).toEqual(['ok', 'RESOURCE_EXHAUSTED', 'DEADLINE_EXCEEDED']);
    expect(columns.get('shed')).toEqual([false, true, false]);
    expect(columns.get('duration_ms')).toEqual([80, 3, 250]);
    expect(columns.get('model')).toEqual(['m', 'm', 'other']);
    expect(columns.get('device')).toEqual([`cpu:${index}`, '', '']);
    expect(columns.get('emulated')).toEqual([true, false, false]);
    // 10 ms at 0.36 USD an hour and 50 W, half of the batch.
    expect(columns.get('cost_usd')).toEqual([expect.closeTo(5e-7, 12), null, null]);
    expect(columns.get('joules')).toEqual([expect.closeTo(0.25, 9), null, null]);
    expect(columns.get('request')).toEqual([1n, 2n, 3n]);
  });

  it('logs all decisions and the outcome of a request or nothing of it, in the share that was asked for', async () => {
    const world = new LogWorld({ policy: rule(), folder, share: 0.3 });
    for (let count = 0; count < 3000; count += 1) {
      world.nowMs += 100;
      const { request, index } = world.ask();
      world.pickAgain(request);
      world.answer(request, index, 20);
    }
    world.close();
    const decisions = await readLogTable(folder, 'decisions', ['request']);
    const outcomes = await readLogTable(folder, 'outcomes', ['request']);
    const decided = decisions.columns.get('request') ?? [];
    const ended = outcomes.columns.get('request') ?? [];
    expect(new Set(decided)).toEqual(new Set(ended));
    expect(decided).toHaveLength(2 * ended.length);
    expect(ended.length / 3000).toBeGreaterThan(0.25);
    expect(ended.length / 3000).toBeLessThan(0.35);
    expect(world.recorder.counts.lost).toBe(0);
  });

  it('loses rows and counts them when whoever writes is behind, and goes on when there is room again', () => {
    const size = { decisions: 4, rows: 12, outcomes: 4 };
    const world = new LogWorld({ policy: rule(), folder, size, slices: 2, stuck: true });
    for (let count = 0; count < 20; count += 1) world.ask();
    expect(world.recorder.counts).toEqual({ decisions: 8, outcomes: 0, lost: 12 });
    world.recorder.free(0);
    world.ask();
    expect(world.recorder.counts).toEqual({ decisions: 9, outcomes: 0, lost: 12 });
  });

  it('stays below its bound on disk: the oldest files go first, also those of other runs, and are counted', async () => {
    const old = new LogWorld({ policy: rule(), folder });
    for (let count = 0; count < 100; count += 1) old.ask();
    old.close();
    const bytesMax = 60_000;
    const world = new LogWorld({ policy: rule(), folder, bytesMax, joinMs: 0, startedMs: 5000 });
    for (let slice = 0; slice < 40; slice += 1) {
      for (let count = 0; count < 20; count += 1) world.ask();
      world.recorder.flush();
      const held = readdirSync(folder).reduce((sum, name) => sum + readFileSync(join(folder, name)).byteLength, 0);
      expect(held).toBeLessThanOrEqual(bytesMax);
    }
    world.close();
    const files = currentLogFiles(readdirSync(folder));
    expect(new Set(files.map(({ run }) => run))).toEqual(new Set([world.run]));
    expect(files.at(-1)?.last).toBe(40);
    expect(world.folder.counts.removed).toBeGreaterThan(20);
    expect((await readLogTable(folder, 'decisions')).damaged).toEqual([]);
  });

  it('joins small files into one, and a reader sees each row once whenever the joining was interrupted', async () => {
    const world = new LogWorld({ policy: rule(), folder, joinMs: 10_000 });
    let leftover: { readonly name: string; readonly bytes: Uint8Array } | undefined;
    for (let slice = 0; slice < 5; slice += 1) {
      world.nowMs += 3000;
      world.ask();
      world.recorder.flush();
      const name = readdirSync(folder).find((each) => each.startsWith('decisions-') && each.includes('-00000002-'));
      if (name !== undefined) leftover ??= { name, bytes: readFileSync(join(folder, name)) };
    }
    expect(readdirSync(folder).filter((name) => name.startsWith('decisions-'))).toEqual([
      logFileName({ table: 'decisions', run: world.run, first: 1, last: 5 }),
    ]);
    writeFileSync(join(folder, leftover?.name ?? ''), leftover?.bytes ?? '');
    const { columns } = await readLogTable(folder, 'decisions');
    expect(columns.get('request')).toEqual([1n, 2n, 3n, 4n, 5n]);
    expect(columns.get('decision')).toEqual([0, 1, 2, 3, 4]);
  });

  it('passes over a damaged file and names it; the rest is read', async () => {
    const world = new LogWorld({ policy: rule(), folder, joinMs: 1e9 });
    for (let slice = 0; slice < 3; slice += 1) {
      world.ask();
      world.recorder.flush();
    }
    const names = readdirSync(folder).filter((name) => name.startsWith('decisions-'));
    const damaged = names.at(-1) ?? '';
    truncateSync(join(folder, damaged), 700);
    const read = await readLogTable(folder, 'decisions');
    expect(read.columns.get('request')).toEqual([1n, 2n]);
    expect(read.damaged).toEqual([{ file: damaged, reason: expect.stringMatching(/./u) as string }]);
  });

  it('has files whose names tell table, run and slices, and takes no other file for its own', () => {
    const name = logFileName({ table: 'outcomes', run: '0mk3x1c2a_h.1_4711', first: 3, last: 120 });
    expect(parseLogFileName(name)).toEqual({ name, table: 'outcomes', run: '0mk3x1c2a_h.1_4711', first: 3, last: 120 });
    for (const other of ['decisions.parquet', `x-${name}`, `${name}.partial`, name.replace('outcomes', 'prices')]) {
      expect(parseLogFileName(other)).toBeUndefined();
    }
    expect(runStartMs(new LogWorld({ policy: rule(), folder }).run)).toBe(startWallMs);
  });

  it('says that there is no log where there is none', async () => {
    await expect(readLogTable(folder, 'decisions')).rejects.toThrow(/holds no decision log/u);
    await expect(readLogTable(join(folder, 'absent'), 'decisions')).rejects.toThrow(/cannot be read/u);
  });
});
