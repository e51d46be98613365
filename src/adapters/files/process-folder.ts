/**
 * Folders that belong to one process and must not outlive it: named after the process, so that the next one that starts
 * can tell those of the dead and removes them. A process that was killed cannot clean up after itself.
 *
 *     <parent>/<prefix><machine>-<process id>-<start time>-<random>
 *
 * The machine's part holds the boot and the process id namespace, because a process id means something inside those only;
 * what another machine or container left in a shared folder is taken for dead once nobody touched it for a day.
 */
import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, rm, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { diskFailure, systemCode } from './disk-failure.js';

/** A folder of a process that cannot be asked is dead when nothing happened in it for this long, ms. */
const strangerMsMax = 24 * 3_600_000;
/** How often a living process touches its folders, ms. */
const touchMs = 3_600_000;
const ownerPattern = /^([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})$/;

/** Marks this machine since its last start, as far as its process ids reach. */
const machine = createHash('sha256')
  .update([hostname(), readOrEmpty('/proc/sys/kernel/random/boot_id'), processNamespace()].join('\n'))
  .digest('hex')
  .slice(0, 8);

/** Text that names this process among all that share a folder. */
export const ownerText = `${machine}-${process.pid}-${startTime(process.pid)}`;

/** Whether the process of an owner text is gone; false when that cannot be known. */
export function isOwnerDead(owner: string): boolean {
  const [, marked = '', pid = '', started = ''] = ownerPattern.exec(owner) ?? [];
  if (marked !== machine) return false;
  const number = Number(pid);
  if (!isAlive(number)) return true;
  const now = startTime(number);
  return now !== '0' && started !== '0' && now !== started;
}

/** Whether an owner text is of this machine, so that `isOwnerDead` can tell. */
export function isOwnerNear(owner: string): boolean {
  return owner.startsWith(`${machine}-`);
}

export interface ProcessFolder {
  readonly path: string;
  /** Removes it with everything in it. */
  remove(): Promise<void>;
}

/** A new folder of this process. @throws STORAGE_FULL, UNAVAILABLE. */
export async function makeProcessFolder(parent: string, prefix: string): Promise<ProcessFolder> {
  let path: string;
  try {
    await mkdir(parent, { recursive: true });
    path = await mkdtemp(join(parent, `${prefix}${ownerText}-`));
  } catch (thrown) {
    throw diskFailure(parent, thrown);
  }
  const timer = setInterval(() => {
    const now = new Date();
    // Somebody may have removed the folder by hand; whoever uses it will find out.
    utimes(path, now, now).catch(() => undefined);
  }, touchMs);
  timer.unref();
  return {
    path,
    remove: async () => {
      clearInterval(timer);
      await rm(path, { recursive: true, force: true });
    },
  };
}

/**
 * Removes what dead processes left in a folder. What may not be removed, or is gone before, stays without a word: the
 * system's temporary folder is shared with other users.
 * @returns Names that were removed.
 */
export async function removeLeftovers(parent: string, prefix: string): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const name of await namesIn(parent)) {
    if (!name.startsWith(prefix)) continue;
    const owner = name.slice(prefix.length).replace(/-[^-]*$/, '');
    if (!ownerPattern.test(owner)) continue;
    const path = join(parent, name);
    try {
      const stats = await lstat(path);
      if (!stats.isDirectory() || (process.getuid !== undefined && stats.uid !== process.getuid())) continue;
      if (isOwnerNear(owner) ? !isOwnerDead(owner) : Date.now() - stats.mtimeMs < strangerMsMax) continue;
      await rm(path, { recursive: true, force: true });
      removed.push(name);
    } catch (thrown) {
      if (!['ENOENT', 'EACCES', 'EPERM'].includes(systemCode(thrown))) throw diskFailure(path, thrown);
    }
  }
  return removed;
}

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (thrown) {
    if (systemCode(thrown) === 'ENOENT') return [];
    throw diskFailure(folder, thrown);
  }
}

function isAlive(pid: number): boolean {
  // Ended, and only not yet asked for its exit status by its parent.
  if (statusFields(pid)[0] === 'Z') return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // EPERM: it is alive and somebody else's.
    return systemCode(thrown) !== 'ESRCH';
  }
}

/** When a process started, in ticks since the machine did: tells two processes with one id apart. `0` where not known. */
function startTime(pid: number): string {
  return statusFields(pid)[19] ?? '0';
}

/** What Linux tells of a process after its name, which is in brackets and may hold anything: state, parent, … */
function statusFields(pid: number): readonly string[] {
  const stat = readOrEmpty(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

function processNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return '';
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, 'latin1').trim();
  } catch {
    return '';
  }
}
