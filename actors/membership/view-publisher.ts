/**
 * Tells subscribers about views. A change after a calm goes out at once; those that follow close by are gathered, the
 * longer the more hosts there are, since every view costs as much as it has hosts.
 */
import type { ReplyTo } from '#runtime/actor.js';
import type { ViewNews } from './protocol.js';

const subscribersMax = 256;
/** Two views are at least so far apart for each host in them, ms, and at most `gapMsMax`. */
const gapMsPerHost = 0.2;
const gapMsMax = 250;

export class ViewPublisher {
  /** With what they want to hear of; undefined: everything. */
  readonly #subscribers = new Map<ReplyTo<ViewNews>, 'members' | undefined>();
  #last: ViewNews | undefined;
  #lastMs = -Infinity;
  #isClaimed = false;

  /** Tells it at once. Beyond 256 subscribers the oldest is dropped. */
  add(subscriber: ReplyTo<ViewNews>, news: ViewNews, about?: 'members'): void {
    if (this.#subscribers.size >= subscribersMax) {
      for (const oldest of this.#subscribers.keys()) {
        this.#subscribers.delete(oldest);
        break;
      }
    }
    this.#subscribers.set(subscriber, about);
    subscriber.tell(news);
  }

  remove(subscriber: ReplyTo<ViewNews>): void {
    this.#subscribers.delete(subscriber);
  }

  /** Milliseconds after which to publish; undefined when that is under way already. */
  claim(hosts: number, nowMs: number): number | undefined {
    if (this.#isClaimed) return undefined;
    this.#isClaimed = true;
    return Math.max(0, this.#lastMs + Math.min(gapMsMax, hosts * gapMsPerHost) - nowMs);
  }

  publish(news: ViewNews, nowMs: number): void {
    this.#isClaimed = false;
    this.#lastMs = nowMs;
    const isOfMembers = this.#last === undefined || !isSameMembership(this.#last, news);
    this.#last = news;
    for (const [subscriber, about] of this.#subscribers) {
      if (about === 'members' && !isOfMembers) continue;
      if (subscriber.tell(news) === 'stopped') this.#subscribers.delete(subscriber);
    }
  }

  /** A new incarnation of the actor begins: what the old one had under way is void. */
  reset(): void {
    this.#isClaimed = false;
    this.#last = undefined;
  }
}

function isSameMembership(before: ViewNews, now: ViewNews): boolean {
  if (before.view !== now.view || before.phase !== now.phase) return false;
  const [then, self] = [before.self, now.self];
  if (then?.generation !== self?.generation || then?.lease !== self?.lease || then?.draining !== self?.draining) {
    return false;
  }
  if (before.stale !== now.stale || before.error !== now.error || before.carried.size !== now.carried.size)
    return false;
  for (const host of now.carried) if (!before.carried.has(host)) return false;
  return true;
}
