/**
 * The requests that this host's gateway has in flight on one other host, and that host's devices as the router sees them.
 *
 * Sending is a call, not a message: a request goes from the gateway to the link on one stack. Answers come to the peer
 * actor (actor.ts), which hands them in here. While anything is in flight the other host's ingress is watched; when it
 * ends, or the link is lost, everything in flight fails at once with DEVICE_UNAVAILABLE, which is retryable: inference is
 * idempotent, and the gateway tries another replica while the deadline allows.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { intarsiaError } from '#core/errors.js';
import type { DeviceId, HostId, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import { MiB } from '#core/units.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { ingressPath, type IngressMessage } from '#actors/ingress/protocol.js';
import type { Clock } from '#ports/clock.js';
import type { RemoteDelivery, RemoteWatch } from '#ports/remote-delivery.js';
import type { ActorRef, ReplyTo } from '#runtime/actor.js';
import type { PeerReply } from './protocol.js';

/** Of a target that has passed so much is left, ms: the request is late over there too, and is no other kind of request. */
const sloMsMin = 0.001;

export interface PeerDeskOptions {
  readonly host: HostId;
  readonly clock: Clock;
  readonly links: RemoteDelivery;
  /** Requests in flight at once, default 4,096; more are answered `full`, and the gateway looks elsewhere. */
  readonly requestsMax?: number;
  /** Bytes of inputs in flight at once, default 256 MiB; a single larger request passes when nothing else is in flight. */
  readonly bytesMax?: number;
}

interface InFlight {
  readonly device: RemoteDevice;
  readonly request: RequestId;
  readonly bytes: number;
  readonly sentMs: number;
  readonly replyTo: ReplyTo<InferenceOutcome>;
}

export class PeerDesk {
  readonly host: HostId;
  readonly #options: PeerDeskOptions;
  readonly #ingress: ActorAddress;
  readonly #devices = new Map<DeviceId, RemoteDevice>();
  readonly #inFlight = new Map<number, InFlight>();
  #bytes = 0;
  #nextNumber = 1;
  #self: ActorRef<PeerReply> | undefined;
  #watch: RemoteWatch | undefined;

  constructor(options: PeerDeskOptions) {
    this.#options = options;
    this.host = options.host;
    this.#ingress = { host: options.host, path: ingressPath, incarnation: 0 };
  }

  /** Requests that wait for an outcome. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** The device as the router sees it: always the same object. */
  device(id: DeviceId): RemoteDevice {
    let device = this.#devices.get(id);
    if (device === undefined) {
      device = new RemoteDevice(this, id);
      this.#devices.set(id, device);
    }
    return device;
  }

  /** The peer actor lives: answers can come in. */
  open(self: ActorRef<PeerReply>): void {
    this.#self = self;
  }

  /** The peer actor ends: nothing more can come in. */
  close(): void {
    this.#self = undefined;
    this.failAll('the connection to it is closed');
  }

  /** The number under which the request is in flight, or why it is not. */
  send(device: RemoteDevice, request: InferenceRequest, replyTo: ReplyTo<InferenceOutcome>): number | Delivery {
    const { requestsMax = 4_096, bytesMax = 256 * MiB, clock, links } = this.#options;
    const self = this.#self;
    if (self === undefined) return 'stopped';
    const isOver = this.#inFlight.size >= requestsMax || this.#bytes + request.bytes > bytesMax;
    if (isOver && this.#inFlight.size > 0) return 'full';
    const { id, deadlineMs, arrivedMs, ...rest } = request;
    const sentMs = clock.nowMs();
    // Over there the request arrives anew: what is left of its target goes along, not all of it.
    const { sloMs } = request;
    const left = sloMs === undefined ? {} : { sloMs: Math.max(sloMsMin, sloMs - (sentMs - arrivedMs)) };
    const number = this.#nextNumber;
    const message: IngressMessage = {
      type: 'infer',
      number,
      device: device.id,
      request: { ...rest, ...left },
      leftMs: deadlineMs - sentMs,
      peer: self,
    };
    const delivery = links.send(this.#ingress, message);
    if (delivery !== 'accepted') return delivery;
    this.#nextNumber += 1;
    this.#inFlight.set(number, { device, request: id, bytes: request.bytes, sentMs, replyTo });
    this.#bytes += request.bytes;
    this.#watch ??= links.watch(this.#ingress, () => {
      this.#watch = undefined;
      this.failAll('the link to it is lost');
    });
    return number;
  }

  /** The gateway wants the answer no more: it is told so at once, whatever the other host does. */
  cancel(number: number): void {
    const waiting = this.#take(number);
    if (waiting === undefined) return;
    const self = this.#self;
    if (self !== undefined) this.#options.links.send(this.#ingress, { type: 'cancel', number, peer: self });
    waiting.replyTo.tell({ ok: false, error: intarsiaError('CANCELLED', 'the request was cancelled') });
  }

  receive({ number, outcome, hostUs }: PeerReply): void {
    const waiting = this.#take(number);
    if (waiting === undefined) return;
    if (!outcome.ok) {
      waiting.replyTo.tell(outcome);
      return;
    }
    const linkUs = Math.max(0, (this.#options.clock.nowMs() - waiting.sentMs) * 1000 - hostUs);
    const { receipt } = outcome;
    waiting.replyTo.tell({ ...outcome, receipt: { ...receipt, linkUs: receipt.linkUs + linkUs } });
  }

  failAll(reason: string): void {
    this.#watch?.cancel();
    this.#watch = undefined;
    for (const number of [...this.#inFlight.keys()]) {
      const waiting = this.#take(number);
      if (waiting === undefined) continue;
      const { device } = waiting;
      waiting.replyTo.tell({
        ok: false,
        error: intarsiaError(
          'DEVICE_UNAVAILABLE',
          `device ${device.id} of host ${this.host} cannot answer: ${reason}`,
          {
            host: this.host,
            device: device.id,
          },
        ),
      });
    }
  }

  #take(number: number): InFlight | undefined {
    const waiting = this.#inFlight.get(number);
    if (waiting === undefined) return undefined;
    this.#inFlight.delete(number);
    this.#bytes -= waiting.bytes;
    waiting.device.forget(waiting.request);
    if (this.#inFlight.size === 0) {
      this.#watch?.cancel();
      this.#watch = undefined;
    }
    return waiting;
  }
}

/** A device of another host where the router expects a device actor. Takes `infer` and `cancel` only. */
export class RemoteDevice {
  readonly id: DeviceId;
  readonly #desk: PeerDesk;
  readonly #numbers = new Map<RequestId, number>();

  constructor(desk: PeerDesk, id: DeviceId) {
    this.#desk = desk;
    this.id = id;
  }

  /** `full`: too much is in flight there, or the link's queue is; `stopped`: the host is gone, or what is asked is not for afar. */
  tell(message: DeviceMessage): Delivery {
    if (message.type === 'infer') {
      const sent = this.#desk.send(this, message.request, message.replyTo);
      if (typeof sent === 'string') return sent;
      this.#numbers.set(message.request.id, sent);
      return 'accepted';
    }
    if (message.type !== 'cancel') return 'stopped';
    const number = this.#numbers.get(message.request);
    if (number !== undefined) this.#desk.cancel(number);
    return 'accepted';
  }

  /** The request has its outcome. */
  forget(request: RequestId): void {
    this.#numbers.delete(request);
  }
}
