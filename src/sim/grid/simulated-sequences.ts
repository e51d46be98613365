/**
 * Clients that send sequences to stateful models: requests one after the other to one gateway, each answered with the sum of
 * all so far. A sequence that met a failure is over, as its state is unknown; what must never come is a wrong sum.
 */
import { errorCatalogue, intarsiaError, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import { noParameters, type InferRequestMessage, type InferResponseMessage } from '#core/inference-message.js';
import type { InferCall } from '#ports/inference-gateway.js';
import type { Timer } from '#ports/clock.js';
import { caller, troubleCodes, type ClientsWorld } from './simulated-clients.js';
import type { SimulatedHost } from './simulated-host.js';
import { floatsOf, width } from './simulated-models.js';

export interface SequenceCounts {
  begun: number;
  /** Answered to their ends. */
  ended: number;
  /** Requests that were answered. */
  steps: number;
  /** Sequences that a failure ended, by its code. */
  readonly broken: Map<ErrorCode, number>;
}

const stepsMin = 3;
const stepsMax = 6;
const gapMsMax = 400;
const stepMsMax = 5_000;

export class SimulatedSequences {
  readonly counts: SequenceCounts = { begun: 0, ended: 0, steps: 0, broken: new Map() };
  readonly world: ClientsWorld;
  readonly #open = new Set<Sequence>();
  /** Failures of any kind are violations of sequences that begin from now on. */
  isCalm = false;

  /** @param world Its models are stateful ones. */
  constructor(world: ClientsWorld) {
    this.world = world;
  }

  get open(): number {
    return this.#open.size;
  }

  begin(): void {
    const { random, names, models } = this.world;
    const model = models[Math.floor(random.next() * models.length)];
    // A client keeps to one gateway: which device holds the state is known there.
    const gateways = names.filter((name) => this.world.hostOf(name)?.isOpen === true);
    const gateway = gateways[Math.floor(random.next() * gateways.length)];
    if (model === undefined || gateway === undefined) return;
    this.counts.begun += 1;
    const steps = stepsMin + Math.floor(random.next() * (stepsMax - stepsMin + 1));
    const sequence = new Sequence(this, { model, gateway, steps, number: this.counts.begun, isCalm: this.isCalm });
    this.#open.add(sequence);
    sequence.next();
  }

  end(sequence: Sequence, error: IntarsiaError | undefined): void {
    this.#open.delete(sequence);
    const { trace, violations } = this.world;
    trace.number(sequence.number);
    trace.text(error?.code ?? 'ended');
    if (error === undefined) {
      this.counts.ended += 1;
      return;
    }
    const { code, message } = error;
    this.counts.broken.set(code, (this.counts.broken.get(code) ?? 0) + 1);
    const what = `sequence ${sequence.number} ended with ${code}: ${message}`;
    const isKnown = Object.hasOwn(errorCatalogue, code) && (troubleCodes.has(code) || stateIsLost(error));
    if (!isKnown) violations.report('known-code', what);
    else if (sequence.isCalm) violations.report('calm-requests', `${what}, while all was calm`);
  }
}

/** The device that is asked does not know the sequence, and says so rather than beginning with another state. */
function stateIsLost({ code, message }: IntarsiaError): boolean {
  return code === 'INVALID_ARGUMENT' && message.includes('must specify the START flag');
}

interface SequenceParts {
  readonly model: string;
  readonly gateway: string;
  readonly steps: number;
  readonly number: number;
  readonly isCalm: boolean;
}

class Sequence {
  readonly number: number;
  readonly isCalm: boolean;
  readonly #all: SimulatedSequences;
  readonly #parts: SequenceParts;
  #step = 0;
  #sum = 0;
  #isOver = false;
  #deadline: Timer | undefined;
  #forget: () => void = () => {};

  constructor(all: SimulatedSequences, parts: SequenceParts) {
    this.#all = all;
    this.#parts = parts;
    this.number = parts.number;
    this.isCalm = parts.isCalm;
  }

  next(): void {
    const { clock, random } = this.#all.world;
    this.#step += 1;
    const deadlineMs = clock.nowMs() + stepMsMax;
    this.#deadline = clock.scheduleAt(deadlineMs, () =>
      this.#end(intarsiaError('DEADLINE_EXCEEDED', 'the gateway did not answer in time')),
    );
    clock.schedule(0.2 + random.next(), () => this.#arrive(deadlineMs));
  }

  #arrive(deadlineMs: number): void {
    const { gateway } = this.#parts;
    const host = this.#all.world.hostOf(gateway);
    const lost = (): void => this.#end(intarsiaError('UNAVAILABLE', `gateway ${gateway} cannot be reached`));
    if (this.#isOver) return;
    if (host === undefined || !host.isOpen) {
      lost();
      return;
    }
    this.#forget = host.onEnd(lost);
    host.clock.defer(() => this.#infer(host, deadlineMs));
  }

  #infer(host: SimulatedHost, deadlineMs: number): void {
    const { clock, random, violations } = this.#all.world;
    const leftMs = deadlineMs - clock.nowMs();
    if (this.#isOver || !host.isAlive || leftMs <= 0) return;
    const step = this.#step;
    let answers = 0;
    const carry = (take: () => void): void => {
      answers += 1;
      if (answers > 1) {
        const text = `gateway ${host.name} answered step ${step} of sequence ${this.number} ${answers} times`;
        violations.report('answered-once', text);
      }
      if (!host.isAlive) return;
      clock.schedule(0.2 + random.next(), () => {
        if (!this.#isOver && this.#step === step) take();
      });
    };
    const call: InferCall = {
      ...{ caller, deadlineMs: host.clock.nowMs() + leftMs, messageBytes: 64, sloMs: 0, traceparent: undefined },
      reservedParameters: new Set(),
    };
    host.gateway.infer(this.#message(), call, {
      succeed: (answer) => carry(() => this.#succeeded(answer)),
      fail: (error) => carry(() => this.#end(error)),
    });
  }

  #message(): InferRequestMessage {
    const { model, steps } = this.#parts;
    const data = new Uint8Array(new Float32Array(width).fill(this.number + this.#step).buffer);
    return {
      modelName: model,
      modelVersion: '',
      id: '',
      parameters: new Map([
        ['sequence_id', { kind: 'string', value: `sequence-${this.number}` }],
        ['sequence_start', { kind: 'bool', value: this.#step === 1 }],
        ['sequence_end', { kind: 'bool', value: this.#step === steps }],
      ]),
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, width], parameters: noParameters, data }],
      outputs: [],
      rawContents: true,
    };
  }

  #succeeded(answer: InferResponseMessage): void {
    const { clock, random, violations } = this.#all.world;
    this.#deadline?.cancel();
    this.#forget();
    this.#all.counts.steps += 1;
    this.#sum += this.number + this.#step;
    const y = answer.outputs.find(({ name }) => name === 'y');
    const values = y === undefined ? [] : [...floatsOf(y.data)];
    if (values.length !== width || values.some((value) => value !== this.#sum)) {
      const text = `step ${this.#step} of sequence ${this.number} by ${this.#parts.gateway} got ${values.join(' ')}; the sum is ${this.#sum}`;
      violations.report('right-answer', text);
    }
    if (this.#step === this.#parts.steps) this.#end(undefined);
    else clock.schedule(random.next() * gapMsMax, () => this.next());
  }

  #end(error: IntarsiaError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#deadline?.cancel();
    this.#forget();
    this.#all.end(this, error);
  }
}
