/**
 * Keeps model files where nobody changes them: copied into a private folder while they are hashed, so that the bytes that
 * were judged are the bytes that an engine loads, today and after a crash of its process.
 *
 *     <folder>/<digest>/model.onnx and its external data
 *
 * An artefact is held as often as it was handed out; the last release frees its disk space. What was hashed once is
 * recognised by path, size, time and inode and not read again while it is held.
 */
import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { artifactDigest, type ArtifactDigest } from '#core/ids.js';
import { checkExternalRanges, readModelFacts, type ModelFacts } from '#core/onnx/model-facts.js';
import type { ModelArtifact } from '#ports/model-files.js';
import { diskFailure } from './disk-failure.js';
import { openGuarded, readAll, type GuardedFile, type GuardedRoot } from './guarded-file.js';

/** What one protobuf message can hold, and so an ONNX file. */
const modelBytesMax = 2 ** 31 - 1;
/** Files of external data of one model. */
const externalFilesMax = 1000;
const chunkBytes = 1024 * 1024;

export interface ArtifactStoreOptions {
  /** A folder of this process alone. */
  readonly folder: string;
  /** False: load from the repository itself. Saves disk space; then nobody may change a file that is loaded. */
  readonly copy: boolean;
}

export interface HeldFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

interface Held {
  readonly digest: ArtifactDigest;
  readonly path: string;
  readonly facts: ModelFacts;
  readonly files: readonly HeldFile[];
  holders: number;
}

/** Where an artefact was read from, to recognise it: its files by path inside the root, and what each looked like. */
interface Origin {
  readonly digest: ArtifactDigest;
  readonly looks: ReadonlyMap<string, string>;
}

export class ArtifactStore {
  readonly #options: ArtifactStoreOptions;
  readonly #held = new Map<ArtifactDigest, Held>();
  /** By real path of the model file. */
  readonly #origins = new Map<string, Origin>();
  #incoming = 0;
  #turn: Promise<undefined> = Promise.resolve(undefined);

  constructor(options: ArtifactStoreOptions) {
    this.#options = options;
  }

