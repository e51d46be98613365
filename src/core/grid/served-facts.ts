/**
 * What a gateway must know of a model that only other hosts serve: inputs, outputs, configuration, labels and digest, as a
 * record in the store under a fingerprint of its content. Hosts that serve the same artefact alike share one record, which
 * is written once and never changed, so that a restart of a host publishes nothing new.
 *
 * The fingerprint tells contents apart, it is no protection: hosts of a grid trust each other.
 */
import type { ServedModel } from '../catalog.js';
import { intarsiaError } from '../errors.js';
import { artifactDigest, modelName, modelVersion } from '../ids.js';
import { readShardName } from '../split/split-spec.js';
import type { ServedRecord } from './records.js';
import { fromTaggedJson, toTaggedJson } from './tagged-json.js';

/** A served model without where it is. */
export type ServedFacts = Omit<ServedModel, 'devices' | 'elsewhere' | 'split'>;

/**
 * Largest record, characters: what the store takes as one value, less some room. Labels of a model that is beyond it stay
 * at home, and gateways elsewhere classify without them.
 */
const recordLengthMax = 900_000;

export interface PublishedFacts {
  readonly fingerprint: string;
  readonly record: ServedRecord;
}

/** The record of a served model and its fingerprint. @throws INVALID_ARGUMENT when its configuration alone is too large. */
export function publishedFacts(model: ServedModel): PublishedFacts {
  const { name, version, config, inputs, outputs, optionalInputs, digest, labels, part } = model;
  const own: ServedFacts = { name, version, config, inputs, outputs, optionalInputs, digest, labels };
  const facts: ServedFacts = part === undefined ? own : { ...own, part };
  let text = toTaggedJson(facts);
  if (text.length > recordLengthMax) text = toTaggedJson(withoutLabels(facts));
  if (text.length > recordLengthMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `what hosts must know of model '${name}' version ${version} takes ${text.length} characters; at most ${recordLengthMax} can be shared`,
    );
  }
  return { fingerprint: fingerprintOf(text), record: { format: 1, facts: text } };
}

function withoutLabels(facts: ServedFacts): ServedFacts {
  const { part } = facts;
  const labels = new Map<string, readonly string[]>();
  return { ...facts, labels, ...(part === undefined ? {} : { part: { ...part, whole: { ...part.whole, labels } } }) };
}

/** The facts of a record. @throws INVALID_ARGUMENT when it is not one. */
export function readFacts(record: ServedRecord): ServedFacts {
  const facts = fromTaggedJson(record.facts);
  if (!isFacts(facts))
    throw intarsiaError('INVALID_ARGUMENT', 'a record of a served model has other fields than it should');
  modelName(readShardName(facts.name)?.model ?? facts.name);
  modelVersion(facts.version);
  artifactDigest(facts.digest);
  return facts;
}

/** Text that is equal for models that take and give the same: requests checked against one fit the other. */
export function interfaceOf({ digest, inputs, outputs, optionalInputs, config }: ServedFacts): string {
  const { maxBatchSize, sequenceBatching } = config;
  return toTaggedJson([digest, inputs, outputs, optionalInputs, maxBatchSize, sequenceBatching !== undefined]);
}

/** 128 bits of the text in hexadecimal: four 32-bit FNV-1a hashes, each begun otherwise and stirred at the end. */
function fingerprintOf(text: string): string {
  let words = '';
  for (const seed of [0x811c9dc5, 0x9e3779b9, 0x85ebca6b, 0xc2b2ae35]) {
    let hash = seed;
    for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x21f0aaad);
    hash = Math.imul(hash ^ (hash >>> 15), 0x735a2d97);
    words += ((hash ^ (hash >>> 15)) >>> 0).toString(16).padStart(8, '0');
  }
  return words;
}

function isFacts(value: unknown): value is ServedFacts {
  if (typeof value !== 'object' || value === null) return false;
  const { name, version, digest, config, inputs, outputs, optionalInputs, labels } = value as Record<
    keyof ServedFacts,
    unknown
  >;
  return (
    [name, version, digest].every((text) => typeof text === 'string') &&
    typeof config === 'object' &&
    config !== null &&
    Array.isArray(inputs) &&
    Array.isArray(outputs) &&
    optionalInputs instanceof Set &&
    labels instanceof Map
  );
}
