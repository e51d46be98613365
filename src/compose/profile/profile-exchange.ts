/**
 * Brings what hosts measured of a model to each other: every host puts one bounded snapshot a model into the coordination
 * store, under the model's digest and its own name, and takes those of others. The latest replaces the one before.
 */
import type { GridKeys } from '#core/grid/keys.js';
import type { HostId } from '#core/ids.js';
import { readProfileSnapshot } from '#core/profile/profile-check.js';
import { linksModel, type ProfileRecord } from '#core/profile/profile-record.js';
import type { Clock } from '#ports/clock.js';
import type { ProfileSnapshot, ProfileStore } from '#ports/profile-store.js';
import type { Store } from '#ports/store.js';

export interface ProfileExchangeOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly profiles: ProfileStore;
  readonly clock: Clock;
}

/** Bytes of one snapshot; beyond it the records with fewest measurements are left out. */
const snapshotBytesMax = 128 * 1024;
const callMsMax = 5_000;
/** Models exchanged by one host; further ones stay its own. */
const modelsMax = 256;

export class ProfileExchange {
  readonly #options: ProfileExchangeOptions;
  /** What was published last, by model. */
  readonly #published = new Map<string, string>();
  /** Revision of the snapshot taken last, by key. */
  readonly #taken = new Map<string, number>();

  constructor(options: ProfileExchangeOptions) {
    this.#options = options;
  }

  /**
   * Publishes what is new of these models and takes what others published of them.
   * @returns What the store holds that is no snapshot, a line each.
   * @throws what the stores throw.
   */
  async exchange(models: readonly string[]): Promise<readonly string[]> {
    const { host, profiles } = this.#options;
    const { records } = await profiles.read({ host });
    const links = records.filter(({ type }) => type === 'link');
    const problems: string[] = [];
    await this.#publish(linksModel, links);
    problems.push(...(await this.#take(linksModel)));
    // What was profiled here counts for plans before anybody serves it.
    const measured = records.flatMap((record) => (record.type === 'link' ? [] : [record.model]));
    for (const model of [...new Set([...models, ...measured])].slice(0, modelsMax)) {
      const own = records.filter((record) => record.type !== 'link' && record.model === model);
      await this.#publish(model, [...own, ...links]);
      problems.push(...(await this.#take(model)));
    }
    return problems;
  }

  async #publish(model: string, records: readonly ProfileRecord[]): Promise<void> {
    const { host, store, keys, clock } = this.#options;
    const kept = bounded(records);
    const text = JSON.stringify(kept);
    if (kept.length === 0 || this.#published.get(model) === text) return;
    const snapshot: ProfileSnapshot = { host, model, atMs: clock.wallMs(), records: kept };
    const put = { type: 'put', key: keys.profile(model, host), value: JSON.stringify(snapshot) } as const;
    await store.transact({ conditions: [], operations: [put] }, { deadlineMs: clock.nowMs() + callMsMax });
    this.#published.set(model, text);
  }

  async #take(model: string): Promise<readonly string[]> {
    const { host, store, keys, profiles, clock } = this.#options;
    const prefix = `${keys.profiles}${model}/`;
    const { entries } = await store.range(prefix, { deadlineMs: clock.nowMs() + callMsMax });
    const problems: string[] = [];
    for (const { key, value, modRevision } of entries) {
      if (key === keys.profile(model, host) || this.#taken.get(key) === modRevision) continue;
      const snapshot = readSnapshot(value);
      if (snapshot?.model === model) await profiles.take(snapshot);
      else problems.push(`${key} holds no profile as this version writes it`);
      this.#taken.set(key, modRevision);
    }
    return problems;
  }
}

function readSnapshot(text: string): ProfileSnapshot | undefined {
  try {
    return readProfileSnapshot(JSON.parse(text));
  } catch {
    // Not even JSON: the caller names the key.
    return undefined;
  }
}

/** The records with most measurements that fit. Times of nodes are the longest and go last. */
function bounded(records: readonly ProfileRecord[]): readonly ProfileRecord[] {
  const weight = (record: ProfileRecord): number => (record.type === 'nodes' ? 0 : record.times.count);
  const sorted = [...records].sort((a, b) => weight(b) - weight(a));
  const kept: ProfileRecord[] = [];
  let bytes = 0;
  for (const record of sorted) {
    bytes += Buffer.byteLength(JSON.stringify(record)) + 1;
    if (bytes > snapshotBytesMax) break;
    kept.push(record);
  }
  return kept;
}
