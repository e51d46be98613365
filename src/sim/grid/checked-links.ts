/**
 * Links whose messages are numbered on their way, so that order and doubling can be seen from outside: the number goes in
 * an envelope around the message, and is looked at before the receiver gets the message.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { formatAddress } from '#core/actor-address.js';
import type { Entrance } from '#ports/links.js';
import type { RemoteDelivery, RemoteWatch } from '#ports/remote-delivery.js';
import type { PretendHost } from '../pretend-network.js';
import type { PlantedBug } from './planted-bugs.js';
import type { Violations } from './violations.js';

interface Envelope {
  readonly from: string;
  readonly number: number;
  readonly message: unknown;
}

export interface CheckedLinksOptions {
  readonly links: PretendHost;
  readonly violations: Violations;
  readonly bug: PlantedBug | undefined;
}

export class CheckedLinks implements RemoteDelivery {
  readonly #options: CheckedLinksOptions;
  /** Number of the last message, by sender and by the actor that it is for. */
  readonly #latest = new Map<string, Map<string, number>>();
  readonly #from: string;
  #number = 0;
  #delivered = 0;
  #held: (() => Delivery) | undefined;

  constructor(options: CheckedLinksOptions) {
    this.#options = options;
    this.#from = `${options.links.name}/${options.links.process}`;
  }

  /** What arrives goes to that entrance. */
  attach(entrance: Entrance): void {
    this.#options.links.attach({
      ref: (address) => entrance.ref(address),
      whenEnded: (actor) => entrance.whenEnded(actor),
      deliver: (to, message) => this.#deliver(entrance, to, message as Envelope),
    });
  }

  send(to: ActorAddress, message: unknown): Delivery {
    this.#number += 1;
    const { links } = this.#options;
    const envelope: Envelope = { from: this.#from, number: this.#number, message };
    return links.send(to, envelope);
  }

  watch(actor: ActorAddress, onEnd: (reason: 'stopped' | 'failed') => void): RemoteWatch {
    return this.#options.links.watch(actor, onEnd);
  }

  #deliver(entrance: Entrance, to: ActorAddress, envelope: Envelope): Delivery {
    const { bug } = this.#options;
    const now = (): Delivery => this.#check(entrance, to, envelope);
    this.#delivered += 1;
    if (bug === 'doubled-message' && this.#delivered % 100 === 0) now();
    if (bug !== 'overtaking') return now();
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined && this.#delivered % 100 === 0) {
      this.#held = now;
      return 'accepted';
    }
    const delivery = now();
    held?.();
    return delivery;
  }

  #check(entrance: Entrance, to: ActorAddress, { from, number, message }: Envelope): Delivery {
    let latest = this.#latest.get(from);
    if (latest === undefined) this.#latest.set(from, (latest = new Map<string, number>()));
    const before = latest.get(to.path) ?? 0;
    if (number <= before) {
      const what = number === before ? 'came twice' : `came after number ${before}`;
      this.#options.violations.report('order-kept', `message ${number} of ${from} to ${formatAddress(to)} ${what}`);
    }
    latest.set(to.path, number);
    return entrance.deliver(to, message);
  }
}
