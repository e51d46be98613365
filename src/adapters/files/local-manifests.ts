/**
 * Manifests of the models in this host's own repositories, and their files by SHA-256: what the host can give without
 * fetching it. Hashes are remembered with what a file looked like; one that looks different is hashed again.
 */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { intarsiaError } from '#core/errors.js';
import { isManifestPath, manifestFilesMax, type ManifestFile } from '#core/grid/manifest.js';
import type { ModelManifest } from '#core/grid/records.js';
import type { DescribedVariant } from '#core/grid/variant-verification.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import { estimateSessionBytes } from '#core/memory-ledger.js';
import { completeModelConfig } from '#core/model-config-completion.js';
import { defaultModelFilename, type ModelConfigDraft } from '#core/model-config-draft.js';
import { artifactInputs, artifactOutputs } from '#core/model-config-specs.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import type { ModelConfig } from '#core/model-config.js';
import { readModelFacts, type ModelFacts } from '#core/onnx/model-facts.js';
import { MiB } from '#core/units.js';
import { allowedVariants, variantWish, type VariantCandidate } from '#core/variants/variant-choice.js';
import { parseVariantRecord, type VariantRecord } from '#core/variants/variant-record.js';
import type { GivenFile } from '#ports/artifact-source.js';
import { artifactDigestOf } from './artifact-store.js';
import { diskFailure } from './disk-failure.js';
import { foldersIn, openRoot, versionsOf } from './folder-survey.js';
import { openGuarded, readGuarded, resolveInside, type GuardedFile, type GuardedRoot } from './guarded-file.js';

const modelBytesMax = 2 ** 31 - 1;
const configBytesMax = 4 * MiB;
const chunkBytes = MiB;
const depthMax = 8;

interface KnownFile {
  readonly root: GuardedRoot;
  /** Inside the root. */
  readonly path: string;
  readonly look: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface LocalManifestsOptions {
  readonly roots: readonly string[];
  /** Whether files with several hard links are read. Default false. */
  readonly allowHardLinks?: boolean;
}

export class LocalManifests {
  readonly #options: LocalManifestsOptions;
  /** By real path. */
  readonly #known = new Map<string, KnownFile>();
  readonly #byContent = new Map<string, KnownFile>();

  constructor(options: LocalManifestsOptions) {
    this.#options = options;
  }

  /**
   * The manifest of a model version: config.pbtxt, the version's folder, and whatever else lies beside the versions.
   * @returns Undefined when no repository has it.
   * @throws MODEL_INVALID when it cannot be read as a model.
   */
  async describe(model: ModelName, version: ModelVersion): Promise<ModelManifest | undefined> {
    const root = await this.#rootOf(model, version);
    if (root === undefined) return undefined;
    const versions = new Set<string>(await versionsOf(root, model));
    const files: ManifestFile[] = [];
    for (const path of await pathsOf(root, model, (name) => versions.has(name) && name !== version)) {
      const { sha256, bytes } = await this.#hash(root, `${model}/${path}`);
      files.push({ path, bytes, sha256 });
    }
    const { config, facts, fileName } = await readExact(root, model, version);
    const byPath = new Map(files.map((file) => [file.path, file]));
    const parts = [fileName, ...[...new Set(facts.externalTensors.map(({ location }) => location))].sort()];
    const digest = artifactDigestOf(
      parts.map((name) => ({
        name,
        sha256: byPath.get(`${version}/${name}`)?.sha256 ?? missing(model, version, name),
      })),
    );
    const memoryBytes = estimateSessionBytes({
      weightBytes: facts.weightBytes,
      inputs: artifactInputs(config, facts),
      outputs: artifactOutputs(config, facts),
      items: config.maxBatchSize,
    });
    return { format: 1, model, version, digest, memoryBytes, files };
  }

  /**
   * The variants of a version that were compared with it, as it is, and that its configuration allows. Others are left out;
   * a registry names them.
   */
  async variants(model: ModelName, version: ModelVersion): Promise<readonly DescribedVariant[]> {
    const root = await this.#rootOf(model, version);
    if (root === undefined) return [];
    const { config, facts } = await readExact(root, model, version);
    if (variantWish(config) === undefined) return [];
    const manifest = await this.describe(model, version);
    const found: (VariantCandidate & { readonly memoryBytes: number })[] = [];
    for (const name of await foldersIn(root, `${model}/${version}/variants`)) {
      const place = `${version}/variants/${name}`;
      const file = manifest?.files.find(({ path }) => path === `${place}/model.onnx`);
      const record = await recordOf(root, `${model}/${place}/variant.json`);
      if (record === undefined || record.madeFrom.digest !== manifest?.digest) continue;
      if (record.kind === 'foreign') found.push({ name, record, memoryBytes: 0 });
      else if (file?.sha256 === record.digest) {
        const { weightBytes } = readModelFacts(await readGuarded(root, `${model}/${place}/model.onnx`, modelBytesMax));
        const tensors = { inputs: artifactInputs(config, facts), outputs: artifactOutputs(config, facts) };
        const memoryBytes = estimateSessionBytes({ weightBytes, ...tensors, items: config.maxBatchSize });
        found.push({ name, record, memoryBytes });
      }
    }
    return allowedVariants(found, config);
  }

  /** Opens a file that was described, if it still looks as it did. */
  async open(sha256: string): Promise<GivenFile | undefined> {
    const known = this.#byContent.get(sha256);
    if (known === undefined) return undefined;
    let file: GuardedFile;
    try {
      file = await openGuarded(known.root, known.path, Number.MAX_SAFE_INTEGER);
    } catch {
      // Gone or exchanged: it is no longer what was described.
      this.#byContent.delete(sha256);
      return undefined;
    }
    if (lookOf(file) !== known.look) {
      this.#byContent.delete(sha256);
      await file.handle.close();
      return undefined;
    }
    return givenFile(file.handle, known.bytes);
  }

