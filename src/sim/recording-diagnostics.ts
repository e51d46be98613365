/** Diagnostics channels in memory, for tests: subscribe, and see what is published, in its order. */
import type { Diagnostics, DiagnosticsChannel } from '#ports/diagnostics.js';
import type { ActorEvents } from '#runtime/diagnostic-events.js';

/** What a channel carries; of channels that are not the actors' own nothing is known. */
type EventOf<Name extends string> = Name extends keyof ActorEvents ? ActorEvents[Name] : unknown;

class MemoryChannel implements DiagnosticsChannel<unknown> {
  readonly subscribers = new Set<(event: unknown) => void>();
  get hasSubscribers(): boolean {
    return this.subscribers.size > 0;
  }
  publish(event: unknown): void {
    for (const subscriber of this.subscribers) subscriber(event);
  }
}

export class RecordingDiagnostics implements Diagnostics {
  private readonly channels = new Map<string, MemoryChannel>();

  channel(name: string): MemoryChannel {
    const known = this.channels.get(name);
    if (known !== undefined) return known;
    const channel = new MemoryChannel();
    this.channels.set(name, channel);
    return channel;
  }

  /** Calls the listener with every event of the channel from now on; the result ends that. */
  subscribe<Name extends string>(name: Name, listener: (event: EventOf<Name>) => void): () => void {
    const channel = this.channel(name);
    const subscriber = listener as (event: unknown) => void;
    channel.subscribers.add(subscriber);
    return () => void channel.subscribers.delete(subscriber);
  }

  /** A list that every event of the channel is added to from now on. */
  record<Name extends string>(name: Name): readonly EventOf<Name>[] {
    const events: EventOf<Name>[] = [];
    this.subscribe(name, (event) => void events.push(event));
    return events;
  }
}
