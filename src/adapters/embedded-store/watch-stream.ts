/**
 * One stream of watches: each watcher pulls from the history what is new and durable, in order. A client that does not read
 * holds up its own stream only: its watchers stay where they are until it reads, and if history is compacted under them
 * meanwhile, they are told so, as etcd does.
 */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { byteTextOfBytes, isInRange } from '#core/store/byte-text.js';
import type { StoreEvent } from '#core/store/machine.js';
import { WatchCreateRequest_FilterType } from '#gen/etcd.js';
import type { ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse } from '#gen/etcd.js';
import type { DurableStore } from './durable-store.js';
import { eventMessage } from './messages.js';

interface Watcher {
  readonly id: string;
  readonly start: string;
  readonly end: string;
  readonly previous: boolean;
  readonly progress: boolean;
  readonly hidden: ReadonlySet<StoreEvent['type']>;
  next: number;
  quiet: boolean;
}

/** Watches of one stream at most. */
const watchersMax = 1000;
/** Revisions told in one go, so that a long history does not hold up everybody. */
const revisionsMax = 200;
/** The watch id of an answer to a request for progress. */
const everyWatch = '-1';

export class WatchStream {
  private readonly call: ServerDuplexStream<WatchRequest, WatchResponse>;
  private readonly store: DurableStore;
  private readonly header: (revision: number) => ResponseHeader;
  private readonly watchers = new Map<string, Watcher>();
  private nextId = 0;
  private blocked = false;
  private again: NodeJS.Immediate | undefined;
  private ended = false;

  constructor(
    call: ServerDuplexStream<WatchRequest, WatchResponse>,
    store: DurableStore,
    header: (revision: number) => ResponseHeader,
  ) {
    this.call = call;
    this.store = store;
    this.header = header;
    call.on('data', (request: WatchRequest) => this.take(request));
    call.on('drain', () => {
      this.blocked = false;
      this.pump();
    });
  }

  /** Tells every watcher what is new. */
  pump(): void {
    for (const watcher of this.watchers.values()) {
      if (this.blocked || this.ended) return;
      this.tell(watcher);
    }
  }

  /** Tells quiet watchers that asked for it how far they have seen. */
  notifyProgress(): void {
    for (const watcher of this.watchers.values()) {
      const current = watcher.next > this.store.durableRevision;
      if (watcher.progress && watcher.quiet && current && !this.blocked) this.send(watcher.id, {});
      watcher.quiet = true;
    }
  }

  end(): void {
    this.ended = true;
    clearImmediate(this.again);
    this.watchers.clear();
  }

  private take({ requestUnion: request }: WatchRequest): void {
    if (request.oneofKind === 'createRequest') {
      this.create(request.createRequest);
    } else if (request.oneofKind === 'cancelRequest') {
      const id = request.cancelRequest.watchId;
      if (this.watchers.delete(id)) this.send(id, { canceled: true });
    } else if (request.oneofKind === 'progressRequest') {
      const revision = this.store.durableRevision;
      const behind = [...this.watchers.values()].some((watcher) => watcher.next <= revision);
      if (!behind) this.send(everyWatch, {});
    }
  }

  private create(request: WatchCreateRequest): void {
    const id = request.watchId === '0' ? this.freeId() : request.watchId;
    if (this.watchers.has(id) || this.watchers.size >= watchersMax || request.key.length === 0) {
      const cancelReason = this.watchers.has(id)
        ? 'mvcc: duplicate watch ID provided on the WatchStream'
        : `a stream has at most ${watchersMax} watches, each of a key or a range`;
      this.send(id, { created: true, canceled: true, cancelReason });
      return;
    }
    const hidden = new Set<StoreEvent['type']>();
    if (request.filters.includes(WatchCreateRequest_FilterType.NOPUT)) hidden.add('put');
    if (request.filters.includes(WatchCreateRequest_FilterType.NODELETE)) hidden.add('delete');
    const watcher: Watcher = {
      id,
      start: byteTextOfBytes(request.key),
      end: byteTextOfBytes(request.rangeEnd),
      previous: request.prevKv,
      progress: request.progressNotify,
      hidden,
      next: request.startRevision > 0 ? request.startRevision : this.store.durableRevision + 1,
      quiet: true,
    };
    this.watchers.set(id, watcher);
    this.send(id, { created: true });
    this.tell(watcher);
  }

  private tell(watcher: Watcher): void {
    const { machine, durableRevision } = this.store;
    if (watcher.next > durableRevision) return;
    const batches = machine.eventsFrom(watcher.next, revisionsMax);
    if (batches === undefined) {
      this.watchers.delete(watcher.id);
      this.send(watcher.id, { canceled: true, compactRevision: machine.compactedRevision });
      return;
    }
    for (const { revision, events } of batches) {
      if (revision > durableRevision) return;
      if (this.blocked) return;
      const wanted = events.filter(
        (event) => isInRange(event.entry.key, watcher.start, watcher.end) && !watcher.hidden.has(event.type),
      );
      watcher.next = revision + 1;
      if (wanted.length === 0) continue;
      watcher.quiet = false;
      this.send(watcher.id, { events: wanted.map((event) => eventMessage(event, watcher.previous)) });
    }
    if (batches.length === revisionsMax) this.again ??= setImmediate(() => this.continue());
    else watcher.next = Math.max(watcher.next, durableRevision + 1);
  }

  private continue(): void {
    this.again = undefined;
    this.pump();
  }

  private freeId(): string {
    while (this.watchers.has(String(this.nextId))) this.nextId += 1;
    const id = String(this.nextId);
    this.nextId += 1;
    return id;
  }

  private send(watchId: string, part: Partial<WatchResponse>): void {
    if (this.ended) return;
    const base = { created: false, canceled: false, compactRevision: 0, cancelReason: '', fragment: false };
    const header = this.header(this.store.durableRevision);
    const ready = this.call.write({ header, watchId, ...base, events: [], ...part });
    if (!ready) this.blocked = true;
  }
}
