/**
 * Sessions of a device: loads them one at a time, in the first executor that can, warms them up, keeps the memory's books,
 * evicts idle ones for room, brings them back after a crash.
 *
 * One task at a time, in order; a task that lost its executor goes to the end of the line, so that what was already serving
 * is back before a suspect is tried again. A suspect is tried alone: the device holds its runs meanwhile.
 */
import type { Datatype } from '#core/datatype.js';
import { asIntarsiaError, intarsiaError, invariant, messageOf, type IntarsiaError } from '#core/errors.js';
import { sessionId, type SessionId } from '#core/ids.js';
import { MemoryLedger, estimateSessionBytes } from '#core/memory-ledger.js';
import type { Tensor } from '#core/tensor.js';
import { formatBytes } from '#core/units.js';
import { variantDifference } from '#core/variants/variant-difference.js';
import type { Clock } from '#ports/clock.js';
import type { Executor, LoadedSession } from '#ports/executor.js';
import type { Log } from '#ports/log.js';
import type { CrashAttribution } from './crash-attribution.js';
import type { ExecutorSlot } from './executor-slot.js';
import type { DeviceActorOptions } from './options.js';
import type { Placement } from './protocol.js';
import type { TrialValue } from './run-layout.js';
import type { ServedModel } from './served-model.js';

/** What the keeper needs of its device. */
export interface SessionOwner {
  /** Lets no run begin, and waits until none is in flight. */
  holdRuns(): Promise<void>;
  releaseRuns(): void;
  /** Starts a task's promise; what it throws fails the actor. */
  watch(promise: Promise<void>): void;
}

/** A session that is loaded and not yet the model's. */
interface FreshSession {
  readonly slot: ExecutorSlot;
  readonly executor: Executor;
  readonly id: SessionId;
  readonly model: ServedModel;
}

export type SessionOutcome =
  | { readonly kind: 'ready'; readonly loadMs: number }
  /** The executor died of it, or beside it: try again later. */
  | { readonly kind: 'lost'; readonly error: IntarsiaError }
  | { readonly kind: 'refused'; readonly error: IntarsiaError };

/** A task says `again` to be put at the end of the line. */
type Task = () => Promise<'done' | 'again'>;

export class SessionKeeper {
  readonly ledger: MemoryLedger;
  readonly #options: DeviceActorOptions;
  readonly #slots: readonly ExecutorSlot[];
  readonly #attribution: CrashAttribution;
  readonly #owner: SessionOwner;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #tasks: Task[] = [];
  readonly #holders = new Map<string, ServedModel>();
  #working = false;
  #sessions = 0;
  #closed = false;

  constructor(given: {
    readonly options: DeviceActorOptions;
    readonly slots: readonly ExecutorSlot[];
    readonly attribution: CrashAttribution;
    readonly owner: SessionOwner;
    readonly clock: Clock;
    readonly log: Log;
  }) {
    this.#options = given.options;
    this.#slots = given.slots;
    this.#attribution = given.attribution;
    this.#owner = given.owner;
    this.#clock = given.clock;
    this.#log = given.log;
    this.ledger = new MemoryLedger(given.options.memoryBytesMax);
  }

  get tasksWaiting(): number {
    return this.#tasks.length;
  }

