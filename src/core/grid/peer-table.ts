/**
 * News of all hosts, passed on from host to host: every message carries the sender's own and a few of others', those first
 * that were passed on least. Each is passed on about log2(hosts) times, so it reaches everybody with high probability
 * and the traffic of a host does not grow with the grid (SWIM, Das, Gupta, Motivala 2002).
 */
import { Deque } from '../deque.js';
import type { HostId } from '../ids.js';
import type { HostLoad, HostNews } from './host-load.js';
import type { ViewHost } from './records.js';

export interface KnownNews {
  readonly process: string;
  readonly sequence: number;
  readonly viewRevision: number;
  readonly load: HostLoad;
  /** Moment on the own clock when it was said, as far as is known, ms. */
  readonly saidMs: number;
}

interface Known extends KnownNews {
  passesLeft: number;
  isQueued: boolean;
}

export class PeerTable {
  readonly #self: HostId;
  readonly #known = new Map<HostId, Known>();
  readonly #toPass = new Deque<HostId>();
  #passes = 2;

  constructor(self: HostId) {
    this.#self = self;
  }

  get(host: HostId): KnownNews | undefined {
    return this.#known.get(host);
  }

  /** Forgets who is no longer there, and processes that were replaced. */
  onHosts(hosts: ReadonlyMap<HostId, ViewHost>): void {
    this.#passes = 2 + Math.ceil(Math.log2(hosts.size + 1));
    for (const [host, known] of this.#known) {
      if (hosts.get(host)?.record.process !== known.process) this.#known.delete(host);
    }
  }

  /** Takes in news of hosts of the view, and adds those to `learnt`; older ones than known, and of strangers, are passed over. */
  learn(
    news: readonly HostNews[],
    hosts: ReadonlyMap<HostId, ViewHost>,
    nowMs: number,
    learnt?: { add(host: HostId): unknown },
  ): void {
    for (const { host, process, sequence, viewRevision, ageMs, load } of news) {
      if (host === this.#self || hosts.get(host)?.record.process !== process) continue;
      const before = this.#known.get(host);
      if (before !== undefined && before.sequence >= sequence) continue;
      const isQueued = before?.isQueued === true;
      const saidMs = nowMs - Math.max(0, ageMs);
      const known = { process, sequence, viewRevision, load, saidMs, passesLeft: this.#passes, isQueued: true };
      this.#known.set(host, known);
      if (!isQueued) this.#toPass.push(host);
      learnt?.add(host);
    }
  }

  /** At most so many news to pass on, of others than the receiver. */
  take(count: number, to: HostId, nowMs: number): readonly HostNews[] {
    const taken: HostNews[] = [];
    for (let looks = Math.min(this.#toPass.length, count + 1); looks > 0 && taken.length < count; looks -= 1) {
      const host = this.#toPass.shift();
      const known = this.#known.get(host);
      if (known === undefined) continue;
      if (host === to) {
        this.#toPass.push(host);
        continue;
      }
      const { process, sequence, viewRevision, load, saidMs } = known;
      taken.push({ host, process, sequence, viewRevision, ageMs: nowMs - saidMs, load });
      known.passesLeft -= 1;
      known.isQueued = known.passesLeft > 0;
      if (known.isQueued) this.#toPass.push(host);
    }
    return taken;
  }
}
