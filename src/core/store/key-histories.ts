/**
 * The versions of every key since the last compaction, in the order of keys. A sorted array of keys beside a map: ranges
 * are slices, and moving an array of 100,000 pointers costs less than any tree of JavaScript objects.
 */
import { isInRange } from './byte-text.js';
import type { StoredVersion } from './requests.js';

export class KeyHistories {
  private keys: string[] = [];
  private readonly versions = new Map<string, StoredVersion[]>();
  /** Of keys and values of all versions kept. */
  bytes = 0;

  /** Keys with a history, deleted ones that are not yet compacted away included. */
  get size(): number {
    return this.keys.length;
  }

  /** Appends a version that is newer than all others of its key; `version` 0 is a deletion. */
  append(version: StoredVersion): void {
    const history = this.versions.get(version.key);
    if (history === undefined) {
      this.keys.splice(this.lowerBound(version.key), 0, version.key);
      this.versions.set(version.key, [version]);
    } else {
      history.push(version);
    }
    this.bytes += bytesOf(version);
  }

  /** The key's living value as of a revision; undefined when it had none. */
  at(key: string, revision = Infinity): StoredVersion | undefined {
    const history = this.versions.get(key);
    return history === undefined ? undefined : living(history, revision);
  }

  /** Living values in a range as of a revision, by key. */
  range(start: string, end: string, revision = Infinity): StoredVersion[] {
    if (end === '') {
      const one = this.at(start, revision);
      return one === undefined ? [] : [one];
    }
    const found: StoredVersion[] = [];
    for (let index = this.lowerBound(start); index < this.keys.length; index += 1) {
      const key = this.keys[index] ?? '';
      if (!isInRange(key, start, end)) break;
      const version = this.at(key, revision);
      if (version !== undefined) found.push(version);
    }
    return found;
  }

  /** Forgets what these keys were before a revision, except what still lived at it. */
  compact(keys: Iterable<string>, revision: number): void {
    let gone = false;
    for (const key of keys) {
      const history = this.versions.get(key);
      if (history === undefined) continue;
      const kept = keepFrom(history, revision);
      for (const version of history.slice(0, history.length - kept.length)) this.bytes -= bytesOf(version);
      if (kept.length > 0) {
        this.versions.set(key, kept);
      } else {
        this.versions.delete(key);
        gone = true;
      }
    }
    if (gone) this.keys = this.keys.filter((key) => this.versions.has(key));
  }

  private lowerBound(key: string): number {
    let low = 0;
    let high = this.keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.keys[middle] ?? '') < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function living(history: readonly StoredVersion[], revision: number): StoredVersion | undefined {
  for (let index = history.length - 1; index >= 0; index -= 1) {
    const version = history[index];
    if (version !== undefined && version.modRevision <= revision) return version.version > 0 ? version : undefined;
  }
  return undefined;
}

/** The last version up to the revision, unless that is a deletion, and all later ones. */
function keepFrom(history: readonly StoredVersion[], revision: number): StoredVersion[] {
  const later = history.findIndex((version) => version.modRevision > revision);
  const last = (later === -1 ? history.length : later) - 1;
  const lives = last >= 0 && (history[last]?.version ?? 0) > 0;
  return history.slice(lives ? last : last + 1);
}

function bytesOf(version: StoredVersion): number {
  return version.key.length + version.value.length + 64;
}
