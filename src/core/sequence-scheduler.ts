/**
 * The queue of one stateful model on one device: Triton's sequence batching, strategies `direct` and `oldest`.
 *
 * Each sequence runs one request at a time, in order; different sequences share batches. A sequence holds a slot from its
 * START to its END (or until it was silent for too long); sequences beyond the slots wait in a backlog. Each run gets the
 * control tensors (START, READY, END, CORRID) and the implicit states: what a run gave under `outputName` is what the next
 * run of the same sequence takes under `inputName`.
 *
 * Where it differs from Triton: a session keeps nothing between runs, so that a sequence may take any place in a batch;
 * with strategy `direct` no slots are padded, and READY is true for every request that is really there. A sequence whose
 * request was cancelled or expired before it ran is over, because its state would be wrong; what waits behind it fails.
 */
import { deadlineExceeded, queueFull } from './batch-queue.js';
import { intarsiaError, invariant, type IntarsiaError } from './errors.js';
import { nothingToForm } from './model-queue.js';
import { controlChunk, correlationRefusal } from './sequence-controls.js';
import { emptyState, initialStates, stateKey, type InitialStates, type StateValue } from './sequence-states.js';
import type { AddedInput, Batch, Dropped, FormOptions, Formed, ModelQueue, QueuedRequest } from './model-queue.js';
import type { RequestId } from './ids.js';
import type { InferenceRequest, ReleaseReason, SequenceStep } from './inference.js';
import type { ModelConfig, SequenceBatching } from './model-config.js';
import type { Tensor } from './tensor.js';

export interface SequenceLimits {
  /** Requests and bytes that may wait. At the bound: QUEUE_FULL. */
  readonly requestsMax: number;
  readonly bytesMax: number;
  /** Sequences known at once, with a slot or in the backlog. At the bound: RESOURCE_EXHAUSTED. */
  readonly sequencesMax: number;
  /** Bytes of states kept between requests. At the bound new sequences get RESOURCE_EXHAUSTED. */
  readonly stateBytesMax: number;
  /** Sessions of the model on this device; each brings its own slots. */
  readonly instances: number;
  /** Number of dimensions the artefact's inputs have, by name; controls without an entry get the batch's and one more. */
  readonly inputRank: ReadonlyMap<string, number>;
}

class Sequence<Waiter> {
  readonly id: SequenceStep['id'];
  readonly waiting: Entry<Waiter>[] = [];
  running = false;
  /** True once its END was taken: the id may start a new sequence, this object lives until the END ran. */
  closed = false;
  states: readonly StateValue[];
  /** Shapes of the states: sequences with different ones cannot share a batch. */
  stateKey: string;
  /** Bytes of states that are its own; the initial ones are shared. */
  keptBytes = 0;
  /** Last time a request came or finished (ms). */
  touchedMs: number;

  constructor(id: SequenceStep['id'], initial: InitialStates, nowMs: number) {
    this.id = id;
    this.states = initial.values;
    this.stateKey = initial.key;
    this.touchedMs = nowMs;
  }
}

class Entry<Waiter> implements QueuedRequest<Waiter> {
  readonly request: InferenceRequest;
  readonly waiter: Waiter;
  readonly enqueuedMs: number;
  readonly sequence: Sequence<Waiter>;
  readonly step: SequenceStep;

  constructor(
    request: InferenceRequest,
    waiter: Waiter,
    nowMs: number,
    sequence: Sequence<Waiter>,
    step: SequenceStep,
  ) {
    this.request = request;
    this.waiter = waiter;
    this.enqueuedMs = nowMs;
    this.sequence = sequence;
    this.step = step;
  }
}

/** A batch leaves this long (ms) before a deadline that would end its wait. */
const launchMarginMs = 1;
const deadlineScanMax = 64;

export class SequenceScheduler<Waiter> implements ModelQueue<Waiter> {
  queuedRequests = 0;
  queuedItems = 0;
  queuedBytes = 0;
  nextExpiryMs = Infinity;
  readonly topLevel = 0;
  readonly #config: ModelConfig;
  readonly #batching: SequenceBatching;
  readonly #limits: SequenceLimits;
  readonly #itemsMax: number;
  readonly #slotsMax: number;
  readonly #initial: InitialStates;
  readonly #byRequest = new Map<RequestId, Entry<Waiter>>();
  /** Sequences with a request in a batch, by that request. */
  readonly #running = new Map<RequestId, Sequence<Waiter>>();
  /** Sequences that take further requests, longest silent first. */
  readonly #open = new Map<SequenceStep['id'], Sequence<Waiter>>();
  /** Sequences with a slot, a waiting request and none running, in the order they became so. */
  readonly #ready = new Set<Sequence<Waiter>>();
  readonly #slotted = new Set<Sequence<Waiter>>();
  /** Sequences that wait for a slot, oldest first. Each has a waiting request. */
  readonly #backlog = new Set<Sequence<Waiter>>();
  #stateBytes = 0;

