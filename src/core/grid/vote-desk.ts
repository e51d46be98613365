/**
 * Brings a host's votes in the store in line with those it wants, one write at a time. What is in the store ends with the
 * host's lease, so a new lease begins with none.
 */
import type { HostId } from '../ids.js';
import type { WantedVote } from './detector.js';
import type { Generation } from './records.js';

export interface VoteWrite {
  readonly type: 'cast' | 'withdraw';
  readonly host: HostId;
  readonly generation: Generation;
  readonly reason: string;
}

interface Key {
  readonly host: HostId;
  readonly generation: Generation;
}

export class VoteDesk {
  #lease: string | undefined;
  /** Votes that are in the store, by host and generation. */
  readonly #cast = new Map<string, Key>();
  /** Votes that may be there: the outcome of their writes is unknown. Cast again if wanted, withdrawn if not. */
  readonly #doubtful = new Map<string, Key>();
  /** Such as could not be cast since the host of that generation is gone. */
  readonly #pointless = new Map<HostId, Generation>();
  #underWay: VoteWrite | undefined;

  /** The lease that votes are put under now; undefined while there is none. */
  onLease(lease: string | undefined): void {
    if (lease === this.#lease) return;
    this.#lease = lease;
    this.#cast.clear();
    this.#doubtful.clear();
    this.#pointless.clear();
  }

  /** The next write; undefined when there is none, one is under way, or there is no lease. */
  next(wanted: ReadonlyMap<HostId, WantedVote>): VoteWrite | undefined {
    if (this.#underWay !== undefined || this.#lease === undefined) return undefined;
    for (const [host, generation] of this.#pointless) {
      if (wanted.get(host)?.generation !== generation) this.#pointless.delete(host);
    }
    this.#underWay = this.#choose(wanted);
    return this.#underWay;
  }

  /** `refused`: the host of that generation is there no more. `unknown`: it may be done or not. */
  onOutcome(outcome: 'done' | 'refused' | 'unknown', lease: string): void {
    const write = this.#underWay;
    this.#underWay = undefined;
    if (write === undefined || lease !== this.#lease) return;
    const { type, host, generation } = write;
    const key = keyOf(host, generation);
    if (outcome === 'unknown') {
      this.#cast.delete(key);
      this.#doubtful.set(key, { host, generation });
    } else if (type === 'withdraw') {
      this.#cast.delete(key);
      this.#doubtful.delete(key);
    } else if (outcome === 'done') {
      this.#cast.set(key, { host, generation });
      this.#doubtful.delete(key);
    } else this.#pointless.set(host, generation);
  }

  #choose(wanted: ReadonlyMap<HostId, WantedVote>): VoteWrite | undefined {
    for (const { host, generation } of [...this.#cast.values(), ...this.#doubtful.values()]) {
      if (wanted.get(host)?.generation !== generation) return { type: 'withdraw', host, generation, reason: '' };
    }
    for (const [host, { generation, reason }] of wanted) {
      if (this.#cast.has(keyOf(host, generation)) || this.#pointless.get(host) === generation) continue;
      return { type: 'cast', host, generation, reason };
    }
    return undefined;
  }
}

function keyOf(host: HostId, generation: Generation): string {
  return `${generation} ${host}`;
}
