/**
 * Opens files of a repository and of nothing else.
 *
 * A path is resolved with all its links first and must still lie inside; then the resolved path is opened without
 * following a link, and on Linux the open descriptor is asked where it really points, so that exchanging a folder for a
 * link between the two steps gains nothing. Hard links are refused unless allowed: they can lead outside and cannot be
 * seen to (ONNX's own rule for external data).
 */
import { constants, type Stats } from 'node:fs';
import { open, readlink, realpath, type FileHandle } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { formatBytes } from '#core/units.js';
import { diskFailure, systemCode } from './disk-failure.js';

export interface GuardedRoot {
  /** The repository's folder without links. */
  readonly realPath: string;
  readonly allowHardLinks: boolean;
}

export interface GuardedFile {
  readonly handle: FileHandle;
  readonly stats: Stats;
  /** Without links. */
  readonly realPath: string;
}

/** Whether a path without links lies inside a folder without links. */
export function liesInside(folder: string, path: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** Resolves a path of a root. @throws NOT_FOUND, MODEL_INVALID when it leaves the root. */
export async function resolveInside(root: GuardedRoot, path: string): Promise<string> {
  const full = join(root.realPath, ...path.split('/'));
  let real: string;
  try {
    real = await realpath(full);
  } catch (thrown) {
    if (systemCode(thrown) === 'ELOOP') {
      throw intarsiaError('MODEL_INVALID', `${full} is a link that leads in a circle`, { path: full }, thrown);
    }
    throw diskFailure(full, thrown);
  }
  if (!liesInside(root.realPath, real)) {
    throw intarsiaError('MODEL_INVALID', `${full} is a link that leaves the repository ${root.realPath}`, {
      path: full,
    });
  }
  return real;
}

/**
 * Opens a regular file of a root for reading. The caller closes the handle.
 * @throws NOT_FOUND, MODEL_INVALID when it leaves the root, is no file, has hard links, or is larger than allowed.
 */
export async function openGuarded(root: GuardedRoot, path: string, bytesMax: number): Promise<GuardedFile> {
  const realPath = await resolveInside(root, path);
  let handle: FileHandle;
  try {
    // Without O_NONBLOCK a named pipe would block a thread for ever. Windows has neither flag.
    handle = await open(realPath, constants.O_RDONLY | flag('O_NOFOLLOW') | flag('O_NONBLOCK'));
  } catch (thrown) {
    throw diskFailure(realPath, thrown);
  }
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw intarsiaError('MODEL_INVALID', `${realPath} is not a file`, { path: realPath });
    if (stats.nlink > 1 && !root.allowHardLinks) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${realPath} has ${stats.nlink} hard links and might belong to something outside the repository; copy it`,
        { path: realPath, links: stats.nlink },
      );
    }
    if (stats.size > bytesMax) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${realPath} has ${stats.size} bytes (${formatBytes(stats.size)}); at most ${bytesMax} (${formatBytes(bytesMax)}) are read`,
        { path: realPath, bytes: stats.size, bytesMax },
      );
    }
    if (process.platform === 'linux' && (await readlink(`/proc/self/fd/${handle.fd}`)) !== realPath) {
      throw intarsiaError('MODEL_INVALID', `${realPath} was exchanged while it was opened`, { path: realPath });
    }
    return { handle, stats, realPath };
  } catch (thrown) {
    await handle.close();
    throw diskFailure(realPath, thrown);
  }
}

/** The whole of a small file. @throws as openGuarded. */
export async function readGuarded(root: GuardedRoot, path: string, bytesMax: number): Promise<Uint8Array> {
  const { handle, stats, realPath } = await openGuarded(root, path, bytesMax);
  try {
    return await readAll(handle, stats.size);
  } catch (thrown) {
    throw diskFailure(realPath, thrown);
  } finally {
    await handle.close();
  }
}

const chunkBytes = 1024 * 1024;

/** Reads `bytes` bytes from the start, in pieces. A file that got shorter meanwhile gives what is there. */
export async function readAll(handle: FileHandle, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const data = new Uint8Array(bytes);
  let offset = 0;
  while (offset < bytes) {
    const { bytesRead } = await handle.read(data, offset, Math.min(chunkBytes, bytes - offset), offset);
    if (bytesRead === 0) return data.slice(0, offset);
    offset += bytesRead;
  }
  return data;
}

function flag(name: 'O_NOFOLLOW' | 'O_NONBLOCK'): number {
  return process.platform === 'win32' ? 0 : constants[name];
}
