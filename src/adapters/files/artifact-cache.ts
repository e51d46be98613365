/**
 * Model files by the SHA-256 of their bytes, on this machine's disk, bounded in bytes.
 *
 *     <folder>/blobs/<sha256>                        complete and verified
 *     <folder>/partial/<sha256>.<bytes>.<owner>      on its way
 *     <folder>/held-<owner>-<random>/<tree>/…        links to blobs: what this process holds, laid out as a model's folder
 *
 * Several processes of one machine may share the folder. What a process holds are hard links of its own, so that a blob
 * with a second link is held by somebody and never thrown out, and one that is thrown out at the wrong moment is still
 * there for its holder. Two processes that fetch the same file at the same time both fetch it; one of the two copies stays.
 * The bound is then kept by each against what it sees, files under way counted in full.
 *
 * A blob's hash is checked when this process meets it for the first time, and again when it looks different; a damaged one
 * is removed. What killed processes left, links and files under way, is taken over or removed.
 */
import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { chmod, copyFile, link, mkdir, open, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';
import { diskFailure, systemCode } from './disk-failure.js';
import { PartialFile, type WantedFile } from './partial-file.js';
import { isOwnerDead, makeProcessFolder, ownerText, removeLeftovers, type ProcessFolder } from './process-folder.js';

export interface ArtifactCacheOptions {
  readonly folder: string;
  /** Bytes of all files, those under way in full. At the bound the longest unused one that nobody holds goes; then STORAGE_FULL. */
  readonly bytesMax: number;
}

interface Entry {
  readonly path: string;
  readonly bytes: number;
  readonly usedMs: number;
  readonly isHeld: boolean;
}

const heldPrefix = 'held-';
const partialPattern = /^([0-9a-f]{64})\.([0-9]{1,16})\.([0-9a-z-]+)$/;
const chunkBytes = 1024 * 1024;

/** Opens a cache and removes what dead processes held. @throws STORAGE_FULL, UNAVAILABLE. */
export async function openArtifactCache(options: ArtifactCacheOptions): Promise<ArtifactCache> {
  const { folder } = options;
  try {
    await mkdir(join(folder, 'blobs'), { recursive: true, mode: 0o700 });
    await mkdir(join(folder, 'partial'), { recursive: true, mode: 0o700 });
  } catch (thrown) {
    throw diskFailure(folder, thrown);
  }
  await removeLeftovers(folder, heldPrefix);
  return new ArtifactCache(options, await makeProcessFolder(folder, heldPrefix));
}

export class ArtifactCache {
  readonly #options: ArtifactCacheOptions;
  readonly #held: ProcessFolder;
  /** What a blob looked like when its hash was found right, by SHA-256. */
  readonly #verified = new Map<string, string>();
  /** Paths of files under way in this process. */
  readonly #partials = new Set<string>();
  #trees = 0;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ArtifactCacheOptions, held: ProcessFolder) {
    this.#options = options;
    this.#held = held;
  }

  /** Path of a complete file; undefined when it is not here. A damaged one is removed. */
  async find(wanted: WantedFile): Promise<string | undefined> {
    const path = this.#blobPath(wanted.sha256);
    const stats = await statOrNone(path);
    if (stats === undefined) return undefined;
    if (this.#verified.get(wanted.sha256) !== lookOf(stats)) {
      if (stats.size !== wanted.bytes || (await hashOf(path)) !== wanted.sha256) {
        await rm(path, { force: true });
        this.#verified.delete(wanted.sha256);
        return undefined;
      }
      this.#verified.set(wanted.sha256, lookOf(stats));
    }
    // The time of the last use; nobody minds when the file was thrown out meanwhile.
    await utimes(path, Date.now() / 1000, stats.mtimeMs / 1000).catch(() => undefined);
    return path;
  }

  /** Forgets that a content's hash was found right. */
  distrust(sha256: string): void {
    this.#verified.delete(sha256);
  }

  /** Path of a file that is here with the right size; its hash is whoever reads it to check. */
  async peek(wanted: WantedFile): Promise<string | undefined> {
    const path = this.#blobPath(wanted.sha256);
    return (await statOrNone(path))?.size === wanted.bytes ? path : undefined;
  }

  /**
   * Opens a file under way, made or taken over from a transfer that ended too early, with room for all of it. One at a
   * time for each content; whoever opened it calls `finish`, `leave` or `discard`, then `closed`.
   * @throws STORAGE_FULL naming the folder, its bound and what is held.
   */
  async begin(wanted: WantedFile): Promise<PartialFile> {
    const path = join(this.#options.folder, 'partial', `${wanted.sha256}.${wanted.bytes}.${ownerText}`);
    await this.#alone(async () => {
      await this.#takeOver(wanted, path);
      this.#partials.add(path);
      try {
        if ((await statOrNone(path)) === undefined) {
          await this.#makeRoom(wanted);
          // Its name counts from now on, before the first byte is there.
          await (await open(path, constants.O_WRONLY | constants.O_CREAT, 0o600)).close();
        }
      } catch (thrown) {
        this.#partials.delete(path);
        throw diskFailure(path, thrown);
      }
    });
    try {
      return await PartialFile.open(path, this.#blobPath(wanted.sha256), wanted);
    } catch (thrown) {
      this.#partials.delete(path);
      throw thrown;
    }
  }

  /** Says that what `begin` opened is closed. A file that was left may now make room for others. */
  closed(wanted: WantedFile): void {
    this.#partials.delete(join(this.#options.folder, 'partial', `${wanted.sha256}.${wanted.bytes}.${ownerText}`));
  }

  /** A new folder of this process for links; `place` fills it, `removeTree` lets go of what is in it. */
  async makeTree(): Promise<string> {
    const tree = join(this.#held.path, String(this.#trees));
    this.#trees += 1;
    try {
      await mkdir(tree, { mode: 0o700 });
    } catch (thrown) {
      throw diskFailure(tree, thrown);
    }
    return tree;
  }

  async removeTree(tree: string): Promise<void> {
    await rm(tree, { recursive: true, force: true });
  }

  /**
   * Links a complete file into a tree, which holds it. Where the file system has no links, it is copied.
   * @param path Inside the tree, checked by the caller to be plain names.
   * @returns False when the file is not here.
   */
  async place(wanted: WantedFile, tree: string, path: string): Promise<boolean> {
    const blob = await this.find(wanted);
    if (blob === undefined) return false;
    const target = join(tree, ...path.split('/'));
    try {
      await mkdir(dirname(target), { recursive: true, mode: 0o700 });
      await link(blob, target);
      return true;
    } catch (thrown) {
      const code = systemCode(thrown);
      if (code === 'ENOENT') return false;
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV'].includes(code))
        throw diskFailure(target, thrown);
    }
    try {
      await copyFile(blob, target, constants.COPYFILE_EXCL);
      await chmod(target, 0o400);
      return true;
    } catch (thrown) {
      if (systemCode(thrown) === 'ENOENT') return false;
      throw diskFailure(target, thrown);
    }
  }

  /** Bytes on disk, those under way in full. */
  async bytesUsed(): Promise<number> {
    return sum(await this.#entries());
  }

  /** Removes what this process holds. Complete files and files under way stay for the next. */
  async close(): Promise<void> {
    await this.#held.remove();
  }

  /** Continues what a dead process, or a longer one of this process's own, had begun. */
  async #takeOver(wanted: WantedFile, path: string): Promise<void> {
    if ((await statOrNone(path)) !== undefined) return;
    for (const name of await readdir(dirname(path))) {
      const [, sha256, bytes, owner = ''] = partialPattern.exec(name) ?? [];
      if (sha256 !== wanted.sha256 || Number(bytes) !== wanted.bytes || !isOwnerDead(owner)) continue;
      try {
        await rename(join(dirname(path), name), path);
        return;
      } catch (thrown) {
        // Another process was faster.
        if (systemCode(thrown) !== 'ENOENT') throw diskFailure(path, thrown);
      }
    }
  }

  /** Throws out the longest unused files that nobody holds until there is room. */
  async #makeRoom(wanted: WantedFile): Promise<void> {
    const { folder, bytesMax } = this.#options;
    const entries = await this.#entries();
    let missing = sum(entries) + wanted.bytes - bytesMax;
    if (missing <= 0) return;
    const free = entries.filter(({ isHeld }) => !isHeld).sort((a, b) => a.usedMs - b.usedMs);
    if (sum(free) < missing) {
      throw intarsiaError(
        'STORAGE_FULL',
        `the cache ${folder} holds at most ${bytesMax} bytes (${formatBytes(bytesMax)}), ${formatBytes(sum(entries) - sum(free))} are held by models or under way; a file of ${wanted.bytes} bytes (${formatBytes(wanted.bytes)}) does not fit`,
        { path: folder, bytesMax, bytes: wanted.bytes, bytesHeld: sum(entries) - sum(free) },
      );
    }
    for (const { path, bytes } of free) {
      if (missing <= 0) return;
      await rm(path, { force: true });
      missing -= bytes;
    }
  }

  async #entries(): Promise<readonly Entry[]> {
    const entries: Entry[] = [];
    const { folder } = this.#options;
    for (const name of await namesIn(join(folder, 'blobs'))) {
      const path = join(folder, 'blobs', name);
      const stats = await statOrNone(path);
      if (stats === undefined) continue;
      entries.push({ path, bytes: stats.size, usedMs: stats.atimeMs, isHeld: stats.nlink > 1 });
    }
    for (const name of await namesIn(join(folder, 'partial'))) {
      const path = join(folder, 'partial', name);
      const [, , bytes = '0', owner = ''] = partialPattern.exec(name) ?? [];
      const stats = await statOrNone(path);
      if (stats === undefined) continue;
      const isHeld = owner === ownerText ? this.#partials.has(path) : !isOwnerDead(owner) && isFresh(stats);
      entries.push({ path, bytes: Math.max(Number(bytes), stats.size), usedMs: stats.mtimeMs, isHeld });
    }
    return entries;
  }

  #blobPath(sha256: string): string {
    return join(this.#options.folder, 'blobs', sha256);
  }

  /** Making room and taking it, one after the other. */
  #alone<Value>(work: () => Promise<Value>): Promise<Value> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }
}

