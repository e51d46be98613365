/**
 * Deployments as operators write them: plain data that was YAML or JSON, one deployment or a list under `deployments`.
 *
 *     name: digits
 *     model: digits
 *     version: 2
 *     replicas: 2                     # or replicasPerTier: { edge: 1, core: 2 }
 *     constraints: { providers: [cuda], tiers: [core], zones: [a], labels: { rack: r1 }, spot: never }
 *     spread: host                    # or zone, none
 *     memory: 1.5 GiB                 # or memoryBytes: 1610612736; default: the model's own estimate
 *     rollout: { surge: 1, progressSeconds: 300 }
 *
 * Every mistake names its path in the file, what is allowed there and what was found. Unknown fields are mistakes.
 */
import { intarsiaError, messageOf } from '../errors.js';
import { modelName, modelVersion } from '../ids.js';
import { GiB, KiB, MiB } from '../units.js';
import type { Deployment, PlacementConstraints, Tier } from './records.js';

export const deploymentReplicasMax = 10_000;
export const deploymentsMax = 1_000;
const listLengthMax = 1_000;
const surgeMax = 100;
const progressSecondsMax = 86_400;
const memoryBytesMax = 2 ** 50;
const textLengthMax = 255;
const deploymentNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

const tierNames = ['edge', 'regional', 'core'] as const satisfies readonly Tier[];
const spreadNames = ['host', 'zone', 'none'] as const;
const spotNames = ['allowed', 'never', 'only'] as const;

/** @throws CONFIG_INVALID naming file, path, what is allowed and what was found. */
export function deploymentsOfFile(data: unknown, fileName: string): readonly Deployment[] {
  const at = new Place(fileName, '');
  if (!isRecord(data)) throw at.wrong('a deployment, or an object with `deployments:`, a list of them', data);
  if (!Object.hasOwn(data, 'deployments')) return [deploymentOf(data, at)];
  onlyFields(data, ['deployments'], at);
  const list = listOf(data['deployments'], at.in('deployments'), deploymentsMax);
  const deployments = list.map((one, index) => deploymentOf(one, at.in('deployments').in(index)));
  const names = new Map<string, number>();
  for (const [index, { name }] of deployments.entries()) {
    const first = names.get(name);
    if (first !== undefined)
      throw at.in('deployments').in(index).in('name').wrong(`a name of its own: deployments[${first}] has it`, name);
    names.set(name, index);
  }
  return deployments;
}

/** A deployment as the store holds it. @throws CONFIG_INVALID when it cannot be one. */
export function deploymentFromText(text: string, key: string): Deployment {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (thrown) {
    throw intarsiaError('CONFIG_INVALID', `${key} is no JSON: ${messageOf(thrown)}`, { key });
  }
  return deploymentOf(data, new Place(key, ''));
}

export function deploymentToText(deployment: Deployment): string {
  return JSON.stringify(deployment);
}

const fields = [
  'format',
  'name',
  'model',
  'version',
  'replicas',
  'replicasPerTier',
  'constraints',
  'spread',
  'memory',
  'memoryBytes',
  'rollout',
] as const;

