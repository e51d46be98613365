/**
 * A small share of the requests that this host's devices answer is run again by another holder of the same files: of the same
 * stage of a split model, or of the same whole one; where nobody else holds them, on the reference. The client's answer is
 * long gone by then. Each host looks after its own devices: one whose answers others contradict is given up, with the reason.
 *
 * Bounded in checks at a time and in bytes; what a sample would exceed is not sampled. Requests of sequences are never run
 * twice.
 */
import type { DeviceMessage } from '#actors/device/protocol.js';
import type { ArtifactDigest, DeviceId, HostId, RequestId } from '#core/ids.js';
import type { InferenceOutcome, InferenceRequest, InferenceSuccess } from '#core/inference.js';
import { metric } from '#core/metric-catalogue.js';
import type { Candidate } from '#core/picker.js';
import { candidatesOf, reserveOf } from '#core/routing-table.js';
import {
  answerDifference,
  DriftJudge,
  verdictOf,
  type JudgeOptions,
  type SampleVerdict,
} from '#core/split/drift-judge.js';
import { MiB } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { Metrics } from '#ports/metrics.js';
import type { Random } from '#ports/random.js';
import type { Delivery } from '#runtime/actor.js';
import type { ReferenceRuns } from './reference-runs.js';
import type { DeviceRef, Router } from './router.js';

export interface SpotCheckOptions {
  readonly host: HostId;
  readonly router: Router;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  /** Share of requests, 0 to 1. */
  readonly share: number;
  /** Whether a device is a true CPU, which is believed when two disagree. */
  readonly isReference: (host: HostId, device: DeviceId) => boolean;
  /** The device gives wrong answers: it is to be given up. Called once a device. */
  readonly onDrift: (device: DeviceId, reason: string) => void;
  readonly judge?: JudgeOptions;
  /** A witness where nobody else is one, and between two that nobody can tell apart. Absent: there is none. */
  readonly reference?: Pick<ReferenceRuns, 'isFree' | 'run'>;
}

const checksMax = 4;
/** Of a request and its answer. */
const sampleBytesMax = 16 * MiB;
const checkMsMax = 10_000;
/** Numbers of requests that are checks begin here: nobody else's get so far. */
const requestIdMin = 2 ** 52 + 2 ** 51;

interface Sample {
  readonly device: DeviceId;
  /** Of the files that the device has. */
  readonly digest: ArtifactDigest;
  readonly request: InferenceRequest;
  readonly outputs: InferenceRequest['inputs'];
}

type Told = (answer: InferenceRequest['inputs'] | undefined) => void;

/** Somebody who runs a sample again. */
interface Witness {
  /** Undefined: the reference. */
  readonly holder: Candidate | undefined;
  readonly name: string;
  /** Whether it alone is believed against a device of this host. */
  isTrustedAgainst(device: DeviceId): boolean;
  ask(sample: Sample, told: Told): void;
}

export class SpotChecks {
  readonly #options: SpotCheckOptions;
  readonly #judges = new Map<DeviceId, DriftJudge>();
  readonly #given = new Set<DeviceId>();
  readonly #asked = new WeakSet<InferenceRequest>();
  readonly #count: (result: SampleVerdict | 'unanswered') => void;
  #running = 0;
  #nextId = requestIdMin;

  constructor(options: SpotCheckOptions) {
    this.#options = options;
    const counter = options.metrics.counter(metric('intarsia_spot_checks_total'));
    this.#count = (result) => counter.bind(result).add(1);
  }

