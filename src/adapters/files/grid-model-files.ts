/**
 * Models of a host in a grid: those of its own repositories, and those whose files it was told to hold. The ModelFiles
 * port over both, so that a host without a repository serves like any other.
 *
 * A model that a deployment has taken over is served in the versions that are held here and in no other, whatever its
 * configuration's version policy says: where it is served is the deployment's business. Engines load held files from the
 * cache itself, which nobody writes to; they are hashed once more, and compared with the manifest.
 */
import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import type { ModelArtifact, ModelFiles, ModelFolder, ModelListing, RepositoryListing } from '#ports/model-files.js';
import type { HeldTree } from './cached-artifacts.js';
import { openRepository } from './repository.js';

export interface GridModelFilesOptions {
  /** The host's own repositories. */
  readonly local: ModelFiles;
  /** What is held now: CachedArtifacts. */
  readonly held: () => readonly HeldTree[];
  /** Models that a deployment serves, here or elsewhere. */
  readonly isDeployed: (model: ModelName) => boolean;
  /** Told of a content that is damaged in the cache: CachedArtifacts.distrust. */
  readonly onDamaged: (sha256: string) => void;
}

export function gridModelFiles(options: GridModelFilesOptions): ModelFiles {
  return new GridModelFiles(options);
}

class GridModelFiles implements ModelFiles {
  readonly #options: GridModelFilesOptions;

  constructor(options: GridModelFilesOptions) {
    this.#options = options;
  }

  async list(): Promise<RepositoryListing> {
    const { models, notes } = await this.#options.local.list();
    const held = this.#heldByModel();
    const own = models.filter(({ name }) => !held.has(name) && !this.#options.isDeployed(name));
    const all = [...own, ...[...held].map(([name, trees]) => listingOf(name, trees))];
    return { models: all.sort((a, b) => (a.name < b.name ? -1 : 1)), notes };
  }

  async open(name: ModelName, files?: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder> {
    const trees = this.#heldByModel().get(name);
    if (files !== undefined && files.size > 0) return await this.#options.local.open(name, files);
    if (trees !== undefined) return await openTrees(name, trees, this.#options.onDamaged);
    if (this.#options.isDeployed(name)) {
      throw intarsiaError(
        'MODEL_NOT_FOUND',
        `model ${JSON.stringify(name)} is served by a deployment, and this host is not among those it was placed on`,
        { model: name },
      );
    }
    return await this.#options.local.open(name);
  }

  async close(): Promise<void> {
    await this.#options.local.close();
  }

  /** Ascending by version; of two manifests of one version the one that was held last counts. */
  #heldByModel(): ReadonlyMap<ModelName, readonly HeldTree[]> {
    const versions = new Map<ModelName, Map<ModelVersion, HeldTree>>();
    for (const tree of this.#options.held()) {
      const { model, version } = tree.manifest;
      const known = versions.get(model) ?? new Map<ModelVersion, HeldTree>();
      known.set(version, tree);
      versions.set(model, known);
    }
    return new Map(
      [...versions].map(([model, trees]) => [
        model,
        [...trees.values()].sort((a, b) => Number(a.manifest.version) - Number(b.manifest.version)),
      ]),
    );
  }
}

function listingOf(name: ModelName, trees: readonly HeldTree[]): ModelListing {
  const files = trees.map(({ manifest }) => [
    manifest.version,
    manifest.files.map(({ path, sha256 }) => [path, sha256]),
  ]);
  return {
    name,
    versions: trees.map(({ manifest }) => manifest.version),
    fingerprint: createHash('sha256').update(JSON.stringify(files)).digest('hex'),
    problem: '',
  };
}

/** Held versions as one folder; what is common to them is the newest one's. */
async function openTrees(
  name: ModelName,
  trees: readonly HeldTree[],
  onDamaged: (sha256: string) => void,
): Promise<ModelFolder> {
  // Every tree is a repository with one version of one model, read with the same care as any other.
  const opened = await Promise.all(
    trees.map(async (tree) => {
      const files = await openRepository({ roots: [tree.path], copyArtifacts: false, allowHardLinks: true });
      return { tree, files, folder: await files.open(name) };
    }),
  );
  const newest = opened.at(-1);
  if (newest === undefined)
    throw intarsiaError('MODEL_NOT_FOUND', `no version of model ${JSON.stringify(name)} is held`);
  const versions = opened.map(({ tree }) => tree.manifest.version);
  return {
    versions,
    servedVersions: versions,
    configText: newest.folder.configText,
    artifact: async (version, fileName) => {
      const found = opened.find(({ tree }) => tree.manifest.version === version);
      if (found === undefined) {
        throw intarsiaError('MODEL_NOT_FOUND', `version ${version} of model ${JSON.stringify(name)} is not held here`);
      }
      const artifact = await found.folder.artifact(version, fileName);
      try {
        checkFiles(artifact, fileName, found.tree, onDamaged);
        return artifact;
      } catch (thrown) {
        await artifact.release();
        throw thrown;
      }
    },
    // What is in a version's own folder is that version's.
    bytes: (path) =>
      (opened.find(({ tree }) => path.startsWith(`${tree.manifest.version}/`)) ?? newest).folder.bytes(path),
    variants: async (version) => {
      const found = opened.find(({ tree }) => tree.manifest.version === version);
      return (await found?.folder.variants?.(version)) ?? [];
    },
    close: async () => {
      for (const { folder, files } of opened) {
        await folder.close();
        await files.close();
      }
    },
  };
}

/** The cache's files are its own, and disks fail. */
function checkFiles(
  { files }: ModelArtifact,
  modelFile: string,
  { manifest }: HeldTree,
  onDamaged: (sha256: string) => void,
): void {
  // Names are those beside the model file, which may be in a folder of its own, as a variant's is.
  const folder = posix.join(manifest.version, posix.dirname(modelFile));
  const wanted = new Map(manifest.files.map(({ path, sha256 }) => [path, sha256]));
  for (const { name, sha256 } of files) {
    const path = posix.join(folder, name);
    const promised = wanted.get(path);
    if (promised === sha256) continue;
    if (promised !== undefined) onDamaged(promised);
    throw intarsiaError(
      'ARTIFACT_DAMAGED',
      `file ${path} of model ${manifest.model} is damaged in the cache: its SHA-256 is ${sha256}`,
      { model: manifest.model, version: manifest.version, sha256 },
    );
  }
}
