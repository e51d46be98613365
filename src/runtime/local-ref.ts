/** A reference to an actor of this host. */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import type { ActorRef, AskOptions, ReplyTo } from './actor.js';
import { Ask } from './ask.js';
import type { AskPorts } from './ask.js';
import type { ActorCell } from './cell.js';

export class LocalRef<Message> implements ActorRef<Message> {
  readonly address: ActorAddress;
  /** For the runtime only. */
  readonly cell: ActorCell;
  private readonly ports: AskPorts;

  constructor(cell: ActorCell, ports: AskPorts) {
    this.address = cell.address;
    this.cell = cell;
    this.ports = ports;
  }

  tell(message: Message): Delivery {
    return this.cell.tell(message);
  }

  ask<Reply>(build: (replyTo: ReplyTo<Reply>) => Message, options: AskOptions): Promise<Reply> {
    const promise = new Promise<Reply>(capture);
    const ask = new Ask<Reply>(this.ports, this.address, captured.resolve as (reply: Reply) => void, captured.reject);
    this.cell.ask(ask, build, options);
    return promise;
  }
}

type Resolve = (reply: never) => void;
type Reject = (error: unknown) => void;

/** The ends of the promise that was made last: one function for all promises, instead of a closure for each. */
const captured: { resolve: Resolve; reject: Reject } = { resolve: () => {}, reject: () => {} };

function capture(resolve: Resolve, reject: Reject): void {
  captured.resolve = resolve;
  captured.reject = reject;
}
