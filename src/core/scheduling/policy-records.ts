/**
 * What stands in the store under `policies/`: the pointer, versions, their artefacts, and what each gateway saw of the policy on
 * trial. Read from JSON that another host wrote, and checked before anything relies on it.
 */
import { intarsiaError, messageOf } from '../errors.js';
import type { SloClass } from './slo-class.js';
import type { CalibrationSummary, EvaluationSummary } from './evaluation-summary.js';
import type { TrialFigures } from './promotion-gates.js';
import { promotionModes, type PolicyPointer } from './promotion.js';

/** What a record says of a file that stands under another key. */
export interface PolicyFile {
  readonly sha256: string;
  readonly bytes: number;
}

/** A learned policy that was stored; its files are under other keys. */
export interface PolicyVersion {
  readonly format: 1;
  /** Name and beginning of the digest. */
  readonly id: string;
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
  /** The file that forms batches where the first one dispatches; absent: devices form batches as they were started. */
  readonly batching?: PolicyFile;
  /** Rule that decides when it must not. */
  readonly fallback: string;
  /** From the file: seed, data, command that made it; shortened. */
  readonly notes: Readonly<Record<string, string>>;
  readonly evaluation?: EvaluationSummary;
  readonly calibration?: CalibrationSummary;
  readonly host: string;
  readonly wallMs: number;
}

/** What one gateway saw of the policy on trial since it began to follow the pointer, or since the gateway started. */
export interface PolicySighting {
  readonly format: 1;
  readonly host: string;
  readonly policy: string;
  /** Number of the pointer that it follows. */
  readonly number: number;
  /** Why it cannot use the policy; empty when it does. */
  readonly refused: string;
  readonly figures: Omit<TrialFigures, 'refusals'>;
  readonly groups: readonly DisagreementGroup[];
}

/** Decisions about a model's requests of one class: how often the policy on trial would have chosen otherwise. */
export interface DisagreementGroup {
  readonly model: string;
  readonly class: SloClass;
  readonly decisions: number;
  readonly disagreements: number;
}

export const artifactBytesMax = 256 * 1024;
/** Versions kept; the oldest that nobody refers to makes room. */
export const versionsMax = 16;
export const groupsMax = 64;

/** @throws INVALID_ARGUMENT for a text that is no pointer of a known format. */
export function readPointer(text: string): PolicyPointer {
  const record = recordOf(text, 'pointer');
  const { number, mode, policy, base, previous, percent, sliceSeconds, seed, baseLate, gates } = record;
  const isWhole =
    [number, percent, sliceSeconds, seed, baseLate].every((value) => Number.isFinite(value)) &&
    promotionModes.some((each) => each === mode) &&
    [policy, base].every(isReference) &&
    Array.isArray(previous) &&
    previous.length <= 2 &&
    previous.every(isReference) &&
    (sliceSeconds as number) > 0 &&
    Array.isArray(gates);
  if (!isWhole) throw intarsiaError('INVALID_ARGUMENT', 'the pointer of policies is incomplete', {});
  return record as unknown as PolicyPointer;
}

/** @throws INVALID_ARGUMENT for a text that is no version of a known format. */
export function readVersion(text: string): PolicyVersion {
  const record = recordOf(text, 'version');
  const { id, name, sha256, bytes, fallback, batching } = record;
  const isWhole =
    [id, name, sha256, fallback].every(isReference) &&
    Number.isInteger(bytes) &&
    (batching === undefined || isFile(batching));
  if (!isWhole) {
    throw intarsiaError('INVALID_ARGUMENT', 'a version of a policy is incomplete', {});
  }
  return record as unknown as PolicyVersion;
}

/** Undefined for what is no such record: a gateway of another release says nothing then. */
export function readSighting(text: string): PolicySighting | undefined {
  try {
    const record = recordOf(text, 'sighting');
    const { host, policy, figures, groups } = record;
    const isWhole =
      [host, policy].every(isReference) && typeof figures === 'object' && figures !== null && Array.isArray(groups);
    return isWhole ? (record as unknown as PolicySighting) : undefined;
  } catch {
    return undefined;
  }
}

/** What all gateways saw of one policy, together; the latency is that of the slowest. */
export function joinSightings(sightings: readonly PolicySighting[]): TrialFigures {
  const sum = (of: (figures: PolicySighting['figures']) => number): number =>
    sightings.reduce((total, { figures }) => total + of(figures), 0);
  return {
    decisions: sum(({ decisions }) => decisions),
    fallbacks: sum(({ fallbacks }) => fallbacks),
    latencyUsP99: Math.max(0, ...sightings.map(({ figures }) => figures.latencyUsP99)),
    answers: sum(({ answers }) => answers),
    late: sum(({ late }) => late),
    baseAnswers: sum(({ baseAnswers }) => baseAnswers),
    baseLate: sum(({ baseLate }) => baseLate),
    refusals: sightings.flatMap(({ host, refused }) => (refused === '' ? [] : [`host ${host}: ${refused}`])),
  };
}

function isFile(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { sha256, bytes } = value as Partial<Record<string, unknown>>;
  return isReference(sha256) && Number.isInteger(bytes);
}

function isReference(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= 200;
}

function recordOf(text: string, what: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `the ${what} of policies is not JSON: ${messageOf(error)}`, {});
  }
  const record = typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {};
  if (record['format'] !== 1) {
    throw intarsiaError('INVALID_ARGUMENT', `the ${what} of policies is of no format that is known here`, {});
  }
  return record;
}
