/** What the store is told of a model version's files: its manifest, and what the gate found of its variants. */
import type { GridKeys } from './keys.js';
import { manifestToText } from './manifest.js';
import type { ModelManifest } from './records.js';
import { variantVerificationName, type DescribedVariant, type VariantVerification } from './variant-verification.js';

/** Variants of one version that are written down. */
const variantsMax = 32;

export interface ModelRecord {
  readonly key: string;
  readonly value: string;
}

export interface ModelRecordsInput {
  readonly keys: GridKeys;
  readonly manifest: ModelManifest;
  readonly variants: readonly DescribedVariant[];
  readonly host: string;
  readonly wallMs: number;
}

/** The manifest first. Written at once, so that nobody finds places for a version before its variants are known. */
export function modelRecords({ keys, manifest, variants, host, wallMs }: ModelRecordsInput): readonly ModelRecord[] {
  const { model, version, digest } = manifest;
  const verifications = variants.slice(0, variantsMax).map((variant): ModelRecord => {
    const { name, record, isNamed, providers, memoryBytes } = variant;
    const verification: VariantVerification = {
      ...{ format: 1, model, version, digest, name, isNamed, providers, memoryBytes, record, host, wallMs },
    };
    return {
      key: keys.verification(model, version, variantVerificationName(name)),
      value: JSON.stringify(verification),
    };
  });
  return [{ key: keys.model(model, version), value: manifestToText(manifest) }, ...verifications];
}
