/**
 * The performance profile database: what was measured of models on devices and of links, for planners and schedulers.
 *
 * Promises:
 * - Records are only ever appended; what a completed `append` wrote survives the process, and many processes of one
 *   machine append and read at once.
 * - A crash loses at most the records of appends that had not completed; what is torn or damaged is skipped and named.
 * - `read` gives each key once, measurements of it added up (core/profile/profile-merge.ts), without what has expired.
 * - Of another host's records only its latest snapshot counts, however often it is brought in.
 * - Bounded in bytes: beyond the bound the oldest days are dropped, and `compact` says how many records that were.
 */
import type { ProfileRecord } from '#core/profile/profile-record.js';

export interface ProfileQuery {
  /** Digest of a model; absent: all. Links belong to no model and are always there. */
  readonly model?: string;
  /** Only what this host measured. */
  readonly host?: string;
}

export interface ProfileReading {
  readonly records: readonly ProfileRecord[];
  /** Damaged or torn parts that were skipped, one line each, at most 100. */
  readonly problems: readonly string[];
}

/** What one host knows of a model by its own measurements, at a moment. */
export interface ProfileSnapshot {
  readonly host: string;
  readonly model: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
  readonly records: readonly ProfileRecord[];
}

export interface CompactionReport {
  /** False when another process was compacting, or there was nothing to do. */
  readonly done: boolean;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly expired: number;
  /** Records dropped because of the bound. */
  readonly dropped: number;
}

export interface ProfileStore {
  /** @throws INVALID_ARGUMENT (a record that is none), STORAGE_FULL, INTERNAL (the disk). */
  append(records: readonly ProfileRecord[]): Promise<void>;
  read(query?: ProfileQuery): Promise<ProfileReading>;
  /** Takes in another host's snapshot in place of an earlier one; an older one and one of the own host is ignored. */
  take(snapshot: ProfileSnapshot): Promise<void>;
  compact(): Promise<CompactionReport>;
  close(): Promise<void>;
}
