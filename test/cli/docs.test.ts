import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Command } from 'commander';
import { buildCommands } from '#cli/command-line.js';
import { defaultTextOf, textOf } from '#cli/host-flags.js';
import { environmentName, hostSettings } from '#cli/host-setting-table.js';
import { expectTable } from '../docs/markdown-table.js';
import { pretendProgram } from './pretend-program.js';

const text = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
const root = buildCommands({
  program: pretendProgram().program,
  terminal: { out: () => {}, err: () => {}, outIsTty: false, errIsTty: false, env: {} },
  exitCode: 0,
});

/** Commands that do something, by their words. */
function leaves(command: Command, path: readonly string[] = []): { words: string; command: Command }[] {
  const children = command.commands.filter((child) => child.name() !== 'help');
  if (children.length === 0) return [{ words: path.join(' '), command }];
  return children.flatMap((child) => leaves(child, [...path, child.name()]));
}

const hostFlags = new Set([...hostSettings.map(({ flag }) => `--${flag}`), '--config']);
const connectionFlags = new Set(
  ['endpoint', 'token', 'tls', 'tls-authority', 'tls-certificate', 'tls-key', 'timeout-ms'].map((flag) => `--${flag}`),
);

function rowsOf(command: Command, left: (flag: string) => boolean): string[][] {
  const rows = command.options
    .filter(({ long }) => !left(long ?? ''))
    .map(({ flags, description, defaultValue, argChoices, envVar }) => {
      const choices = argChoices === undefined ? '' : `: ${argChoices.join(', ')}`;
      const env = envVar === undefined ? '' : ` (${envVar})`;
      return [`\`${flags}\``, `${description}${choices}${env}`, textOf(defaultValue)];
    });
  return [['flag', 'meaning', 'default'], ...rows];
}

describe('docs/cli.md', () => {
  it('documents every command with all its flags', () => {
    const commands = leaves(root);
    expect(commands.length).toBeGreaterThan(10);
    for (const { words, command } of commands) {
      expect(text, `intarsia ${words}`).toContain(`\n## intarsia ${words}\n`);
      const serves = command.options.some(({ long }) => long === '--isolation');
      const connects = command.options.some(({ long }) => long === '--endpoint');
      const rows = rowsOf(
        command,
        (flag) => (serves && hostFlags.has(flag)) || (connects && connectionFlags.has(flag)),
      );
      if (rows.length > 1) expectTable('cli.md', words.replace(' ', '-'), rows);
    }
  });

  it('documents the flags that several commands share', () => {
    expectTable(
      'cli.md',
      'global',
      rowsOf(root, () => false),
    );
    const infer = leaves(root).find(({ words }) => words === 'infer');
    expectTable(
      'cli.md',
      'connection',
      infer === undefined ? [] : rowsOf(infer.command, (flag) => !connectionFlags.has(flag)),
    );
  });

  it('documents every option of a host: flag, variable, key of the file, default', () => {
    expectTable('cli.md', 'host', [
      ['flag', 'environment', 'key of the file', 'meaning', 'default'],
      ...hostSettings.map((setting) => [
        `\`--${setting.flag}${setting.value === '' ? '' : ` <${setting.value}>`}\``,
        `\`${environmentName(setting)}\``,
        `\`${setting.path.join('.')}\``,
        typeof setting.form === 'object' ? `${setting.about}: ${setting.form.choices.join(', ')}` : setting.about,
        defaultTextOf(setting),
      ]),
    ]);
  });
});
