/** The table of host settings as flags of a command, and the way back to options. */
import { Option, type Command } from 'commander';
import { completeConfig, defaultGrid, type HostOptions } from '#config.js';
import { environmentName, hostSettings, type HostSetting } from './host-setting-table.js';
import { hostOptionsOf } from './host-settings.js';
import type { Program } from './program.js';

const configDefaults: Record<string, unknown> = { ...completeConfig({}), grid: { ...defaultGrid, storePort: 'none' } };

/** What counts where nobody says anything, as text; empty where that is nothing. */
export function defaultTextOf({ path: [key, inner] }: HostSetting): string {
  const value = configDefaults[key];
  return textOf(inner === undefined ? value : (value as Record<string, unknown> | undefined)?.[inner]);
}

/** Texts, numbers and switches as they are; lists with commas; nothing for nothing. */
export function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.join(', ');
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : '';
}

/** `defaults`: of flags that this command takes otherwise. */
export function addHostFlags(command: Command, defaults: Readonly<Record<string, string>> = {}): Command {
  command.addOption(new Option('--config <file>', 'YAML file with options of the host by name').env('INTARSIA_CONFIG'));
  for (const setting of hostSettings) {
    const option = optionOf(setting);
    const shown = defaults[setting.flag] ?? defaultTextOf(setting);
    const isSwitch = setting.form === 'switch' || setting.form === 'off-switch';
    if (shown !== '' && !isSwitch) option.description += ` (default: ${shown})`;
    command.addOption(option);
  }
  return command;
}

/** @throws CONFIG_INVALID. */
export async function readHostOptions(
  command: Command,
  program: Program,
  env: Readonly<Record<string, string | undefined>>,
): Promise<HostOptions> {
  const given = command.opts<Record<string, string | string[] | boolean | undefined>>();
  const flags: Record<string, string | readonly string[] | boolean | undefined> = {};
  for (const setting of hostSettings) {
    const key = optionOf(setting).attributeName();
    // Commander turns a missing `--no-…` into true by itself; only what somebody typed counts.
    const typed = command.getOptionValueSource(key) === 'cli';
    if (typed) flags[setting.flag] = setting.form === 'off-switch' ? true : given[key];
  }
  const fileName = given['config'];
  const file = typeof fileName === 'string' ? await program.readYamlFile(fileName) : undefined;
  return hostOptionsOf({ flags, env, file, fileName: typeof fileName === 'string' ? fileName : '' });
}

function optionOf(setting: HostSetting): Option {
  const about = `${setting.about} [${environmentName(setting)}]`;
  const option = new Option(setting.value === '' ? `--${setting.flag}` : `--${setting.flag} <${setting.value}>`, about);
  if (setting.form === 'list') {
    option.argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), text]);
  } else if (typeof setting.form === 'object') option.choices([...setting.form.choices]);
  return option;
}
