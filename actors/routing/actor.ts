/**
 * The routing actor: mirrors what hosts serve from the store, hears of membership, the own catalogue and devices, and
 * publishes routing tables. Requests never pass through it.
 *
 * Bounded work: changes are folded in as they come, a table is made at most once in `publishMsMin`, and costs what changed.
 * Without the store the last tables stay. What a host serves is forgotten when the host leaves the view, not when its
 * record goes: a wiped store empties no table while the hosts are there.
 */
import { messageOf } from '#core/errors.js';
import { GridTable } from '#core/grid/grid-table.js';
import { readActual, readCurrentVersion, readServed } from '#core/grid/record-text.js';
import { readFacts } from '#core/grid/served-facts.js';
import type { HostId, ModelName } from '#core/ids.js';
import type { StoreSnapshot, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import type { Actor, ActorContext, ActorFactory, ReplyTo, Signal } from '#runtime/actor.js';
import type { RoutingOptions } from './options.js';
import type { RoutingMessage } from './protocol.js';

type Folder = 'actual' | 'served' | 'rollouts';

/** Its protocol, and its own news. */
export type RoutingInbox =
  | RoutingMessage
  | { readonly type: 'read'; readonly folder: Folder }
  | { readonly type: 'snapshot'; readonly folder: Folder; readonly snapshot: StoreSnapshot }
  | { readonly type: 'unread'; readonly folder: Folder; readonly error: unknown }
  | { readonly type: 'watched'; readonly folder: Folder; readonly turn: number; readonly event: StoreWatchEvent }
  | { readonly type: 'publish' };

interface Mirror {
  readonly prefix: string;
  watch: StoreWatch | undefined;
  /** Number of the watch: news of an earlier one are void. */
  turn: number;
  failures: number;
  /** Host or model that each key is about, to tell what is gone after another read. */
  readonly known: Map<string, string>;
}

const publishMsMinDefault = 50;
const readMsMaxDefault = 5000;
const retryMsMin = 200;
const retryMsMax = 5000;
/** Facts kept; beyond it those that no host refers to go. */
const factsMax = 4096;

export function routingActor(options: RoutingOptions): ActorFactory<RoutingInbox> {
  return (context) => new Routing(options, context);
}

class Routing implements Actor<RoutingInbox> {
  readonly #options: RoutingOptions;
  readonly #context: ActorContext<RoutingInbox>;
  readonly #table: GridTable;
  readonly #mirrors: Readonly<Record<Folder, Mirror>>;
  /** Hosts whose record is gone while they are in the view. */
  readonly #unrecorded = new Set<HostId>();
  readonly #referred = new Map<HostId, readonly string[]>();
  readonly #facts = new Set<string>();
  #lastPublishedMs = -Infinity;
  #publishing = false;
  /** Folders that were read at least once. */
  readonly #begun = new Set<Folder>();
  /** Whether it knows who is in the grid: what the hosts outside of it serve counts for nothing. */
  #hasView: boolean;
  #waiting: ReplyTo<{ readonly ok: true }>[] = [];

  constructor(options: RoutingOptions, context: ActorContext<RoutingInbox>) {
    this.#options = options;
    this.#context = context;
    this.#table = new GridTable({ host: options.host, picker: options.picker });
    const mirror = (prefix: string): Mirror => ({ prefix, watch: undefined, turn: 0, failures: 0, known: new Map() });
    const { keys } = options;
    this.#mirrors = {
      actual: mirror(keys.actuals),
      served: mirror(keys.served),
      rollouts: mirror(keys.rollouts),
    };
    for (const folder of ['actual', 'served', 'rollouts'] as const) this.#read(folder);
    const subscriber = {
      tell: (news: Extract<RoutingMessage, { type: 'news' }>['news']) => context.self.tell({ type: 'news', news }),
    };
    options.membership?.tell({ type: 'subscribe', subscriber });
    this.#hasView = options.membership === undefined;
  }

  receive(message: RoutingInbox): void {
    switch (message.type) {
      case 'news':
        this.#table.setView(message.news.view);
        this.#hasView ||= message.news.view.hosts.size > 0;
        this.#table.setPeers(message.news.peers);
        this.#forgetUnrecorded();
        break;
      case 'catalog':
        this.#table.setOwn(message.catalog);
        break;
      case 'ready':
        this.#table.setReady(message.device, message.ready);
        break;
      case 'read':
        this.#read(message.folder);
        break;
      case 'snapshot':
        this.#begin(message.folder, message.snapshot);
        break;
      case 'unread':
        this.#retry(message.folder, message.error);
        break;
      case 'watched':
        this.#follow(message.folder, message.turn, message.event);
        break;
      case 'whole':
        this.#waiting.push(message.replyTo);
        break;
      case 'publish':
        this.#publishing = false;
        this.#publish();
        break;
    }
    if (message.type !== 'publish' && this.#table.hasChanges) this.#publishSoon();
    if (this.#waiting.length > 0 && this.#isWhole()) {
      for (const replyTo of this.#waiting) replyTo.tell({ ok: true });
      this.#waiting = [];
    }
  }

  signal(signal: Signal): void {
    if (signal.type === 'drain') this.#context.stop();
    if (signal.type !== 'post-stop' && signal.type !== 'pre-restart') return;
    for (const mirror of Object.values(this.#mirrors)) mirror.watch?.cancel();
  }

  #isWhole(): boolean {
    return this.#hasView && this.#begun.size === Object.keys(this.#mirrors).length && !this.#table.hasChanges;
  }

  #publishSoon(): void {
    if (this.#publishing) return;
    this.#publishing = true;
    const dueMs = this.#lastPublishedMs + (this.#options.publishMsMin ?? publishMsMinDefault);
    const waitMs = dueMs - this.#context.clock.nowMs();
    if (waitMs > 0) this.#context.schedule(waitMs, { type: 'publish' });
    else this.#context.self.tell({ type: 'publish' });
  }

  #publish(): void {
    if (!this.#table.hasChanges) return;
    this.#lastPublishedMs = this.#context.clock.nowMs();
    this.#options.publish(this.#table.table());
  }

  #read(folder: Folder): void {
    const { store, readMsMax = readMsMaxDefault } = this.#options;
    const deadlineMs = this.#context.clock.nowMs() + readMsMax;
    this.#context.pipeToSelf(
      store.range(this.#mirrors[folder].prefix, { deadlineMs }),
      (snapshot) => ({ type: 'snapshot', folder, snapshot }),
      (error) => ({ type: 'unread', folder, error }),
    );
  }

  #retry(folder: Folder, error: unknown): void {
    const mirror = this.#mirrors[folder];
    const bound = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(10, mirror.failures));
    mirror.failures += 1;
    this.#context.log.debug('the store could not be read', { folder, error: messageOf(error) });
    this.#context.schedule(bound * (0.5 + this.#context.random.next() / 2), { type: 'read', folder });
  }

  #begin(folder: Folder, { revision, entries }: StoreSnapshot): void {
    const mirror = this.#mirrors[folder];
    mirror.failures = 0;
    this.#begun.add(folder);
    const gone = new Set(mirror.known.keys());
    for (const { key, value } of entries) {
      gone.delete(key);
      this.#put(folder, key, value);
    }
    for (const key of gone) this.#delete(folder, key);
    mirror.turn += 1;
    const { turn } = mirror;
    mirror.watch?.cancel();
    mirror.watch = this.#options.store.watch(mirror.prefix, revision + 1, (event) =>
      this.#context.self.tell({ type: 'watched', folder, turn, event }),
    );
  }

  #follow(folder: Folder, turn: number, event: StoreWatchEvent): void {
    if (turn !== this.#mirrors[folder].turn) return;
    if (event.type === 'lost') this.#read(folder);
    if (event.type !== 'changes') return;
    for (const change of event.changes) {
      if (change.type === 'put') this.#put(folder, change.entry.key, change.entry.value);
      else this.#delete(folder, change.key);
    }
  }

  #put(folder: Folder, key: string, value: string): void {
    const { known, prefix } = this.#mirrors[folder];
    try {
      if (folder === 'actual') {
        const actual = readActual(value);
        known.set(key, actual.host);
        this.#unrecorded.delete(actual.host);
        this.#referred.set(
          actual.host,
          actual.replicas.flatMap(({ facts }) => (facts === undefined ? [] : [facts])),
        );
        this.#table.setActual(actual.host, actual);
      } else if (folder === 'served') {
        const fingerprint = key.slice(prefix.length);
        if (this.#facts.has(fingerprint)) return;
        this.#table.setFacts(fingerprint, readFacts(readServed(value)));
        this.#facts.add(fingerprint);
        known.set(key, fingerprint);
        if (this.#facts.size > factsMax) this.#sweepFacts();
      } else {
        const { model, version, strategy } = readCurrentVersion(value);
        known.set(key, model);
        this.#table.setDefault(model, version);
        this.#table.setStrategy(model, strategy);
      }
    } catch (error) {
      // A newer version's record, or an operator's slip: the others count.
      this.#context.log.warn('a record of the grid cannot be read', { key, error: messageOf(error) });
    }
  }

  #delete(folder: Folder, key: string): void {
    const mirror = this.#mirrors[folder];
    const about = mirror.known.get(key);
    mirror.known.delete(key);
    if (about === undefined) return;
    if (folder === 'actual') {
      this.#unrecorded.add(about as HostId);
      this.#forgetUnrecorded();
    } else if (folder === 'rollouts') {
      this.#table.setDefault(about as ModelName, undefined);
      this.#table.setStrategy(about as ModelName, undefined);
    }
  }

  #forgetUnrecorded(): void {
    for (const host of this.#unrecorded) {
      if (this.#table.view.hosts.has(host)) continue;
      this.#unrecorded.delete(host);
      this.#referred.delete(host);
      this.#table.setActual(host, undefined);
    }
  }

  #sweepFacts(): void {
    const referred = new Set([...this.#referred.values()].flat());
    for (const fingerprint of this.#facts) {
      if (referred.has(fingerprint)) continue;
      this.#facts.delete(fingerprint);
      this.#table.setFacts(fingerprint, undefined);
    }
  }
}
