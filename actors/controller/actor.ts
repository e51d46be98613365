/**
 * The controller as an actor: follows the store while its host leads, looks at everything after each change, writes what the
 * look decides, and looks again when the store shows it. Nothing is decided on half of the knowledge: until every folder
 * was read and a view is there, it waits; while the store is away, placement stands still.
 */
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import { DesiredState, folders, prefixOf, type Folder } from '#core/grid/desired-state.js';
import { reconcile, type ReconcileEvent } from '#core/grid/reconcile.js';
import { emptyMemory, type ReconcileMemory } from '#core/grid/reconcile-memory.js';
import { emptyView, type View } from '#core/grid/records.js';
import { deviceEvents, devicesOut, viewEvents } from '#core/grid/view-events.js';
import type { HostId } from '#core/ids.js';
import type { StoreTransaction } from '#ports/store.js';
import type { Leadership } from '#actors/election/protocol.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import { StoreFollower, type FollowerMessage } from '#runtime/store-follower.js';
import { completeController, type CompleteControllerOptions, type ControllerOptions } from './options.js';
import { planWrites } from './plan-writes.js';
import type { ControllerMessage } from './protocol.js';

/** What the controller receives: its protocol, and its own news. */
export type ControllerInbox =
  | ControllerMessage
  | FollowerMessage<Folder>
  | { readonly type: 'leadership'; readonly leadership: Leadership }
  | { readonly type: 'view-news'; readonly news: ViewNews }
  /** The time to gather changes is over, or time alone may have changed something. */
  | { readonly type: 'look'; readonly lead: number }
  | { readonly type: 'review'; readonly lead: number; readonly review: number }
  | { readonly type: 'written'; readonly lead: number; readonly revisions: WrittenRevisions }
  | { readonly type: 'write-failed'; readonly lead: number; readonly error: IntarsiaError };

/** How far the transactions of a look came. */
interface WrittenRevisions {
  /** False: a condition did not hold; the store has something else than was read. */
  readonly ok: boolean;
  readonly transactions: number;
  /** Revision at which each key was written or deleted. */
  readonly keys: ReadonlyMap<string, number>;
}

/** Spawn one a host that may lead, as `controller`, after `membership` and `election`. */
export function controllerActor(options: ControllerOptions): ActorFactory<ControllerInbox> {
  const complete = completeController(options);
  return (context) => new Controller(complete, context);
}

class Controller implements Actor<ControllerInbox> {
  readonly #options: CompleteControllerOptions;
  readonly #context: ActorContext<ControllerInbox>;
  readonly #followers: Readonly<Record<Folder, StoreFollower<Folder>>>;
  readonly #viewSubscriber: ReplyTo<ViewNews>;
  readonly #leadSubscriber: ReplyTo<Leadership>;
  #leadership: Extract<Leadership, { readonly leading: true }> | undefined;
  /** Number of the lead; what belongs to an earlier one is void. */
  #lead = 0;
  #news: ViewNews | undefined;
  /** The view that events have told of: the leader's business, followed by the others until they lead. */
  /** Devices out of service at the last look of this lead. */
  #out: ReadonlyMap<string, string> | undefined;
  #told: View = emptyView;
  #leader: HostId | undefined;
  #state: DesiredState;
  #memory: ReconcileMemory = emptyMemory;
  #isLookDue = false;
  #review = 0;
  #isWriting = false;
  /** What was written and has not come back by the watch: revision by key. */
  readonly #awaited = new Map<string, number>();
  /** Of these, keys that were seen to be deleted. */
  readonly #deleted = new Set<string>();
  #failures = 0;
  #reconciliations = 0;
  #writes = 0;

