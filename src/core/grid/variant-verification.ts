/**
 * What the equivalence gate found of a variant, as it stands in the store under
 * `verifications/<model>/<version>/variant:<name>`: a variant that has no such record, or one of other files than are
 * published, is not placed. Written together with the manifest of the version by the host that holds its files.
 */
import { intarsiaError, messageOf } from '../errors.js';
import {
  artifactDigest,
  modelName,
  modelVersion,
  type ArtifactDigest,
  type ModelName,
  type ModelVersion,
} from '../ids.js';
import type { AllowedVariant } from '../variants/variant-choice.js';
import { parseVariantRecord, variantGateText } from '../variants/variant-record.js';
import type { ModelManifest } from './records.js';

/** A variant that the version's configuration allows, with the estimate of one loaded copy. */
export interface DescribedVariant extends AllowedVariant {
  readonly memoryBytes: number;
}

export interface VariantVerification extends DescribedVariant {
  readonly format: 1;
  readonly model: ModelName;
  readonly version: ModelVersion;
  /** Of the exact model. */
  readonly digest: ArtifactDigest;
  /** Where and when it was stored; ms since 1970. */
  readonly host: string;
  readonly wallMs: number;
}

const prefix = 'variant:';

/** The last part of a record's key. No split's id has a colon. */
export function variantVerificationName(variant: string): string {
  return `${prefix}${variant}`;
}

export function isVariantVerification(key: string): boolean {
  return key.slice(key.lastIndexOf('/') + 1).startsWith(prefix);
}

/** @throws CONFIG_INVALID when it is no record. */
export function variantVerificationFromText(text: string, key: string): VariantVerification {
  try {
    const data = JSON.parse(text) as Partial<VariantVerification> | null;
    const { format, name, isNamed, providers, memoryBytes, host, wallMs } = data ?? {};
    const isSound =
      format === 1 &&
      typeof name === 'string' &&
      typeof isNamed === 'boolean' &&
      Array.isArray(providers) &&
      providers.every((provider) => typeof provider === 'string') &&
      typeof memoryBytes === 'number' &&
      memoryBytes >= 0 &&
      typeof host === 'string' &&
      typeof wallMs === 'number';
    if (!isSound || data === null) throw new Error('a field is missing or wrong');
    return {
      ...{ format, name, isNamed, providers, memoryBytes, host, wallMs },
      model: modelName(data.model ?? ''),
      version: modelVersion(data.version ?? ''),
      digest: artifactDigest(data.digest ?? ''),
      record: parseVariantRecord(JSON.stringify(data.record), key),
    };
  } catch (thrown) {
    throw intarsiaError('CONFIG_INVALID', `${key} is no verification of a variant: ${messageOf(thrown)}`, { key });
  }
}

/** Whether it is about the files that the manifest has: of a foreign artefact, about the exact model alone. */
export function isOfManifest({ digest, name, record }: VariantVerification, manifest: ModelManifest): boolean {
  if (digest !== manifest.digest) return false;
  if (record.kind === 'foreign') return true;
  const path = `${manifest.version}/variants/${name}/model.onnx`;
  return manifest.files.some((file) => file.path === path && file.sha256 === record.digest);
}

/** One line for each kind of device on which it may be used, with the numbers. */
export function variantVerificationText({ name, record, providers }: VariantVerification): string {
  return `variant ${name}: ${providers.map((provider) => variantGateText(record, provider)).join('; ')}`;
}
