/**
 * One attempt of a request at one replica: where the device's outcome arrives. A call is its own first attempt, so that
 * a request that is answered at once costs one object.
 */
import type { InferenceOutcome } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';
import type { Delivery, ReplyTo } from '#runtime/actor.js';
import type { DeviceRef } from './router.js';

export abstract class Attempt implements ReplyTo<InferenceOutcome> {
  candidate: Candidate | undefined;
  device: DeviceRef | undefined;
  /** A device holds the request and owes an outcome. */
  held = false;
  /** It took too long: its answer still counts, but is not waited for. */
  overdue = false;
  /** When it was sent, ms, monotonic. */
  sentMs = 0;

  tell(outcome: InferenceOutcome): Delivery {
    return this.settled(outcome);
  }

  protected abstract settled(outcome: InferenceOutcome): Delivery;
}
