/** Where an actor lives and what became of a message sent there: words that the runtime and its ports share. */

/**
 * Where an actor lives. `incarnation` grows when a name is used again on the same host. 0 names whoever has the path when
 * the message arrives: for well-known actors of other hosts, whose incarnations nobody here knows.
 */
export interface ActorAddress {
  readonly host: string;
  /** Names from the root, joined by `/`. */
  readonly path: string;
  readonly incarnation: number;
}

/** What became of a message at the receiver's mailbox. Anything but `accepted` also goes to the dead letters. */
export type Delivery = 'accepted' | 'full' | 'stopped';

/** `host/path#incarnation`, for logs and errors. */
export function formatAddress(address: ActorAddress): string {
  return `${address.host}/${address.path}#${address.incarnation}`;
}

/** Whether both name the same actor. */
export function isSameAddress(left: ActorAddress, right: ActorAddress): boolean {
  return left.incarnation === right.incarnation && left.path === right.path && left.host === right.host;
}
