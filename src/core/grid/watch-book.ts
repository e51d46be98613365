/**
 * Who of this host watches whom on other hosts. Many questions to one actor share one watch at the other end, and it
 * lingers when the last of them ends, since the next question comes soon: a watch costs the link messages once.
 */
import type { ActorAddress } from '../actor-address.js';

export type EndReason = 'stopped' | 'failed';
export type EndListener = (reason: EndReason) => void;

/** Watches without listeners kept a host; the one that has lingered longest is given up first. */
const lingeringMax = 1_000;

interface Watched {
  readonly actor: ActorAddress;
  readonly listeners: Set<EndListener>;
}

interface HostWatches {
  readonly watched: Map<string, Watched>;
  /** Those without listeners, longest first. */
  readonly lingering: Set<string>;
}

/** What the other host must be told after a change; undefined for nothing. */
export interface WatchChange {
  readonly watch?: ActorAddress;
  readonly unwatch?: ActorAddress;
}

export class WatchBook {
  readonly #hosts = new Map<string, HostWatches>();

  /** The same listener may be there once a call: wrap it. */
  add(actor: ActorAddress, listener: EndListener): WatchChange {
    let host = this.#hosts.get(actor.host);
    if (host === undefined) {
      host = { watched: new Map(), lingering: new Set() };
      this.#hosts.set(actor.host, host);
    }
    const key = keyOf(actor);
    const known = host.watched.get(key);
    if (known !== undefined) {
      known.listeners.add(listener);
      host.lingering.delete(key);
      return {};
    }
    host.watched.set(key, { actor, listeners: new Set([listener]) });
    return { watch: actor };
  }

  remove(actor: ActorAddress, listener: EndListener): WatchChange {
    const host = this.#hosts.get(actor.host);
    const key = keyOf(actor);
    const known = host?.watched.get(key);
    if (host === undefined || known === undefined) return {};
    if (!known.listeners.delete(listener) || known.listeners.size > 0) return {};
    host.lingering.add(key);
    if (host.lingering.size <= lingeringMax) return {};
    for (const oldest of host.lingering) {
      const given = host.watched.get(oldest);
      host.lingering.delete(oldest);
      host.watched.delete(oldest);
      return given === undefined ? {} : { unwatch: given.actor };
    }
    return {};
  }

  /** The other host said that it ended: whom to tell. */
  ended(actor: ActorAddress): readonly EndListener[] {
    const host = this.#hosts.get(actor.host);
    const key = keyOf(actor);
    const known = host?.watched.get(key);
    host?.watched.delete(key);
    host?.lingering.delete(key);
    return known === undefined ? [] : [...known.listeners];
  }

  /** The link to the host is gone: whom to tell. */
  lost(name: string): readonly EndListener[] {
    const host = this.#hosts.get(name);
    this.#hosts.delete(name);
    return host === undefined ? [] : [...host.watched.values()].flatMap(({ listeners }) => [...listeners]);
  }

  /** The link to the host was given up by agreement: forgets what lingers, and says what must be watched anew. */
  renew(name: string): readonly ActorAddress[] {
    const host = this.#hosts.get(name);
    if (host === undefined) return [];
    for (const key of host.lingering) host.watched.delete(key);
    host.lingering.clear();
    return [...host.watched.values()].map(({ actor }) => actor);
  }

  /** Whether somebody here waits for the end of an actor over there. */
  isWatching(name: string): boolean {
    const host = this.#hosts.get(name);
    return host !== undefined && host.watched.size > host.lingering.size;
  }
}

function keyOf(actor: ActorAddress): string {
  return `${actor.incarnation}/${actor.path}`;
}

/** Actors of one host that one link may watch at once; further ones are told `failed` at once. */
const watchedMax = 10_000;

/** Who of the other end of one link watches whom here. One for the life of a link. */
export class WatchedHere {
  readonly #whenEnded: (actor: ActorAddress) => Promise<EndReason>;
  readonly #tell: (actor: ActorAddress, reason: EndReason) => void;
  /** `wanted`: false once the other end lost interest; the actor's end is awaited all the same. */
  readonly #actors = new Map<string, { wanted: boolean }>();
  #isOver = false;

  constructor(
    whenEnded: (actor: ActorAddress) => Promise<EndReason>,
    tell: (actor: ActorAddress, reason: EndReason) => void,
  ) {
    this.#whenEnded = whenEnded;
    this.#tell = tell;
  }

  watch(actor: ActorAddress): void {
    const key = keyOf(actor);
    const known = this.#actors.get(key);
    if (known !== undefined) {
      known.wanted = true;
      return;
    }
    if (this.#actors.size >= watchedMax) {
      this.#tell(actor, 'failed');
      return;
    }
    const entry = { wanted: true };
    this.#actors.set(key, entry);
    void this.#whenEnded(actor).then((reason) => {
      this.#actors.delete(key);
      if (entry.wanted && !this.#isOver) this.#tell(actor, reason);
    });
  }

  unwatch(actor: ActorAddress): void {
    const known = this.#actors.get(keyOf(actor));
    if (known !== undefined) known.wanted = false;
  }

  /** The link is gone. */
  close(): void {
    this.#isOver = true;
  }
}
