/**
 * Who watches whom: all hosts stand in a ring by a hash of their names, and each observes those that follow it. So every
 * host is observed by as many as it observes, and a host that joins or leaves changes what a few others do, not all.
 */
import type { HostId } from '../ids.js';

/** Place of a host in the ring, a whole number in [0, 2^32): FNV-1a of its name, mixed. */
export function ringPlace(host: HostId): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < host.length; index += 1) {
    hash = Math.imul(hash ^ host.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * The hosts that follow in the ring, nearest first, at most so many; the host itself is never among them.
 * One look at each host; nothing is sorted.
 */
export function successorsOf(host: HostId, hosts: Iterable<HostId>, count: number): readonly HostId[] {
  const origin = ringPlace(host);
  const nearest: { readonly host: HostId; readonly distance: number }[] = [];
  for (const other of hosts) {
    if (other === host) continue;
    const distance = (ringPlace(other) - origin) >>> 0;
    const last = nearest.at(-1);
    if (nearest.length >= count && last !== undefined && !isNearer(distance, other, last)) continue;
    let index = nearest.length;
    while (index > 0) {
      const before = nearest[index - 1];
      if (before === undefined || !isNearer(distance, other, before)) break;
      index -= 1;
    }
    nearest.splice(index, 0, { host: other, distance });
    if (nearest.length > count) nearest.pop();
  }
  return nearest.map((each) => each.host);
}

function isNearer(distance: number, host: HostId, than: { readonly host: HostId; readonly distance: number }): boolean {
  return distance < than.distance || (distance === than.distance && host < than.host);
}
