/**
 * One watch of etcd on a stream of its own. It comes back by itself after the last revision it has told, and looks first
 * whether the store is still the same; what etcd has compacted meanwhile ends it.
 *
 * Proofs of freshness are asked for regularly. etcd before 3.4.26 may answer one before the events it speaks of
 * (etcd#15220), so a proof is passed on only when the next one has come. A stream that has been silent for several of them is
 * taken for broken.
 */
import type { IEvent, IWatchResponse } from 'etcd3';
import { IntarsiaError } from '#core/errors.js';
import type { Timer } from '#ports/clock.js';
import type { StoreChange, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import { bufferOf, entryOf, markKey } from './etcd-messages.js';
import type { EtcdConnection } from './etcd-connection.js';

export interface EtcdWatchOptions {
  /** Byte texts. */
  readonly key: string;
  readonly end: string;
  readonly fromRevision: number;
  readonly onEvent: (event: StoreWatchEvent) => void;
}

type WatchStream = Awaited<ReturnType<EtcdConnection['etcd']['watchClient']['watch']>>;

const progressMs = 3000;
/** Progress rounds without any word after which the stream is taken for broken. */
const silentRoundsMax = 4;
const backoffMsMin = 100;
const backoffMsMax = 2000;
/** A store that can be reached and does not answer within this is tried again, ms. */
const identifyMs = 5000;

export class EtcdWatch implements StoreWatch {
  private readonly store: EtcdConnection;
  private readonly options: EtcdWatchOptions;
  private next: number;
  private stream: WatchStream | undefined;
  private connected = true;
  private over = false;
  private attempt = 0;
  private backoffMs = backoffMsMin;
  private retry: Timer | undefined;
  private round: Timer | undefined;
  private silentRounds = 0;
  private provenRevision = 0;

  constructor(store: EtcdConnection, options: EtcdWatchOptions) {
    this.store = store;
    this.options = options;
    this.next = options.fromRevision;
    this.connect();
  }

  cancel(): void {
    this.over = true;
    this.retry?.cancel();
    this.dropStream();
    this.store.forget(this);
  }

  lose(reason: string): void {
    if (this.over) return;
    this.cancel();
    this.store.clock.defer(() => this.options.onEvent({ type: 'lost', reason }));
  }

  private connect(): void {
    this.attempt += 1;
    const { attempt } = this;
    const isOld = (): boolean => this.over || attempt !== this.attempt;
    const late = this.store.clock.schedule(identifyMs, () => {
      if (!isOld()) this.reconnect();
    });
    this.open(isOld).then(
      () => late.cancel(),
      (error: unknown) => {
        late.cancel();
        if (isOld()) return;
        if (error instanceof IntarsiaError && !error.retryable) this.lose(error.message);
        else this.reconnect();
      },
    );
  }

  private async open(isOld: () => boolean): Promise<void> {
    const { store } = this;
    const revision = await store.identify();
    if (isOld()) return;
    if (this.next > revision + 1) {
      this.lose(`the store is at revision ${revision}, before ${this.next}`);
      return;
    }
    if (this.next < 1) this.next = revision + 1;
    const stream = await store.etcd.watchClient.watch();
    if (isOld()) {
      stream.end();
      return;
    }
    this.stream = stream;
    const broken = (): void => {
      if (this.stream === stream) this.reconnect();
    };
    stream.on('data', (response: IWatchResponse) => {
      if (this.stream === stream) this.take(response);
    });
    stream.on('error', broken);
    stream.on('end', broken);
    stream.write({
      create_request: {
        key: bufferOf(this.options.key),
        range_end: bufferOf(this.options.end),
        start_revision: String(this.next),
        progress_notify: true,
      },
    });
    this.planRound();
  }

  private take(response: IWatchResponse): void {
    this.silentRounds = 0;
    if (response.canceled) {
      if (Number(response.compact_revision) > 0) {
        this.lose(`the history before revision ${response.compact_revision} is compacted`);
      } else {
        this.reconnect();
      }
      return;
    }
    if (response.created) this.settled();
    if (response.events.length > 0) this.tell(response.events);
    else if (!response.created) this.prove(Number(response.header.revision));
  }

  private settled(): void {
    this.backoffMs = backoffMsMin;
    if (this.connected) return;
    this.connected = true;
    this.emit({ type: 'connected', connected: true });
  }

  private tell(events: readonly IEvent[]): void {
    let changes: StoreChange[] = [];
    let revision = 0;
    const flush = (): void => {
      if (changes.length > 0) this.emit({ type: 'changes', revision, changes });
      changes = [];
    };
    for (const event of events) {
      const modRevision = Number(event.kv.mod_revision);
      // Told before the stream broke.
      if (modRevision < this.next) continue;
      if (modRevision !== revision) flush();
      revision = modRevision;
      const change = changeOf(event, modRevision);
      if (change !== undefined) changes.push(change);
    }
    flush();
    this.next = Math.max(this.next, revision + 1);
  }

  private prove(revision: number): void {
    const proven = this.provenRevision;
    this.provenRevision = revision;
    if (proven > 0) this.emit({ type: 'progress', revision: proven });
  }

  private planRound(): void {
    this.round = this.store.clock.schedule(progressMs, () => {
      this.silentRounds += 1;
      if (this.silentRounds > silentRoundsMax) {
        this.reconnect();
        return;
      }
      this.stream?.write({ progress_request: {} });
      this.planRound();
    });
  }

  private reconnect(): void {
    if (this.over) return;
    this.dropStream();
    this.attempt += 1;
    if (this.connected) {
      this.connected = false;
      this.store.clock.defer(() => this.emit({ type: 'connected', connected: false }));
    }
    this.retry?.cancel();
    this.retry = this.store.clock.schedule(this.backoffMs, () => this.connect());
    this.backoffMs = Math.min(backoffMsMax, this.backoffMs * 2);
  }

  private dropStream(): void {
    const { stream } = this;
    this.stream = undefined;
    this.round?.cancel();
    this.silentRounds = 0;
    this.provenRevision = 0;
    // Ends the half towards the store, which ends the other: etcd3 does not tell of the cancel method that a stream has.
    stream?.end();
    if (stream !== undefined && 'cancel' in stream && typeof stream.cancel === 'function') stream.cancel();
  }

  private emit(event: StoreWatchEvent): void {
    if (!this.over) this.options.onEvent(event);
  }
}

function changeOf(event: IEvent, modRevision: number): StoreChange | undefined {
  const key = event.kv.key.toString('utf8');
  if (key === markKey) return undefined;
  return event.type.toUpperCase() === 'DELETE'
    ? { type: 'delete', key, modRevision }
    : { type: 'put', entry: entryOf(event.kv) };
}
