/**
 * Every option of a host as a flag, as an environment variable and as a key of the configuration file: one table, so that
 * the three never differ. A flag beats the environment, the environment beats the file, the file beats the default.
 * Ranges are checked by `completeConfig`; here only the form.
 */
import { intarsiaError } from '#core/errors.js';
import { GiB, KiB, MiB } from '#core/units.js';
import type { HostOptions } from '#config.js';
import { environmentName, hostSettings, wrongForm, type HostSetting } from './host-setting-table.js';

/** Keys of the configuration file that have no flag of their own. */
const fileOnlyKeys: ReadonlySet<string> = new Set(['telemetry', 'limits', 'tls', 'grid']);

type Settings = Record<string, unknown>;

/**
 * The options of a host from three sources. `flags`: texts by flag name, lists for repeated ones, `true` for switches.
 * @throws CONFIG_INVALID naming the flag, variable or key, what it must be and what it is.
 */
export function hostOptionsOf(sources: {
  readonly flags: Readonly<Record<string, string | readonly string[] | boolean | undefined>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly file: unknown;
  readonly fileName: string;
}): HostOptions {
  const options = optionsOfFile(sources.file, sources.fileName);
  for (const setting of hostSettings) {
    const variable = environmentName(setting);
    const fromEnv = sources.env[variable];
    if (fromEnv !== undefined && fromEnv !== '') put(options, setting, valueOfText(setting, variable, fromEnv));
    const fromFlag = sources.flags[setting.flag];
    if (fromFlag !== undefined) put(options, setting, valueOfFlag(setting, fromFlag));
  }
  return options;
}

function valueOfFlag(setting: HostSetting, value: string | readonly string[] | boolean): unknown {
  const name = `--${setting.flag}`;
  if (typeof value === 'boolean') return setting.form === 'off-switch' ? !value : value;
  if (typeof value === 'string') return valueOfText(setting, name, value);
  return value.map((text) => setting.entry?.(name, text) ?? text);
}

function valueOfText(setting: HostSetting, name: string, text: string): unknown {
  const { form } = setting;
  switch (form) {
    case 'text':
      return text;
    case 'number': {
      const value = Number(text);
      if (text.trim() === '' || Number.isNaN(value)) throw wrongForm(name, 'a number', text);
      return value;
    }
    case 'bytes':
      return parseBytes(name, text);
    case 'switch':
    case 'off-switch': {
      const on = switchWords.get(text.toLowerCase());
      if (on === undefined) throw wrongForm(name, 'true or false', text);
      return form === 'switch' ? on : !on;
    }
    case 'list':
      return text
        .split(';')
        .filter((part) => part !== '')
        .map((part) => setting.entry?.(name, part) ?? part);
    default:
      if (!form.choices.includes(text)) throw wrongForm(name, `one of ${form.choices.join(', ')}`, text);
      return text;
  }
}

const switchWords: ReadonlyMap<string, boolean> = new Map([
  ['1', true],
  ['true', true],
  ['yes', true],
  ['0', false],
  ['false', false],
  ['no', false],
]);

const byteUnits: ReadonlyMap<string, number> = new Map([
  ['', 1],
  ['b', 1],
  ['kib', KiB],
  ['mib', MiB],
  ['gib', GiB],
  ['kb', 1e3],
  ['mb', 1e6],
  ['gb', 1e9],
]);

function parseBytes(name: string, text: string): number {
  const parts = /^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$/.exec(text);
  const unit = byteUnits.get((parts?.[2] ?? '').toLowerCase());
  if (parts === null || unit === undefined) throw wrongForm(name, 'a number of bytes such as 65536 or 64MiB', text);
  return Math.round(Number(parts[1]) * unit);
}

function put(options: Settings, setting: HostSetting, value: unknown): void {
  const [first, second] = setting.path;
  if (second === undefined) {
    options[first] = value;
    return;
  }
  const inner = options[first];
  const group: Settings = isSettings(inner) ? { ...inner } : first === 'tls' ? emptyTls() : {};
  group[second] = value;
  options[first] = group;
}

function emptyTls(): Settings {
  return { certificatePath: '', keyPath: '', clientAuthorityPath: '' };
}

function optionsOfFile(file: unknown, fileName: string): Settings {
  if (file === undefined || file === null) return {};
  if (!isSettings(file))
    throw intarsiaError('CONFIG_INVALID', `${fileName} must hold options by name`, { file: fileName });
  const options: Settings = {};
  for (const [key, value] of Object.entries(file)) {
    const settings = hostSettings.filter((setting) => setting.path[0] === key);
    if (settings.length === 0) throw unknownKey(fileName, key, [...new Set(hostSettings.map(({ path }) => path[0]))]);
    if (fileOnlyKeys.has(key)) options[key] = groupOfFile(settings, value, fileName, key);
    else {
      const [setting] = settings;
      if (setting !== undefined) checkForm(setting, value, `${fileName}: ${key}`);
      options[key] = value;
    }
  }
  return options;
}

function groupOfFile(settings: readonly HostSetting[], value: unknown, fileName: string, group: string): Settings {
  if (!isSettings(value)) throw wrongForm(`${fileName}: ${group}`, 'options by name', describe(value));
  for (const [key, inner] of Object.entries(value)) {
    const setting = settings.find(({ path }) => path[1] === key);
    if (setting === undefined)
      throw unknownKey(
        fileName,
        `${group}.${key}`,
        settings.map(({ path }) => `${group}.${path[1] ?? ''}`),
      );
    checkForm(setting, inner, `${fileName}: ${group}.${key}`);
  }
  return group === 'tls' ? { ...emptyTls(), ...value } : { ...value };
}

function checkForm(setting: HostSetting, value: unknown, name: string): void {
  const { form } = setting;
  const fits =
    form === 'list'
      ? Array.isArray(value) &&
        value.every((item) => (setting.entry === undefined ? typeof item === 'string' : isSettings(item)))
      : form === 'number' || form === 'bytes'
        ? typeof value === 'number'
        : form === 'switch' || form === 'off-switch'
          ? typeof value === 'boolean'
          : typeof value === 'string' && (form === 'text' || form.choices.includes(value));
  if (!fits) throw wrongForm(name, describeForm(setting), describe(value));
}

function describeForm({ form, entry }: HostSetting): string {
  if (form === 'list') return entry === undefined ? 'a list of texts' : 'a list of objects';
  if (form === 'number') return 'a number';
  if (form === 'bytes') return 'a number of bytes';
  if (form === 'switch' || form === 'off-switch') return 'true or false';
  return form === 'text' ? 'a text' : `one of ${form.choices.join(', ')}`;
}

function isSettings(value: unknown): value is Settings {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  return ((JSON.stringify(value) as string | undefined) ?? 'nothing').slice(0, 80);
}

function unknownKey(fileName: string, key: string, known: readonly string[]): Error {
  return intarsiaError('CONFIG_INVALID', `${fileName}: there is no option ${key}; there are ${known.join(', ')}`, {
    option: key,
  });
}