  /** The device as those see it who send it what is to be run. */
  device(id: DeviceId, device: DeviceRef): DeviceRef {
    return { tell: (message) => this.#tell(id, device, message) };
  }

  #tell(id: DeviceId, device: DeviceRef, message: DeviceMessage): Delivery {
    if (message.type !== 'infer' || !this.#isSampled(id, message.request)) return device.tell(message);
    const { replyTo } = message;
    const digest = this.#digestOn(id, message.request);
    if (digest === undefined) return device.tell(message);
    const request = copyOf(message.request);
    return device.tell({
      ...message,
      replyTo: {
        tell: (outcome: InferenceOutcome) => {
          // Before it is passed on: whoever gets it may give its memory back.
          const outputs =
            isExact(outcome) && bytesOf(outcome.outputs) <= sampleBytesMax ? copied(outcome.outputs) : undefined;
          const delivery = replyTo.tell(outcome);
          if (outputs !== undefined) this.#check({ device: id, digest, request, outputs });
          return delivery;
        },
      },
    });
  }

  #isSampled(id: DeviceId, request: InferenceRequest): boolean {
    const { share, random } = this.#options;
    if (request.sequence !== undefined || this.#asked.has(request)) return false;
    if (share === 0 || random.next() >= share || this.#running >= checksMax) return false;
    if (request.bytes > sampleBytesMax) return false;
    const digest = this.#digestOn(id, request);
    if (digest === undefined) return false;
    return this.#others(id, request, digest).length > 0 || this.#hasReference(request, digest);
  }

  /** Of the files that the device serves the version from; undefined when nobody knows it as a holder any more. */
  #digestOn(id: DeviceId, request: InferenceRequest): ArtifactDigest | undefined {
    return this.#holders(request).find((one) => this.#isOn(one, id))?.replica.stages[0]?.digest;
  }

  /** Ready holders of the same files elsewhere. */
  #others(id: DeviceId, request: InferenceRequest, digest: ArtifactDigest): readonly Candidate[] {
    return this.#holders(request).filter(
      (one) => !this.#isOn(one, id) && one.load.ready && one.replica.stages[0]?.digest === digest,
    );
  }

  #holders({ model, version }: InferenceRequest): readonly Candidate[] {
    const table = this.#options.router.current;
    return [...candidatesOf(table, model, version), ...reserveOf(table, model, version)];
  }

  #isOn({ replica }: Candidate, device: DeviceId): boolean {
    const [stage] = replica.stages;
    return stage?.host === this.#options.host && stage.device === device;
  }

  #hasReference({ model, version }: InferenceRequest, digest: ArtifactDigest): boolean {
    return this.#options.reference?.isFree({ model, version, digest }) === true;
  }

  #check(sample: Sample): void {
    const { device, request, digest } = sample;
    const [other] = this.#drawn(this.#others(device, request, digest));
    const witness = other === undefined ? this.#referenceFor(sample) : this.#holder(other);
    if (witness === undefined) return;
    this.#running += 1;
    witness.ask(sample, (answer) => {
      const difference = answer === undefined ? undefined : answerDifference(sample.outputs, answer);
      if (answer === undefined || difference === undefined) this.#end(sample, 'unanswered');
      else if (difference === '') this.#end(sample, 'equal');
      else this.#confirm(sample, { witness, answer, difference });
    });
  }

  /**
   * Somebody else says who is wrong: a third holder, or the reference where the two cannot be told apart; where there is
   * nobody else, the same one is asked again.
   */
  #confirm(
    sample: Sample,
    first: { readonly witness: Witness; readonly answer: InferenceRequest['inputs']; readonly difference: string },
  ): void {
    const { witness, answer, difference } = first;
    const { device, request, digest } = sample;
    const thirds = this.#others(device, request, digest).filter((one) => one !== witness.holder);
    const [drawn] = witness.holder === undefined ? [] : this.#drawn(thirds);
    const third = drawn !== undefined ? this.#holder(drawn) : this.#thirdWord(sample, witness);
    (third ?? witness).ask(sample, (second) => {
      if (second === undefined) this.#end(sample, 'unanswered');
      else {
        const isConfirmed = answerDifference(second, answer) === '';
        const isTrusted = third !== undefined || witness.isTrustedAgainst(device);
        this.#end(sample, verdictOf({ isConfirmed, isTrusted }), `${witness.name}: ${difference}`);
      }
    });
  }

  /** The reference between two of which neither is believed more. */
  #thirdWord(sample: Sample, witness: Witness): Witness | undefined {
    return witness.isTrustedAgainst(sample.device) ? undefined : this.#referenceFor(sample);
  }

  #holder(candidate: Candidate): Witness {
    const { host, isReference } = this.#options;
    const [at] = candidate.replica.stages;
    return {
      holder: candidate,
      name: `${at?.host}/${at?.device}`,
      isTrustedAgainst: (device) => at !== undefined && isReference(at.host, at.device) && !isReference(host, device),
      ask: (sample, told) => this.#ask(candidate, sample, told),
    };
  }

  #referenceFor({ request, digest }: Sample): Witness | undefined {
    const { reference, clock } = this.#options;
    if (reference === undefined || !this.#hasReference(request, digest)) return undefined;
    return {
      holder: undefined,
      name: 'the reference',
      isTrustedAgainst: () => true,
      ask: (sample, told) => {
        const asked = { ...sample.request, id: this.#takeId(), arrivedMs: clock.nowMs() };
        const answered = reference.run(asked, digest);
        void answered.then((outcome) => told(outcome !== undefined && isExact(outcome) ? outcome.outputs : undefined));
      },
    };
  }

  #takeId(): RequestId {
    this.#nextId += 1;
    return (this.#nextId - 1) as RequestId;
  }

  #ask(to: Candidate, { request }: Sample, told: Told): void {
    const { router, clock } = this.#options;
    const nowMs = clock.nowMs();
    const id = this.#takeId();
    const asked: InferenceRequest = { ...request, id, arrivedMs: nowMs, deadlineMs: nowMs + checkMsMax };
    this.#asked.add(asked);
    const device = router.deviceOf(to);
    let isOver = false;
    const finish = (outcome: InferenceOutcome | undefined): void => {
      if (isOver) return;
      isOver = true;
      timer.cancel();
      told(outcome !== undefined && isExact(outcome) ? outcome.outputs : undefined);
    };
    const { model, version } = request;
    const timer = clock.schedule(checkMsMax, () => {
      device?.tell({ type: 'cancel', request: id, model, version });
      finish(undefined);
    });
    const replyTo = {
      tell: (outcome: InferenceOutcome): Delivery => {
        finish(outcome);
        return 'accepted';
      },
    };
    if (device?.tell({ type: 'infer', request: asked, replyTo }) !== 'accepted') finish(undefined);
  }

  #drawn(candidates: readonly Candidate[]): readonly Candidate[] {
    const found = candidates[candidates.length < 2 ? 0 : this.#options.random.below(candidates.length)];
    return found === undefined ? [] : [found];
  }

  #end({ device, request }: Sample, result: SampleVerdict | 'unanswered', details = ''): void {
    this.#running -= 1;
    this.#count(result);
    if (result === 'unanswered') return;
    let judge = this.#judges.get(device);
    if (judge === undefined) this.#judges.set(device, (judge = new DriftJudge(this.#options.judge)));
    if (!judge.add(result) || this.#given.has(device)) return;
    this.#given.add(device);
    const { wrong, samples } = judge;
    const reason = `${wrong} of ${samples} sampled answers were contradicted, the last one of ${request.model} by ${details}`;
    this.#options.onDrift(device, reason);
  }
}

/** An answer of the exact model: variants differ from it by what they are allowed, and are not held against it here. */
function isExact(outcome: InferenceOutcome): outcome is InferenceSuccess {
  return outcome.ok && outcome.receipt.variant === undefined;
}

function copyOf({ then: _, ...request }: InferenceRequest): InferenceRequest {
  return { ...request, inputs: copied(request.inputs), queueTimeoutUs: 0 };
}

function copied(tensors: InferenceRequest['inputs']): InferenceRequest['inputs'] {
  return tensors.map((tensor) => ({ ...tensor, data: Uint8Array.from(tensor.data) }));
}

function bytesOf(tensors: InferenceRequest['inputs']): number {
  return tensors.reduce((sum, { data }) => sum + data.byteLength, 0);
}
