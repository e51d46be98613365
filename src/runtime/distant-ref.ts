/**
 * A reference to an actor that is not here: on another host, reached through the remote delivery port, or nowhere, when
 * the address is of this host but its actor has gone.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { ActorRef, AskOptions, ReplyTo } from './actor.js';
import { Ask } from './ask.js';
import type { AskPorts } from './ask.js';
import type { DeadLetterReason } from './diagnostic-events.js';

/** What a distant reference needs of the system. */
export interface DistantPorts extends AskPorts {
  readonly remote: RemoteDelivery | undefined;
  readonly host: string;
  /** Gives a question an address of this host, under which its reply can come in until it has ended. */
  addressReply<Reply>(ask: Ask<Reply>): ActorRef<Reply>;
}

export class DistantRef<Message> implements ActorRef<Message> {
  readonly address: ActorAddress;
  private readonly ports: DistantPorts;

  constructor(address: ActorAddress, ports: DistantPorts) {
    this.address = address;
    this.ports = ports;
  }

  tell(message: Message): Delivery {
    const { remote, host } = this.ports;
    if (this.address.host === host) return this.refuse(message, 'stopped', 'stopped');
    if (remote === undefined) return this.refuse(message, 'unreachable', 'stopped');
    const delivery = remote.send(this.address, message);
    return delivery === 'accepted'
      ? delivery
      : this.refuse(message, delivery === 'full' ? 'full' : 'unreachable', delivery);
  }

  ask<Reply>(build: (replyTo: ReplyTo<Reply>) => Message, options: AskOptions): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const ask = new Ask<Reply>(this.ports, this.address, resolve, reject);
      if (ask.endIfPointless(options)) return;
      const { remote, host } = this.ports;
      if (remote === undefined || this.address.host === host) {
        ask.rejectStopped();
        return;
      }
      let delivery: Delivery;
      const replyTo = this.ports.addressReply(ask);
      try {
        delivery = this.tell(build(replyTo));
      } catch (error) {
        ask.reject(error);
        return;
      }
      if (delivery === 'full') ask.rejectFull();
      else if (delivery === 'stopped') ask.rejectStopped();
      if (ask.over) return;
      const watch = remote.watch(this.address, () => ask.rejectStopped());
      ask.whenOver(() => watch.cancel());
      if (options.cancellation !== undefined) ask.obey(options.cancellation);
    });
  }

  private refuse(message: Message, reason: DeadLetterReason, delivery: Delivery): Delivery {
    this.ports.deadLetters.record(this.address, message, reason);
    return delivery;
  }
}
