/** A watch of the pretend store: pulls what is new after each change, in order, one leg later. */
import { textOfByteText } from '#core/store/byte-text.js';
import { textEntry } from '#core/store/port-shapes.js';
import type { Timer } from '#ports/clock.js';
import type { StoreChange, StoreWatch, StoreWatchEvent } from '#ports/store.js';
import type { PretendStoreParty, StoreNews } from './pretend-store-world.js';

export interface PretendWatchOptions {
  readonly covers: (key: string) => boolean;
  readonly fromRevision: number;
  readonly onEvent: (event: StoreWatchEvent) => void;
  /** Of the store that the client knew when the watch was made. */
  readonly cluster: string | undefined;
}

const retryMs = 250;
const revisionsMax = 1000;

export class PretendWatch implements StoreWatch {
  private readonly client: PretendStoreParty;
  private readonly options: PretendWatchOptions;
  private nextRevision: number;
  private connected = true;
  private begun = false;
  /** Of the store that it was last told by. */
  private seenCluster: string | undefined;
  private over = false;
  private pumping: Timer | undefined;
  private progress: Timer | undefined;

  constructor(client: PretendStoreParty, options: PretendWatchOptions) {
    this.client = client;
    this.options = options;
    this.nextRevision = options.fromRevision;
    this.planProgress();
  }

  cancel(): void {
    this.over = true;
    this.pumping?.cancel();
    this.progress?.cancel();
    this.client.forget(this);
  }

  /** After a change of the store: what does not concern it is not sent, as etcd does. */
  follow({ fromRevision, keys }: StoreNews): void {
    const { machine } = this.client.world;
    const isUpToDate = this.begun && this.connected && machine.cluster === this.seenCluster;
    if (!isUpToDate || this.nextRevision < fromRevision || keys === undefined) this.pump();
    else if (this.pumping === undefined && keys.some(this.options.covers)) this.pump();
    else if (this.pumping === undefined) this.nextRevision = Math.max(this.nextRevision, machine.revision + 1);
  }

  pump(delayMs = this.client.world.latencyMs()): void {
    if (this.over) return;
    this.pumping ??= this.client.world.clock.schedule(delayMs, () => {
      this.pumping = undefined;
      this.deliver();
    });
  }

  disconnect(): void {
    if (this.over || !this.connected) return;
    this.connected = false;
    this.client.clock.defer(() => this.emit({ type: 'connected', connected: false }));
    this.pump(retryMs);
  }

  lose(reason: string): void {
    if (this.over) return;
    this.cancel();
    this.client.clock.defer(() => this.options.onEvent({ type: 'lost', reason }));
  }

  private deliver(): void {
    const { world, host } = this.client;
    const absence = world.absenceOf(host);
    if (absence !== undefined) {
      world.noteAbsence(absence);
      if (absence === 'refused') this.disconnect();
      this.pump(retryMs);
      return;
    }
    const { machine } = world;
    this.client.meet(machine);
    if (this.over) return;
    this.seenCluster = machine.cluster;
    if (!this.begun && this.nextRevision > machine.revision + 1) {
      this.lose(`the store is at revision ${machine.revision}, before ${this.nextRevision}`);
      return;
    }
    if (!this.begun && this.nextRevision < 1) this.nextRevision = machine.revision + 1;
    this.begun = true;
    const batches = machine.eventsFrom(this.nextRevision, revisionsMax);
    if (batches === undefined) {
      this.lose(`the history before revision ${machine.compactedRevision} is compacted`);
      return;
    }
    this.reconnect();
    for (const { revision, events } of batches) {
      const changes = events
        .filter((event) => this.options.covers(event.entry.key))
        .map((event): StoreChange =>
          event.type === 'put'
            ? { type: 'put', entry: textEntry(event.entry) }
            : { type: 'delete', key: textOfByteText(event.entry.key), modRevision: revision },
        );
      this.nextRevision = revision + 1;
      if (changes.length > 0) this.emit({ type: 'changes', revision, changes });
    }
    if (batches.length === revisionsMax) this.pump(0);
  }

  private reconnect(): void {
    if (this.connected) return;
    this.connected = true;
    this.emit({ type: 'connected', connected: true });
  }

  private emit(event: StoreWatchEvent): void {
    if (!this.over) this.options.onEvent(event);
  }

  private planProgress(): void {
    const { world, host } = this.client;
    this.progress = world.clock.schedule(world.progressMs, () => {
      this.planProgress();
      if (world.absenceOf(host) !== undefined || !this.begun || !this.connected || this.pumping !== undefined) return;
      if (this.nextRevision > world.machine.revision) this.emit({ type: 'progress', revision: world.machine.revision });
    });
  }
}
