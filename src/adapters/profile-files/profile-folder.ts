/**
 * The performance profile database as a folder of append-only files: one a writing process (`w-….jsonl`), and a numbered
 * snapshot (`snapshot-….jsonl`) that says how far into each of them it reaches.
 *
 * Nobody writes into another process's file and nobody waits for a lock. A snapshot is written beside and becomes valid by
 * being linked to its number, which succeeds for one process only; a crash before leaves a partial file that is removed
 * later, a crash after leaves covered files that readers skip. Covered files are deleted once nobody has written to them
 * for a while; who still holds such a file open begins another.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, readFile, rm, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { intarsiaError, IntarsiaError, messageOf } from '#core/errors.js';
import { readProfileRecord, readProfileSnapshot } from '#core/profile/profile-check.js';
import {
  defaultProfileExpiry,
  isExpired,
  mergeRecords,
  ProfileLedger,
  withSnapshots,
  type ProfileExpiry,
} from '#core/profile/profile-merge.js';
import { profileHost, type ProfileRecord } from '#core/profile/profile-record.js';
import type { Clock } from '#ports/clock.js';
import type {
  CompactionReport,
  ProfileQuery,
  ProfileReading,
  ProfileSnapshot,
  ProfileStore,
} from '#ports/profile-store.js';
import { encodeLine, lineBytesMax, readLinesInTurns } from './record-lines.js';

export interface ProfileFolderOptions {
  readonly path: string;
  readonly clock: Pick<Clock, 'wallMs'>;
  readonly expiry?: ProfileExpiry;
  /**
   * Bytes of the folder after compaction, at most; the oldest measurements are dropped first. 64 KiB to 1 GiB, default
   * 64 MiB. Higher: more devices and models stay known; reading takes longer.
   */
  readonly bytesMax?: number;
  /** Bytes that this process appends until it compacts by itself. Default 1 MiB. */
  readonly compactEveryBytes?: number;
}

/** Files of ended processes are deleted this long after their last write. */
const idleMs = 600_000;
const problemsMax = 100;
/** Files in the folder beyond which opening it compacts. */
const filesMax = 16;
const rereadMax = 5;

export class ProfileFolder implements ProfileStore {
  readonly path: string;
  readonly #options: ProfileFolderOptions;
  readonly #expiry: ProfileExpiry;
  readonly #bytesMax: number;
  #file: { readonly handle: FileHandle; readonly name: string } | undefined;
  /** Work goes one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #appendedBytes = 0;
  #isClosed = false;

  private constructor(options: ProfileFolderOptions) {
    this.path = options.path;
    this.#options = options;
    this.#expiry = options.expiry ?? defaultProfileExpiry;
    this.#bytesMax = options.bytesMax ?? 64 * 1024 * 1024;
  }

  /** Opens the folder, or makes it. @throws STORAGE_FULL, UNAVAILABLE (it cannot be made or read). */
  static async open(options: ProfileFolderOptions): Promise<ProfileFolder> {
    const folder = new ProfileFolder(options);
    try {
      await mkdir(options.path, { recursive: true, mode: 0o700 });
      const { writers } = namesOf(await readdir(options.path));
      if (writers.length > filesMax) await folder.compact();
    } catch (error) {
      throw failure(options.path, error);
    }
    return folder;
  }