/** Whether a file under way of a process that cannot be asked was written to within the last hour. */
function isFresh(stats: Stats): boolean {
  return Date.now() - stats.mtimeMs < 3_600_000;
}

function sum(entries: readonly Entry[]): number {
  return entries.reduce((bytes, entry) => bytes + entry.bytes, 0);
}

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (thrown) {
    throw diskFailure(folder, thrown);
  }
}

/** What changes when somebody writes to a file; the time of its last use does not count. */
function lookOf(stats: Stats): string {
  return `${stats.ino} ${stats.size} ${Math.floor(stats.mtimeMs)}`;
}

async function statOrNone(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (thrown) {
    if (systemCode(thrown) === 'ENOENT') return undefined;
    throw diskFailure(path, thrown);
  }
}

async function hashOf(path: string): Promise<string | undefined> {
  const hash = createHash('sha256');
  const chunk = new Uint8Array(chunkBytes);
  let handle;
  try {
    handle = await open(path, constants.O_RDONLY);
    for (;;) {
      const { bytesRead } = await handle.read(chunk, 0, chunkBytes, null);
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(chunk.subarray(0, bytesRead));
    }
  } catch (thrown) {
    // Thrown out meanwhile, or a disk that cannot read it any more: then it is damaged.
    if (['ENOENT', 'EIO'].includes(systemCode(thrown))) return undefined;
    throw diskFailure(path, thrown);
  } finally {
    await handle?.close();
  }
}
