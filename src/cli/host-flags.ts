/** The table of host settings as flags of a command, and the way back to options. */
import { Option, type Command } from 'commander';
import type { HostOptions } from '#config.js';
import { environmentName, hostSettings, type HostSetting } from './host-setting-table.js';
import { hostOptionsOf } from './host-settings.js';
import type { Program } from './program.js';

export function addHostFlags(command: Command): Command {
  command.addOption(new Option('--config <file>', 'YAML file with options of the host by name').env('INTARSIA_CONFIG'));
  for (const setting of hostSettings) command.addOption(optionOf(setting));
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
