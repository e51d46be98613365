/**
 * A learned policy as one file: an ONNX model whose metadata_props say what it observes, where it was trained and what it falls
 * back to. What cannot be trusted is refused when it is read, with the reason: damaged, of another schema, or not giving
 * numbers.
 */
import { intarsiaError, messageOf } from '../errors.js';
import { readModel } from '../onnx/model-reader.js';
import { encodeModelBytes } from '../onnx/writer.js';
import { WireReader } from '../wire.js';
import { batchFeatureCount, batchSchema } from './batch-features.js';
import { dispatchSchema, featureCount, planFeatureCount, planSchema, type DispatchSchema } from './features.js';
import { inputsOf, outputsOf, type Network } from './network.js';
import { networkModel, networkOfModel } from './network-onnx.js';
import { SimdScorer } from './simd-scorer.js';

/** Where the features lay in training, element by element: extremes, and the 0.1 and 99.9 percentiles. */
export interface TrainedRanges {
  readonly least: readonly number[];
  readonly low: readonly number[];
  readonly high: readonly number[];
  readonly greatest: readonly number[];
}

export interface PolicyArtifact {
  /** What people and logs call it. 1 to 100 letters, digits, dots, dashes and underscores. */
  readonly name: string;
  readonly decides: 'dispatch' | 'batching';
  readonly network: Network;
  readonly ranges: TrainedRanges;
  /** Name of the rule that decides when this policy must not. */
  readonly fallback: string;
  /** Anything else: seed, digests of data, the command that made it. */
  readonly notes: Readonly<Record<string, string>>;
}

export const policyBytesMax = 16 * 1024 * 1024;
const notesMax = 64;
const noteLengthMax = 256 * 1024;
const headsMax = 16;

const key = {
  name: 'intarsia.name',
  schema: 'intarsia.schema',
  ranges: 'intarsia.ranges',
  fallback: 'intarsia.fallback',
} as const;
const nameRule = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/u;

/** By schema: what it decides, and features of a row. */
const schemas: ReadonlyMap<string, { readonly decides: PolicyArtifact['decides']; readonly inputs: number }> = new Map([
  [dispatchSchema, { decides: 'dispatch', inputs: featureCount }],
  [planSchema, { decides: 'dispatch', inputs: planFeatureCount }],
  [batchSchema, { decides: 'batching', inputs: batchFeatureCount }],
]);

/** The schema of a policy: which features its network takes. */
export function schemaOf(policy: Pick<PolicyArtifact, 'decides' | 'network'>): string {
  return policy.decides === 'batching' ? batchSchema : dispatchSchemaOf(policy);
}

/** The same of one that decides dispatch. */
export function dispatchSchemaOf({ network }: Pick<PolicyArtifact, 'network'>): DispatchSchema {
  return inputsOf(network) === planFeatureCount ? planSchema : dispatchSchema;
}

/** The file's bytes; the same policy gives the same bytes. @throws MODEL_INVALID for a policy that `readPolicy` would refuse. */
export function encodePolicy(policy: PolicyArtifact): Uint8Array<ArrayBuffer> {
  const { notes, network, name, ranges, fallback } = policy;
  const metadata: Record<string, string> = {
    [key.name]: name,
    [key.schema]: schemaOf(policy),
    [key.ranges]: JSON.stringify(ranges),
    [key.fallback]: fallback,
  };
  for (const note of Object.keys(notes).sort()) metadata[note] = notes[note] ?? '';
  const bytes = encodeModelBytes(networkModel(network, metadata));
  readPolicy(bytes);
  return bytes;
}

