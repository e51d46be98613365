/** What hosts published of a model's profile, and of their links, read from the coordination store for somebody who plans. */
import { intarsiaError } from '#core/errors.js';
import type { GridKeys } from '#core/grid/keys.js';
import { manifestFromText } from '#core/grid/manifest.js';
import { readProfileSnapshot } from '#core/profile/profile-check.js';
import { linksModel, type ProfileRecord } from '#core/profile/profile-record.js';
import type { GridProfiles } from '#ports/grid-admin.js';
import type { Store, StoreEntry } from '#ports/store.js';

/** Hosts whose profiles are handed out; a snapshot is at most 128 KiB. */
const snapshotsMax = 24;

/** @throws INVALID_ARGUMENT (no digest), and what the store throws. */
export async function publishedProfiles(
  digest: string,
  { store, keys, deadlineMs }: { readonly store: Store; readonly keys: GridKeys; readonly deadlineMs: number },
): Promise<GridProfiles> {
  if (!/^[0-9a-f]{64}$/.test(digest)) {
    throw intarsiaError('INVALID_ARGUMENT', `digest must be 64 hexadecimal digits; it has ${digest.length} characters`);
  }
  const [own, links, models] = await Promise.all(
    [`${keys.profiles}${digest}/`, `${keys.profiles}${linksModel}/`, keys.models].map((prefix) =>
      store.range(prefix, { deadlineMs }),
    ),
  );
  const records = [...(own?.entries ?? []), ...(links?.entries ?? [])].flatMap(recordsOf).slice(0, snapshotsMax);
  return {
    recordsJson: records.map((list) => JSON.stringify(list)),
    models: (models?.entries ?? []).flatMap((entry) => modelOf(entry, digest)),
  };
}

/** Nothing for what is no snapshot: others write to the store as well. */
function recordsOf({ value }: StoreEntry): readonly (readonly ProfileRecord[])[] {
  try {
    const snapshot = readProfileSnapshot(JSON.parse(value));
    return snapshot === undefined ? [] : [snapshot.records];
  } catch {
    // Not even JSON; the host that takes snapshots names the key.
    return [];
  }
}

function modelOf({ value }: StoreEntry, wanted: string): GridProfiles['models'] {
  try {
    const { model, version, digest } = manifestFromText(value);
    return digest === wanted ? [{ model, version }] : [];
  } catch {
    // Whoever serves it names what is wrong with it.
    return [];
  }
}
