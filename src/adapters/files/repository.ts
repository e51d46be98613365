/**
 * Model repositories on this machine's disk: the ModelFiles port over folders.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import { MiB } from '#core/units.js';
import type { ModelFiles, ModelFolder, ModelListing, RepositoryListing } from '#ports/model-files.js';
import { ArtifactStore } from './artifact-store.js';
import { diskFailure } from './disk-failure.js';
import { foldersIn, openRoot, surveyModel, surveyRoot, versionsOf } from './folder-survey.js';
import { readGuarded, type GuardedRoot } from './guarded-file.js';
import { makeProcessFolder, removeLeftovers, type ProcessFolder } from './process-folder.js';

export interface RepositoryOptions {
  /** Folders of models. The same model name in two of them is refused in both. */
  readonly roots: readonly string[];
  /**
   * Folder for copies of what is loaded; made when missing, emptied of what this object put there on `close`. Default: a
   * new folder in the system's temporary folder.
   */
  readonly workFolder?: string;
  /**
   * True: engines load a private copy, made while it is hashed; later changes in the repository cannot reach what is
   * served. Costs the disk space of what is loaded. False: engines load from the repository; whoever changes a loaded file
   * there changes what a restarted engine serves. Default true.
   */
  readonly copyArtifacts?: boolean;
  /** Whether files with several hard links are read. Default false: such a file may belong to something outside. */
  readonly allowHardLinks?: boolean;
}

/** What a process that was killed left under this name, the next one removes. */
const folderPrefix = 'intarsia-models-';
const configBytesMax = 4 * MiB;
const fileBytesMax = 1024 * MiB;
/** Files that one load request may bring along. */
const overrideFilesMax = 1000;

/** Opens repositories. @throws NOT_FOUND or UNAVAILABLE when one of the folders cannot be read. */
export async function openRepository(options: RepositoryOptions): Promise<ModelFiles> {
  const allowHardLinks = options.allowHardLinks ?? false;
  for (const root of options.roots) await openRoot(root, allowHardLinks);
  const parent = options.workFolder ?? tmpdir();
  await removeLeftovers(parent, folderPrefix);
  const folder = await makeProcessFolder(parent, folderPrefix);
  const store = new ArtifactStore({ folder: folder.path, copy: options.copyArtifacts ?? true });
  return new Repository(options.roots, allowHardLinks, folder, store);
}

class Repository implements ModelFiles {
  readonly #roots: readonly string[];
  readonly #allowHardLinks: boolean;
  readonly #folder: ProcessFolder;
  readonly #store: ArtifactStore;
  #overrides = 0;

  constructor(roots: readonly string[], allowHardLinks: boolean, folder: ProcessFolder, store: ArtifactStore) {
    this.#roots = roots;
    this.#allowHardLinks = allowHardLinks;
    this.#folder = folder;
    this.#store = store;
  }

  async list(): Promise<RepositoryListing> {
    const notes: string[] = [];
    const found = new Map<ModelName, { readonly listing: ModelListing; readonly roots: string[] }>();
    for (const path of this.#roots) {
      const root = await openRoot(path, this.#allowHardLinks);
      for (const listing of await surveyRoot(root, notes)) {
        const other = found.get(listing.name);
        if (other === undefined) found.set(listing.name, { listing, roots: [path] });
        else other.roots.push(path);
      }
    }
    const models = [...found.values()].map(({ listing, roots }) =>
      roots.length === 1
        ? listing
        : { ...listing, fingerprint: `twice in ${roots.join(' ')}`, problem: foundTwice(listing.name, roots) },
    );
    models.sort((a, b) => (a.name < b.name ? -1 : 1));
    return { models, notes };
  }

  async open(name: ModelName, files?: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder> {
    if (files !== undefined && files.size > 0) return await this.#openOverride(name, files);
    // A model is one folder; an identifier may contain a slash.
    if (name.includes('/')) throw unknownModel(name);
    const found: { readonly root: GuardedRoot; readonly listing: ModelListing; readonly path: string }[] = [];
    for (const path of this.#roots) {
      const root = await openRoot(path, this.#allowHardLinks);
      const listing = await surveyModel(root, name);
      if (listing !== undefined) found.push({ root, listing, path });
    }
    const [first] = found;
    if (first === undefined) throw unknownModel(name);
    if (found.length > 1) {
      throw intarsiaError(
        'MODEL_INVALID',
        foundTwice(
          name,
          found.map(({ path }) => path),
        ),
        { model: name },
      );
    }
    const { root, listing } = first;
    if (listing.problem !== '') throw intarsiaError('MODEL_INVALID', listing.problem, { model: name });
    return await this.#folderOf(root, name, listing.versions, () => Promise.resolve());
  }

  async close(): Promise<void> {
    await this.#folder.remove();
  }

  async #folderOf(
    root: GuardedRoot,
    name: ModelName,
    versions: readonly ModelVersion[],
    close: () => Promise<void>,
  ): Promise<ModelFolder> {
    return {
      versions,
      configText: await readConfig(root, name),
      artifact: (version, fileName) => this.#store.take(root, `${name}/${version}/${fileName}`),
      variants: (version) => foldersIn(root, `${name}/${version}/variants`),
      bytes: (path) => readGuarded(root, `${name}/${path}`, fileBytesMax),
      close,
    };
  }

  /** What a load request brought along, written to a folder of its own and read like any other. */
  async #openOverride(name: ModelName, files: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder> {
    if (name.includes('/')) throw unknownModel(name);
    if (files.size > overrideFilesMax) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `a load request brings ${files.size} files; at most ${overrideFilesMax}`,
        {
          files: files.size,
          filesMax: overrideFilesMax,
        },
      );
    }
    const folder = join(this.#folder.path, `override-${this.#overrides}`);
    this.#overrides += 1;
    const close = async (): Promise<void> => rm(folder, { recursive: true, force: true });
    try {
      for (const [path, bytes] of files) {
        const target = join(folder, name, ...safeParts(path));
        await mkdir(dirname(target), { recursive: true, mode: 0o700 });
        await writeFile(target, bytes, { flag: 'wx', mode: 0o600 });
      }
      const root = await openRoot(folder, false);
      const versions = await versionsOf(root, name);
      if (versions.length === 0) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `the files for model ${JSON.stringify(name)} contain no version such as 1/model.onnx`,
        );
      }
      return await this.#folderOf(root, name, versions, close);
    } catch (thrown) {
      await close();
      throw diskFailure(folder, thrown);
    }
  }
}

async function readConfig(root: GuardedRoot, name: ModelName): Promise<string | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readGuarded(root, `${name}/config.pbtxt`, configBytesMax);
  } catch (thrown) {
    const failure = diskFailure(name, thrown);
    if (failure.code === 'NOT_FOUND') return undefined;
    throw failure;
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (thrown) {
    throw intarsiaError('MODEL_INVALID', 'config.pbtxt is not UTF-8', { model: name }, thrown);
  }
}

function safeParts(path: string): readonly string[] {
  const parts = path.split('/');
  const isSafe = parts.every((part) => /^[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,254}$/.test(part));
  if (!isSafe || parts.length > 8) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `a load request brings the file ${JSON.stringify(path.slice(0, 120))}; its path must be plain names joined by "/", such as 1/model.onnx`,
      { path: path.slice(0, 120) },
    );
  }
  return parts;
}

function foundTwice(name: string, roots: readonly string[]): string {
  return `model ${JSON.stringify(name)} is in ${roots.length} repositories (${roots.join(', ')}); remove or rename all but one`;
}

function unknownModel(name: string): Error {
  return intarsiaError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name)} in the repositories`, { model: name });
}
