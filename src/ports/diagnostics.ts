/**
 * Named channels on which the runtime tells what it does, for tools and tests.
 *
 * Promises: free while nobody listens: whoever publishes asks `hasSubscribers` before it makes an event. Asking for a
 * channel twice gives the same one. A subscriber is called synchronously, on the publisher's stack: it must be quick, must
 * not throw, and must not call back into what published.
 */
export interface Diagnostics {
  channel<Event>(name: string): DiagnosticsChannel<Event>;
}

export interface DiagnosticsChannel<Event> {
  readonly hasSubscribers: boolean;
  publish(event: Event): void;
}

const silentChannel: DiagnosticsChannel<unknown> = { hasSubscribers: false, publish: () => {} };

/** Channels that nobody can listen to. */
export const silentDiagnostics: Diagnostics = { channel: () => silentChannel };
