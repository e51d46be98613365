/**
 * A store's folder belongs to one process: two that write the same file would destroy it. The claim names the process; one
 * that is no longer there, after a kill, is taken over.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { intarsiaError } from '#core/errors.js';

export interface FolderClaim {
  release(): Promise<void>;
}

const claimed = new Set<string>();

/** @throws FAILED_PRECONDITION while another process, or this one, holds it */
export async function claimFolder(folder: string): Promise<FolderClaim> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, 'store.pid');
  if (claimed.has(path)) throw inUse(folder, process.pid);
  claimed.add(path);
  try {
    await writeClaim(path, folder);
  } catch (error) {
    claimed.delete(path);
    throw error;
  }
  return {
    release: async () => {
      claimed.delete(path);
      await rm(path, { force: true });
    },
  };
}

async function writeClaim(path: string, folder: string): Promise<void> {
  const taken = await writeFile(path, String(process.pid), { flag: 'wx' }).then(
    () => false,
    (error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return true;
      throw error;
    },
  );
  if (!taken) return;
  const holder = Number(await readFile(path, 'utf8'));
  // The same number is ours: of a process before us that was killed, in a container that counts from 1 again.
  if (holder !== process.pid && isAlive(holder)) throw inUse(folder, holder);
  await writeFile(path, String(process.pid));
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function inUse(folder: string, pid: number): Error {
  return intarsiaError('FAILED_PRECONDITION', `the store folder ${folder} is in use by process ${pid}`, {
    folder,
    pid,
  });
}
