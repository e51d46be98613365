/**
 * What the equivalence gate found of a split, as it stands in the store under `verifications/<model>/<version>/<split>`:
 * a split that has no record with the verdict `equal` is not placed.
 */
import { intarsiaError, messageOf } from '../errors.js';
import type { ArtifactDigest, ModelName, ModelVersion } from '../ids.js';
import type { OptimizationLevel } from '../provider.js';

/** `not-repeatable`: the whole model answers otherwise each time; `failed`: a shard did not load or run. */
export type GateVerdict = 'equal' | 'different' | 'not-repeatable' | 'failed';

/** What comparing a split with its whole model gave. */
export interface GateFindings {
  readonly verdict: GateVerdict;
  /** Why it is not `equal`, with the numbers; empty otherwise. */
  readonly reason: string;
  /** Every bit of every answer was the same. */
  readonly bitExact: boolean;
  /** Over all outputs and vectors; undefined when nothing could be compared. */
  readonly maxAbsoluteError?: number;
  readonly maxRelativeError?: number;
  /** Largest relative error of a float that passes; 0: every bit counts. */
  readonly toleranceRelative: number;
  /** Absolute error that passes, by quantised output: one quantisation step. */
  readonly toleranceSteps: Readonly<Record<string, number>>;
  /** Names of the test vectors; `seed N` for inputs that were made up. */
  readonly vectors: readonly string[];
  /** Execution provider that each stage was run on. */
  readonly providers: readonly string[];
  /** Level of the shards, and of the whole model: `disabled`, or the lowest it loads at. */
  readonly optimization: OptimizationLevel;
  readonly referenceOptimization: OptimizationLevel;
  /** Every value that crosses and every output has the batch in front: shards may be served in batches. */
  readonly batches: boolean;
  /** What had to be done otherwise, such as a provider that this host does not have. */
  readonly notes: readonly string[];
}

export interface VerificationRecord extends GateFindings {
  readonly format: 1;
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** Id of the split. */
  readonly split: string;
  readonly digest: ArtifactDigest;
  readonly cuts: readonly number[];
  readonly compression: string;
  /** Execution provider that each stage is to be served by, as placement chose then. */
  readonly planned: readonly string[];
  /** Where and when it was checked; ms since 1970. */
  readonly host: string;
  readonly wallMs: number;
}

/** @throws CONFIG_INVALID when it is no record. */
export function verificationFromText(text: string, key: string): VerificationRecord {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (thrown) {
    throw intarsiaError('CONFIG_INVALID', `${key} is no JSON: ${messageOf(thrown)}`, { key });
  }
  const record = data as Partial<VerificationRecord> | null;
  if (record?.format !== 1 || typeof record.split !== 'string' || typeof record.verdict !== 'string') {
    throw intarsiaError('CONFIG_INVALID', `${key} is no verification of a split`, { key });
  }
  return record as VerificationRecord;
}

/** One line: what was compared, and how near it came. */
export function verificationText(findings: GateFindings): string {
  const { verdict, reason, bitExact, maxAbsoluteError, maxRelativeError, toleranceRelative, vectors } = findings;
  const over = `${vectors.length} ${vectors.length === 1 ? 'vector' : 'vectors'}`;
  const errors =
    maxAbsoluteError === undefined || maxRelativeError === undefined
      ? ''
      : `, largest error ${figure(maxAbsoluteError)} absolute, ${figure(maxRelativeError)} relative (${figure(toleranceRelative)} passes)`;
  const how = verdict === 'equal' ? (bitExact ? 'equal in every bit' : 'equal within tolerance') : verdict;
  return `${how} over ${over}${errors}${reason === '' ? '' : `: ${reason}`}`;
}

function figure(value: number): string {
  return value === 0 ? '0' : value.toPrecision(3);
}
