/**
 * Who leads: whoever holds the key `leader`. The epoch is that key's create revision, and every transaction of a leader
 * names it as a condition, so that one who does not know yet that it was replaced writes nothing.
 *
 * Candidates try in order, the hosts that have been in the grid for longest first, each after a wait that grows with its
 * place: a lost leader does not make the whole grid write at once, and no queue has to be kept.
 */
import { hostId, type HostId } from '../ids.js';
import type { View } from './records.js';

export interface LeaderRecord {
  readonly format: 1;
  readonly host: HostId;
  /** Text of the leader's process. */
  readonly process: string;
}

/** The condition that a transaction of the leader of that epoch must carry; it fits the store port. */
export interface LeaderFence {
  readonly key: string;
  readonly test: 'createRevision';
  readonly equals: number;
}

export function leaderFence(leaderKey: string, epoch: number): LeaderFence {
  return { key: leaderKey, test: 'createRevision', equals: epoch };
}

const waitPerPlaceMs = 150;
const placesMax = 20;

/** Milliseconds a candidate waits before it tries; `chance` is uniform in [0, 1). */
export function campaignWaitMs(host: HostId, view: View, chance: number): number {
  const place = campaignPlace(host, view);
  if (place < placesMax) return place * waitPerPlaceMs;
  return placesMax * waitPerPlaceMs * (1 + 2 * chance);
}

/** How many hosts go before; those that are suspected or leave stand behind all others. */
function campaignPlace(host: HostId, view: View): number {
  const self = view.hosts.get(host);
  if (self?.state !== 'up') return placesMax;
  let place = 0;
  for (const { generation, state, record } of view.hosts.values()) {
    if (generation < self.generation && state === 'up' && record.role === 'host') place += 1;
    if (place >= placesMax) break;
  }
  return place;
}

export function writeLeader(record: LeaderRecord): string {
  return JSON.stringify(record);
}

/** Undefined when the text is no leader's record. */
export function readLeader(text: string): LeaderRecord | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    const { format, host, process } = value as Readonly<Record<string, unknown>>;
    if (format !== 1 || typeof host !== 'string' || typeof process !== 'string') return undefined;
    return { format, host: hostId(host), process };
  } catch {
    return undefined;
  }
}