  /** @throws INVALID_ARGUMENT when the configuration has no sequence batching, or a state of unknown size. */
  constructor(config: ModelConfig, limits: SequenceLimits) {
    if (config.sequenceBatching === undefined) {
      throw intarsiaError('INVALID_ARGUMENT', `model '${config.name}' is not configured for sequences`);
    }
    this.#config = config;
    this.#batching = config.sequenceBatching;
    this.#limits = limits;
    this.#itemsMax = Math.max(1, config.maxBatchSize);
    const { strategy } = this.#batching;
    const slots = strategy.kind === 'direct' ? this.#itemsMax : Math.max(1, strategy.candidateSequencesMax);
    this.#slotsMax = slots * Math.max(1, limits.instances);
    this.#initial = initialStates(config.name, this.#batching.states);
  }

  /** Sequences known, with a slot or in the backlog. */
  get sequences(): number {
    return this.#slotted.size + this.#backlog.size;
  }

  /** Bytes of states kept between requests. */
  get stateBytes(): number {
    return this.#stateBytes;
  }

  oldestArrivedMs(): number {
    let oldest = Infinity;
    for (const entry of this.#byRequest.values()) oldest = Math.min(oldest, entry.request.arrivedMs);
    return oldest;
  }

  nearestDeadlineMs(): number {
    let nearest = Infinity;
    let seen = 0;
    for (const entry of this.#byRequest.values()) {
      nearest = Math.min(nearest, entry.request.deadlineMs);
      seen += 1;
      if (seen >= deadlineScanMax) break;
    }
    return nearest;
  }

  nearestTargetMs(): number {
    let nearest = Infinity;
    let seen = 0;
    for (const { request } of this.#byRequest.values()) {
      nearest = Math.min(nearest, request.deadlineMs, request.arrivedMs + (request.sloMs ?? Infinity));
      seen += 1;
      if (seen >= deadlineScanMax) break;
    }
    return nearest;
  }

  /** A sequence that lost a request in the middle is worth nothing: none is taken out before its time. */
  shed(): readonly Dropped<Waiter>[] {
    return [];
  }

  offer(request: InferenceRequest, waiter: Waiter, nowMs: number): IntarsiaError | undefined {
    invariant(!this.#byRequest.has(request.id), 'a request waits once');
    if (request.deadlineMs <= nowMs) return deadlineExceeded(request, 0);
    const step = request.sequence;
    const refusal = this.#refusal(request, step);
    if (refusal !== undefined) return refusal;
    invariant(step !== undefined, 'a request without a sequence was refused');
    const sequence = this.#open.get(step.id) ?? this.#start(step, nowMs);
    this.#touch(sequence, nowMs);
    if (step.end) this.#close(sequence);
    const entry = new Entry(request, waiter, nowMs, sequence, step);
    sequence.waiting.push(entry);
    this.#byRequest.set(request.id, entry);
    this.queuedRequests += 1;
    this.queuedItems += request.items;
    this.queuedBytes += request.bytes;
    if (!sequence.running && this.#slotted.has(sequence)) this.#ready.add(sequence);
    this.nextExpiryMs = Math.min(this.nextExpiryMs, this.#expiryMs(entry), nowMs + this.#idleMs);
    return undefined;
  }

  cancel(id: RequestId, nowMs: number): readonly Dropped<Waiter>[] {
    const entry = this.#byRequest.get(id);
    if (entry === undefined) return [];
    const error = intarsiaError('CANCELLED', `request ${id} was cancelled while it waited`, { request: id });
    return this.#dropSequence(entry, error, nowMs);
  }

  expire(nowMs: number): readonly Dropped<Waiter>[] {
    const dropped: Dropped<Waiter>[] = [];
    if (this.nextExpiryMs > nowMs) return dropped;
    for (const entry of [...this.#byRequest.values()]) {
      if (!this.#byRequest.has(entry.request.id) || this.#expiryMs(entry) > nowMs) continue;
      const waitedMs = nowMs - entry.enqueuedMs;
      const late = entry.request.deadlineMs <= nowMs;
      const error = late ? deadlineExceeded(entry.request, waitedMs) : this.#backlogTimeout(entry, waitedMs);
      dropped.push(...this.#dropSequence(entry, error, nowMs));
    }
    this.#forgetIdle(nowMs);
    let next = Infinity;
    for (const entry of this.#byRequest.values()) next = Math.min(next, this.#expiryMs(entry));
    // The first that has nothing to do is the longest silent; one that waits or runs is looked at again when it is done.
    for (const sequence of this.#open.values()) {
      if (sequence.running || sequence.waiting.length > 0) continue;
      next = Math.min(next, sequence.touchedMs + this.#idleMs);
      break;
    }
    this.nextExpiryMs = next;
    return dropped;
  }

  form(nowMs: number, options: FormOptions): Formed<Waiter> {
    invariant(this.nextExpiryMs > nowMs, 'what has expired is taken out before a batch is formed');
    const itemsMax = Math.min(this.#itemsMax, Math.max(1, options.itemsMax));
    const selected: Entry<Waiter>[] = [];
    let key = '';
    let othersWait = false;
    let oldestMs = Infinity;
    let latestLaunchMs = Infinity;
    for (const sequence of this.#ready) {
      const entry = sequence.waiting[0];
      invariant(entry !== undefined, 'a ready sequence has a waiting request');
      const entryKey = `${entry.request.batchKey}|${entry.step.start ? this.#initial.key : sequence.stateKey}`;
      if (selected.length === 0) key = entryKey;
      else if (entryKey !== key) {
        othersWait = true;
        continue;
      }
      selected.push(entry);
      oldestMs = Math.min(oldestMs, entry.enqueuedMs);
      latestLaunchMs = Math.min(latestLaunchMs, entry.request.deadlineMs - options.serviceMs - launchMarginMs);
      if (selected.length >= itemsMax) break;
    }
    if (selected.length === 0) return nothingToForm;
    const launch = this.#launch(selected.length, itemsMax, nowMs - oldestMs);
    if (launch !== undefined) return this.#take(selected, launch.count, launch.reason);
    if (options.flush) return this.#take(selected, selected.length, 'flush');
    if (othersWait) return this.#take(selected, selected.length, 'shape');
    if (nowMs >= latestLaunchMs) return this.#take(selected, selected.length, 'deadline');
    return {
      kind: 'wait',
      untilMs: Math.min(oldestMs + this.#batching.strategy.queueDelayUsMax / 1000, latestLaunchMs),
    };
  }

  complete(batch: Batch<Waiter>, states: readonly (readonly Tensor[])[] | undefined, nowMs: number): void {
    batch.entries.forEach((entry, index) => {
      const sequence = this.#running.get(entry.request.id);
      invariant(sequence !== undefined, 'a batch comes back to the queue it left, once');
      this.#running.delete(entry.request.id);
      const outputs = states?.[index];
      sequence.running = false;
      this.#touch(sequence, nowMs);
      if (outputs !== undefined) this.#keepStates(sequence, outputs);
      if (sequence.waiting.length > 0) this.#ready.add(sequence);
      else if (sequence.closed) this.#end(sequence);
      else this.nextExpiryMs = Math.min(this.nextExpiryMs, nowMs + this.#idleMs);
    });
  }

  clear(): readonly QueuedRequest<Waiter>[] {
    const entries = [...this.#byRequest.values()];
    for (const entry of entries) this.#forget(entry);
    this.#backlog.clear();
    for (const sequence of [...this.#slotted]) {
      sequence.waiting.length = 0;
      this.#close(sequence);
      if (!sequence.running) this.#end(sequence);
    }
    this.#open.clear();
    this.nextExpiryMs = Infinity;
    return entries;
  }

  get #idleMs(): number {
    return this.#batching.idleUsMax / 1000;
  }

  #start(step: SequenceStep, nowMs: number): Sequence<Waiter> {
    const sequence = new Sequence<Waiter>(step.id, this.#initial, nowMs);
    this.#open.set(step.id, sequence);
    (this.#slotted.size < this.#slotsMax ? this.#slotted : this.#backlog).add(sequence);
    return sequence;
  }

  /** Moves the sequence to the end of those that may fall silent. */
  #touch(sequence: Sequence<Waiter>, nowMs: number): void {
    sequence.touchedMs = nowMs;
    if (sequence.closed) return;
    this.#open.delete(sequence.id);
    this.#open.set(sequence.id, sequence);
  }

  /** Takes no further requests for the sequence; its id may start another one. */
  #close(sequence: Sequence<Waiter>): void {
    if (!sequence.closed) this.#open.delete(sequence.id);
    sequence.closed = true;
  }

  /** Forgets the sequence and gives its slot to the backlog. */
  #end(sequence: Sequence<Waiter>): void {
    this.#close(sequence);
    this.#ready.delete(sequence);
    this.#backlog.delete(sequence);
    this.#stateBytes -= sequence.keptBytes;
    sequence.keptBytes = 0;
    if (!this.#slotted.delete(sequence)) return;
    for (const waiting of this.#backlog) {
      this.#backlog.delete(waiting);
      this.#slotted.add(waiting);
      this.#ready.add(waiting);
      break;
    }
  }

  #forget(entry: Entry<Waiter>): void {
    this.#byRequest.delete(entry.request.id);
    this.queuedRequests -= 1;
    this.queuedItems -= entry.request.items;
    this.queuedBytes -= entry.request.bytes;
  }

  /** Takes out a request that will not run, and the rest of its sequence with it. */
  #dropSequence(entry: Entry<Waiter>, error: IntarsiaError, nowMs: number): Dropped<Waiter>[] {
    const { sequence } = entry;
    const dropped = sequence.waiting.map((other) => {
      this.#forget(other);
      return { entry: other, error: other === entry ? error : this.#sequenceOver(entry, error) };
    });
    sequence.waiting.length = 0;
    sequence.touchedMs = nowMs;
    this.#ready.delete(sequence);
    this.#close(sequence);
    if (!sequence.running) this.#end(sequence);
    return dropped;
  }

  #sequenceOver(entry: Entry<Waiter>, error: IntarsiaError): IntarsiaError {
    return intarsiaError(
      'CANCELLED',
      `sequence ${String(entry.step.id)} of model '${this.#config.name}' is over, because another request of it did not run: ${error.message}`,
    );
  }

  #forgetIdle(nowMs: number): void {
    for (const sequence of [...this.#open.values()]) {
      if (sequence.touchedMs + this.#idleMs > nowMs) break;
      if (!sequence.running && sequence.waiting.length === 0) this.#end(sequence);
    }
  }

  /** How many of the ready requests leave now and why; undefined when waiting for companions pays. */
  #launch(ready: number, itemsMax: number, waitedMs: number): { count: number; reason: ReleaseReason } | undefined {
    const { strategy } = this.#batching;
    if (ready >= itemsMax) return { count: ready, reason: 'full' };
    if (strategy.queueDelayUsMax === 0) return { count: ready, reason: 'sequence' };
    if (strategy.kind === 'direct') {
      // Triton ignores the delay when no utilisation is asked for.
      const wanted = Math.ceil(strategy.minimumSlotUtilization * this.#itemsMax);
      if (ready >= wanted) return { count: ready, reason: 'sequence' };
    }
    if (waitedMs >= strategy.queueDelayUsMax / 1000) return { count: ready, reason: 'delay' };
    if (strategy.kind === 'oldest') {
      const preferred = Math.max(0, ...strategy.preferredBatchSizes.filter((size) => size <= ready));
      if (preferred > 0) return { count: preferred, reason: 'preferred' };
    }
    return undefined;
  }

  #take(selected: Entry<Waiter>[], count: number, reason: ReleaseReason): Batch<Waiter> {
    selected.length = count;
    let items = 0;
    for (const entry of selected) {
      const { sequence } = entry;
      sequence.waiting.shift();
      sequence.running = true;
      this.#running.set(entry.request.id, sequence);
      this.#ready.delete(sequence);
      this.#forget(entry);
      items += entry.request.items;
      if (entry.step.start) this.#resetStates(sequence);
    }
    return { kind: 'batch', entries: selected, items, reason, addedInputs: this.#addedInputs(selected) };
  }

  #addedInputs(entries: readonly Entry<Waiter>[]): AddedInput[] {
    const batching = this.#config.maxBatchSize > 0;
    const added: AddedInput[] = this.#batching.controls.map((control) => ({
      name: control.name,
      datatype: control.datatype,
      shape: !batching ? [1] : this.#limits.inputRank.get(control.name) === 1 ? [entries.length] : [entries.length, 1],
      chunks: entries.map((entry) => controlChunk(control, entry.step)),
    }));
    this.#batching.states.forEach((state, index) => {
      const values = entries.map((entry) => entry.sequence.states[index] ?? emptyState);
      const shape = values[0]?.shape ?? [];
      added.push({
        name: state.inputName,
        datatype: state.datatype,
        shape: batching ? [entries.length, ...shape] : shape,
        chunks: values.map((value) => value.data),
      });
    });
    return added;
  }

  #resetStates(sequence: Sequence<Waiter>): void {
    sequence.states = this.#initial.values;
    sequence.stateKey = this.#initial.key;
    this.#stateBytes -= sequence.keptBytes;
    sequence.keptBytes = 0;
  }

  /** Copies the states out of the run's results, so that a state does not hold on to the bytes of a whole batch. */
  #keepStates(sequence: Sequence<Waiter>, outputs: readonly Tensor[]): void {
    if (sequence.closed && sequence.waiting.length === 0) return;
    const states = this.#batching.states.map((state): StateValue => {
      const output = outputs.find((tensor) => tensor.name === state.outputName);
      invariant(output !== undefined, `a run of a sequence gives its state output ${state.outputName}`);
      const shape = this.#config.maxBatchSize > 0 ? output.shape.slice(1) : output.shape;
      return { shape, data: output.data.slice() };
    });
    this.#stateBytes -= sequence.keptBytes;
    sequence.keptBytes = states.reduce((bytes, state) => bytes + state.data.byteLength, 0);
    this.#stateBytes += sequence.keptBytes;
    sequence.states = states;
    sequence.stateKey = stateKey(states);
  }

  #refusal(request: InferenceRequest, step: SequenceStep | undefined): IntarsiaError | undefined {
    const model = this.#config.name;
    if (step === undefined) {
      return intarsiaError(
        'INVALID_ARGUMENT',
        `inference request to model '${model}' must specify a non-zero or non-empty correlation ID`,
      );
    }
    if (request.items !== 1) {
      return intarsiaError(
        'INVALID_ARGUMENT',
        `inference request to model '${model}' must specify batch-size 1 due to requirements of sequence batcher; it holds ${request.items} items`,
      );
    }
    for (const control of this.#batching.controls) {
      const refusal = control.kind === 'CORRID' ? correlationRefusal(control, step.id, model) : undefined;
      if (refusal !== undefined) return refusal;
    }
    if (!this.#open.has(step.id)) {
      if (!step.start) {
        return intarsiaError(
          'INVALID_ARGUMENT',
          `inference request for sequence ${String(step.id)} to model '${model}' must specify the START flag on the first request of the sequence`,
        );
      }
      const refusal = this.#roomRefusal();
      if (refusal !== undefined) return refusal;
    }
    const { requestsMax, bytesMax } = this.#limits;
    if (this.queuedRequests >= requestsMax) return queueFull(model, this.queuedRequests, requestsMax, 'requests');
    if (this.queuedRequests > 0 && this.queuedBytes + request.bytes > bytesMax) {
      return queueFull(model, this.queuedBytes, bytesMax, 'bytes');
    }
    return undefined;
  }

