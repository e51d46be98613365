import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import type * as DecisionLogModule from '#adapters/parquet/decision-log.js';
import { readLogTable } from '#adapters/parquet/read-decision-log.js';
import { newDispatchCandidate, newFleetView } from '#core/scheduling/dispatch-view.js';
import { NodeClock } from '#adapters/node/clock.js';
import type { Log } from '#ports/log.js';
import { temporaryFolder } from './log-world.js';

const built = (path: string): string => pathToFileURL(join(import.meta.dirname, '../../dist/src', path)).href;

/** Takes down a decision every few ms and says so; ends cleanly at SIGTERM. */
const writer = (folder: string): string => `
  const { openDecisionLog } = await import(${JSON.stringify(built('adapters/parquet/decision-log.js'))});
  const { NodeClock } = await import(${JSON.stringify(built('adapters/node/clock.js'))});
  const { newDispatchCandidate, newFleetView } = await import(${JSON.stringify(built('core/scheduling/dispatch-view.js'))});
  const clock = new NodeClock();
  const quiet = { debug() {}, info() {}, warn() {}, error() {} };
  const log = await openDecisionLog({
    folder: ${JSON.stringify(folder)}, bytesMax: 2 ** 30, share: 1, host: 'h1', clock, log: quiet,
  });
  const replicas = [{ replica: { stages: [{ host: 'h1', device: 'cpu:0' }] } }];
  const candidates = [newDispatchCandidate()];
  const fleet = newFleetView();
  let id = 0;
  const timer = setInterval(() => {
    id += 1;
    const nowMs = clock.nowMs();
    const dispatch = { model: 'm', items: 1, sloMs: 100, class: 'standard', nowMs, arrivedMs: nowMs, mayShed: false };
    log.decided({ request: { id }, dispatch, replicas, start: 0, candidates, fleet, chosen: 0, policy: { name: 'rule' } });
    process.stdout.write(id + ' ' + nowMs + '\\n');
  }, 3);
  process.on('SIGTERM', async () => {
    clearInterval(timer);
    await log.close();
    process.exit(0);
  });
`;

interface Written {
  readonly id: number;
  readonly atMs: number;
}

/** Lets it write for so long by its own clock, sends the signal, and answers what it said it had taken down. */
async function writeUntil(folder: string, forMs: number, signal: NodeJS.Signals): Promise<readonly Written[]> {
  const child: ChildProcess = spawn(process.execPath, ['--input-type=module', '-e', writer(folder)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const written: Written[] = [];
  if (child.stdout === null) throw new Error('no output');
  for await (const line of createInterface({ input: child.stdout })) {
    const [id = 0, atMs = 0] = line.split(' ').map(Number);
    written.push({ id, atMs });
    if (atMs - (written[0]?.atMs ?? 0) > forMs) child.kill(signal);
  }
  return written;
}

describe('a decision log of a process', () => {
  let folder = '';
  let remove: () => Promise<void>;
  beforeEach(async () => {
    ({ path: folder, remove } = await temporaryFolder());
  });
  afterEach(() => remove());

  it('loses at most the last second when the process is killed', async () => {
    const written = await writeUntil(folder, 2600, 'SIGKILL');
    const lastMs = written.at(-1)?.atMs ?? 0;
    const sure = written.filter(({ atMs }) => atMs < lastMs - 1000).map(({ id }) => id);
    expect(sure.length).toBeGreaterThan(100);
    const { columns, damaged } = await readLogTable(folder, 'decisions');
    expect(damaged).toEqual([]);
    const kept = new Set((columns.get('request') ?? []).map(Number));
    expect(sure.filter((id) => !kept.has(id))).toEqual([]);
  }, 60_000);

  it('loses nothing when the process ends by itself', async () => {
    const written = await writeUntil(folder, 700, 'SIGTERM');
    const { columns } = await readLogTable(folder, 'decisions');
    const kept = (columns.get('request') ?? []).map(Number);
    expect(kept).toEqual(written.map(({ id }) => id));
    // And leaves tables, which everybody reads, instead of journals.
    expect(readdirSync(folder).every((name) => name.endsWith('.parquet'))).toBe(true);
  }, 60_000);
});

const place = await temporaryFolder();
const disk = join(place.path, 'disk');
mkdirSync(disk);
const isMounted =
  process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk]).status === 0;
afterAll(async () => {
  if (isMounted) spawnSync('umount', ['-l', disk]);
  await place.remove();
});

describe.skipIf(!isMounted)('a full disk (skipped where a small file system cannot be mounted)', () => {
  it('stops the log, which counts what it loses and warns once; whoever decides notices nothing', async () => {
    const { openDecisionLog } = (await import(built('adapters/parquet/decision-log.js'))) as typeof DecisionLogModule;
    const warnings: string[] = [];
    let warned: () => void;
    const hasWarned = new Promise<void>((resolve) => (warned = resolve));
    const log = {
      warn: (message: string) => {
        warnings.push(message);
        warned();
      },
    } as unknown as Log;
    const decisions = await openDecisionLog({
      ...{ folder: join(disk, 'log'), bytesMax: 2 ** 30, share: 1, host: 'h1', clock: new NodeClock(), log },
    });
    const candidates = Array.from({ length: 16 }, (_, device) => ({ ...newDispatchCandidate(), device }));
    const replicas = candidates.map(({ device }) => ({
      replica: { stages: [{ host: 'h1', device: `cpu:${device}` }] },
    }));
    let id = 0;
    const decide = (): void => {
      id += 1;
      for (const [index, candidate] of candidates.entries()) candidate.netMs = Math.sin(id * 16 + index) * 1e6;
      decisions.decided({
        request: { id } as never,
        dispatch: { model: 'm', items: 1, sloMs: 100, class: 'standard', nowMs: id, arrivedMs: id, mayShed: false },
        replicas: replicas as never,
        ...{ start: 0, candidates, fleet: newFleetView(), chosen: 0, policy: { name: 'rule', choose: () => 0 } },
      });
    };
    for (let count = 0; count < 20_000; count += 1) decide();
    await hasWarned;
    const before = decisions.counts;
    expect(before.failure).toMatch(/ENOSPC|no space/iu);
    for (let count = 0; count < 100; count += 1) decide();
    expect(decisions.counts.lost).toBe(before.lost + 100);
    await decisions.close();
    expect(warnings).toEqual(['the decision log has stopped; requests are served as before']);
  }, 60_000);

  it('or a folder that cannot be made refuses the host its start, by name', async () => {
    const { openDecisionLog } = (await import(built('adapters/parquet/decision-log.js'))) as typeof DecisionLogModule;
    const log = { warn: () => undefined } as unknown as Log;
    const opening = openDecisionLog({
      ...{
        folder: join(import.meta.filename, 'log'),
        bytesMax: 2 ** 30,
        share: 1,
        host: 'h1',
        clock: new NodeClock(),
        log,
      },
    });
    await expect(opening).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(opening).rejects.toThrow(/ENOTDIR.*crash\.test\.ts/u);
  }, 60_000);
});
