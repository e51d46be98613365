/**
 * Which hosts of the grid this one has links to: those of the latest view. Until a view was read, those that were asked
 * whether they let this host in keep the links that this opened, so that joining loses none.
 */
import type { View } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';

/** The links of this host, as far as they follow the view. */
export interface FollowingLinks {
  setPeer(host: HostId, address: string): void;
  removePeer(host: HostId): void;
}

export class LinkedHosts {
  readonly #own: HostId;
  readonly #links: FollowingLinks;
  #linked: ReadonlySet<HostId> = new Set();

  constructor(own: HostId, links: FollowingLinks) {
    this.#own = own;
    this.#links = links;
  }

  /** Hosts that have links before there is a view. */
  begin(asked: ReadonlySet<HostId>): void {
    this.#linked = asked;
  }

  follow({ revision, hosts }: View): void {
    // The view that nothing was read for yet: it knows nobody, and says nothing of who is there.
    if (revision === 0) return;
    const present = new Set<HostId>();
    for (const { record } of hosts.values()) {
      if (record.host === this.#own) continue;
      present.add(record.host);
      this.#links.setPeer(record.host, record.linkAddress);
    }
    for (const host of this.#linked) if (!present.has(host)) this.#links.removePeer(host);
    this.#linked = present;
  }
}