  async append(records: readonly ProfileRecord[]): Promise<void> {
    for (const record of records) {
      if (readProfileRecord(record) === undefined) {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `a profile record of type '${record.type}' is not as this version writes it`,
        );
      }
    }
    await this.#inTurn(() => this.#write(records));
    await this.#compactWhenDue();
  }

  async take({ host, model, atMs, records }: ProfileSnapshot): Promise<void> {
    const snapshot = readProfileSnapshot({ host, model, atMs, records });
    if (snapshot === undefined) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `the profile snapshot of host '${host}' is not as this version writes it`,
      );
    }
    await this.#inTurn(() => this.#write([{ type: 'snapshot', ...snapshot }]));
    await this.#compactWhenDue();
  }

  async read(query: ProfileQuery = {}): Promise<ProfileReading> {
    const nowMs = this.#options.clock.wallMs();
    const content = await this.#inTurn(() => this.#content());
    const all = withSnapshots(content.own.records(), [...content.snapshots.values()]);
    const wanted = all.filter(
      (record) =>
        !isExpired(record, nowMs, this.#expiry) &&
        (query.model === undefined || record.type === 'link' || record.model === query.model) &&
        (query.host === undefined || profileHost(record) === query.host),
    );
    return { records: mergeRecords(wanted), problems: content.problems };
  }

  compact(): Promise<CompactionReport> {
    return this.#inTurn(() => this.#compact());
  }

  async close(): Promise<void> {
    await this.#inTurn(() => this.#endFile());
    this.#isClosed = true;
  }

  #inTurn<Result>(task: () => Promise<Result>): Promise<Result> {
    if (this.#isClosed)
      return Promise.reject(intarsiaError('FAILED_PRECONDITION', `profiles in ${this.path} are closed`));
    const turn = this.#last.then(task).catch((error: unknown) => {
      throw failure(this.path, error);
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #write(values: readonly unknown[]): Promise<void> {
    if (values.length === 0) return;
    const lines = values.map(encodeLine);
    const longest = lines.reduce((most, line) => Math.max(most, line.byteLength), 0);
    if (longest > lineBytesMax) {
      throw intarsiaError('INVALID_ARGUMENT', `a profile record takes ${longest} bytes; ${lineBytesMax} are written`);
    }
    const handle = await this.#writer();
    try {
      await handle.appendFile(Buffer.concat(lines));
      await handle.datasync();
    } catch (error) {
      // What was written of it may be torn: nothing is appended behind that.
      await this.#endFile();
      throw error;
    }
    this.#appendedBytes += lines.reduce((sum, line) => sum + line.byteLength, 0);
  }

  /** This process's file; another one when somebody deleted it after covering it. */
  async #writer(): Promise<FileHandle> {
    if (this.#file !== undefined && (await this.#file.handle.stat()).nlink === 0) await this.#endFile();
    if (this.#file === undefined) {
      const name = `w-${process.pid}-${randomBytes(8).toString('hex')}.jsonl`;
      await mkdir(this.path, { recursive: true, mode: 0o700 });
      this.#file = { handle: await open(join(this.path, name), 'ax', 0o600), name };
    }
    return this.#file.handle;
  }

  async #endFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.handle.close();
  }

  async #compactWhenDue(): Promise<void> {
    if (this.#appendedBytes < (this.#options.compactEveryBytes ?? 1024 * 1024)) return;
    this.#appendedBytes = 0;
    await this.compact();
  }

  /** Everything in the folder, as it was at one moment for each file. */
  async #content(): Promise<Content> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await readFolder(this.path);
      } catch (error) {
        // A compaction has replaced a file between listing and reading it.
        if (!isMissing(error) || attempt >= rereadMax) throw error;
      }
    }
  }

  async #compact(): Promise<CompactionReport> {
    const nowMs = this.#options.clock.wallMs();
    // What this process wrote is covered whole; its next record begins another file.
    const ownName = this.#file?.name;
    await this.#endFile();
    const content = await this.#content();
    const { number, covered, bytes: bytesBefore } = content;
    const nothing = { done: false, bytesBefore, bytesAfter: bytesBefore, expired: 0, dropped: 0 };
    if (content.writers.length === 0 && content.snapshotNames.length <= 1) return nothing;
    const all = content.own.records();
    const fresh = all.filter((record) => !isExpired(record, nowMs, this.#expiry));
    const entries: { readonly atMs: number; readonly line: Uint8Array }[] = [
      ...fresh.map((record) => ({ atMs: record.atMs, line: encodeLine(record) })),
      ...[...content.snapshots.values()].map((snapshot) => ({
        atMs: snapshot.atMs,
        line: encodeLine({ type: 'snapshot', ...snapshot }),
      })),
    ];
    entries.sort((a, b) => b.atMs - a.atMs);
    const kept: Uint8Array[] = [];
    let keptBytes = 0;
    for (const { line } of entries) {
      if (keptBytes + line.byteLength > this.#bytesMax * 0.8) break;
      kept.push(line);
      keptBytes += line.byteLength;
    }
    const head = encodeLine({ type: 'covers', files: Object.fromEntries(covered) });
    const isFirst = await this.#publish(number + 1, Buffer.concat([head, ...kept]));
    if (!isFirst) return nothing;
    await this.#sweep(content, { nowMs, ownName });
    return {
      done: true,
      bytesBefore,
      bytesAfter: head.byteLength + keptBytes,
      expired: all.length - fresh.length,
      dropped: entries.length - kept.length,
    };
  }

  /** False when another process took the number. */
  async #publish(number: number, bytes: Uint8Array): Promise<boolean> {
    const partial = join(this.path, `partial-${randomBytes(8).toString('hex')}`);
    const handle = await open(partial, 'wx', 0o600);
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    try {
      await link(partial, join(this.path, snapshotName(number)));
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      await rm(partial, { force: true });
    }
  }

  /** Removes what the new snapshot made superfluous. */
  async #sweep(content: Content, { nowMs, ownName }: { readonly nowMs: number; readonly ownName: string | undefined }) {
    for (const name of content.snapshotNames) await rm(join(this.path, name), { force: true });
    for (const { name, size } of content.writers) {
      const path = join(this.path, name);
      const now = await stat(path).catch(() => undefined);
      if (now === undefined || now.size !== size) continue;
      if (name === ownName || nowMs - now.mtimeMs > idleMs) await rm(path, { force: true });
    }
    for (const name of content.partials) {
      const path = join(this.path, name);
      const found = await stat(path).catch(() => undefined);
      if (found !== undefined && nowMs - found.mtimeMs > idleMs) await rm(path, { force: true });
    }
  }
}