function deploymentOf(data: unknown, at: Place): Deployment {
  if (!isRecord(data)) throw at.wrong('a map of fields', data);
  onlyFields(data, fields, at);
  if (data['format'] !== undefined && data['format'] !== 1) throw at.in('format').wrong('1', data['format']);
  const name = textOf(data['name'], at.in('name'));
  if (!deploymentNamePattern.test(name)) {
    throw at.in('name').wrong('1 to 63 letters, digits and _ . -, starting with a letter or a digit', name);
  }
  const { replicas, replicasPerTier } = data;
  if ((replicas === undefined) === (replicasPerTier === undefined)) {
    throw at.wrong('exactly one of replicas and replicasPerTier', replicas === undefined ? 'neither' : 'both of them');
  }
  const counted =
    replicas === undefined
      ? { replicasPerTier: perTierOf(replicasPerTier, at.in('replicasPerTier')) }
      : { replicas: wholeOf(replicas, at.in('replicas'), [0, deploymentReplicasMax]) };
  const model = checked(at.in('model'), textOf(data['model'], at.in('model')), modelName);
  if (model.includes('/')) throw at.in('model').wrong('a name without "/"', model);
  return {
    format: 1,
    name,
    model,
    version: checked(at.in('version'), versionTextOf(data['version'], at.in('version')), modelVersion),
    ...counted,
    constraints: constraintsOf(data['constraints'], at.in('constraints')),
    spread: oneOf(data['spread'] ?? 'host', spreadNames, at.in('spread')),
    memoryBytes: memoryOf(data, at),
    rollout: rolloutOf(data['rollout'], at.in('rollout')),
  };
}

function perTierOf(value: unknown, at: Place): Readonly<Partial<Record<Tier, number>>> {
  if (!isRecord(value)) throw at.wrong('a map from tier to number', value);
  onlyFields(value, tierNames, at);
  const counts: Partial<Record<Tier, number>> = {};
  for (const tier of tierNames) {
    if (value[tier] !== undefined) counts[tier] = wholeOf(value[tier], at.in(tier), [0, deploymentReplicasMax]);
  }
  if (Object.keys(counts).length === 0) throw at.wrong(`at least one of ${tierNames.join(', ')}`, value);
  return counts;
}

function constraintsOf(value: unknown, at: Place): PlacementConstraints {
  if (value === undefined) return {};
  if (!isRecord(value)) throw at.wrong('a map of constraints', value);
  onlyFields(value, ['providers', 'tiers', 'zones', 'labels', 'hosts', 'devices', 'spot'], at);
  const texts = (field: 'providers' | 'zones' | 'hosts' | 'devices'): object => {
    if (value[field] === undefined) return {};
    const list = filledListOf(value[field], at.in(field));
    return { [field]: list.map((one, index) => textOf(one, at.in(field).in(index))) };
  };
  const tiers =
    value['tiers'] === undefined
      ? {}
      : {
          tiers: filledListOf(value['tiers'], at.in('tiers')).map((one, index) =>
            oneOf(one, tierNames, at.in('tiers').in(index)),
          ),
        };
  return {
    ...texts('providers'),
    ...tiers,
    ...texts('zones'),
    ...(value['labels'] === undefined ? {} : { labels: labelsOf(value['labels'], at.in('labels')) }),
    ...texts('hosts'),
    ...texts('devices'),
    ...(value['spot'] === undefined ? {} : { spot: oneOf(value['spot'], spotNames, at.in('spot')) }),
  };
}

function labelsOf(value: unknown, at: Place): Readonly<Record<string, string>> {
  if (!isRecord(value)) throw at.wrong('a map from label to text', value);
  const labels = Object.entries(value);
  if (labels.length > listLengthMax) throw at.wrong(`at most ${listLengthMax} labels`, `${labels.length} labels`);
  return Object.fromEntries(labels.map(([label, text]) => [label, textOf(text, at.in(label))]));
}

function rolloutOf(value: unknown, at: Place): Deployment['rollout'] {
  if (value === undefined) return { surge: 1, progressMsMax: 300_000 };
  if (!isRecord(value)) throw at.wrong('a map of fields', value);
  onlyFields(value, ['surge', 'progressSeconds', 'progressMsMax'], at);
  const { progressSeconds, progressMsMax } = value;
  if (progressSeconds !== undefined && progressMsMax !== undefined) {
    throw at.wrong('at most one of progressSeconds and progressMsMax', 'both of them');
  }
  return {
    surge: value['surge'] === undefined ? 1 : wholeOf(value['surge'], at.in('surge'), [1, surgeMax]),
    progressMsMax:
      progressMsMax === undefined
        ? 1_000 *
          (progressSeconds === undefined
            ? 300
            : wholeOf(progressSeconds, at.in('progressSeconds'), [1, progressSecondsMax]))
        : wholeOf(progressMsMax, at.in('progressMsMax'), [1_000, 1_000 * progressSecondsMax]),
  };
}