/** @throws MODEL_INVALID with the reason for which the file is refused. */
export function readPolicy(bytes: Uint8Array): PolicyArtifact {
  if (bytes.byteLength > policyBytesMax) {
    throw refusal(`it has ${bytes.byteLength} bytes and may have ${policyBytesMax}`);
  }
  const model = readModel(bytes);
  const network = networkOfModel(model);
  const metadata = readMetadata(bytes);
  const named = (name: string): string => {
    const value = metadata.get(name);
    if (value === undefined) throw refusal(`its metadata has no '${name}'`);
    return value;
  };
  const schema = named(key.schema);
  const known = schemas.get(schema);
  if (known === undefined) {
    const all = [...schemas.keys()].join(', ');
    throw refusal(`its features are of schema '${schema.slice(0, 80)}'; this host has ${all}`);
  }
  const { decides, inputs } = known;
  if (inputsOf(network) !== inputs) {
    throw refusal(`its network takes ${inputsOf(network)} features; schema ${schema} has ${inputs}`);
  }
  if (outputsOf(network) > headsMax) throw refusal(`it has ${outputsOf(network)} heads and may have ${headsMax}`);
  const name = named(key.name);
  if (!nameRule.test(name)) throw refusal(`its name '${name.slice(0, 80)}' is not letters, digits, dots and dashes`);
  const ranges = readRanges(named(key.ranges), inputs);
  const notes: Record<string, string> = {};
  for (const [note, value] of metadata) if (!note.startsWith('intarsia.')) notes[note] = value;
  checkScores(network, ranges);
  return { name, decides, network, ranges, fallback: named(key.fallback), notes };
}

const modelField = { metadata: 14 } as const;
const pairField = { key: 1, value: 2 } as const;

function readMetadata(bytes: Uint8Array): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  const reader = new WireReader(bytes);
  while (reader.next()) {
    if (reader.field !== modelField.metadata) {
      reader.skip();
      continue;
    }
    const pair = reader.message();
    let name = '';
    let value = '';
    while (pair.next()) {
      if (pair.field === pairField.key) name = pair.string();
      else if (pair.field === pairField.value) value = pair.string();
      else pair.skip();
    }
    if (metadata.size >= notesMax || name.length > 100 || value.length > noteLengthMax) {
      throw refusal(`its metadata has more than ${notesMax} entries, or one of more than ${noteLengthMax} characters`);
    }
    metadata.set(name, value);
  }
  return metadata;
}

function readRanges(text: string, inputs: number): TrainedRanges {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw refusal(`its ranges are not JSON: ${messageOf(error)}`);
  }
  const part = (name: keyof TrainedRanges): readonly number[] => {
    const values: unknown = typeof parsed === 'object' && parsed !== null ? (parsed as TrainedRanges)[name] : undefined;
    if (!Array.isArray(values) || values.length !== inputs || !values.every((value) => Number.isFinite(value))) {
      throw refusal(`its ranges have no ${inputs} numbers for '${name}'`);
    }
    return values as readonly number[];
  };
  const ranges = { least: part('least'), low: part('low'), high: part('high'), greatest: part('greatest') };
  ranges.least.forEach((least, index) => {
    const ordered = [least, ranges.low[index] ?? 0, ranges.high[index] ?? 0, ranges.greatest[index] ?? 0];
    if (ordered.some((value, at) => at > 0 && value < (ordered[at - 1] ?? 0))) {
      throw refusal(`its range of feature ${index} is out of order: ${ordered.join(', ')}`);
    }
  });
  return ranges;
}

/** Rows a policy meets at least: the corners of its training and the edges of what is possible. */
function checkScores(network: Network, { least, low, high, greatest }: TrainedRanges): void {
  const inputs = inputsOf(network);
  const probes = [least, low, high, greatest, new Array<number>(inputs).fill(0), new Array<number>(inputs).fill(3)];
  const rows = Float32Array.from(probes.flat());
  const out = new Float32Array(probes.length * outputsOf(network));
  new SimdScorer(network).score(rows, probes.length, out);
  if (!out.every(Number.isFinite)) throw refusal('it gives scores that are not finite numbers');
}

function refusal(reason: string): Error {
  return intarsiaError('MODEL_INVALID', `the policy file cannot be used: ${reason}`, {});
}