  /** Puts a task at the end of the line. */
  submit(task: Task): void {
    this.#tasks.push(task);
    if (this.#working) return;
    this.#working = true;
    this.#owner.watch(this.#work());
  }

  close(): void {
    this.#closed = true;
    this.#tasks.length = 0;
  }

  /** Loads and warms up. On success the model has a session. */
  async load(model: ServedModel): Promise<SessionOutcome> {
    const alone = this.#attribution.onProbation(model.digest);
    if (alone) await this.#owner.holdRuns();
    try {
      let last: IntarsiaError | undefined;
      for (const slot of this.#slots) {
        const outcome = await this.#loadIn(slot, model);
        if (outcome.kind !== 'refused' || outcome.error.code === 'OUT_OF_MEMORY') return outcome;
        last ??= outcome.error;
        const next = this.#slots[slot.index + 1];
        if (next !== undefined)
          note(model, `${slot.provider} cannot run it, ${next.provider} is tried: ${outcome.error.message}`);
      }
      return { kind: 'refused', error: last ?? intarsiaError('DEVICE_UNAVAILABLE', 'the device has no executor') };
    } finally {
      if (alone) this.#owner.releaseRuns();
    }
  }

  /** Frees the session, if there is one. */
  async free(model: ServedModel): Promise<void> {
    const { session } = model;
    if (session === undefined) return;
    this.forget(model);
    await this.#unload(session.executor, session.id);
  }

  /** The session was used: it is not the longest unused any more. */
  used(model: ServedModel, nowMs: number): void {
    if (model.session !== undefined) this.ledger.touch(model.session.id, nowMs);
  }

  /** The session is gone with its executor: only the books change. */
  forget(model: ServedModel): void {
    const { session } = model;
    if (session === undefined) return;
    model.session = undefined;
    this.ledger.release(session.id);
    this.#holders.delete(session.id);
  }

  async #work(): Promise<void> {
    for (let task = this.#tasks.shift(); task !== undefined; task = this.#tasks.shift()) {
      const end = await task();
      if (this.#closed) return;
      if (end === 'again') this.#tasks.push(task);
    }
    this.#working = false;
  }

  async #loadIn(slot: ExecutorSlot, model: ServedModel): Promise<SessionOutcome> {
    let executor: Executor;
    try {
      executor = await slot.acquire();
    } catch (thrown) {
      return { kind: 'refused', error: asIntarsiaError(thrown) };
    }
    const { placement } = model;
    const bytes = model.memoryBytes > 0 ? model.memoryBytes : estimateOf(placement);
    const shortage = await this.#makeRoom(model, bytes);
    if (shortage !== undefined) return { kind: 'refused', error: shortage };
    this.#sessions += 1;
    const id = sessionId(`session-${this.#sessions}`);
    this.ledger.hold(id, bytes, this.#clock.nowMs());
    slot.loading.add(model.digest);
    try {
      const loaded = await executor.load({
        session: id,
        artifact: placement.artifact,
        model: placement.remoteModel ?? { name: model.model, version: model.version },
        options: {
          intraOpThreads: threadsOf(placement.config) ?? this.#options.descriptor.threads,
          optimization: placement.optimization,
        },
      });
      await this.#warmUp({ slot, executor, id, model });
      await this.#examine({ slot, executor, id, model });
      return await this.#admit({ slot, executor, id, model, loaded });
    } catch (thrown) {
      const error = asIntarsiaError(thrown);
      this.ledger.release(id);
      if (error.code === 'EXECUTOR_LOST') {
        slot.markLost(executor, error);
        return { kind: 'lost', error };
      }
      await this.#unload(executor, id);
      return { kind: 'refused', error };
    } finally {
      slot.loading.delete(model.digest);
    }
  }

  /** The session works: its true size goes into the books, and if that fits it is the model's. */
  async #admit(given: FreshSession & { readonly loaded: LoadedSession }): Promise<SessionOutcome> {
    const { slot, executor, id, model, loaded } = given;
    if (loaded.memoryBytes > 0) this.ledger.trueUp(id, loaded.memoryBytes);
    const shortage = await this.#makeRoom(model, 0);
    if (shortage !== undefined) throw shortage;
    // While room was made the executor may have died: the session died with it.
    if (slot.executor !== executor) throw intarsiaError('EXECUTOR_LOST', `the executor was lost: ${slot.reason}`);
    this.#attribution.survived(model.digest, 'load');
    this.#holders.set(id, model);
    model.session = { id, slot, executor };
    model.slotIndex = slot.index;
    model.memoryBytes = this.ledger.bytesOf(id);
    model.evicted = false;
    for (const text of loaded.notes) note(model, text);
    return { kind: 'ready', loadMs: loaded.loadMs };
  }

