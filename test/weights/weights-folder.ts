/** Folders, contents and a manifest for tests of the weights. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { ModelManifest } from '#core/grid/records.js';
import { artifactDigest, modelName, modelVersion } from '#core/ids.js';

export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-weights-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Content {
  readonly bytes: Uint8Array;
  readonly wanted: { readonly sha256: string; readonly bytes: number };
}

/** Bytes that differ from seed to seed. */
export function content(seed: number, size: number): Content {
  const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 31 + seed * 17 + (index >> 8)) & 0xff);
  return { bytes, wanted: { sha256: createHash('sha256').update(bytes).digest('hex'), bytes: size } };
}

export function manifestOf(files: Readonly<Record<string, Content>>, version = '1'): ModelManifest {
  const listed = Object.entries(files).map(([path, { wanted }]) => ({ path, ...wanted }));
  return {
    format: 1,
    model: modelName('m'),
    version: modelVersion(version),
    digest: artifactDigest(listed[0]?.sha256 ?? ''),
    memoryBytes: 1000,
    files: listed,
  };
}
