import { execFile } from 'node:child_process';
import { appendFile, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ProfileFolder } from '#adapters/profile-files/profile-folder.js';
import { encodeLine, readLines } from '#adapters/profile-files/record-lines.js';
import type { ProfileRecord, ShardRecord } from '#core/profile/profile-record.js';
import { linkRecord, modelDigest, newYearMs, nodesRecord, shardRecord } from './records.js';

const dayMs = 86_400_000;
let path = '';
let nowMs = newYearMs;
const clock = { wallMs: () => nowMs };
const opened: ProfileFolder[] = [];

async function openFolder(change: Partial<Parameters<typeof ProfileFolder.open>[0]> = {}): Promise<ProfileFolder> {
  const folder = await ProfileFolder.open({ path, clock, ...change });
  opened.push(folder);
  return folder;
}

function shardsOf(records: readonly ProfileRecord[]): readonly ShardRecord[] {
  return records.filter((record) => record.type === 'shard');
}

async function files(prefix: string): Promise<readonly string[]> {
  return (await readdir(path)).filter((name) => name.startsWith(prefix));
}

beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'profiles-'));
  nowMs = newYearMs;
});
afterEach(async () => {
  for (const folder of opened.splice(0)) await folder.close().catch(() => undefined);
  await rm(path, { recursive: true, force: true });
});