function memoryOf(data: Readonly<Record<string, unknown>>, at: Place): number {
  const { memory, memoryBytes } = data;
  if (memory !== undefined && memoryBytes !== undefined) {
    throw at.wrong('at most one of memory and memoryBytes', 'both of them');
  }
  if (memoryBytes !== undefined) return wholeOf(memoryBytes, at.in('memoryBytes'), [0, memoryBytesMax]);
  if (memory === undefined) return 0;
  const match = typeof memory === 'string' ? /^([0-9]+(?:\.[0-9]+)?) ?(KiB|MiB|GiB)$/.exec(memory) : null;
  const bytes = match === null ? NaN : Math.ceil(Number(match[1]) * units[match[2] as keyof typeof units]);
  if (!(bytes <= memoryBytesMax))
    throw at.in('memory').wrong('a size such as 512 MiB or 1.5 GiB, at most 1048576 GiB', memory);
  return bytes;
}

const units = { KiB, MiB, GiB } as const;

function versionTextOf(value: unknown, at: Place): string {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
  return textOf(value, at);
}

function textOf(value: unknown, at: Place): string {
  if (typeof value !== 'string' || value === '' || value.length > textLengthMax) {
    throw at.wrong(`a text of 1 to ${textLengthMax} characters`, value);
  }
  return value;
}

function wholeOf(value: unknown, at: Place, [least, most]: readonly [number, number]): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
    throw at.wrong(`a whole number from ${least} to ${most}`, value);
  }
  return value;
}

function oneOf<Name extends string>(value: unknown, names: readonly Name[], at: Place): Name {
  const found = names.find((name) => name === value);
  if (found === undefined) throw at.wrong(`one of ${names.join(', ')}`, value);
  return found;
}

function listOf(value: unknown, at: Place, lengthMax: number): readonly unknown[] {
  if (!Array.isArray(value)) throw at.wrong('a list', value);
  if (value.length > lengthMax) throw at.wrong(`at most ${lengthMax} entries`, `${value.length} entries`);
  return value as readonly unknown[];
}

function filledListOf(value: unknown, at: Place): readonly unknown[] {
  const list = listOf(value, at, listLengthMax);
  if (list.length === 0) throw at.wrong('at least one entry, or no such field', value);
  return list;
}

function onlyFields(value: Readonly<Record<string, unknown>>, known: readonly string[], at: Place): void {
  for (const field of Object.keys(value)) {
    if (!known.includes(field)) throw at.in(field).wrong(`no such field; known are ${known.join(', ')}`, value[field]);
  }
}

function checked<Value>(at: Place, text: string, check: (text: string) => Value): Value {
  try {
    return check(text);
  } catch (thrown) {
    throw at.wrong(messageOf(thrown), text);
  }
}

/** Where in the file we are, for messages. */
class Place {
  readonly #file: string;
  readonly #path: string;

  constructor(file: string, path: string) {
    this.#file = file;
    this.#path = path;
  }

  in(field: string | number): Place {
    if (typeof field === 'number') return new Place(this.#file, `${this.#path}[${field}]`);
    return new Place(this.#file, this.#path === '' ? field : `${this.#path}.${field}`);
  }

  wrong(wanted: string, value: unknown): Error {
    const shown = (JSON.stringify(value) as string | undefined)?.slice(0, 120) ?? 'nothing';
    return intarsiaError(
      'CONFIG_INVALID',
      `${this.#file}: ${this.#path === '' ? '' : `${this.#path}: `}expected ${wanted}; found ${shown}`,
      { file: this.#file, path: this.#path },
    );
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
