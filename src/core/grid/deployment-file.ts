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
 *     split: { stages: 3 }            # in pieces; split-file.ts
 *     strategy: auto                  # or data, pipeline; default: what the model's configuration says
 *     residency: { min: 1, max: 3 }   # in place of replicas: the leader decides by demand; advise: true only says what it would
 *
 * Every mistake names its path in the file, what is allowed there and what was found. Unknown fields are mistakes.
 */
import { intarsiaError, messageOf } from '../errors.js';
import { modelName, modelVersion } from '../ids.js';
import {
  checked,
  constraintsOf,
  isRecord,
  listOf,
  memoryOf,
  oneOf,
  onlyFields,
  Place,
  textOf,
  tierNames,
  wholeOf,
} from './file-place.js';
import type { Deployment, DeploymentResidency, Tier } from './records.js';
import { spreadStrategies } from '../split/spread-rule.js';
import { splitOfFile, splitWishData, type SplitWish } from './split-file.js';

export const deploymentReplicasMax = 10_000;
export const deploymentsMax = 1_000;
const surgeMax = 100;
const residencyCopiesMax = 100;
const progressSecondsMax = 86_400;
const deploymentNamePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;

const spreadNames = ['host', 'zone', 'none'] as const;

/** A deployment as a file has it: the split that it wants may still have to be made. */
export interface WantedDeployment extends Deployment {
  readonly splitWish?: SplitWish;
}

/** @throws CONFIG_INVALID naming file, path, what is allowed and what was found. */
export function deploymentsOfFile(data: unknown, fileName: string): readonly WantedDeployment[] {
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
  const { splitWish, ...deployment } = deploymentOf(data, new Place(key, ''));
  if (splitWish !== undefined) {
    throw intarsiaError('CONFIG_INVALID', `${key}: split: a split that was never made`, { key });
  }
  return deployment;
}

/** As JSON that `deploymentsOfFile` reads. */
export function wantedToText({ splitWish, ...deployment }: WantedDeployment): string {
  return JSON.stringify(splitWish === undefined ? deployment : { ...deployment, split: splitWishData(splitWish) });
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
  'split',
  'strategy',
  'residency',
] as const;

function deploymentOf(given: unknown, at: Place): WantedDeployment {
  if (!isRecord(given)) throw at.wrong('a map of fields', given);
  onlyFields(given, fields, at);
  const data = asPlanned(given);
  if (data['format'] !== undefined && data['format'] !== 1) throw at.in('format').wrong('1', data['format']);
  const name = textOf(data['name'], at.in('name'));
  if (!deploymentNamePattern.test(name)) {
    throw at.in('name').wrong('1 to 63 letters, digits and _ . -, starting with a letter or a digit', name);
  }
  const residency = data['residency'] === undefined ? undefined : residencyOf(data, at);
  const { replicas = residency?.min, replicasPerTier } = data;
  if ((replicas === undefined) === (replicasPerTier === undefined)) {
    throw at.wrong('exactly one of replicas and replicasPerTier', replicas === undefined ? 'neither' : 'both of them');
  }
  const counted =
    replicas === undefined
      ? { replicasPerTier: perTierOf(replicasPerTier, at.in('replicasPerTier')) }
      : { replicas: wholeOf(replicas, at.in('replicas'), [0, deploymentReplicasMax]) };
  const model = checked(at.in('model'), textOf(data['model'], at.in('model')), modelName);
  if (model.includes('/')) throw at.in('model').wrong('a name without "/"', model);
  const split = data['split'] === undefined ? undefined : splitOfFile(data['split'], at.in('split'));
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
    ...(split === undefined ? {} : 'spec' in split ? { split: split.spec } : { splitWish: split.wish }),
    ...(data['strategy'] === undefined
      ? {}
      : { strategy: oneOf(data['strategy'], spreadStrategies, at.in('strategy')) }),
    ...(residency === undefined ? {} : { residency }),
  };
}

function residencyOf(data: Readonly<Record<string, unknown>>, at: Place): DeploymentResidency {
  const { residency, split, replicasPerTier } = data;
  const place = at.in('residency');
  if (!isRecord(residency)) throw place.wrong('a map of min and max', residency);
  onlyFields(residency, ['min', 'max', 'advise', 'constraints'], place);
  if (split !== undefined) throw place.wrong('a model that is not split', 'a split');
  if (replicasPerTier !== undefined) throw place.wrong('no replicasPerTier beside it', replicasPerTier);
  const min = wholeOf(residency['min'] ?? 1, place.in('min'), [1, residencyCopiesMax]);
  const max = wholeOf(residency['max'], place.in('max'), [min, residencyCopiesMax]);
  const { advise = false } = residency;
  if (typeof advise !== 'boolean') throw place.in('advise').wrong('true or false', advise);
  return {
    ...{ min, max },
    ...(advise ? { advise } : {}),
    // Of a file: its own constraints, before the leader adds to them.
    constraints: constraintsOf(residency['constraints'] ?? data['constraints'], place.in('constraints')),
  };
}

/** `auto` with a plan: what the plan found better, also when that is not to split. */
function asPlanned(data: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { split, strategy, constraints } = data;
  const plan = isRecord(split) ? split['plan'] : undefined;
  if (strategy !== 'auto' || !isRecord(plan) || !isRecord(plan['deployment'])) return data;
  const { deployment } = plan;
  if (plan['split'] !== undefined) return { ...data, strategy: 'pipeline' };
  const { split: _split, replicasPerTier: _perTier, ...rest } = data;
  const { replicas, strategy: chosen, constraints: where } = deployment;
  return { ...rest, replicas, strategy: chosen, constraints: constraints ?? where };
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

function versionTextOf(value: unknown, at: Place): string {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
  return textOf(value, at);
}
