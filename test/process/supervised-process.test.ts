import { EventEmitter, once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { NodeClock } from '#adapters/node/clock.js';
import { SupervisedProcess } from '#adapters/process/supervised-process.js';
import { temporaryFolder } from '../e2e/temporary-folder.js';

const folder = temporaryFolder();
let scripts = 0;
const started: SupervisedProcess[] = [];
afterEach(async () => {
  for (const supervised of started.splice(0)) await supervised.stop(0);
});

/** A supervised script, and what it told. */
async function supervise(script: string, restarts = true) {
  const path = join(folder, `script-${(scripts += 1)}.mjs`);
  await writeFile(path, script);
  const events = new EventEmitter();
  const lines: string[] = [];
  const ends: { how: string; again: number | undefined }[] = [];
  const supervised = new SupervisedProcess({
    name: 'script',
    args: () => [path],
    env: process.env,
    clock: new NodeClock(),
    restarts,
    onLine: (line) => lines.push(line),
    onReady: (document) => events.emit('ready', document),
    onEnd: (how, again) => {
      ends.push({ how, again });
      events.emit('end');
    },
  });
  started.push(supervised);
  return { supervised, events, lines, ends };
}

const serves = `process.stderr.write('a line\\n');
process.stdout.write(JSON.stringify({ pid: process.pid, nested: { a: 1 } }, undefined, 2) + '\\n');
setInterval(() => {}, 1000);`;

describe('a supervised process', () => {
  it('is ready when its document is whole, and passes on what it logs', async () => {
    const { supervised, lines } = await supervise(serves);
    const document = await supervised.start();
    expect(document).toEqual({ pid: supervised.pid, nested: { a: 1 } });
    await supervised.stop(5000);
    expect(supervised.pid).toBeUndefined();
    expect(lines).toEqual(['a line']);
  });

  it('is started again with back-off when it was killed', async () => {
    const { supervised, events, ends } = await supervise(serves);
    await supervised.start();
    for (const again of [200, 400]) {
      const before = supervised.pid as number;
      const ready = once(events, 'ready');
      process.kill(before, 'SIGKILL');
      await ready;
      expect(supervised.pid).not.toBe(before);
      expect(ends.at(-1)).toEqual({ how: 'SIGKILL', again });
    }
  });

  it('stays ended where that was asked for', async () => {
    const { supervised, events, ends } = await supervise(serves, false);
    await supervised.start();
    const end = once(events, 'end');
    process.kill(supervised.pid as number, 'SIGKILL');
    await end;
    expect(ends).toEqual([{ how: 'SIGKILL', again: undefined }]);
    expect(supervised.pid).toBeUndefined();
  });

  it('says with its last words why it never became ready', async () => {
    const { supervised } = await supervise(
      `console.log('{"error": {}}'); process.stderr.write('port 1 is taken\\n'); process.exitCode = 3;`,
    );
    await expect(supervised.start()).rejects.toThrow('script ended before it was ready (exit code 3): port 1 is taken');
  });

  it('is killed when it does not end in time, and not started again', async () => {
    const { supervised, ends } = await supervise(`process.on('SIGTERM', () => {}); ${serves}`);
    await supervised.start();
    await supervised.stop(50);
    expect(supervised.pid).toBeUndefined();
    expect(ends).toEqual([]);
  });
});