describe('lines of profile files', () => {
  it('give back every value that is whole, wherever a file is cut or damaged', () => {
    const values = fc.array(fc.record({ a: fc.integer(), b: fc.string() }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(values, fc.nat(), fc.nat(), (list, cut, flip) => {
        const lines = list.map(encodeLine);
        const bytes = Buffer.concat(lines);
        const read: unknown[] = [];
        const end = cut % (bytes.byteLength + 1);
        const { wholeBytes, tornBytes } = readLines(bytes.subarray(0, end), (value) => read.push(value));
        expect(wholeBytes + tornBytes).toBe(end);
        expect(read).toEqual(list.slice(0, read.length));
        const damaged = Uint8Array.from(bytes);
        const at = flip % bytes.byteLength;
        damaged[at] = (damaged[at] as number) ^ 1;
        const left: unknown[] = [];
        readLines(damaged, (value) => left.push(value));
        // The line with the flipped bit, and the next where the flip hit the newline between them.
        expect(left.length).toBeGreaterThanOrEqual(list.length - 2);
        expect(left.length).toBeLessThan(list.length);
        for (const value of left) expect(list).toContainEqual(value);
      }),
    );
  });
});

describe('the folder of profiles', () => {
  it('gives each key once with its times added up, over a restart', async () => {
    const first = await openFolder();
    await first.append([shardRecord([1]), linkRecord(8, [2]), nodesRecord([1, 2])]);
    await first.append([shardRecord([3]), shardRecord([5], { batch: 2 })]);
    await first.close();
    const { records, problems } = await (await openFolder()).read();
    expect(problems).toEqual([]);
    expect(records).toHaveLength(4);
    expect(shardsOf(records).map(({ batch, times }) => [batch, times.count, times.sumMs])).toEqual([
      [1, 2, 4],
      [2, 1, 5],
    ]);
  });

  it('skips a torn end and a damaged line, names both, and loses nothing else', async () => {
    const folder = await openFolder();
    await folder.append([shardRecord([1]), shardRecord([2], { batch: 2 }), shardRecord([3], { batch: 3 })]);
    const [name = ''] = await files('w-');
    const bytes = await readFile(join(path, name));
    const middle = bytes.indexOf('"batch":2');
    bytes[middle] = 0x27;
    await writeFile(join(path, name), Buffer.concat([bytes, Buffer.from('0badc0de {"type":"sh')]));
    const { records, problems } = await (await openFolder()).read();
    expect(shardsOf(records).map(({ batch }) => batch)).toEqual([1, 3]);
    expect(problems).toHaveLength(2);
    expect(problems.join('\n')).toMatch(/damaged bytes skipped[\s\S]*torn end of 20 bytes skipped/);
  });

  it('refuses what is no record and writes nothing of the call', async () => {
    const folder = await openFolder();
    await expect(folder.append([shardRecord([1]), shardRecord([])])).rejects.toThrow(/not as this version writes it/);
    expect((await folder.read()).records).toEqual([]);
  });

  it('compacts to one snapshot that says the same, and goes on', async () => {
    const folder = await openFolder();
    for (let run = 1; run <= 20; run += 1) await folder.append([shardRecord([run]), linkRecord(8, [run])]);
    const before = await folder.read();
    const report = await folder.compact();
    expect(report).toMatchObject({ done: true, expired: 0, dropped: 0 });
    expect(report.bytesAfter).toBeLessThan(report.bytesBefore / 5);
    expect((await folder.read()).records).toEqual(before.records);
    expect(await readdir(path)).toEqual(['snapshot-000000000001.jsonl']);
    await folder.append([shardRecord([21])]);
    expect(shardsOf((await folder.read()).records)[0]?.times.count).toBe(21);
    expect(await folder.compact()).toMatchObject({ done: true });
    expect(await folder.compact()).toMatchObject({ done: false });
    expect(shardsOf((await folder.read()).records)[0]?.times.count).toBe(21);
  });

  it('covers files of living processes without touching them, and counts nothing twice', async () => {
    const [a, b] = [await openFolder(), await openFolder()];
    await a.append([shardRecord([1])]);
    await b.append([shardRecord([2])]);
    await a.compact();
    expect(await files('w-')).toHaveLength(1);
    await b.append([shardRecord([4])]);
    await a.append([shardRecord([8])]);
    for (const folder of [a, b]) {
      const [shard] = shardsOf((await folder.read()).records);
      expect(shard?.times).toMatchObject({ count: 4, sumMs: 15 });
    }
  });

  it('deletes files of ended processes, and who still holds one begins another', async () => {
    const [a, b] = [await openFolder(), await openFolder()];
    await b.append([shardRecord([2])]);
    const [name = ''] = await files('w-');
    await utimes(join(path, name), new Date(nowMs - dayMs), new Date(nowMs - dayMs));
    await a.append([shardRecord([1])]);
    await a.compact();
    expect(await files('w-')).toEqual([]);
    await b.append([shardRecord([4])]);
    const [shard] = shardsOf((await a.read()).records);
    expect(shard?.times).toMatchObject({ count: 3, sumMs: 7 });
  });

  it('lets one of several compactions at once win and loses no record', async () => {
    const folders = await Promise.all(Array.from({ length: 6 }, () => openFolder()));
    await Promise.all(
      folders.map(async (folder, index) => {
        for (let run = 0; run < 10; run += 1) {
          await folder.append([shardRecord([1], { batch: 1 + index })]);
          if (run % 3 === index % 3) await folder.compact();
        }
      }),
    );
    const reader = await openFolder();
    const { records, problems } = await reader.read();
    expect(problems).toEqual([]);
    expect(shardsOf(records).map(({ batch, times }) => [batch, times.count])).toEqual(
      expect.arrayContaining([1, 2, 3, 4, 5, 6].map((batch) => [batch, 10])),
    );
    expect(await files('snapshot-')).toHaveLength(1);
  });

  it('survives the end of a process in the middle of its appends', async () => {
    const script = `
      import { openSync, writeSync } from 'node:fs';
      import { crc32 } from 'node:zlib';
      const record = ${JSON.stringify(shardRecord([1]))};
      const file = openSync(${JSON.stringify(join(path, `w-99999-${'a'.repeat(16)}.jsonl`))}, 'a');
      for (let run = 0; ; run += 1) {
        const json = JSON.stringify(record);
        const line = crc32(json).toString(16).padStart(8, '0') + ' ' + json + '\\n';
        if (run === 50) { writeSync(file, line.slice(0, 200)); process.kill(process.pid, 'SIGKILL'); }
        writeSync(file, line);
      }`;
    await expect(promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])).rejects.toMatchObject({
      signal: 'SIGKILL',
    });
    const folder = await openFolder();
    const { records, problems } = await folder.read();
    expect(shardsOf(records)[0]?.times.count).toBe(50);
    expect(problems).toHaveLength(1);
    await folder.append([shardRecord([1])]);
    expect(shardsOf((await folder.read()).records)[0]?.times.count).toBe(51);
  });

  it('drops measurements as they expire, day by day', async () => {
    const folder = await openFolder();
    await folder.append([shardRecord([1]), shardRecord([2], { atMs: newYearMs + 50 * dayMs })]);
    nowMs = newYearMs + 60 * dayMs;
    expect(shardsOf((await folder.read()).records)[0]?.times.count).toBe(2);
    nowMs = newYearMs + 100 * dayMs;
    expect(shardsOf((await folder.read()).records)[0]?.times).toMatchObject({ count: 1, sumMs: 2 });
    expect(await folder.compact()).toMatchObject({ done: true, expired: 1 });
  });

  it('stays within its bound by dropping the oldest, and says how many', async () => {
    const folder = await openFolder({ bytesMax: 20_000 });
    const records = Array.from({ length: 100 }, (_, index) =>
      shardRecord([1], { batch: index + 1, atMs: newYearMs + index }),
    );
    await folder.append(records);
    const report = await folder.compact();
    expect(report.dropped).toBeGreaterThan(50);
    const [name = ''] = await files('snapshot-');
    expect((await stat(join(path, name))).size).toBeLessThan(20_000);
    const left = shardsOf((await folder.read()).records).map(({ batch }) => batch);
    expect(left).toHaveLength(100 - report.dropped);
    expect(Math.min(...left)).toBe(report.dropped + 1);
  });

  it('compacts by itself as it grows', async () => {
    const folder = await openFolder({ compactEveryBytes: 5_000 });
    for (let run = 0; run < 60; run += 1) await folder.append([shardRecord([1])]);
    expect(await files('snapshot-')).toHaveLength(1);
    expect(shardsOf((await folder.read()).records)[0]?.times.count).toBe(60);
  });

  it('counts the latest snapshot of another host only, however often it comes', async () => {
    const folder = await openFolder();
    await folder.append([shardRecord([1])]);
    const of = (atMs: number, times: readonly number[]) => ({
      ...{ host: 'beta', model: modelDigest, atMs },
      records: [shardRecord(times, { host: 'beta' })],
    });
    await folder.take(of(newYearMs, [2, 2]));
    await folder.take(of(newYearMs + 1, [2, 2, 2]));
    await folder.take(of(newYearMs, [2, 2]));
    await folder.take({ host: 'alpha', model: modelDigest, atMs: newYearMs, records: [shardRecord([9])] });
    await folder.compact();
    const counts = shardsOf((await folder.read()).records).map(({ host, times }) => [host, times.count]);
    expect(counts).toEqual([
      ['alpha', 1],
      ['beta', 3],
    ]);
    expect((await folder.read({ host: 'beta' })).records).toHaveLength(1);
    expect((await folder.read({ model: 'cd'.repeat(32) })).records).toEqual([]);
    await expect(folder.take({ ...of(1, [1]), host: 'gamma' })).rejects.toThrow(/snapshot of host 'gamma'/);
  });

  it('leaves files of others in its folder alone', async () => {
    await writeFile(join(path, 'notes.txt'), 'mine');
    await appendFile(join(path, 'w-1-short.jsonl'), 'not one of ours');
    const folder = await openFolder();
    await folder.append([shardRecord([1])]);
    await folder.compact();
    expect((await readdir(path)).sort()).toEqual(['notes.txt', 'snapshot-000000000001.jsonl', 'w-1-short.jsonl']);
  });
});
