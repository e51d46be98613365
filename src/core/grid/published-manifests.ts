/**
 * The manifests that are published in the store, as far as this host has heard: the only files that hosts give to each
 * other. What is not in here is not given, whatever this host has on its disk.
 */
import type { ModelName, ModelVersion } from '../ids.js';
import type { ModelManifest } from './records.js';

export class PublishedManifests {
  readonly #manifests = new Map<string, ModelManifest>();
  /** How many manifests name a content. */
  readonly #uses = new Map<string, number>();

  /** Takes a manifest in, in the place of an earlier one of the same model version. */
  set(manifest: ModelManifest): void {
    this.delete(manifest.model, manifest.version);
    this.#manifests.set(keyOf(manifest.model, manifest.version), manifest);
    for (const sha256 of contentsOf(manifest)) this.#uses.set(sha256, (this.#uses.get(sha256) ?? 0) + 1);
  }

  /** Forgets a manifest; its files are no longer given unless another manifest names them. */
  delete(model: ModelName, version: ModelVersion): void {
    const manifest = this.#manifests.get(keyOf(model, version));
    if (manifest === undefined) return;
    this.#manifests.delete(keyOf(model, version));
    for (const sha256 of contentsOf(manifest)) {
      const uses = (this.#uses.get(sha256) ?? 0) - 1;
      if (uses > 0) this.#uses.set(sha256, uses);
      else this.#uses.delete(sha256);
    }
  }

  /** Forgets everything: after a watch was lost, before the range is read again. */
  clear(): void {
    this.#manifests.clear();
    this.#uses.clear();
  }

  get(model: ModelName, version: ModelVersion): ModelManifest | undefined {
    return this.#manifests.get(keyOf(model, version));
  }

  /** Whether a published manifest names this content. */
  names(sha256: string): boolean {
    return this.#uses.has(sha256);
  }

  all(): readonly ModelManifest[] {
    return [...this.#manifests.values()];
  }
}

function keyOf(model: ModelName, version: ModelVersion): string {
  return `${model}/${version}`;
}

function contentsOf(manifest: ModelManifest): ReadonlySet<string> {
  return new Set(manifest.files.map(({ sha256 }) => sha256));
}
