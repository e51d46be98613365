/**
 * In which order other hosts are asked for a file: the same machine, then the same zone, then by round-trip time. Of hosts
 * equally far, those that say they serve the model come first, and then an order that differs from file to file, so that a
 * model that starts on a hundred hosts at once is not fetched from one.
 */
import type { ArtifactDigest, HostId } from '../ids.js';

/** What the order needs of a peer; see ArtifactPeer. */
export interface Holder {
  readonly host: HostId;
  readonly zone: string;
  readonly sameMachine: boolean;
  readonly rttMs: number;
  readonly serves: boolean;
}

/** Round-trip times within one such factor count as equal. */
const rttFactor = 2;

/** @param draw Any number that differs between asking hosts, so that they do not all start at the same holder. */
export function orderHolders<Peer extends Holder>(
  peers: readonly Peer[],
  asker: { readonly zone: string; readonly draw: number },
  content: ArtifactDigest | string,
): readonly Peer[] {
  return peers
    .map((peer) => ({ peer, rank: rankOf(peer, asker.zone), turn: hash(`${content} ${peer.host} ${asker.draw}`) }))
    .sort((a, b) => compare(a.rank, b.rank) || a.turn - b.turn || (a.peer.host < b.peer.host ? -1 : 1))
    .map(({ peer }) => peer);
}

function rankOf(peer: Holder, zone: string): readonly number[] {
  const near = peer.sameMachine ? 0 : zone !== '' && peer.zone === zone ? 1 : 2;
  const rtt = Number.isFinite(peer.rttMs) ? Math.floor(Math.log(Math.max(peer.rttMs, 0.05)) / Math.log(rttFactor)) : 64;
  return [near, peer.sameMachine ? 0 : rtt, peer.serves ? 0 : 1];
}

function compare(left: readonly number[], right: readonly number[]): number {
  for (const [index, value] of left.entries()) {
    const difference = value - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** FNV-1a with a final mix. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  return (value ^ (value >>> 13)) >>> 0;
}
