/**
 * The manifests that are published in the store, as far as this host has heard: the only files that hosts give to each
 * other. What is not in here is not given, whatever this host has on its disk.
 */
import type { ModelName, ModelVersion } from '../ids.js';
import type { ModelManifest } from './records.js';

export class PublishedManifests {
  readonly #manifests = new Map<string, ModelManifest>();
  /** How many manifests name a content, and its size. */
  readonly #contents = new Map<string, { readonly bytes: number; uses: number }>();

  /** Takes a manifest in, in the place of an earlier one of the same model version. */
  set(manifest: ModelManifest): void {
    this.delete(manifest.model, manifest.version);
    this.#manifests.set(keyOf(manifest.model, manifest.version), manifest);
    for (const [sha256, bytes] of contentsOf(manifest)) {
      const content = this.#contents.get(sha256);
      if (content === undefined) this.#contents.set(sha256, { bytes, uses: 1 });
      else content.uses += 1;
    }
  }

  /** Forgets a manifest; its files are no longer given unless another manifest names them. */
  delete(model: ModelName, version: ModelVersion): void {
    const manifest = this.#manifests.get(keyOf(model, version));
    if (manifest === undefined) return;
    this.#manifests.delete(keyOf(model, version));
    for (const sha256 of contentsOf(manifest).keys()) {
      const content = this.#contents.get(sha256);
      if (content === undefined) continue;
      content.uses -= 1;
      if (content.uses === 0) this.#contents.delete(sha256);
    }
  }

  /** Forgets everything: after a watch was lost, before the range is read again. */
  clear(): void {
    this.#manifests.clear();
    this.#contents.clear();
  }

  get(model: ModelName, version: ModelVersion): ModelManifest | undefined {
    return this.#manifests.get(keyOf(model, version));
  }

  /** Size of a content that a published manifest names; undefined when none does. */
  bytesOf(sha256: string): number | undefined {
    return this.#contents.get(sha256)?.bytes;
  }

  all(): readonly ModelManifest[] {
    return [...this.#manifests.values()];
  }
}

function keyOf(model: ModelName, version: ModelVersion): string {
  return `${model}/${version}`;
}

function contentsOf(manifest: ModelManifest): ReadonlyMap<string, number> {
  return new Map(manifest.files.map(({ sha256, bytes }) => [sha256, bytes]));
}
