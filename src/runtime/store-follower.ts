/**
 * A folder of the coordination store, kept in an actor: read once, watched from there, read again whenever something may
 * have been missed. What it calls for comes back to the actor as messages, so that nothing changes behind its back.
 *
 * While the store is away the last content stays and `isFresh` is false.
 */
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Store, StoreChange, StoreEntry, StoreSnapshot, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import type { ActorContext } from './actor.js';

export type FollowerNews =
  | { readonly type: 'snapshot'; readonly snapshot: StoreSnapshot }
  | { readonly type: 'unread'; readonly error: IntarsiaError }
  | { readonly type: 'watched'; readonly event: StoreWatchEvent }
  | { readonly type: 'read' };

/** The message that the actor hands back to the follower of that folder. */
export interface FollowerMessage<Folder extends string> {
  readonly type: 'follower';
  readonly folder: Folder;
  readonly reading: number;
  readonly news: FollowerNews;
}

export interface StoreFollowerOptions<Folder extends string> {
  readonly folder: Folder;
  readonly store: Store;
  readonly prefix: string;
  /** Time for one read, ms. */
  readonly callMs: number;
  readonly retryMsMin: number;
  readonly retryMsMax: number;
}

export class StoreFollower<Folder extends string> {
  readonly #options: StoreFollowerOptions<Folder>;
  readonly #context: ActorContext<FollowerMessage<Folder>>;
  #entries = new Map<string, StoreEntry>();
  #reading = 0;
  #failures = 0;
  #watch: StoreWatch | undefined;
  #isFresh = false;
  #isComplete = false;

  constructor(options: StoreFollowerOptions<Folder>, context: ActorContext<FollowerMessage<Folder>>) {
    this.#options = options;
    this.#context = context;
  }

  /** By key. */
  get entries(): ReadonlyMap<string, StoreEntry> {
    return this.#entries;
  }

  /** It was read whole at least once since `start`. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** It was read, and the store can be reached. */
  get isFresh(): boolean {
    return this.#isFresh;
  }

  /** Reads all and watches from there. */
  start(): void {
    this.#begin();
    const reading = this.#reading;
    const { store, prefix, callMs } = this.#options;
    this.#context.pipeToSelf(
      store.range(prefix, { deadlineMs: this.#context.clock.nowMs() + callMs }),
      (snapshot) => this.#message(reading, { type: 'snapshot', snapshot }),
      (thrown) => this.#message(reading, { type: 'unread', error: asIntarsiaError(thrown) }),
    );
  }

  /** Ends it, and forgets what was read. */
  stop(): void {
    this.#begin();
    this.#entries = new Map();
    this.#isComplete = false;
  }

  /**
   * Takes its news in.
   * @returns Keys of which the content may have changed; all of them after another read; none when nothing changed.
   */
  handle({ reading, news }: FollowerMessage<Folder>): ReadonlySet<string> {
    if (reading !== this.#reading) return nothing;
    switch (news.type) {
      case 'snapshot':
        return this.#onSnapshot(news.snapshot);
      case 'unread':
        this.#isFresh = false;
        this.#readLater();
        return nothing;
      case 'read':
        this.start();
        return nothing;
      case 'watched':
        return this.#onEvent(news.event);
    }
  }

  #begin(): void {
    this.#reading += 1;
    this.#watch?.cancel();
    this.#watch = undefined;
    this.#isFresh = false;
  }

  #message(reading: number, news: FollowerNews): FollowerMessage<Folder> {
    return { type: 'follower', folder: this.#options.folder, reading, news };
  }

  #onSnapshot({ revision, entries }: StoreSnapshot): ReadonlySet<string> {
    const before = this.#entries;
    this.#entries = new Map(entries.map((entry) => [entry.key, entry]));
    this.#failures = 0;
    this.#isFresh = true;
    this.#isComplete = true;
    const reading = this.#reading;
    const { store, prefix, retryMsMin } = this.#options;
    let isOverrun = false;
    this.#watch = store.watch(prefix, revision + 1, (event) => {
      if (isOverrun) return;
      if (this.#context.self.tell(this.#message(reading, { type: 'watched', event })) === 'accepted') return;
      // A change that did not fit into the mailbox is a change missed.
      isOverrun = true;
      this.#context.schedule(retryMsMin, this.#message(reading, { type: 'read' }));
    });
    return new Set([...before.keys(), ...this.#entries.keys()]);
  }

  #onEvent(event: StoreWatchEvent): ReadonlySet<string> {
    switch (event.type) {
      case 'changes':
        this.#isFresh = true;
        return new Set(event.changes.map((change) => this.#apply(change)));
      case 'progress':
        this.#isFresh = true;
        return nothing;
      case 'connected':
        this.#isFresh = event.connected;
        return nothing;
      case 'lost':
        this.#context.log.info('changes in the store were missed; reading it again', {
          prefix: this.#options.prefix,
          reason: event.reason,
        });
        this.start();
        return nothing;
    }
  }

  #apply(change: StoreChange): string {
    if (change.type === 'delete') {
      this.#entries.delete(change.key);
      return change.key;
    }
    this.#entries.set(change.entry.key, change.entry);
    return change.entry.key;
  }

  #readLater(): void {
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures += 1;
    const delayMs = waitMs * (0.75 + 0.5 * this.#context.random.next());
    this.#context.schedule(delayMs, this.#message(this.#reading, { type: 'read' }));
  }
}

const nothing: ReadonlySet<string> = new Set();
