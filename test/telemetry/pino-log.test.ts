import { execFileSync } from 'node:child_process';
import { closeSync, constants, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openPinoLog } from '#adapters/pino/pino-log.js';
import type { LogHandle, LogLevel } from '#adapters/pino/pino-log.js';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'intarsia-log-'))));
afterEach(() => rmSync(folder, { recursive: true }));

const path = (): string => join(folder, 'host.log');
const open = (options: { level?: LogLevel; format?: 'json' | 'pretty' } = {}): LogHandle =>
  openPinoLog({
    level: options.level ?? 'info',
    format: options.format ?? 'json',
    destination: path(),
    fields: { host: 'h1' },
  });

/**
 * The text once it has so many lines. The file is opened a moment after the log is made, and a write that is on its way to
 * the system is not awaited by `flush`.
 */
async function textOf(handle: LogHandle, lines = 1): Promise<string> {
  for (;;) {
    try {
      handle.flush();
    } catch (error) {
      if (!String(error).includes('not ready')) throw error;
    }
    const text = existsSync(path()) ? readFileSync(path(), 'utf8') : '';
    if (text.endsWith('\n') && text.split('\n').length > lines) return text;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('pino log', () => {
  it('writes one JSON object a line with time, level, message and fields', async () => {
    const handle = open();
    handle.log.with({ device: 'cpu:0' }).info('model loaded', { model: 'digits', loadMs: 12.5 });
    const line = JSON.parse(await textOf(handle)) as Record<string, unknown>;
    expect(line).toMatchObject({
      level: 'info',
      message: 'model loaded',
      host: 'h1',
      device: 'cpu:0',
      model: 'digits',
      loadMs: 12.5,
    });
    expect(line['time']).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
  });

  it('never shows a secret, whichever way it comes in', async () => {
    const handle = open();
    const log = handle.log.with({ apiKey: 'sk-aaaa' });
    log.warn('refused Bearer sk-bbbb', {
      token: 'sk-cccc',
      Authorization: 'sk-dddd',
      note: 'header was Bearer sk-eeee',
      tokens: 7,
    });
    log.error('cannot reach http://user:sk-ffff@peer:8001/x', {
      'private-key': 'sk-gggg',
      clientPassword: 'sk-hhhh',
      set_cookie: 'sk-iiii',
    });
    const text = await textOf(handle, 2);
    expect(text).not.toContain('sk-');
    expect(text).toContain('"tokens":7');
    expect(text).toContain('http://user:[redacted]@peer:8001/x');
  });

  it('changes its level while it runs, for every log that was made from it', async () => {
    const handle = open({ level: 'warn' });
    const child = handle.log.with({ part: 'gateway' });
    child.info('hidden');
    handle.setLevel('debug');
    child.debug('shown');
    handle.setLevel('silent');
    child.error('hidden too');
    expect(handle.level()).toBe('silent');
    const lines = (await textOf(handle)).trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { message: string }).message)).toEqual(['shown']);
  });

  it('writes lines for people, and no message can forge a second line', async () => {
    const handle = open({ format: 'pretty' });
    handle.log.warn('device lost\n00:00:00.000 info  all is well', {
      device: 'cuda:0',
      reason: 'fell off the bus',
      share: 0.5,
    });
    const text = await textOf(handle);
    expect(text).toMatch(/^\d\d:\d\d:\d\d\.\d{3} WARN {2}device lost\\n00:00:00\.000 info {2}all is well host=h1 /);
    expect(text).toContain(' device=cuda:0 reason="fell off the bus" share=0.5\n');
    expect(text.trimEnd()).not.toContain('\n');
  });

  it('drops and counts lines instead of blocking when nobody reads', () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const fd = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
    const handle = openPinoLog({ level: 'info', format: 'json', destination: fd, bufferBytesMax: 100_000 });
    for (let line = 0; line < 5000; line += 1) handle.log.info('x'.repeat(200));
    // 5,000 lines are more than 1 MB; the pipe holds 64 KiB and the buffer 100 KB.
    expect(handle.droppedLines()).toBeGreaterThan(3000);
    closeSync(fd);
  });
});
