/**
 * The way to a device that is not on the gateway's host: what is told arrives half a round trip and the transfer of its bytes
 * later, in order; so do the answers. The device is told targets and deadlines less the way back, as it is the answer's
 * arrival that counts.
 */
import type { DeviceMessage } from '#actors/device/protocol.js';
import { intarsiaError } from '#core/errors.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { Clock } from '#ports/clock.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import type { DeviceRef } from '#server/router.js';
import { linkMs, type FleetDevice, type FleetModel } from './fleet.js';

export class FleetLink implements DeviceRef {
  readonly #device: FleetDevice;
  readonly #models: ReadonlyMap<string, FleetModel>;
  readonly #ref: DeviceRef;
  readonly #clock: Clock;
  /** When the last message arrives: none overtakes another. */
  #lastMs = 0;

  constructor(device: FleetDevice, models: ReadonlyMap<string, FleetModel>, ref: DeviceRef, clock: Clock) {
    this.#device = device;
    this.#models = models;
    this.#ref = ref;
    this.#clock = clock;
  }

  tell(message: DeviceMessage): Delivery {
    if (message.type !== 'infer') {
      this.#deliver(this.#device.netMs / 2, () => this.#ref.tell(message));
      return 'accepted';
    }
    const { request, replyTo } = message;
    const model = this.#models.get(request.model);
    const thereMs =
      (model === undefined ? this.#device.netMs : linkMs(this.#device, model, request.items)) - this.#device.netMs / 2;
    const late = new LateReply(replyTo, this.#device.netMs / 2, this.#clock);
    const far: DeviceMessage = { type: 'infer', request: lessMs(request, this.#device.netMs / 2), replyTo: late };
    this.#deliver(thereMs, () => {
      const delivery = this.#ref.tell(far);
      if (delivery === 'accepted') return;
      const error = intarsiaError('DEVICE_UNAVAILABLE', `device ${this.#device.id} took no message: ${delivery}`);
      late.tell({ ok: false, error });
    });
    return 'accepted';
  }

  #deliver(delayMs: number, task: () => void): void {
    this.#lastMs = Math.max(this.#lastMs, this.#clock.nowMs() + delayMs);
    this.#clock.scheduleAt(this.#lastMs, task);
  }
}

class LateReply implements ReplyTo<InferenceOutcome> {
  readonly #replyTo: ReplyTo<InferenceOutcome>;
  readonly #delayMs: number;
  readonly #clock: Clock;

  constructor(replyTo: ReplyTo<InferenceOutcome>, delayMs: number, clock: Clock) {
    this.#replyTo = replyTo;
    this.#delayMs = delayMs;
    this.#clock = clock;
  }

  tell(outcome: InferenceOutcome): Delivery {
    this.#clock.schedule(this.#delayMs, () => this.#replyTo.tell(outcome));
    return 'accepted';
  }
}

function lessMs(request: InferenceRequest, ms: number): InferenceRequest {
  const less: { -readonly [Key in keyof InferenceRequest]: InferenceRequest[Key] } = { ...request };
  less.deadlineMs -= ms;
  if (less.sloMs !== undefined) less.sloMs = Math.max(0, less.sloMs - ms);
  return less;
}
