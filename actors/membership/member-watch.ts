/**
 * Follows `members/` in the store: reads it, watches it from there, reads it again whenever something may have been missed.
 * It keeps the fold; what was folded in last stays for as long as the store is away.
 */
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import { MembershipFold } from '#core/grid/view.js';
import type { StoreSnapshot, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import type { ActorContext } from '#runtime/actor.js';
import type { CompleteMembershipOptions } from './options.js';

export type MemberWatchEvent =
  | { readonly type: 'snapshot'; readonly reading: number; readonly snapshot: StoreSnapshot }
  | { readonly type: 'snapshot-failed'; readonly reading: number; readonly error: IntarsiaError }
  | { readonly type: 'store-event'; readonly reading: number; readonly event: StoreWatchEvent }
  | { readonly type: 'read-again'; readonly reading: number };

export class MemberWatch {
  readonly fold: MembershipFold;
  readonly #options: CompleteMembershipOptions;
  readonly #context: ActorContext<MemberWatchEvent>;
  #reading = 0;
  #failures = 0;
  #watch: StoreWatch | undefined;
  #isConnected = false;
  #freshMs = -Infinity;
  /** Highest revision that is known to be in the store; and what it was when the last read began. */
  #knownRevision = 0;
  #knownAtRead = 0;
  #hasBegunAnew = false;

  constructor(options: CompleteMembershipOptions, context: ActorContext<MemberWatchEvent>) {
    this.#options = options;
    this.#context = context;
    this.fold = new MembershipFold(options.keys);
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Last moment at which the fold was known to be what the store has, ms. */
  get freshMs(): number {
    return this.#isConnected ? this.#context.clock.nowMs() : this.#freshMs;
  }

  /** Something was written at that revision. */
  noteRevision(revision: number): void {
    this.#knownRevision = Math.max(this.#knownRevision, revision);
  }

  /** Whether the last read found a store that does not know what was in it before. Once a read. */
  takeBegunAnew(): boolean {
    const hasBegunAnew = this.#hasBegunAnew;
    this.#hasBegunAnew = false;
    return hasBegunAnew;
  }

  /** Reads all and watches from there. */
  start(): void {
    this.stop();
    const reading = this.#reading;
    this.noteRevision(this.fold.revision);
    this.#knownAtRead = this.#knownRevision;
    const { store, keys, callMs } = this.#options;
    const { clock } = this.#context;
    this.#context.pipeToSelf(
      store.range(keys.members, { deadlineMs: clock.nowMs() + callMs }),
      (snapshot) => ({ type: 'snapshot', reading, snapshot }),
      (thrown) => ({ type: 'snapshot-failed', reading, error: asIntarsiaError(thrown) }),
    );
  }

  stop(): void {
    this.#reading += 1;
    this.#watch?.cancel();
    this.#watch = undefined;
  }

  /** True when the fold may have changed. */
  handle(message: MemberWatchEvent): boolean {
    if (message.reading !== this.#reading) return false;
    switch (message.type) {
      case 'snapshot':
        this.#onSnapshot(message.snapshot);
        return true;
      case 'snapshot-failed':
        this.#lostTouch();
        this.#context.log.warn('the store cannot be read; the last view stays', { reason: message.error.message });
        this.#readLater();
        return false;
      case 'read-again':
        this.start();
        return false;
      case 'store-event':
        return this.#onEvent(message.event);
    }
  }

  #onSnapshot({ revision, entries }: StoreSnapshot): void {
    this.#failures = 0;
    this.#isConnected = true;
    if (revision < this.#knownAtRead) {
      this.#context.log.warn('the store has begun anew', { revision, knownRevision: this.#knownAtRead });
      this.#hasBegunAnew = true;
      this.#knownRevision = revision;
    }
    this.fold.reset(revision, entries);
    const reading = this.#reading;
    const { self } = this.#context;
    const { store, keys } = this.#options;
    let isOverrun = false;
    this.#watch = store.watch(keys.members, revision + 1, (event) => {
      if (isOverrun || self.tell({ type: 'store-event', reading, event }) === 'accepted') return;
      // A change that did not fit into the mailbox is a change missed.
      isOverrun = true;
      this.#lostTouch();
      this.#context.schedule(this.#options.retryMsMin, { type: 'read-again', reading });
    });
  }

  #onEvent(event: StoreWatchEvent): boolean {
    switch (event.type) {
      case 'changes':
        this.#isConnected = true;
        this.fold.apply(event.revision, event.changes);
        return true;
      case 'progress':
        this.#isConnected = true;
        this.fold.progress(event.revision);
        return true;
      case 'connected':
        if (event.connected) this.#isConnected = true;
        else this.#lostTouch();
        return false;
      case 'lost':
        this.#context.log.warn('changes in the store were missed; reading it again', { reason: event.reason });
        this.#lostTouch();
        this.start();
        return false;
    }
  }

  #lostTouch(): void {
    if (this.#isConnected) this.#freshMs = this.#context.clock.nowMs();
    this.#isConnected = false;
  }

  #readLater(): void {
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures += 1;
    const delayMs = waitMs * (0.75 + 0.5 * this.#context.random.next());
    this.#context.schedule(delayMs, { type: 'read-again', reading: this.#reading });
  }
}
