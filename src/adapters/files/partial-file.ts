/**
 * A file on its way into the cache: written in order, hashed while it is written, and part of the cache only once its
 * SHA-256 is the one in its name. What is there when a transfer ends too early is continued by the next one.
 */
import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';
import { diskFailure } from './disk-failure.js';

const chunkBytes = 1024 * 1024;

export interface WantedFile {
  readonly sha256: string;
  readonly bytes: number;
}

export class PartialFile {
  readonly #path: string;
  readonly #target: string;
  readonly #wanted: WantedFile;
  readonly #handle: FileHandle;
  #hash: Hash;
  #offset: number;

  private constructor(
    path: string,
    target: string,
    wanted: WantedFile,
    handle: FileHandle,
    hash: Hash,
    offset: number,
  ) {
    this.#path = path;
    this.#target = target;
    this.#wanted = wanted;
    this.#handle = handle;
    this.#hash = hash;
    this.#offset = offset;
  }

  /** Opens a partial file, new or left by an earlier transfer, and hashes what it holds. @throws STORAGE_FULL, UNAVAILABLE. */
  static async open(path: string, target: string, wanted: WantedFile): Promise<PartialFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
      if ((await handle.stat()).size > wanted.bytes) await handle.truncate(0);
      const hash = createHash('sha256');
      const chunk = new Uint8Array(chunkBytes);
      let offset = 0;
      for (;;) {
        const { bytesRead } = await handle.read(chunk, 0, chunkBytes, offset);
        if (bytesRead === 0) break;
        hash.update(chunk.subarray(0, bytesRead));
        offset += bytesRead;
      }
      return new PartialFile(path, target, wanted, handle, hash, offset);
    } catch (thrown) {
      await handle?.close();
      throw diskFailure(path, thrown);
    }
  }

  /** Bytes that are there. */
  get offset(): number {
    return this.#offset;
  }

  /** Appends. @throws STORAGE_FULL naming the path, ARTIFACT_DAMAGED when more comes than the file has. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#offset + bytes.byteLength > this.#wanted.bytes) {
      throw intarsiaError(
        'ARTIFACT_DAMAGED',
        `more than the ${this.#wanted.bytes} bytes (${formatBytes(this.#wanted.bytes)}) of file ${this.#wanted.sha256} arrived`,
        { sha256: this.#wanted.sha256, bytes: this.#wanted.bytes },
      );
    }
    try {
      let done = 0;
      while (done < bytes.byteLength) {
        const { bytesWritten } = await this.#handle.write(bytes, done, bytes.byteLength - done, this.#offset + done);
        done += bytesWritten;
      }
    } catch (thrown) {
      throw diskFailure(this.#path, thrown);
    }
    this.#hash.update(bytes);
    this.#offset += bytes.byteLength;
  }

  /** Forgets what is there and begins again. */
  async restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.#hash = createHash('sha256');
    this.#offset = 0;
  }

  /**
   * Makes it part of the cache; the file is then closed. Not called again after it succeeded.
   * @throws ARTIFACT_DAMAGED when the bytes are too few or are not those of the SHA-256; then `restart` or `discard`.
   */
  async finish(): Promise<void> {
    const { sha256, bytes } = this.#wanted;
    const found = this.#hash.copy().digest('hex');
    if (this.#offset !== bytes || found !== sha256) {
      throw intarsiaError(
        'ARTIFACT_DAMAGED',
        `${this.#offset} of ${bytes} bytes arrived for file ${sha256}, with the SHA-256 ${found}`,
        { sha256, found, bytes, received: this.#offset },
      );
    }
    try {
      // A whole second, which survives being set again when the time of the last use is written beside it.
      const now = Math.floor(Date.now() / 1000);
      await this.#handle.chmod(0o400);
      await this.#handle.utimes(now, now);
      await this.#handle.sync();
      await rename(this.#path, this.#target);
      await this.#handle.close();
      await syncFolder(dirname(this.#target));
    } catch (thrown) {
      throw diskFailure(this.#target, thrown);
    }
  }

  /** Closes it and leaves what is there for the next transfer. */
  async leave(): Promise<void> {
    await this.#handle.close();
  }

  /** Closes and removes it. */
  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.#path, { force: true });
  }
}

/** Makes a rename in a folder outlive a crash of the machine. Windows cannot open folders and does without. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
