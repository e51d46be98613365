import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findTritonClient } from '../conformance/python-clients.js';
import { repositoryRoot } from './host-process.js';
import { readFences } from './markdown-fences.js';
import { temporaryFolder } from './temporary-folder.js';

const fences = readFences(readFileSync(join(repositoryRoot, 'README.md'), 'utf8'), 'A walk through');
const commands = fences.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.trim().split('\n'));
const [serve, ...others] = commands;

/** What a newcomer must see, by how the command of the README begins. */
const sights: readonly (readonly [command: string, sight: RegExp])[] = [
  ['npx intarsia devices', /^cpu:0 +cpu /m],
  ['npx intarsia models list', /^digits +1 +READY$/m],
  ['npx intarsia models inspect digits', /^input +image +FP32 +\[-1,1,28,28\]$/m],
  ['npx intarsia infer digits', /^rank +class +label +value\n1 +7 +seven /m],
  ['npx intarsia bench serve', /^answered well +[\d.]+ +\d+\nfailed +0 +0$/m],
  ['npx intarsia status', /^digits +1 +\d+ +0 +\d+ /m],
];

const folder = temporaryFolder();
const triton = await findTritonClient(
  resolve(process.env['INTARSIA_TRITONCLIENT'] ?? 'node_modules/.cache/intarsia/tritonclient'),
);
const note = triton.ok ? '' : ` (partly skipped: ${triton.reason})`;

interface Run {
  readonly code: number | null;
  readonly output: string;
}

/** Runs a line as a shell does, with what it prints to both of its outputs. */
function start(
  line: string,
  env: Readonly<Record<string, string>> = {},
): {
  readonly ended: Promise<Run>;
  /** Resolves when the output matches; rejects when it ends before. */
  seen(sight: RegExp): Promise<string>;
  /** As Ctrl-C does: to every process of the line. */
  interrupt(): void;
} {
  const child = spawn('sh', ['-c', line], {
    cwd: repositoryRoot,
    env: { ...process.env, NO_COLOR: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  let closed = false;
  const look: (() => void)[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      for (const each of look) each();
    });
  }
  const interrupt = (): void => {
    if (!closed && child.pid !== undefined) process.kill(-child.pid, 'SIGINT');
  };
  process.once('exit', interrupt);
  const ended = new Promise<Run>((done, failed) => {
    child.once('error', failed);
    child.once('close', (code) => {
      closed = true;
      process.removeListener('exit', interrupt);
      done({ code, output });
    });
  });
  const seen = (sight: RegExp): Promise<string> =>
    new Promise((found, missed) => {
      const check = (): void => {
        if (sight.test(output)) found(output);
      };
      look.push(check);
      check();
      void ended.then(({ code }) => missed(new Error(`"${line}" ended with ${String(code)}: ${output}`)), missed);
    });
  return { ended, seen, interrupt };
}

describe(`the walk through of the README${note}`, () => {
  let host: ReturnType<typeof start>;
  let endpoint = '';

  beforeAll(async () => {
    // The README has the default ports, which may be taken here.
    host = start(serve ?? '', { INTARSIA_GRPC_PORT: '0', INTARSIA_HTTP_PORT: '0', INTARSIA_METRICS_PORT: '0' });
    const output = await host.seen(/Press Ctrl-C to stop/);
    endpoint = /^gRPC .* (127\.0\.0\.1:\d+)$/m.exec(output)?.[1] ?? '';
  }, 120_000);

  afterAll(async () => {
    host.interrupt();
    await host.ended;
  });

  const here = (text: string): string => {
    expect(text).toContain('127.0.0.1:8001');
    return text.replaceAll('127.0.0.1:8001', endpoint);
  };

  it('begins with a host and has nothing that is not tried here', () => {
    expect(serve).toMatch(/^npx intarsia serve --repository \S+$/);
    expect(endpoint).not.toBe('');
    expect(others.filter((command) => !sights.some(([known]) => command.startsWith(known)))).toEqual([]);
    expect(others).toHaveLength(sights.length);
    expect([...new Set(fences.map(({ language }) => language))]).toEqual(['sh', 'python', 'ts']);
  });

  it.each(sights)('%s … shows what the README says', { timeout: 60_000 }, async (known, sight) => {
    const command = others.find((line) => line.startsWith(known)) ?? '';
    const { code, output } = await start(command, { INTARSIA_ENDPOINT: endpoint }).ended;
    expect(output).toMatch(sight);
    expect(code, output).toBe(0);
  });

  it.skipIf(!triton.ok)('the Python lines work as printed', { timeout: 60_000 }, async () => {
    const file = join(folder, 'walk.py');
    await writeFile(file, here(fences.find(({ language }) => language === 'python')?.text ?? ''));
    const { client } = triton as Extract<typeof triton, { ok: true }>;
    const { code, output } = await start(`${client.python} ${file}`, { PYTHONPATH: client.packages ?? '' }).ended;
    expect(code, output).toBe(0);
    expect(output).toMatch(/^\[\[[^\]]+\]\] [\d.e-]+$/m);
  });

  it('the TypeScript lines compile and work as printed', { timeout: 120_000 }, async () => {
    const project = join(folder, 'project');
    await mkdir(join(project, 'node_modules'), { recursive: true });
    await symlink(repositoryRoot, join(project, 'node_modules/intarsia'), 'dir');
    await writeFile(join(project, 'package.json'), '{ "type": "module" }');
    await writeFile(join(project, 'walk.ts'), here(fences.find(({ language }) => language === 'ts')?.text ?? ''));
    const compilerOptions = { strict: true, module: 'nodenext', target: 'es2022', lib: ['es2022', 'dom'], types: [] };
    await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['walk.ts'] }));
    const compiler = join(repositoryRoot, 'node_modules/typescript/bin/tsc');
    const compiled = await start(`${process.execPath} ${compiler} -p ${project}`).ended;
    expect(compiled).toEqual({ code: 0, output: '' });
    const { code, output } = await start(`${process.execPath} ${join(project, 'walk.js')}`).ended;
    expect(code, output).toBe(0);
    expect(output).toMatch(/Float32Array\(10\) \[/);
    expect(output).toMatch(/device: 'cpu:0'/);
  });
});