interface Content {
  readonly number: number;
  readonly bytes: number;
  /** How far into each file all this reaches. */
  readonly covered: ReadonlyMap<string, number>;
  readonly own: ProfileLedger;
  /** The latest of each host and model. */
  readonly snapshots: ReadonlyMap<string, ProfileSnapshot>;
  readonly problems: readonly string[];
  readonly writers: readonly { readonly name: string; readonly size: number }[];
  readonly snapshotNames: readonly string[];
  readonly partials: readonly string[];
}

async function readFolder(path: string): Promise<Content> {
  const { snapshots: snapshotNames, writers, partials } = namesOf(await readdir(path));
  const own = new ProfileLedger({ keepsDays: true });
  const snapshots = new Map<string, ProfileSnapshot>();
  const covered = new Map<string, number>();
  const before = new Map<string, number>();
  const problems: string[] = [];
  const tell = (text: string): void => {
    if (problems.length < problemsMax) problems.push(text);
  };
  const take = (value: unknown): void => {
    const type = (value as { readonly type?: unknown } | null)?.type;
    if (type === 'covers') {
      const { files } = value as { readonly files: Readonly<Record<string, number>> };
      for (const [name, bytes] of Object.entries(files)) before.set(name, bytes);
    } else if (type === 'snapshot') {
      const snapshot = readProfileSnapshot(value);
      if (snapshot === undefined) return;
      const key = `${snapshot.host} ${snapshot.model}`;
      if ((snapshots.get(key)?.atMs ?? -1) <= snapshot.atMs) snapshots.set(key, snapshot);
    } else {
      const record = readProfileRecord(value);
      if (record !== undefined) own.add(record);
    }
  };
  let bytes = 0;
  const latest = snapshotNames.at(-1);
  if (latest !== undefined) {
    const content = await readFile(join(path, latest));
    bytes += content.byteLength;
    const { damagedBytes, tornBytes } = await readLinesInTurns(content, take);
    if (damagedBytes + tornBytes > 0) tell(`${latest}: ${damagedBytes + tornBytes} damaged bytes skipped`);
  }
  const sizes: { readonly name: string; readonly size: number }[] = [];
  for (const name of writers) {
    const content = await readFile(join(path, name));
    bytes += content.byteLength;
    const start = Math.min(before.get(name) ?? 0, content.byteLength);
    const { wholeBytes, damagedBytes, tornBytes } = await readLinesInTurns(content.subarray(start), take);
    if (damagedBytes > 0) tell(`${name}: ${damagedBytes} damaged bytes skipped`);
    if (tornBytes > 0) tell(`${name}: torn end of ${tornBytes} bytes skipped`);
    covered.set(name, start + wholeBytes);
    sizes.push({ name, size: content.byteLength });
  }
  const number = latest === undefined ? 0 : numberOf(latest);
  return { number, bytes, covered, own, snapshots, problems, writers: sizes, snapshotNames, partials };
}

function namesOf(names: readonly string[]) {
  return {
    snapshots: names.filter((name) => /^snapshot-\d{12}\.jsonl$/.test(name)).sort(),
    writers: names.filter((name) => /^w-\d+-[0-9a-f]{16}\.jsonl$/.test(name)).sort(),
    partials: names.filter((name) => /^partial-[0-9a-f]{16}$/.test(name)),
  };
}

function snapshotName(number: number): string {
  return `snapshot-${String(number).padStart(12, '0')}.jsonl`;
}

function numberOf(name: string): number {
  return Number(name.slice('snapshot-'.length, -'.jsonl'.length));
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

function failure(path: string, error: unknown): IntarsiaError {
  if (error instanceof IntarsiaError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const isFull = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG';
  return intarsiaError(
    isFull ? 'STORAGE_FULL' : 'UNAVAILABLE',
    `profiles in ${path} cannot be ${isFull ? 'written, no space left' : 'used'}: ${messageOf(error)}`,
    { path, code },
    error,
  );
}
