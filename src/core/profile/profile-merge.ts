/**
 * How records become one answer a key: times of the same key add up, what else they say is the newest's. A day's
 * measurements are kept apart until they are read, so that they can expire one day after the other.
 */
import { profileHost, profileKey, type ProfileRecord } from './profile-record.js';
import { addTimes } from './time-stats.js';

const dayMs = 86_400_000;

/**
 * Days after which a measurement no longer counts. Higher: fewer measurements to repeat; lower: a changed machine is
 * noticed sooner. Profiles of shards change with engine and driver, which are part of the key; what machines do beside,
 * and links, changes any day.
 */
export interface ProfileExpiry {
  /** Whole days, 1 to 3650. Default 90. */
  readonly profiledDays: number;
  /** Default 14. */
  readonly servedDays: number;
  /** Default 7. */
  readonly linkDays: number;
}

export const defaultProfileExpiry: ProfileExpiry = { profiledDays: 90, servedDays: 14, linkDays: 7 };

export function isExpired(record: ProfileRecord, nowMs: number, expiry = defaultProfileExpiry): boolean {
  const { profiledDays, servedDays, linkDays } = expiry;
  const isServed = record.type === 'shard' && record.source === 'served';
  const days = record.type === 'link' ? linkDays : isServed ? servedDays : profiledDays;
  return nowMs - record.atMs > days * dayMs;
}

/** Two records of one key as one. */
export function mergePair(a: ProfileRecord, b: ProfileRecord): ProfileRecord {
  const newer = b.atMs >= a.atMs ? b : a;
  if (a.type === 'nodes' || b.type === 'nodes') return newer;
  return { ...(newer as Exclude<ProfileRecord, { readonly type: 'nodes' }>), times: addTimes(a.times, b.times) };
}

/** Records by what they are of, added up as they come. */
export class ProfileLedger {
  readonly #records = new Map<string, ProfileRecord>();
  readonly #keepsDays: boolean;

  constructor(options: { readonly keepsDays: boolean }) {
    this.#keepsDays = options.keepsDays;
  }

  add(record: ProfileRecord): void {
    const day = this.#keepsDays ? ` ${Math.floor(record.atMs / dayMs)}` : '';
    const key = profileKey(record) + day;
    const known = this.#records.get(key);
    this.#records.set(key, known === undefined ? record : mergePair(known, record));
  }

  get size(): number {
    return this.#records.size;
  }

  records(): readonly ProfileRecord[] {
    return [...this.#records.values()];
  }
}

/** Each key once. */
export function mergeRecords(records: readonly ProfileRecord[]): readonly ProfileRecord[] {
  const ledger = new ProfileLedger({ keepsDays: false });
  for (const record of records) ledger.add(record);
  return ledger.records();
}

/**
 * A snapshot's records count only where the machine has none of that host itself: a folder that several hosts share
 * holds the originals.
 */
export function withSnapshots(
  own: readonly ProfileRecord[],
  snapshots: readonly { readonly host: string; readonly records: readonly ProfileRecord[] }[],
): readonly ProfileRecord[] {
  const hosts = new Set(own.map(profileHost));
  return [...own, ...snapshots.filter(({ host }) => !hosts.has(host)).flatMap(({ records }) => records)];
}