  /**
   * Takes in a model file and its external data.
   * @param path Of the model file inside the root.
   */
  async take(root: GuardedRoot, path: string): Promise<ModelArtifact> {
    const known = await this.#recognise(root, path);
    if (known !== undefined) return this.#hand(known);
    const incoming = join(this.#options.folder, `incoming-${this.#incoming}`);
    this.#incoming += 1;
    try {
      await mkdir(incoming, { recursive: true, mode: 0o700 });
      const held = await this.#takeIn(root, path, incoming);
      return this.#hand(held);
    } catch (thrown) {
      throw diskFailure(incoming, thrown);
    } finally {
      await rm(incoming, { recursive: true, force: true });
    }
  }

  async #takeIn(root: GuardedRoot, path: string, incoming: string): Promise<Held> {
    const looks = new Map<string, string>();
    const fileName = basename(path);
    const model = await openGuarded(root, path, modelBytesMax);
    looks.set(path, lookOf(model));
    let bytes: Uint8Array;
    try {
      bytes = await readAll(model.handle, model.stats.size);
    } finally {
      await model.handle.close();
    }
    const facts = readModelFacts(bytes);
    const files: HeldFile[] = [
      { name: fileName, bytes: bytes.byteLength, sha256: await this.#keepBytes(join(incoming, fileName), bytes) },
    ];
    const locations = [...new Set(facts.externalTensors.map(({ location }) => location))].sort();
    if (locations.length > externalFilesMax) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${path} has its data in ${locations.length} files; at most ${externalFilesMax} are read`,
        { path, files: locations.length },
      );
    }
    const external = await this.#openExternal(root, path, locations);
    try {
      checkExternalRanges(facts, new Map([...external].map(([location, { stats }]) => [location, stats.size])));
      for (const [location, file] of external) {
        looks.set(externalPath(path, location), lookOf(file));
        const kept = await this.#keepStream(join(incoming, ...location.split('/')), file.handle);
        files.push({ name: location, ...kept });
      }
    } finally {
      for (const { handle } of external.values()) await handle.close();
    }
    // Copied while somebody wrote it: the sizes that were judged must be the sizes that were kept.
    checkExternalRanges(facts, new Map(files.map(({ name, bytes: size }) => [name, size])));
    const digest = artifactDigestOf(files);
    this.#origins.set(model.realPath, { digest, looks });
    return await this.#alone(async () => {
      const existing = this.#held.get(digest);
      if (existing !== undefined) {
        existing.holders += 1;
        return existing;
      }
      const folder = join(this.#options.folder, digest);
      if (this.#options.copy) await rename(incoming, folder);
      const held: Held = {
        digest,
        path: this.#options.copy ? join(folder, fileName) : model.realPath,
        facts,
        files,
        holders: 1,
      };
      this.#held.set(digest, held);
      return held;
    });
  }

  async #openExternal(
    root: GuardedRoot,
    path: string,
    locations: readonly string[],
  ): Promise<ReadonlyMap<string, GuardedFile>> {
    const files = new Map<string, GuardedFile>();
    try {
      for (const location of locations) {
        files.set(location, await openGuarded(root, externalPath(path, location), Number.MAX_SAFE_INTEGER));
      }
      return files;
    } catch (thrown) {
      for (const { handle } of files.values()) await handle.close();
      throw thrown;
    }
  }

  /** One more holder of the artefact that this file gave before, when it is still held and no file of it looks different. */
  async #recognise(root: GuardedRoot, path: string): Promise<Held | undefined> {
    const model = await openGuarded(root, path, modelBytesMax);
    await model.handle.close();
    const origin = this.#origins.get(model.realPath);
    if (origin === undefined) return undefined;
    for (const [filePath, look] of origin.looks) {
      const file =
        filePath === path ? model : await openGuarded(root, filePath, Number.MAX_SAFE_INTEGER).catch(() => undefined);
      if (file !== model) await file?.handle.close();
      if (file === undefined || lookOf(file) !== look) return undefined;
    }
    const held = this.#held.get(origin.digest);
    if (held !== undefined) held.holders += 1;
    return held;
  }

  /** What one holder gets. */
  #hand(held: Held): ModelArtifact {
    const { digest, path, facts, files } = held;
    let isHeld = true;
    const release = async (): Promise<void> => {
      if (!isHeld) return;
      isHeld = false;
      held.holders -= 1;
      await this.#alone(async () => {
        // Somebody may have taken the same bytes in again while this release waited for its turn.
        if (held.holders > 0 || this.#held.get(digest) !== held) return;
        this.#held.delete(digest);
        for (const [origin, { digest: given }] of this.#origins) if (given === digest) this.#origins.delete(origin);
        if (this.#options.copy) await rm(join(this.#options.folder, digest), { recursive: true, force: true });
      });
    };
    return { digest, path, facts, files, release };
  }

  /** Adding to and removing from what is held, one after the other. */
  #alone<Value>(work: () => Promise<Value>): Promise<Value> {
    const turn = this.#turn.then(work);
    this.#turn = turn.then(
      () => undefined,
      () => undefined,
    );
    return turn;
  }

  async #keepBytes(target: string, bytes: Uint8Array): Promise<string> {
    const hash = createHash('sha256');
    const out = this.#options.copy ? await create(target) : undefined;
    try {
      for (let offset = 0; offset < bytes.byteLength; offset += chunkBytes) {
        const chunk = bytes.subarray(offset, offset + chunkBytes);
        hash.update(chunk);
        await (out === undefined ? breathe() : writeAll(out, chunk));
      }
    } finally {
      await out?.close();
    }
    return hash.digest('hex');
  }

  async #keepStream(target: string, source: FileHandle): Promise<{ readonly bytes: number; readonly sha256: string }> {
    const hash = createHash('sha256');
    const chunk = new Uint8Array(chunkBytes);
    const out = this.#options.copy ? await create(target) : undefined;
    let bytes = 0;
    try {
      for (;;) {
        const { bytesRead } = await source.read(chunk, 0, chunkBytes, bytes);
        if (bytesRead === 0) break;
        hash.update(chunk.subarray(0, bytesRead));
        if (out !== undefined) await writeAll(out, chunk.subarray(0, bytesRead));
        bytes += bytesRead;
      }
    } finally {
      await out?.close();
    }
    return { bytes, sha256: hash.digest('hex') };
  }
}

/** A turn of the event loop, so that hashing a large file does not hold up requests. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function create(target: string): Promise<FileHandle> {
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  return await open(target, 'wx', 0o400);
}

async function writeAll(out: FileHandle, data: Uint8Array): Promise<void> {
  let offset = 0;
  while (offset < data.byteLength) {
    const { bytesWritten } = await out.write(data, offset, data.byteLength - offset);
    offset += bytesWritten;
  }
}

function externalPath(modelPath: string, location: string): string {
  const folder = dirname(modelPath);
  return folder === '.' ? location : `${folder}/${location}`;
}

function lookOf({ stats, realPath }: { readonly stats: Stats; readonly realPath: string }): string {
  return `${realPath} ${stats.dev} ${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}`;
}

/** Digest of a model file with its external data, in the order of their names; the model file first. */
export function artifactDigestOf(files: readonly Omit<HeldFile, 'bytes'>[]): ArtifactDigest {
  const [model, ...external] = files;
  if (model !== undefined && external.length === 0) return artifactDigest(model.sha256);
  const hash = createHash('sha256');
  hash.update(`model ${model?.sha256 ?? ''}\n`);
  for (const { name, sha256 } of external) hash.update(`${JSON.stringify(name)} ${sha256}\n`);
  return artifactDigest(hash.digest('hex'));
}
