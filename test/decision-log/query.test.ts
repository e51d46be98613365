import { existsSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { convertOldest } from '#adapters/parquet/convert-journal.js';
import { queryLog } from '#compose/decision-log/query-log.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { pretendProgram, run } from '../cli/pretend-program.js';
import { LogWorld, temporaryFolder } from './log-world.js';

const ask = (folder: string, sql: string, more: { readonly rowsMax?: number; readonly msMax?: number } = {}) =>
  queryLog({ folder, sql, rowsMax: 1000, msMax: 30_000, ...more });

describe('queries of the decision log', () => {
  let folder = '';
  let remove: () => Promise<void>;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
    const world = new LogWorld({ policy: dispatchByName('cheapest-feasible'), folder });
    for (let count = 0; count < 4; count += 1) {
      world.nowMs += 500;
      const { request, index } = world.ask();
      if (count === 1) world.pickAgain(request);
      if (count < 3) world.answer(request, index, count === 2 ? 500 : 50);
    }
    // Named no time: nobody decided about it.
    world.fail({ ...world.ask().request, id: 99 as never }, 10, 'CANCELLED');
    world.close();
    convertOldest(folder);
  });
  afterEach(() => remove());

  it('see decisions, candidates, outcomes, and requests joined from them', async () => {
    const { columns, rows } = await ask(
      folder,
      'SELECT request, decisions, outcome, missed, policy, duration_ms FROM requests ORDER BY request',
    );
    expect(columns).toEqual(['request', 'decisions', 'outcome', 'missed', 'policy', 'duration_ms']);
    expect(rows).toEqual([
      ['1', '1', 'ok', false, 'cheapest-feasible:0.6+shed', 50],
      ['2', '2', 'ok', false, 'cheapest-feasible:0.6+shed', 50],
      ['3', '1', 'ok', true, 'cheapest-feasible:0.6+shed', 500],
      ['99', null, 'CANCELLED', true, null, 10],
    ]);
    expect((await ask(folder, 'SELECT count(*) FROM candidates WHERE place >= 0')).rows).toEqual([['18']]);
    expect((await ask(folder, 'SELECT min(slack) > 0, max(stages) FROM candidates')).rows).toEqual([[true, 0.125]]);
  });

  it('see journals that nobody has made tables of yet, and leave the log as it is', async () => {
    const running = new LogWorld({ policy: dispatchByName('sed'), folder, startedMs: 1000 });
    const { request, index } = running.ask();
    running.answer(request, index, 7);
    running.recorder.flush();
    const before = readdirSync(folder);
    const { rows, damaged } = await ask(
      folder,
      'SELECT policy, count(*) FROM requests WHERE policy IS NOT NULL GROUP BY 1 ORDER BY 1',
    );
    expect(rows).toEqual([
      ['cheapest-feasible:0.6+shed', '3'],
      ['sed', '1'],
    ]);
    expect(damaged).toEqual([]);
    expect(readdirSync(folder)).toEqual(before);
  });

  it('reach no other file, write none, attach nothing, install nothing and change no setting', async () => {
    const own = readdirSync(folder)[0] ?? '';
    const before = readFileSync(join(folder, own));
    const other = join(folder, '..', `outside-${process.pid}.csv`);
    for (const sql of [
      "SELECT * FROM read_csv('/etc/passwd')",
      "SELECT * FROM '/etc/passwd'",
      "SELECT * FROM read_text('/etc/hostname')",
      `SELECT * FROM read_text('${join(folder, '..')}/../etc/hostname')`,
      `SELECT * FROM read_blob('${folder}/../../etc/hostname')`,
      "SELECT * FROM glob('/etc/*')",
      "SELECT * FROM read_csv('https://example.com/x.csv')",
      `COPY (SELECT 1) TO '${other}'`,
      `COPY (SELECT 1) TO '${join(folder, 'inside.csv')}'`,
      `COPY (SELECT 1) TO '${join(folder, own)}'`,
      `EXPORT DATABASE '${join(folder, 'all')}'`,
      `ATTACH '${join(folder, 'new.db')}'`,
      'INSTALL httpfs',
      'LOAD httpfs',
      'SET enable_external_access = true',
      'SET lock_configuration = false',
      "SET allowed_directories = ['/']",
      'CREATE TABLE t AS SELECT 1',
      'DROP VIEW decisions',
      'PRAGMA enable_profiling',
      `EXPLAIN ANALYZE COPY (SELECT 1) TO '${join(folder, 'inside.csv')}'`,
      'SELECT 1; SELECT 2',
      'SELECT nonsense FROM decisions',
      '',
    ]) {
      await expect(ask(folder, sql), sql).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    expect(existsSync(other)).toBe(false);
    expect(readFileSync(join(folder, own)).equals(before)).toBe(true);
    expect(readdirSync(folder).filter((name) => !name.endsWith('.parquet'))).toEqual([]);
  });

  it('print as many rows as asked for and say that there are more', async () => {
    const some = await ask(folder, 'SELECT i FROM range(5000) AS t(i)', { rowsMax: 10 });
    expect(some.rows).toHaveLength(10);
    expect(some.isCut).toBe(true);
    expect((await ask(folder, 'SELECT i FROM range(10) AS t(i)', { rowsMax: 10 })).isCut).toBe(false);
  });

  it('end when their time is over', async () => {
    const endless = 'SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE (a.range * b.range) % 7 = 3';
    await expect(ask(folder, endless, { msMax: 300 })).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it('pass over a damaged file and name it', async () => {
    const damaged = readdirSync(folder).find((name) => name.startsWith('outcomes-')) ?? '';
    truncateSync(join(folder, damaged), 100);
    const answer = await ask(folder, 'SELECT count(*) FROM outcomes');
    expect(answer.rows).toEqual([['0']]);
    expect(answer.damaged.map(({ file }) => file)).toEqual([damaged]);
  });

  it('print a table on a terminal and JSON for programs', async () => {
    const { program } = pretendProgram({ queryLog });
    const sql = 'SELECT outcome, count(*) AS requests FROM requests GROUP BY outcome ORDER BY outcome DESC';
    const said = await run(['telemetry', 'query', sql, '--log', folder], program);
    expect(said.out.split('\n').map((line) => line.trim().split(/ +/u))).toEqual([
      ['outcome', 'requests'],
      ['ok', '3'],
      ['CANCELLED', '1'],
      [''],
    ]);
    const named = { env: { INTARSIA_DECISION_LOG: folder } };
    const { out } = await run(['telemetry', 'query', sql, '--json'], program, named);
    expect(JSON.parse(out)).toMatchObject({
      rows: [
        ['ok', '3'],
        ['CANCELLED', '1'],
      ],
    });
    const wrong = await run(['telemetry', 'query', 'DROP VIEW decisions', '--log', folder], program);
    expect(wrong.code).toBe(1);
    expect(wrong.err).toContain('a query is one SELECT');
  });

  it('say what to install where DuckDB is absent', async () => {
    vi.resetModules();
    vi.doMock('@duckdb/node-api', () => {
      throw new Error("Cannot find package '@duckdb/node-api'");
    });
    const { queryLog: without } = await import('#compose/decision-log/query-log.js');
    const failed = without({ folder, sql: 'SELECT 1', rowsMax: 1, msMax: 1000 });
    await expect(failed).rejects.toMatchObject({
      code: 'UNIMPLEMENTED',
      message: expect.stringContaining('npm install @duckdb/node-api') as string,
    });
    vi.doUnmock('@duckdb/node-api');
    vi.resetModules();
  });
});
