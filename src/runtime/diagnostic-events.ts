/**
 * What the actor system tells on diagnostics channels. Nobody pays for a channel that nobody listens to: events are made
 * only where `hasSubscribers` says so. Subscribe before the actor in question is spawned; the channel of messages is
 * looked at once a burst.
 */
import type { ActorAddress } from '#core/actor-address.js';
import type { Diagnostics, DiagnosticsChannel } from '#ports/diagnostics.js';

/** Steps in the life of an actor, in the order in which they can happen. */
export type LifecycleEvent =
  | { readonly type: 'spawned'; readonly address: ActorAddress }
  /** An incarnation was made and takes messages; `restarts` is 0 for the first one. */
  | { readonly type: 'started'; readonly address: ActorAddress; readonly restarts: number }
  | { readonly type: 'failed'; readonly address: ActorAddress; readonly failure: unknown }
  | { readonly type: 'restarting'; readonly address: ActorAddress; readonly backoffMs: number }
  /** The failure goes to the parent, or, from a top-level actor, to the owner of the system. */
  | { readonly type: 'escalated'; readonly address: ActorAddress; readonly failure: unknown }
  | { readonly type: 'stopped'; readonly address: ActorAddress; readonly reason: 'stopped' | 'failed' };

/** A message is about to be received. */
export interface MessageEvent {
  readonly address: ActorAddress;
  readonly message: unknown;
}

/** Why a message reached nobody. */
export type DeadLetterReason =
  /** The mailbox was full and its rule refuses. */
  | 'full'
  /** Given up by the rule `drop-oldest` or `drop-newest`. */
  | 'dropped'
  /** The actor was stopped before, or while the message waited. */
  | 'stopped'
  /** It waited for an incarnation that failed, and was not to be kept for the next. */
  | 'restarted'
  /** A reply to somebody who no longer waits. */
  | 'late-reply'
  /** Addressed to another host, and there is no way to it. */
  | 'unreachable';

export const deadLetterReasons: readonly DeadLetterReason[] = [
  'full',
  'dropped',
  'stopped',
  'restarted',
  'late-reply',
  'unreachable',
];

export interface DeadLetterEvent {
  readonly address: ActorAddress;
  readonly message: unknown;
  readonly reason: DeadLetterReason;
}

/** Names of the channels. */
export const actorChannelNames = {
  lifecycle: 'intarsia.actor.lifecycle',
  message: 'intarsia.actor.message',
  deadLetter: 'intarsia.actor.dead-letter',
} as const;

/** Events by the name of their channel. */
export interface ActorEvents {
  readonly 'intarsia.actor.lifecycle': LifecycleEvent;
  readonly 'intarsia.actor.message': MessageEvent;
  readonly 'intarsia.actor.dead-letter': DeadLetterEvent;
}

export interface ActorChannels {
  readonly lifecycle: DiagnosticsChannel<LifecycleEvent>;
  readonly message: DiagnosticsChannel<MessageEvent>;
  readonly deadLetter: DiagnosticsChannel<DeadLetterEvent>;
}

export function actorChannels(diagnostics: Diagnostics): ActorChannels {
  return {
    lifecycle: diagnostics.channel<LifecycleEvent>(actorChannelNames.lifecycle),
    message: diagnostics.channel<MessageEvent>(actorChannelNames.message),
    deadLetter: diagnostics.channel<DeadLetterEvent>(actorChannelNames.deadLetter),
  };
}
