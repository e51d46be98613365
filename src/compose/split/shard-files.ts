/** Shards on disk: model files written range by range, with the side files that hold their weights beside them. */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, link, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { artifactDigest, type ArtifactDigest } from '#core/ids.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { EncodedModel } from '#core/onnx/writer.js';

export interface WrittenModel {
  readonly path: string;
  readonly digest: ArtifactDigest;
  readonly byteLength: number;
}

/** Writes a model file; its ranges are never joined in memory. */
export async function writeModelFile(
  path: string,
  { parts, byteLength }: Pick<EncodedModel, 'parts' | 'byteLength'>,
): Promise<WrittenModel> {
  const hash = createHash('sha256');
  const handle = await open(path, 'w');
  try {
    for (const part of parts) {
      hash.update(part);
      await handle.writeFile(part);
    }
  } finally {
    await handle.close();
  }
  return { path, digest: artifactDigest(hash.digest('hex')), byteLength };
}

/**
 * Puts a model's side files into another folder under the same names: as further names of the same files where the file
 * system can, as copies elsewhere.
 *
 * @param locations Relative paths that readExternalData has judged.
 * @throws NOT_FOUND when a file is missing.
 */
export async function bringSideFiles(
  locations: readonly string[],
  { from, to }: { readonly from: string; readonly to: string },
): Promise<void> {
  for (const location of new Set(locations)) {
    const source = join(from, location);
    const target = join(to, location);
    await mkdir(dirname(target), { recursive: true });
    try {
      await link(source, target);
    } catch {
      try {
        await copyFile(source, target, constants.COPYFILE_FICLONE);
      } catch (error) {
        throw intarsiaError(
          'NOT_FOUND',
          `side file ${source} cannot be read: ${messageOf(error)}`,
          { location },
          error,
        );
      }
    }
  }
}
