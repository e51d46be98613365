/**
 * The write-ahead file of the embedded store: one file that begins with a snapshot and goes on with what happened since.
 * Appending is durable when `sync` is done. A new snapshot is written beside it and renamed over it, so that a crash at any
 * moment leaves a whole file. A torn end, which a crash leaves, is cut off; damage before whole records is refused, because
 * cutting there would lose what was acknowledged.
 */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { encodeRecord, readRecord } from '#core/store/record-codec.js';
import type { StoreRecord } from '#core/store/requests.js';

const chunkBytes = 1_048_576;

export class LogFile {
  readonly path: string;
  /** Bytes that are whole records and durable. */
  durableBytes: number;
  /** Of the snapshot at its beginning. */
  snapshotBytes: number;
  private handle: FileHandle;

  private constructor(
    path: string,
    handle: FileHandle,
    bytes: { readonly durable: number; readonly snapshot: number },
  ) {
    this.path = path;
    this.handle = handle;
    this.durableBytes = bytes.durable;
    this.snapshotBytes = bytes.snapshot;
  }

  /**
   * Opens the file in the folder, or makes it from the first snapshot. `cutBytes`: of the torn end that was cut off.
   * @throws FAILED_PRECONDITION when the file is damaged
   */
  static async open(
    folder: string,
    first: () => Iterable<StoreRecord>,
    onRecord: (record: StoreRecord) => void,
  ): Promise<{ readonly file: LogFile; readonly cutBytes: number }> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, 'store.log');
    await rm(`${path}.next`, { force: true });
    const bytes = await readFile(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    });
    if (bytes === undefined) {
      const written = await writeSnapshot(path, first());
      for (const record of first()) onRecord(record);
      const handle = await open(path, 'r+');
      return { file: new LogFile(path, handle, { durable: written, snapshot: written }), cutBytes: 0 };
    }
    const end = replay(path, bytes, onRecord);
    const handle = await open(path, 'r+');
    if (end < bytes.length) {
      await handle.truncate(end);
      await handle.datasync();
    }
    return { file: new LogFile(path, handle, { durable: end, snapshot: 0 }), cutBytes: bytes.length - end };
  }

  /** Reads all records again, up to what is durable. */
  async reread(onRecord: (record: StoreRecord) => void): Promise<void> {
    const bytes = await readFile(this.path);
    replay(this.path, bytes.subarray(0, this.durableBytes), onRecord);
  }

  /** Appends whole records and makes them durable. What failed half-way is cut off by `cutBack`. */
  async append(records: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(records);
    for (let done = 0; done < bytes.length;) {
      done += (await this.handle.write(bytes, done, bytes.length - done, this.durableBytes + done)).bytesWritten;
    }
    await this.handle.datasync();
    this.durableBytes += bytes.length;
  }

  /** Cuts off what was written and never made durable. */
  async cutBack(): Promise<void> {
    await this.handle.truncate(this.durableBytes);
    await this.handle.datasync();
  }

  /** Begins again with a snapshot. A failure leaves the old file in place and whole. */
  async replace(records: Iterable<StoreRecord>): Promise<void> {
    const written = await writeSnapshot(this.path, records);
    const old = this.handle;
    this.handle = await open(this.path, 'r+');
    await old.close();
    this.durableBytes = written;
    this.snapshotBytes = written;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** Hands out every whole record; returns where they end. */
function replay(path: string, bytes: Uint8Array, onRecord: (record: StoreRecord) => void): number {
  let offset = 0;
  for (;;) {
    const read = readRecord(bytes, offset);
    if (read.type === 'end') return offset;
    if (read.type === 'broken') {
      if (offset === 0 || read.resumes) {
        throw intarsiaError(
          'FAILED_PRECONDITION',
          `the store file ${path} is damaged at byte ${offset} of ${bytes.length}: ${read.reason}. Restore it from a copy, or move it away to begin with an empty store`,
          { path, offset, bytes: bytes.length },
        );
      }
      return offset;
    }
    onRecord(read.record);
    offset = read.next;
  }
}

async function writeSnapshot(path: string, records: Iterable<StoreRecord>): Promise<number> {
  const next = `${path}.next`;
  const handle = await open(next, 'w', 0o600);
  let written = 0;
  try {
    let chunk: Uint8Array[] = [];
    let waiting = 0;
    const flush = async (): Promise<void> => {
      await handle.writeFile(Buffer.concat(chunk));
      written += waiting;
      chunk = [];
      waiting = 0;
    };
    for (const record of records) {
      const bytes = encodeRecord(record);
      chunk.push(bytes);
      waiting += bytes.length;
      if (waiting >= chunkBytes) await flush();
    }
    await flush();
    await handle.datasync();
  } catch (error) {
    await handle.close();
    await rm(next, { force: true });
    throw error;
  }
  await handle.close();
  await rename(next, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
  return written;
}
