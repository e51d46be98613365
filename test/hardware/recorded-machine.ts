/**
 * A machine as a text file: each `-- path --` line begins a file of it, `-- $ command --` the output of a command,
 * `-- ! command --` one that fails with that text, and `-- @machine --` its platform, variables and forbidden paths.
 * A path that begins with `*` stands for any path with that end. What is not recorded is absent.
 */
import { readFileSync } from 'node:fs';
import type { CommandOutcome, SystemReader } from '#adapters/hardware/system-reader.js';

export interface RecordedMachine extends SystemReader {
  /** Replaces or adds a file, for readings that change. */
  write(path: string, text: string): void;
  /** Commands asked for so far. */
  readonly commands: readonly string[];
}

export function recordedMachine(name: string): RecordedMachine {
  const text = readFileSync(new URL(`fixtures/${name}.txt`, import.meta.url), 'utf8');
  return machineOf(text);
}

export function machineOf(text: string): RecordedMachine {
  const files = new Map<string, string>();
  for (const section of text.split(/^(?=-- .+ --$)/m)) {
    const [, name, body] = /^-- (.+) --\n([\s\S]*)$/.exec(section) ?? [];
    if (name !== undefined && body !== undefined) files.set(name, body);
  }
  const settings = new Map(
    (files.get('@machine') ?? '').split('\n').flatMap((line) => {
      const [, key, value] = /^([^=]+)=(.*)$/.exec(line) ?? [];
      return key === undefined ? [] : [[key, value ?? ''] as const];
    }),
  );
  const find = (path: string): string | undefined =>
    files.get(path) ?? [...files].find(([name]) => name.startsWith('*') && path.endsWith(name.slice(1)))?.[1];
  const denied = new Set((settings.get('denied') ?? '').split(' '));
  const commands: string[] = [];
  const recorded = (mark: string, command: string): string | undefined =>
    [...files].find(([name]) => name.startsWith(`${mark} `) && command.startsWith(name.slice(2)))?.[1];
  return {
    platform: settings.get('platform') ?? 'linux',
    arch: settings.get('arch') ?? 'x64',
    hostname: settings.get('hostname') ?? 'recorded',
    kernel: settings.get('kernel') ?? '6.8.0',
    env: Object.fromEntries(
      [...settings].filter(([key]) => key.startsWith('env.')).map(([key, value]) => [key.slice(4), value]),
    ),
    basics: {
      cpuModel: settings.get('cpuModel') ?? 'unknown processor',
      logicalCores: Number(settings.get('logicalCores') ?? 1),
      totalBytes: Number(settings.get('totalBytes') ?? 2 ** 30),
      freeBytes: 2 ** 29,
    },
    readText: (path) => Promise.resolve(denied.has(path) ? undefined : find(path)),
    list: (path) => {
      const names = new Set(
        [...files.keys()]
          .filter((name) => name.startsWith(`${path}/`))
          .map((name) => name.slice(path.length + 1).split('/')[0]!),
      );
      return Promise.resolve([...names].sort((a, b) => a.localeCompare(b, 'en', { numeric: true })));
    },
    access: (path) => {
      if (denied.has(path)) return Promise.resolve('denied');
      return Promise.resolve(find(path) === undefined ? 'absent' : 'readable');
    },
    run: (command, args): Promise<CommandOutcome> => {
      const line = `${command === process.execPath ? 'node' : command} ${args.join(' ')}`;
      commands.push(line);
      const output = recorded('$', line);
      if (output !== undefined) return Promise.resolve({ ok: true, stdout: output });
      return Promise.resolve({ ok: false, reason: recorded('!', line)?.trim() ?? 'absent' });
    },
    write: (path, body) => void files.set(path, body),
    commands,
  };
}
