/** A drain under way: who waits for it, since which revision the store says it, and how many peers know. */
import type { PeerStatus } from '#core/grid/host-load.js';
import type { View } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { ReplyTo } from '#runtime/actor.js';
import type { DrainOutcome } from './protocol.js';

export class DrainDesk {
  readonly #host: HostId;
  #waiters: ReplyTo<DrainOutcome>[] = [];
  #hasBegun = false;
  #revision: number | undefined;

  constructor(host: HostId) {
    this.#host = host;
  }

  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  begin(waiter: ReplyTo<DrainOutcome>): void {
    this.#hasBegun = true;
    this.#waiters.push(waiter);
  }

  /** The store says it since that revision; undefined: not any more, since the record is gone. */
  onAnnounced(revision: number | undefined): void {
    if (!this.#hasBegun) return;
    this.#revision = revision === undefined ? undefined : (this.#revision ?? revision);
  }

  /** Answers whoever waits, when all peers know. */
  check(view: View, peers: ReadonlyMap<HostId, PeerStatus>): void {
    if (this.#waiters.length === 0) return;
    const { announced, acknowledged, peers: count } = this.#outcome(view, peers);
    if (announced && acknowledged >= count) this.end(view, peers);
  }

  /** Answers whoever waits with how far it has come. */
  end(view: View, peers: ReadonlyMap<HostId, PeerStatus>): void {
    const outcome = this.#outcome(view, peers);
    for (const waiter of this.#waiters.splice(0)) waiter.tell(outcome);
  }

  /** Suspects, and hosts that cannot be reached from here, are not waited for. */
  #outcome(view: View, peers: ReadonlyMap<HostId, PeerStatus>): DrainOutcome {
    const revision = this.#revision;
    let count = 0;
    let acknowledged = 0;
    for (const [host, { state }] of view.hosts) {
      const peer = peers.get(host);
      if (host === this.#host || state === 'suspected' || peer?.reachable === false) continue;
      count += 1;
      if (revision !== undefined && (peer?.viewRevision ?? 0) >= revision) acknowledged += 1;
    }
    return { announced: revision !== undefined, acknowledged, peers: count };
  }
}
