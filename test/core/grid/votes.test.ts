/** Votes against the definition, worked out slowly; and what the definition is for. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { suspectsOf, votesNeeded, type Vote } from '#core/grid/votes.js';
import { hostId, type HostId } from '#core/ids.js';

const names = ['a', 'b', 'c', 'd', 'e', 'f'].map(hostId);
const hostsOf = (count: number): ReadonlyMap<HostId, number> =>
  new Map(names.slice(0, count).map((name, index) => [name, index + 1]));
const vote = (voter: string, target: string, revision: number): Vote => ({
  voter: hostId(voter),
  target: hostId(target),
  generation: names.indexOf(hostId(target)) + 1,
  revision,
});

/** The first target to have enough votes of hosts that are not suspected becomes one; then everything from the start. */
function slowSuspects(votes: readonly Vote[], hosts: ReadonlyMap<HostId, number>): ReadonlySet<HostId> {
  const suspects = new Set<HostId>();
  for (;;) {
    const needed = votesNeeded(hosts.size - suspects.size);
    let earliest: { readonly target: HostId; readonly at: readonly [number, string] } | undefined;
    for (const target of hosts.keys()) {
      if (suspects.has(target)) continue;
      const counted = votes
        .filter((each) => each.target === target && each.generation === hosts.get(target))
        .filter((each) => each.voter !== target && hosts.has(each.voter) && !suspects.has(each.voter))
        .map((each): readonly [number, string] => [each.revision, each.voter])
        .sort(byMoment);
      const at = counted[needed - 1];
      if (at !== undefined && (earliest === undefined || byMoment(at, earliest.at) < 0)) earliest = { target, at };
    }
    if (earliest === undefined) return suspects;
    suspects.add(earliest.target);
  }
}

const byMoment = (left: readonly [number, string], right: readonly [number, string]): number =>
  left[0] - right[0] || (left[1] < right[1] ? -1 : 1);

describe('votes', () => {
  it('make the suspects that the definition says, for any votes', () => {
    const anyVote = fc.record({
      voter: fc.constantFrom(...names),
      target: fc.constantFrom(...names),
      generation: fc.integer({ min: 1, max: 6 }),
    });
    const property = fc.property(
      fc.uniqueArray(anyVote, { selector: (each) => `${each.voter} ${each.target}`, maxLength: 30 }),
      fc.integer({ min: 1, max: 6 }),
      fc.boolean(),
      (drawn, count, rightGenerations) => {
        const hosts = hostsOf(count);
        const votes = drawn.map((each, index) => ({
          ...each,
          generation: rightGenerations ? names.indexOf(each.target) + 1 : each.generation,
          revision: index + 1,
        }));
        expect([...suspectsOf(votes, hosts)].sort()).toEqual([...slowSuspects(votes, hosts)].sort());
      },
    );
    fc.assert(property, { numRuns: 2_000 });
  });

  it('are two in a grid of three hosts or more, and one where two live', () => {
    expect(suspectsOf([vote('a', 'c', 1)], hostsOf(3)).size).toBe(0);
    expect([...suspectsOf([vote('a', 'c', 1), vote('b', 'c', 2)], hostsOf(3))]).toEqual(['c']);
    expect([...suspectsOf([vote('a', 'b', 1)], hostsOf(2))]).toEqual(['b']);
  });

  it('of a suspect count for nothing: a host that is cut off cannot take the others down', () => {
    const votes = [vote('a', 'b', 1), vote('b', 'a', 2), vote('a', 'c', 3), vote('c', 'a', 4), vote('a', 'd', 5)];
    expect([...suspectsOf(votes, hostsOf(4))]).toEqual(['a']);
  });

  it('of two halves that accuse each other let the first to convince win', () => {
    const votes = [
      ...[vote('a', 'c', 1), vote('c', 'a', 2), vote('b', 'c', 3), vote('d', 'a', 4)],
      ...[vote('a', 'd', 5), vote('b', 'd', 6), vote('c', 'b', 7), vote('d', 'b', 8)],
    ];
    expect([...suspectsOf(votes, hostsOf(4))].sort()).toEqual(['c', 'd']);
  });

  it('for an earlier generation, and of hosts that have left, count for nothing', () => {
    const old = { ...vote('a', 'c', 1), generation: 99 };
    const hosts = new Map([...hostsOf(4)].filter(([name]) => name !== 'd'));
    expect(suspectsOf([old, vote('b', 'c', 2), vote('d', 'c', 3)], hosts).size).toBe(0);
  });
});