  constructor(options: CompleteControllerOptions, context: ActorContext<ControllerInbox>) {
    this.#options = options;
    this.#context = context;
    const { store, keys, callMs, retryMsMin, retryMsMax } = options;
    const follower = (folder: Folder): StoreFollower<Folder> =>
      new StoreFollower({ folder, store, prefix: prefixOf(keys, folder), callMs, retryMsMin, retryMsMax }, context);
    this.#followers = Object.fromEntries(folders.map((folder) => [folder, follower(folder)])) as Record<
      Folder,
      StoreFollower<Folder>
    >;
    this.#state = this.#newState();
    const { self } = context;
    this.#viewSubscriber = { tell: (news) => self.tell({ type: 'view-news', news }) };
    this.#leadSubscriber = { tell: (leadership) => self.tell({ type: 'leadership', leadership }) };
    options.membership.tell({ type: 'subscribe', subscriber: this.#viewSubscriber, about: 'members' });
    options.election.tell({ type: 'subscribe', subscriber: this.#leadSubscriber });
  }

  receive(message: ControllerInbox): void {
    switch (message.type) {
      case 'leadership':
        this.#onLeadership(message.leadership);
        return;
      case 'view-news':
        this.#onNews(message.news);
        return;
      case 'follower':
        this.#onFollower(message);
        return;
      case 'look':
        if (message.lead !== this.#lead) return;
        this.#isLookDue = false;
        this.#look();
        return;
      case 'review':
        if (message.lead === this.#lead && message.review === this.#review) this.#lookSoon();
        return;
      case 'written':
        if (message.lead === this.#lead) this.#onWritten(message.revisions);
        return;
      case 'write-failed':
        if (message.lead === this.#lead) this.#onWriteFailed(message.error);
        return;
      case 'status':
        message.replyTo.tell({
          epoch: this.#leadership?.epoch,
          isReady: this.#isReady,
          reconciliations: this.#reconciliations,
          writes: this.#writes,
          isWriting: this.#isWriting,
        });
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    this.#options.membership.tell({ type: 'unsubscribe', subscriber: this.#viewSubscriber });
    this.#options.election.tell({ type: 'unsubscribe', subscriber: this.#leadSubscriber });
    for (const follower of Object.values(this.#followers)) follower.stop();
  }

  #onNews(news: ViewNews): void {
    const before = this.#news;
    this.#news = news;
    if (before?.view === news.view && before.stale === news.stale) return;
    this.#followTold();
    this.#lookSoon();
  }

  #newState(): DesiredState {
    return new DesiredState(this.#options.keys, (text) => this.#context.log.warn(text));
  }

  #onLeadership(leadership: Leadership): void {
    if (!leadership.leading) {
      // Before it knows that it leads, it may see its own name there: nobody else tells then.
      this.#leader = leadership.leader === this.#options.host ? undefined : leadership.leader;
      this.#followTold();
    }
    if (leadership.leading && leadership.epoch === this.#leadership?.epoch) return;
    if (!leadership.leading && this.#leadership === undefined) return;
    this.#lead += 1;
    this.#memory = emptyMemory;
    this.#out = undefined;
    this.#state = this.#newState();
    this.#isLookDue = false;
    this.#isWriting = false;
    this.#awaited.clear();
    this.#deleted.clear();
    this.#failures = 0;
    this.#reconciliations = 0;
    this.#writes = 0;
    this.#leadership = leadership.leading ? leadership : undefined;
    for (const follower of Object.values(this.#followers)) {
      follower.stop();
      if (leadership.leading) follower.start();
    }
    if (leadership.leading)
      this.#context.log.info('this host decides what the grid serves', { epoch: leadership.epoch });
    else
      this.#context.log.info('this host no longer decides what the grid serves', {
        leader: leadership.leader ?? 'none',
      });
  }

  /**
   * While another host leads, it tells of every change but its own loss; while nobody leads, nobody tells. Whoever leads
   * next begins where the one before stopped.
   */
  #followTold(): void {
    if (this.#leadership !== undefined || this.#news === undefined || this.#leader === undefined) return;
    const hosts = new Map(this.#news.view.hosts);
    const before = this.#told.hosts.get(this.#leader);
    if (before !== undefined) hosts.set(this.#leader, before);
    this.#told = { revision: this.#news.view.revision, hosts };
  }

  #onFollower(message: FollowerMessage<Folder>): void {
    const follower = this.#followers[message.folder];
    const changed = follower.handle(message);
    for (const key of changed) {
      const entry = follower.entries.get(key);
      if (entry === undefined) this.#deleted.add(key);
      this.#state.set(message.folder, key, entry);
    }
    // Another read shows what is there now, whatever became of single changes.
    if (message.news.type === 'snapshot') this.#forgetAwaited(message.folder);
    // Events are only written, and tell the controller nothing.
    if (changed.size > 0 || message.news.type === 'watched') this.#lookSoon();
  }

  #forgetAwaited(folder: Folder): void {
    const prefix = prefixOf(this.#options.keys, folder);
    for (const key of [...this.#awaited.keys()]) if (key.startsWith(prefix)) this.#awaited.delete(key);
  }

  get #isReady(): boolean {
    if (this.#leadership === undefined || this.#news === undefined) return false;
    if (this.#news.view.hosts.size === 0 || this.#news.stale) return false;
    return Object.values(this.#followers).every((follower) => follower.isComplete && follower.isFresh);
  }

  #lookSoon(): void {
    if (this.#isLookDue || this.#leadership === undefined) return;
    this.#isLookDue = true;
    this.#context.schedule(this.#options.gatherMs, { type: 'look', lead: this.#lead });
  }

  #look(): void {
    const leadership = this.#leadership;
    if (leadership === undefined || this.#news === undefined || !this.#isReady || this.#isWriting) return;
    if (!this.#hasCaughtUp) return;
    this.#deleted.clear();
    const { clock } = this.#context;
    const { view } = this.#news;
    const { deployments, rollouts, assignments, actuals, manifestOf, verificationOf, variantsOf } = this.#state;
    const output = reconcile({
      nowMs: clock.nowMs(),
      epoch: leadership.epoch,
      view,
      deployments,
      rollouts,
      assignments,
      actuals,
      manifestOf,
      verificationOf,
      variantsOf,
      memory: this.#memory,
      options: this.#options.reconcile,
    });
    this.#memory = output.memory;
    this.#reconciliations += 1;
    const leads: ReconcileEvent = {
      level: 'info',
      subject: `host ${this.#options.host}`,
      text: `leads, in epoch ${leadership.epoch}`,
    };
    const out = devicesOut(actuals);
    // Whoever leads anew does not tell again what the one before has told.
    const ofDevices = this.#out === undefined ? [] : deviceEvents(this.#out, out);
    this.#out = out;
    const events = [
      ...(this.#reconciliations === 1 ? [leads] : []),
      ...viewEvents(this.#told, view),
      ...ofDevices,
      ...output.events,
    ];
    this.#told = view;
    for (const { level, subject, text } of events) this.#context.log[level](text, { subject });
    this.#reviewAt(output.reviewMs);
    const transactions = planWrites(
      { ...output, events },
      {
        keys: this.#options.keys,
        fence: leadership.fence,
        revisionOf: (key) => this.#revisionOf(key),
        eventSequence: this.#state.eventSequence,
        wallMs: clock.wallMs(),
      },
    );
    this.#state.eventSequence += events.length;
    if (transactions.length > 0) this.#write(transactions);
  }

  #reviewAt(momentMs: number): void {
    this.#review += 1;
    if (momentMs === Infinity) return;
    const delayMs = momentMs - this.#context.clock.nowMs();
    this.#context.schedule(delayMs, { type: 'review', lead: this.#lead, review: this.#review });
  }

  #revisionOf(key: string): number | undefined {
    for (const folder of ['rollouts', 'assignments'] as const) {
      const entry = this.#followers[folder].entries.get(key);
      if (entry !== undefined) return entry.modRevision;
    }
    return undefined;
  }

  #write(transactions: readonly StoreTransaction[]): void {
    this.#isWriting = true;
    const lead = this.#lead;
    this.#context.pipeToSelf(
      this.#transact(transactions),
      (revisions) => ({ type: 'written', lead, revisions }),
      (thrown) => ({ type: 'write-failed', lead, error: asIntarsiaError(thrown) }),
    );
  }

  /** One after the other; the rest is left when one does not hold. */
  async #transact(transactions: readonly StoreTransaction[]): Promise<WrittenRevisions> {
    const { store, callMs } = this.#options;
    const lead = this.#lead;
    const keys = new Map<string, number>();
    let count = 0;
    for (const transaction of transactions) {
      if (lead !== this.#lead) break;
      const outcome = await store.transact(transaction, { deadlineMs: this.#context.clock.nowMs() + callMs });
      if (!outcome.ok) return { ok: false, transactions: count, keys };
      count += 1;
      for (const operation of transaction.operations) {
        if (operation.type !== 'delete-prefix') keys.set(operation.key, outcome.revision);
      }
    }
    return { ok: true, transactions: count, keys };
  }

  #onWritten({ ok, transactions, keys }: WrittenRevisions): void {
    this.#writes += transactions;
    for (const [key, revision] of keys)
      if (!key.startsWith(this.#options.keys.events)) this.#awaited.set(key, revision);
    if (!ok) {
      this.#backOff('the store has something else than was read');
      return;
    }
    this.#failures = 0;
    this.#isWriting = false;
    this.#lookSoon();
  }

  /** Whether the followers have what was written: nothing is decided on less. */
  get #hasCaughtUp(): boolean {
    for (const [key, revision] of this.#awaited) {
      const known = this.#revisionOf(key);
      const hasCome = known === undefined ? this.#deleted.has(key) : known >= revision;
      if (!hasCome) return false;
    }
    this.#awaited.clear();
    this.#deleted.clear();
    return true;
  }

  #onWriteFailed(error: IntarsiaError): void {
    // Whether it was written is not known: the folders are read again before anything is decided.
    for (const folder of ['rollouts', 'assignments', 'events'] as const) this.#followers[folder].start();
    this.#backOff(error.message);
  }

  #backOff(reason: string): void {
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#failures, 16));
    this.#failures += 1;
    this.#context.log.warn('what the grid serves could not be written; tried again', { reason, waitMs });
    this.#isWriting = false;
    this.#isLookDue = true;
    this.#context.schedule(waitMs, { type: 'look', lead: this.#lead });
  }
}
