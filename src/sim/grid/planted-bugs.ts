/**
 * Bugs planted into a simulated world on purpose, each to show that a checker bites. They are in what surrounds the
 * production code, never in it: wrappers of the store, of links and of replies.
 */
import type { GridKeys } from '#core/grid/keys.js';
import type { Store, StoreEntry, StoreWatchEvent } from '#ports/store.js';

export const plantedBugs = [
  /** A gateway tells a client its answer twice. */
  'doubled-answer',
  /** A gateway's answer never reaches its client. */
  'lost-answer',
  /** A device computes something else. */
  'wrong-answer',
  /** A device forgets the states of sequences. */
  'forgotten-state',
  /** A gateway fails with an error that no one knows. */
  'unknown-error',
  /** Somebody writes assignments without the leader's fence, with copies that others own. */
  'two-owners',
  /** Messages between two hosts overtake each other. */
  'overtaking',
  /** Messages between two hosts are delivered twice. */
  'doubled-message',
  /** A host says that it has more memory than it has, and uses it. */
  'boundless-memory',
  /** A host never learns of one other host. */
  'lost-member',
  /** A host is never told what is assigned to it. */
  'deaf-agent',
  /** A gateway refuses every third request, also when all is calm. */
  'refusing-gateway',
  /** Something is drawn that does not come from the seed. */
  'stray-chance',
] as const;
export type PlantedBug = (typeof plantedBugs)[number];

/** A store that hides some keys from whoever reads through it. */
export function hidingStore(store: Store, isHidden: (key: string) => boolean): Store {
  const visible = (entries: readonly StoreEntry[]): readonly StoreEntry[] =>
    entries.filter(({ key }) => !isHidden(key));
  return {
    get: (key, options) => store.get(key, options),
    range: async (prefix, options) => {
      const { revision, entries } = await store.range(prefix, options);
      return { revision, entries: visible(entries) };
    },
    transact: (transaction, options) => store.transact(transaction, options),
    watch: (prefix, fromRevision, onEvent) =>
      store.watch(prefix, fromRevision, (event: StoreWatchEvent) => {
        if (event.type !== 'changes') {
          onEvent(event);
          return;
        }
        const changes = event.changes.filter(
          (change) => !isHidden(change.type === 'put' ? change.entry.key : change.key),
        );
        onEvent({ ...event, changes });
      }),
    lease: (ttlMs, onLost, options) => store.lease(ttlMs, onLost, options),
    close: () => store.close(),
  };
}

/** The store as one host of a world with that bug sees it; `first` and `last` are hosts of the world. */
export function plantedStore(
  store: Store,
  bug: PlantedBug | undefined,
  {
    keys,
    host,
    first,
    last,
  }: { readonly keys: GridKeys; readonly host: string; readonly first: string; readonly last: string },
): Store {
  if (bug === 'lost-member' && host === first) {
    const hidden = `${keys.hosts}${last}`;
    return hidingStore(store, (key) => key === hidden);
  }
  if (bug === 'deaf-agent') {
    const hidden = `${keys.assignments}${host}`;
    return hidingStore(store, (key) => key === hidden);
  }
  return store;
}

let strays = 0;

/** A number that is another one in every run of the process: what a simulation must not depend on. */
export function strayNumber(): number {
  strays += 1;
  return strays;
}