  async #rootOf(model: ModelName, version: ModelVersion): Promise<GuardedRoot | undefined> {
    if (model.includes('/')) return undefined;
    const found: GuardedRoot[] = [];
    for (const path of this.#options.roots) {
      const root = await openRoot(path, this.#options.allowHardLinks ?? false);
      const versions = await versionsOf(root, model).catch((thrown: unknown): readonly ModelVersion[] => {
        if (diskFailure(path, thrown).code === 'NOT_FOUND') return [];
        throw thrown;
      });
      if (versions.includes(version)) found.push(root);
    }
    if (found.length > 1) {
      throw intarsiaError('MODEL_INVALID', `model ${JSON.stringify(model)} is in ${found.length} repositories`, {
        model,
      });
    }
    return found[0];
  }

  async #hash(root: GuardedRoot, path: string): Promise<KnownFile> {
    const file = await openGuarded(root, path, Number.MAX_SAFE_INTEGER);
    try {
      const before = this.#known.get(file.realPath);
      if (before?.look === lookOf(file)) {
        this.#byContent.set(before.sha256, before);
        return before;
      }
      const hash = createHash('sha256');
      const chunk = new Uint8Array(chunkBytes);
      let bytes = 0;
      for (;;) {
        const { bytesRead } = await file.handle.read(chunk, 0, chunkBytes, bytes);
        if (bytesRead === 0) break;
        hash.update(chunk.subarray(0, bytesRead));
        bytes += bytesRead;
      }
      const known = { root, path, look: lookOf(file), sha256: hash.digest('hex'), bytes };
      this.#known.set(file.realPath, known);
      this.#byContent.set(known.sha256, known);
      return known;
    } catch (thrown) {
      throw diskFailure(file.realPath, thrown);
    } finally {
      await file.handle.close();
    }
  }
}

/** An open file as others are given it. */
export function givenFile(handle: GuardedFile['handle'], bytes: number): GivenFile {
  return {
    bytes,
    read: async (offset, length) => {
      const data = new Uint8Array(Math.max(0, Math.min(length, bytes - offset)));
      let done = 0;
      while (done < data.byteLength) {
        const { bytesRead } = await handle.read(data, done, data.byteLength - done, offset + done);
        if (bytesRead === 0) return data.subarray(0, done);
        done += bytesRead;
      }
      return data;
    },
    close: () => handle.close(),
  };
}

/** Every file of a model's folder by its path inside, except those of the folders that `isOther` names at the top. */
async function pathsOf(
  root: GuardedRoot,
  model: ModelName,
  isOther: (name: string) => boolean,
): Promise<readonly string[]> {
  const found: string[] = [];
  const walk = async (folder: string, depth: number): Promise<void> => {
    const real = await resolveInside(root, folder === '' ? model : `${model}/${folder}`);
    for (const name of (await readdir(real)).sort()) {
      if (name.startsWith('.') || (folder === '' && isOther(name))) continue;
      const path = folder === '' ? name : `${folder}/${name}`;
      const inside = await resolveInside(root, `${model}/${path}`);
      if (!isManifestPath(path) || found.length >= manifestFilesMax || depth >= depthMax) {
        throw intarsiaError(
          'MODEL_INVALID',
          `${inside} cannot be given to other hosts: a model has at most ${manifestFilesMax} files in folders at most ${depthMax} deep, with plain names`,
          { path: inside, filesMax: manifestFilesMax, depthMax },
        );
      }
      if ((await stat(inside)).isDirectory()) await walk(path, depth + 1);
      else found.push(path);
    }
  };
  try {
    await walk('', 1);
    return found;
  } catch (thrown) {
    throw diskFailure(`${root.realPath}/${model}`, thrown);
  }
}

interface ExactModel {
  readonly config: ModelConfig;
  readonly facts: ModelFacts;
  /** Of the model in the version's folder. */
  readonly fileName: string;
}

/** The model of a version itself, with its complete configuration. */
async function readExact(root: GuardedRoot, model: ModelName, version: ModelVersion): Promise<ExactModel> {
  const draft = await draftOf(root, model);
  const fileName = draft?.defaultModelFilename ?? defaultModelFilename;
  const facts = readModelFacts(await readGuarded(root, `${model}/${version}/${fileName}`, modelBytesMax));
  return { config: completeModelConfig(draft, facts, model), facts, fileName };
}

/** Undefined when there is none that can be read. */
async function recordOf(root: GuardedRoot, path: string): Promise<VariantRecord | undefined> {
  try {
    const text = new TextDecoder().decode(await readGuarded(root, path, configBytesMax));
    return parseVariantRecord(text, path);
  } catch {
    // The registry says which one and why: to other hosts it is not offered.
    return undefined;
  }
}

async function draftOf(root: GuardedRoot, model: ModelName): Promise<ModelConfigDraft | undefined> {
  try {
    const bytes = await readGuarded(root, `${model}/config.pbtxt`, configBytesMax);
    return modelConfigFromPbtxt(new TextDecoder('utf-8', { fatal: true }).decode(bytes), 'config.pbtxt');
  } catch (thrown) {
    const failure = diskFailure(model, thrown);
    if (failure.code === 'NOT_FOUND') return undefined;
    throw failure;
  }
}

function missing(model: ModelName, version: ModelVersion, name: string): never {
  throw intarsiaError('MODEL_INVALID', `model ${JSON.stringify(model)} has no file ${version}/${name}`, {
    model,
    version,
  });
}

function lookOf({ stats, realPath }: GuardedFile): string {
  return `${realPath} ${stats.dev} ${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}`;
}
