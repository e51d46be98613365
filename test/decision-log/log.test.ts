import { readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { convertOldest } from '#adapters/parquet/convert-journal.js';
import { idleProcessors } from '#adapters/parquet/journal-converter.js';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { figureCount, readFigures, writeFigures } from '#core/decision-log/figures.js';
import { currentLogFiles, logFileName, parseLogFileName, runStartMs } from '#core/decision-log/log-files.js';
import { logTables } from '#core/decision-log/log-tables.js';
import { newDispatchCandidate, SHED, type ChoiceTrace, type DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import {
  dispatchSchema,
  featureCount,
  featureNames,
  planFeatureCount,
  planSchema,
  writeRows,
} from '#core/scheduling/features.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { episodesOfLog } from '#policies/learning/logged-decisions.js';
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

  it('keeps what the fluid programme said of each candidate where the policy sees it, through journal and tables', async () => {
    const plan = new RatePlan();
    const seen: number[][] = [];
    const trace: ChoiceTrace = { propensity: 1, fallback: '', writePlan: (...at) => plan.write(...at) };
    const policy: DispatchPolicy = {
      name: 'planning',
      trace,
      choose: (request, candidates, fleet) => {
        plan.observe(request, candidates, fleet);
        const rows = new Float32Array((candidates.length + 1) * planFeatureCount);
        const count = writeRows(request, candidates, fleet, { usd: 0, joules: 0 }, rows, plan);
        seen.push([...rows.slice(0, count * planFeatureCount)]);
        const chosen = seen.length % 2;
        plan.chose(candidates[chosen]!);
        return chosen;
      },
    };
    const world = new LogWorld({ policy, folder, size: { decisions: 40, rows: 200, outcomes: 40 } });
    for (let index = 0; index < 100; index += 1) {
      world.nowMs += 90;
      world.ask();
    }
    world.close();
    const data = {
      decisions: await readLogTable(folder, 'decisions'),
      candidates: await readLogTable(folder, 'candidates'),
      outcomes: await readLogTable(folder, 'outcomes'),
    };
    expect(new Set(data.decisions.columns.get('schema'))).toEqual(new Set([planSchema]));
    const [episode] = episodesOfLog(data, planSchema);
    expect([...(episode?.decisions.rows ?? [])]).toEqual(seen.flat());
    expect(seen.at(-1)?.slice(featureCount, planFeatureCount)).toContain(1);
    // Others read what they know of it.
    const [narrow] = episodesOfLog(data, dispatchSchema);
    const cut = seen.flatMap((rows) => rows.filter((_, index) => index % planFeatureCount < featureCount));
    expect([...(narrow?.decisions.rows ?? [])]).toEqual(cut);
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
    const bytesMax = 150_000;
    const world = new LogWorld({ policy: rule(), folder, bytesMax, startedMs: 5000 });
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
    expect(world.folder.counts.removed).toBeGreaterThan(10);
    expect((await readLogTable(folder, 'decisions')).damaged).toEqual([]);
  });

  it('makes tables of closed journals, and a reader sees the same rows once before, after and whenever it was interrupted', async () => {
    const world = new LogWorld({ policy: rule(), folder, closeMs: 10_000 });
    for (let slice = 0; slice < 7; slice += 1) {
      world.nowMs += 3000;
      const { request, index } = world.ask();
      world.answer(request, index, 40);
      world.recorder.flush();
    }
    const journal = (first: number, last: number): string =>
      logFileName({ table: 'journal', run: world.run, first, last });
    expect(readdirSync(folder)).toEqual([journal(1, 5), journal(6, Infinity)]);
    const all = async () => {
      const tables = await Promise.all(logTables.map((table) => readLogTable(folder, table)));
      return tables.map(({ columns, damaged }) => ({ columns: [...columns], damaged }));
    };
    const before = await all();
    const bytes = readFileSync(join(folder, journal(1, 5)));
    expect(convertOldest(folder)).toBe(true);
    const tables = logTables.map((table) => logFileName({ table, run: world.run, first: 1, last: 5 }));
    expect(readdirSync(folder)).toEqual([...tables, journal(6, Infinity)].sort());
    expect(await all()).toEqual(before);
    // Interrupted after the first table, and before the journal went.
    writeFileSync(join(folder, journal(1, 5)), bytes);
    expect(await all()).toEqual(before);
    rmSync(join(folder, tables[1] ?? ''));
    expect(await all()).toEqual(before);
    expect(convertOldest(folder)).toBe(true);
    expect(convertOldest(folder)).toBe(false);
    expect(await all()).toEqual(before);
    expect(before[0]?.columns.find(([name]) => name === 'decision')?.[1]).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  it('takes over the journal that a run left when it crashed, and no journal that is written to', () => {
    const crashed = new LogWorld({ policy: rule(), folder });
    crashed.ask();
    crashed.recorder.flush();
    const name = logFileName({ table: 'journal', run: crashed.run, first: 1, last: Infinity });
    const running = new LogWorld({ policy: rule(), folder, startedMs: 1 });
    expect(running.folder.counts.waiting).toBe(0);
    expect(convertOldest(folder)).toBe(false);
    const longAgo = Date.now() / 1000 - 1000;
    utimesSync(join(folder, name), longAgo, longAgo);
    const next = new LogWorld({ policy: rule(), folder, startedMs: 2 });
    expect(next.folder.counts.waiting).toBe(1);
    expect(convertOldest(folder)).toBe(true);
    expect(readdirSync(folder)).toEqual(
      [logFileName({ table: 'decisions', run: crashed.run, first: 1, last: 1 })]
        .concat(logFileName({ table: 'candidates', run: crashed.run, first: 1, last: 1 }))
        .sort(),
    );
  });

  it('reads a journal up to where a crash left it, whatever the byte', async () => {
    const world = new LogWorld({ policy: rule(), folder, closeMs: 1e9 });
    const ends = [0];
    for (let slice = 0; slice < 3; slice += 1) {
      world.ask();
      world.recorder.flush();
      ends.push(world.folder.counts.bytes);
    }
    const path = join(folder, readdirSync(folder)[0] ?? '');
    const whole = readFileSync(path);
    for (let length = 1; length < whole.byteLength; length += 97) {
      writeFileSync(path, whole.subarray(0, length));
      const { rows, damaged } = await readLogTable(folder, 'decisions');
      expect(rows).toBe(ends.findLastIndex((end) => end <= length));
      expect(damaged).toEqual([]);
    }
  });

  it('passes over a damaged file and names it; the rest is read', async () => {
    const world = new LogWorld({ policy: rule(), folder, closeMs: 0 });
    for (let slice = 0; slice < 4; slice += 1) {
      world.ask();
      world.recorder.flush();
    }
    convertOldest(folder);
    convertOldest(folder);
    const named = (begin: string, slice: number): string =>
      readdirSync(folder).find((name) => name.startsWith(begin) && name.includes(`-0000000${slice}-`)) ?? '';
    truncateSync(join(folder, named('decisions', 2)), 700);
    const flipped = readFileSync(join(folder, named('journal', 4)));
    flipped.writeUInt8(flipped.readUInt8(flipped.byteLength - 5) ^ 1, flipped.byteLength - 5);
    writeFileSync(join(folder, named('journal', 4)), flipped);
    const read = await readLogTable(folder, 'decisions');
    expect(read.columns.get('request')).toEqual([1n, 3n]);
    expect(read.damaged.map(({ file }) => file)).toEqual([named('decisions', 2), named('journal', 4)]);
    expect(read.damaged[1]?.reason).toMatch(/checksum/u);
    // What cannot be read is not made into tables, and stays.
    expect([convertOldest(folder), convertOldest(folder)]).toEqual([true, false]);
    expect(readdirSync(folder)).toContain(named('journal', 4));
  });

  it('has files whose names tell table, run and slices, and takes no other file for its own', () => {
    const name = logFileName({ table: 'outcomes', run: '0mk3x1c2a_h.1_4711', first: 3, last: 120 });
    expect(parseLogFileName(name)).toEqual({ name, table: 'outcomes', run: '0mk3x1c2a_h.1_4711', first: 3, last: 120 });
    const journal = logFileName({ table: 'journal', run: '0mk3x1c2a_h.1_4711', first: 3, last: Infinity });
    expect(parseLogFileName(journal)).toMatchObject({ table: 'journal', first: 3, last: Infinity });
    const open = name.replace('00000120', 'open');
    for (const other of [
      'decisions.parquet',
      `x-${name}`,
      `${name}.partial`,
      name.replace('outcomes', 'prices'),
      open,
    ]) {
      expect(parseLogFileName(other)).toBeUndefined();
    }
    expect(runStartMs(new LogWorld({ policy: rule(), folder }).run)).toBe(startWallMs);
  });

  it('makes tables only while a processor has nothing to do', () => {
    const times = (idle: number, all: number) => ({ idle, all });
    expect(idleProcessors([], [times(5, 9)])).toBe(0);
    expect(idleProcessors([times(0, 0), times(10, 100)], [times(50, 100), times(10, 200)])).toBe(0.5);
    expect(idleProcessors([times(0, 0), times(0, 0)], [times(100, 100), times(25, 100)])).toBe(1.25);
    expect(idleProcessors([times(3, 8)], [times(3, 8)])).toBe(0);
  });

  it('says that there is no log where there is none', async () => {
    await expect(readLogTable(folder, 'decisions')).rejects.toThrow(/holds no decision log/u);
    await expect(readLogTable(join(folder, 'absent'), 'decisions')).rejects.toThrow(/cannot be read/u);
  });
});