  #roomRefusal(): IntarsiaError | undefined {
    const model = this.#config.name;
    const { sequencesMax, stateBytesMax } = this.#limits;
    if (this.sequences >= sequencesMax) {
      return intarsiaError(
        'RESOURCE_EXHAUSTED',
        `model '${model}' knows ${this.sequences} of ${sequencesMax} sequences`,
        {
          sequences: this.sequences,
          limit: sequencesMax,
        },
      );
    }
    if (this.#stateBytes >= stateBytesMax) {
      return intarsiaError(
        'RESOURCE_EXHAUSTED',
        `model '${model}' keeps ${this.#stateBytes} B of sequence states; the limit is ${stateBytesMax} B`,
        { bytes: this.#stateBytes, limit: stateBytesMax },
      );
    }
    return undefined;
  }

  /** When the entry must leave unanswered (ms): its deadline, or in the backlog its own timeout if it has one. */
  #expiryMs(entry: Entry<Waiter>): number {
    const { request } = entry;
    if (request.queueTimeoutUs === 0 || !this.#backlog.has(entry.sequence)) return request.deadlineMs;
    return Math.min(request.deadlineMs, entry.enqueuedMs + request.queueTimeoutUs / 1000);
  }

  #backlogTimeout(entry: Entry<Waiter>, waitedMs: number): IntarsiaError {
    return intarsiaError(
      'QUEUE_TIMEOUT',
      `Request timeout expired: sequence ${String(entry.step.id)} of model '${this.#config.name}' waited for ${waitedMs.toFixed(1)} ms and found no free slot among ${this.#slotsMax}`,
      { waitedMs },
    );
  }
}
