/**
 * The ingress of a host: requests from gateways of other hosts go to the local devices under numbers of this host, with
 * deadlines on this host's clock; outcomes go back. When the link to a peer is lost, or the peer ends, everything it asked
 * for is cancelled, since nobody is left to answer.
 *
 * Bounds: requests and bytes it holds, over all peers; more is answered QUEUE_FULL. An answer that the link does not take
 * is kept and tried again, and counts as held until then.
 */
import { formatAddress } from '#core/actor-address.js';
import { intarsiaError, unreachable } from '#core/errors.js';
import type { DeviceId, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import { formatBytes, GiB } from '#core/units.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { PeerReply } from '#actors/peer/protocol.js';
import type { Actor, ActorContext, ActorFactory, ActorRef, Delivery, ReplyTo, Signal } from '#runtime/actor.js';
import type { IngressMessage } from './protocol.js';

export interface IngressOptions {
  /** The actor of a device of this host; undefined when there is none. */
  readonly deviceOf: (device: DeviceId) => Pick<ActorRef<DeviceMessage>, 'tell'> | undefined;
  /** Requests held at once, 1 and up, default 10,000. */
  readonly requestsMax?: number;
  /** Bytes of inputs held at once, default 1 GiB. */
  readonly bytesMax?: number;
}

/** Numbers of requests from other hosts begin here: those of the own gateway never get so far. */
const requestIdMin = 2 ** 50;
/** Milliseconds between tries of answers that the link did not take, and tries before one is given up. */
const retryMs = 5;
const triesMax = 2_000;

type Internal = IngressMessage | { readonly type: 'retry' };

/** Spawn it as `ingress` (see `ingressPath`) on every host that has devices. */
export function ingressActor(options: IngressOptions): ActorFactory<IngressMessage> {
  const factory: ActorFactory<Internal> = (context) => new Ingress(context, options);
  return factory;
}

interface Peer {
  readonly ref: ActorRef<PeerReply>;
  readonly calls: Map<number, Call>;
}

class Ingress implements Actor<Internal> {
  readonly context: ActorContext<Internal>;
  readonly #options: IngressOptions;
  readonly #peers = new Map<string, Peer>();
  readonly #untold = new Set<Call>();
  #isRetryPending = false;
  #isDraining = false;
  #hasDeparted = false;
  #requests = 0;
  #bytes = 0;
  #nextId = requestIdMin;

  constructor(context: ActorContext<Internal>, options: IngressOptions) {
    this.context = context;
    this.#options = options;
  }

  receive(message: Internal): void {
    switch (message.type) {
      case 'infer':
        this.#infer(message);
        return;
      case 'cancel':
        this.#peers.get(formatAddress(message.peer.address))?.calls.get(message.number)?.cancel();
        return;
      case 'depart':
        this.#depart();
        return;
      case 'retry':
        this.#retry();
        return;
      default:
        unreachable(message);
    }
  }

  signal(signal: Signal): void {
    switch (signal.type) {
      case 'terminated': {
        const key = formatAddress(signal.address);
        const peer = this.#peers.get(key);
        this.#peers.delete(key);
        for (const call of peer?.calls.values() ?? []) call.cancel(true);
        return;
      }
      case 'drain':
        // Whoever drains the host drains its devices: they answer what they hold, and this actor carries it out.
        if (this.#requests === 0) this.context.stop();
        else this.#isDraining = true;
        return;
      case 'pre-restart':
      case 'post-stop':
        for (const peer of this.#peers.values()) for (const call of peer.calls.values()) call.cancel();
        return;
      default:
        unreachable(signal);
    }
  }

  #infer(message: Extract<IngressMessage, { type: 'infer' }>): void {
    const { request, number, device: name } = message;
    const call = new Call(this, this.#peer(message.peer), number, request.bytes);
    this.#requests += 1;
    this.#bytes += request.bytes;
    const { requestsMax = 10_000, bytesMax = GiB } = this.#options;
    if (this.#requests > requestsMax || this.#bytes > bytesMax) {
      const bound = this.#requests > requestsMax ? `${requestsMax} requests` : `${formatBytes(bytesMax)} of requests`;
      call.refuse('QUEUE_FULL', `host ${this.context.self.address.host} holds ${bound} of other hosts already`);
      return;
    }
    if (this.#hasDeparted) {
      call.refuse('DEVICE_UNAVAILABLE', this.#departed());
      return;
    }
    if (this.#isDraining) {
      call.refuse('DEVICE_UNAVAILABLE', `host ${this.context.self.address.host} is draining`);
      return;
    }
    const device = this.#options.deviceOf(name);
    if (device === undefined) {
      call.refuse('DEVICE_UNAVAILABLE', `host ${this.context.self.address.host} has no device ${name}`);
      return;
    }
    call.start(device, this.#localRequest(request, message.leftMs));
  }

  #localRequest(request: Extract<IngressMessage, { type: 'infer' }>['request'], leftMs: number): InferenceRequest {
    const nowMs = this.context.clock.nowMs();
    const id = this.#nextId as RequestId;
    this.#nextId += 1;
    return { ...request, id, arrivedMs: nowMs, deadlineMs: nowMs + leftMs };
  }

  #peer(ref: ActorRef<PeerReply>): Peer {
    const key = formatAddress(ref.address);
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      peer = { ref, calls: new Map() };
      this.#peers.set(key, peer);
      this.context.watch(ref);
    }
    return peer;
  }

  /** The link did not take the answer. */
  keep(call: Call): void {
    this.#untold.add(call);
    if (this.#isRetryPending) return;
    this.#isRetryPending = true;
    this.context.schedule(retryMs, { type: 'retry' });
  }

  /** The request has left this actor. */
  release(call: Call, peer: Peer): void {
    this.#untold.delete(call);
    // A link that nobody needs may rest.
    if (peer.calls.size === 0 && this.#peers.delete(formatAddress(peer.ref.address))) this.context.unwatch(peer.ref);
    this.#requests -= 1;
    this.#bytes -= call.bytes;
    if (this.#isDraining && this.#requests === 0) this.context.stop();
  }

  #depart(): void {
    this.#hasDeparted = true;
    for (const peer of [...this.#peers.values()]) {
      for (const call of [...peer.calls.values()]) call.giveUp(this.#departed());
    }
  }

  #departed(): string {
    return `host ${this.context.self.address.host} leaves the grid: its time to drain is over`;
  }

  #retry(): void {
    this.#isRetryPending = false;
    for (const call of [...this.#untold]) call.tellAgain();
  }
}

/** One request of another host: the device's reply address. */
class Call implements ReplyTo<InferenceOutcome> {
  readonly bytes: number;
  readonly #ingress: Ingress;
  readonly #peer: Peer;
  readonly #number: number;
  readonly #arrivedMs: number;
  #device: Pick<ActorRef<DeviceMessage>, 'tell'> | undefined;
  #request: Pick<InferenceRequest, 'id' | 'model' | 'version'> | undefined;
  #reply: PeerReply | undefined;
  #tries = 0;
  #isCancelled = false;
  #isOver = false;

  constructor(ingress: Ingress, peer: Peer, number: number, bytes: number) {
    this.#ingress = ingress;
    this.#peer = peer;
    this.#number = number;
    this.bytes = bytes;
    this.#arrivedMs = ingress.context.clock.nowMs();
    peer.calls.set(number, this);
  }

  start(device: Pick<ActorRef<DeviceMessage>, 'tell'>, request: InferenceRequest): void {
    this.#device = device;
    // The inputs are the device's from here on.
    this.#request = { id: request.id, model: request.model, version: request.version };
    const delivery = device.tell({ type: 'infer', request, replyTo: this });
    if (delivery === 'full') this.refuse('QUEUE_FULL', 'the mailbox of the device is full');
    else if (delivery === 'stopped') this.refuse('DEVICE_UNAVAILABLE', 'the device has stopped');
  }

  tell(outcome: InferenceOutcome): Delivery {
    if (this.#reply !== undefined || this.#isOver) return 'stopped';
    const hostUs = (this.#ingress.context.clock.nowMs() - this.#arrivedMs) * 1000;
    this.#reply = { type: 'outcome', number: this.#number, outcome, hostUs };
    this.tellAgain();
    return 'accepted';
  }

  tellAgain(): void {
    const reply = this.#reply;
    if (reply === undefined || this.#isOver) return;
    this.#tries += 1;
    if (this.#isCancelled || this.#tries > triesMax || this.#peer.ref.tell(reply) !== 'full') this.#end();
    else this.#ingress.keep(this);
  }

  /**
   * Tells the device; its outcome is awaited all the same, since it holds the request until then.
   * @param lost Whoever asked is gone, rather than not interested.
   */
  cancel(lost = false): void {
    if (this.#isCancelled || this.#isOver) return;
    this.#isCancelled = true;
    if (this.#reply !== undefined) this.#end();
    else if (this.#request !== undefined) {
      const { id, model, version } = this.#request;
      this.#device?.tell({ type: 'cancel', request: id, model, version, ...(lost ? { lost: true } : {}) });
    }
  }

  /** Answers at once, and tells the device that nobody waits. */
  giveUp(reason: string): void {
    const request = this.#request;
    if (request !== undefined && this.#reply === undefined) {
      const { id, model, version } = request;
      this.#device?.tell({ type: 'cancel', request: id, model, version });
    }
    this.refuse('DEVICE_UNAVAILABLE', reason);
  }

  refuse(code: 'QUEUE_FULL' | 'DEVICE_UNAVAILABLE', reason: string): void {
    this.tell({ ok: false, error: intarsiaError(code, reason) });
  }

  #end(): void {
    this.#isOver = true;
    this.#reply = undefined;
    this.#peer.calls.delete(this.#number);
    this.#ingress.release(this, this.#peer);
  }
}
