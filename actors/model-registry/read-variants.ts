/**
 * Variants of a version: `variants/<name>/model.onnx` with its `variant.json`, made by `intarsia optimize`. One that was
 * made from another model, whose file is not the one that was compared, or whose record is none, is left out and named.
 */
import { messageOf } from '#core/errors.js';
import type { ArtifactDigest, ModelVersion } from '#core/ids.js';
import { parseVariantRecord, type VariantRecord } from '#core/variants/variant-record.js';
import type { ModelFolder } from '#ports/model-files.js';

/** A variant that devices may be given. */
export interface HeldVariant {
  readonly name: string;
  readonly record: VariantRecord;
  /** Absent for a foreign artefact: the server of its remote device holds it. */
  readonly artifact?: { readonly digest: ArtifactDigest; readonly path: string };
  readonly weightBytes: number;
}

export interface HeldVariants {
  readonly variants: readonly HeldVariant[];
  /** Why others are left out, one sentence each. */
  readonly notes: readonly string[];
  release(): Promise<void>;
}

export async function readVariants(
  folder: ModelFolder,
  version: ModelVersion,
  exact: ArtifactDigest,
): Promise<HeldVariants> {
  const variants: HeldVariant[] = [];
  const releases: (() => Promise<void>)[] = [];
  const notes: string[] = [];
  for (const name of (await folder.variants?.(version)) ?? []) {
    const place = `${version}/variants/${name}`;
    try {
      const text = new TextDecoder().decode(await folder.bytes(`${place}/variant.json`));
      const record = parseVariantRecord(text, `${place}/variant.json`);
      if (record.madeFrom.digest !== exact) {
        notes.push(`variant ${name} is left out: it was made from another model than ${version} holds`);
        continue;
      }
      if (record.kind === 'foreign') {
        // What it takes of this host is nothing.
        variants.push({ name, record, weightBytes: 0 });
        continue;
      }
      const artifact = await folder.artifact(version, `variants/${name}/model.onnx`);
      if (artifact.digest !== record.digest) {
        await artifact.release();
        notes.push(`variant ${name} is left out: its file is not the one that was compared with the model`);
        continue;
      }
      releases.push(() => artifact.release());
      const { digest, path, facts } = artifact;
      variants.push({ name, record, artifact: { digest, path }, weightBytes: facts.weightBytes });
    } catch (thrown) {
      notes.push(`variant ${name} is left out: ${messageOf(thrown)}`);
    }
  }
  return {
    variants,
    notes,
    release: async () => {
      for (const release of releases) await release();
    },
  };
}