  /** The configured warm-ups, else a trial run: the model counts as ready when they succeed. */
  async #warmUp(given: FreshSession): Promise<void> {
    const { executor, id, model } = given;
    const { warmups } = model.placement;
    for (const { inputs } of warmups) await executor.run(model.layout.warmup(id, inputs));
    if (warmups.length > 0) model.trial = 'warm-up';
    else await this.#tryOut(given);
  }

  /** A variant answers what the exact model was asked: what one device computes says nothing of another. */
  async #examine({ slot, executor, id, model }: FreshSession): Promise<void> {
    const { exam, variant = '' } = model.placement;
    if (exam === undefined) return;
    const answers: (readonly Tensor[])[] = [];
    for (const { inputs } of exam.questions) {
      const { outputs } = await executor.run({
        session: id,
        inputs: inputs.map(({ data, ...spec }) => ({ ...spec, chunks: [data] })),
        outputs: [],
      });
      answers.push(outputs);
    }
    const { close, text, problem } = variantDifference(exam, answers);
    const where = `${variant} on ${slot.provider} here`;
    if (close) {
      note(model, `variant ${where}: ${text}`);
      return;
    }
    const { version, device } = model;
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `variant ${where} is not near enough to model '${model.model}' version ${version}: ${text}: ${problem}`,
      { model: model.model, version, device, variant },
    );
  }

  /** A run on zeros, and where the model cannot take these, one on ones. */
  async #tryOut({ slot, executor, id, model }: FreshSession): Promise<void> {
    let failure: IntarsiaError | undefined;
    for (const value of trialValues) {
      try {
        await executor.run(model.layout.trial(id, value));
        model.trial = value;
        return;
      } catch (thrown) {
        const error = asIntarsiaError(thrown);
        if (error.code !== 'EXECUTION_FAILED' && error.code !== 'INVALID_ARGUMENT') throw error;
        failure ??= error;
      }
    }
    // Sizes were guessed, or the values mean something: what fails is perhaps the guess. Another provider knows better.
    const isLast = slot.index === this.#slots.length - 1;
    const isGuess = hasFreeSizes(model.placement) || (isLast && hasMeaningfulInputs(model.placement));
    invariant(failure !== undefined, 'a trial run succeeded or failed');
    if (!isGuess || model.trial !== undefined) throw failure;
    note(model, `trial runs on zeros and on ones failed, with sizes that may vary taken as 1: ${failure.message}`);
  }

  /** Evicts idle sessions until `bytes` more fit. The error says how many bytes are missing if that is not enough. */
  async #makeRoom(model: ServedModel, bytes: number): Promise<IntarsiaError | undefined> {
    for (;;) {
      // Planned again after each one: while a session is freed, others may get work.
      const plan = this.ledger.plan(bytes, (key) => this.#isIdle(key));
      if (!plan.fits) return outOfMemory(model, bytes, plan.bytesMissing, this.ledger);
      const [key] = plan.evict;
      if (key === undefined) return undefined;
      const holder = this.#holders.get(key);
      invariant(holder !== undefined, 'a session that may be evicted has a holder');
      holder.evicted = true;
      const { model: evicted, version } = holder;
      this.#log.info('session evicted', { evicted: `${evicted}/${version}`, for: `${model.model}/${model.version}` });
      await this.free(holder);
    }
  }

  #isIdle(key: string): boolean {
    const holder = this.#holders.get(key);
    return holder !== undefined && holder.phase === 'ready' && holder.idle;
  }

  async #unload(executor: Executor, id: SessionId): Promise<void> {
    try {
      await executor.unload(id);
    } catch (thrown) {
      // An executor that is gone has freed everything; anything else is worth a line, and the session is out of the books.
      this.#log.warn('session could not be freed', { session: id, error: messageOf(thrown) });
    }
  }
}

/** A reload may have the same to say. */
function note(model: ServedModel, text: string): void {
  if (!model.notes.includes(text)) model.notes.push(text);
}

/** Threads of a run that the model's configuration asks for, as Triton's ONNX backend reads it; undefined: the device's own. */
function threadsOf({ parameters }: Placement['config']): number | undefined {
  const threads = Number(parameters.get('intra_op_thread_count') ?? 0);
  return Number.isInteger(threads) && threads > 0 ? threads : undefined;
}

function estimateOf(placement: Placement): number {
  return estimateSessionBytes({
    weightBytes: placement.weightBytes,
    inputs: placement.inputs,
    outputs: placement.outputs,
    items: placement.config.maxBatchSize,
  });
}

/** Whether a trial run had to guess a size: one varies in the artefact, beside the batch, and the configuration does not say. */
function hasFreeSizes(placement: Placement): boolean {
  const { config } = placement;
  const batchAxes = config.maxBatchSize > 0 ? 1 : 0;
  return placement.inputs.some((spec) => {
    const input = config.inputs.find((candidate) => candidate.name === spec.name);
    const dims = input?.reshape ?? input?.dims;
    return spec.shape.some((size, axis) => size < 0 && axis >= batchAxes && (dims?.[axis - batchAxes] ?? -1) < 0);
  });
}

/** Whether an input is more than a measured number: a step of zero, a count of zero or a text can be wrong by itself. */
function hasMeaningfulInputs({ inputs }: Placement): boolean {
  return inputs.some(({ datatype }) => !floats.has(datatype));
}

const trialValues: readonly TrialValue[] = [0, 1];
const floats: ReadonlySet<Datatype> = new Set(['FP16', 'BF16', 'FP32', 'FP64']);

function outOfMemory(model: ServedModel, bytes: number, bytesMissing: number, ledger: MemoryLedger): IntarsiaError {
  return intarsiaError(
    'OUT_OF_MEMORY',
    `device ${model.device} lacks ${bytesMissing} bytes for model '${model.model}' version ${model.version}: it needs about ${formatBytes(bytes)}, ` +
      `${formatBytes(ledger.usedBytes)} of ${formatBytes(ledger.capacityBytes)} are held`,
    { bytesMissing, bytesNeeded: bytes, bytesHeld: ledger.usedBytes, bytesMax: ledger.capacityBytes },
  );
}
