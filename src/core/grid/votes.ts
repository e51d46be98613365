/**
 * Who is suspected, by the votes in the store: the same votes and hosts give the same answer on every host.
 *
 * A host that cannot reach another one votes against it. Two votes make a suspect; in a grid of two living hosts there is
 * one other host only, and its vote is enough. Votes of suspects do not count, so of two sides that accuse each other the
 * one that was first to convince wins, and the other is silenced: a host cut off from the rest cannot take it down.
 */
import type { HostId } from '../ids.js';
import type { Generation } from './records.js';

export interface Vote {
  readonly target: HostId;
  readonly generation: Generation;
  readonly voter: HostId;
  /** Create revision of its key: the order of votes. */
  readonly revision: number;
}

/** Votes that make a suspect, where so many hosts are not suspected. */
export function votesNeeded(living: number): number {
  return living <= 2 ? 1 : 2;
}

/**
 * Suspects among the hosts, whose generations are given. Again and again the target that was the first to have enough
 * votes of hosts that are not suspected becomes a suspect, until there is none.
 * Cost: votes × (suspects that voted themselves + 1).
 */
export function suspectsOf(votes: readonly Vote[], hosts: ReadonlyMap<HostId, Generation>): ReadonlySet<HostId> {
  const valid = votes
    .filter(({ target, generation, voter }) => hosts.get(target) === generation && hosts.has(voter) && voter !== target)
    .sort((left, right) => left.revision - right.revision || (left.voter < right.voter ? -1 : 1));
  const voters = new Set(valid.map(({ voter }) => voter));
  const suspects = new Set<HostId>();
  while (addSuspects(valid, voters, hosts.size, suspects));
  return suspects;
}

/** One pass over the votes in their order. True when it must be done again, since a new suspect changes what came before. */
function addSuspects(
  votes: readonly Vote[],
  voters: ReadonlySet<HostId>,
  hosts: number,
  suspects: Set<HostId>,
): boolean {
  const counts = new Map<HostId, number>();
  for (const { target, voter } of votes) {
    if (suspects.has(voter) || suspects.has(target)) continue;
    const count = (counts.get(target) ?? 0) + 1;
    counts.set(target, count);
    const needed = votesNeeded(hosts - suspects.size);
    if (count < needed) continue;
    suspects.add(target);
    if (voters.has(target) || votesNeeded(hosts - suspects.size) !== needed) return true;
  }
  return false;
}
