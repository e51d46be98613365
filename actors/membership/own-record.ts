/**
 * The host's own record in the store: takes a lease, puts the record under it, changes it in place, puts it back when it was
 * lost. Whatever fails is tried again with growing waits; only another process under the same name ends that, and a store that
 * refuses a host which was never in.
 */
import { asIntarsiaError, type IntarsiaError } from '#core/errors.js';
import { writeMember } from '#core/grid/member-text.js';
import type { Generation, HostRecord } from '#core/grid/records.js';
import { nameTaken, type RecordHolder } from '#core/grid/registration.js';
import type { StoreLease } from '#ports/store.js';
import type { ActorContext } from '#runtime/actor.js';
import type { CompleteMembershipOptions } from './options.js';
import type { MembershipPhase, OwnRegistration } from './protocol.js';
import { register, type RegisterOutcome } from './register.js';

export type OwnRecordEvent =
  | { readonly type: 'register' }
  | { readonly type: 'leased'; readonly leasing: number; readonly lease: StoreLease }
  | { readonly type: 'registered'; readonly attempt: number; readonly outcome: RegisterOutcome }
  | { readonly type: 'register-failed'; readonly attempt: number; readonly error: IntarsiaError }
  | { readonly type: 'lease-lost'; readonly leasing: number; readonly reason: string }
  | { readonly type: 'write-record' }
  | { readonly type: 'record-written'; readonly attempt: number; readonly revision: number; readonly ok: boolean }
  | { readonly type: 'record-failed'; readonly attempt: number; readonly error: IntarsiaError };

/** Who is told how it stands with the record. */
export interface RecordOwner {
  onJoined(generation: Generation): void;
  /** The record is in the store in this form since that revision, at the latest. */
  onRecordInStore(record: HostRecord, revision: number): void;
  /** It is not in the store any more and will come back. */
  onLost(): void;
  onRefused(): void;
}

/** Of attempts at a store that is away, one in so many is told as a warning: with the longest waits, about one a minute. */
const retriesPerWarning = 16;

export class OwnRecord {
  readonly #options: CompleteMembershipOptions;
  readonly #context: ActorContext<OwnRecordEvent>;
  readonly #owner: RecordOwner;
  #record: HostRecord;
  #phase: MembershipPhase = 'joining';
  #error: IntarsiaError | undefined;
  #wasJoined = false;
  #attempt = 0;
  #retries = 0;
  #lease: StoreLease | undefined;
  /** Number of the last lease that was asked for. */
  #leasing = 0;
  #generation: Generation | undefined;
  /** Since when another process holds the name. */
  #heldSinceMs: number | undefined;
  #isWriting = false;
  #mustWrite = false;
  #isOver = false;

  constructor(options: CompleteMembershipOptions, context: ActorContext<OwnRecordEvent>, owner: RecordOwner) {
    this.#options = options;
    this.#context = context;
    this.#owner = owner;
    this.#record = options.record;
  }

  get record(): HostRecord {
    return this.#record;
  }

  get phase(): MembershipPhase {
    return this.#phase;
  }

  /** Why it was refused. */
  get error(): IntarsiaError | undefined {
    return this.#error;
  }

  get generation(): Generation | undefined {
    return this.#generation;
  }

  get registration(): OwnRegistration | undefined {
    const generation = this.#generation;
    const lease = this.#lease?.id;
    if (generation === undefined || lease === undefined) return undefined;
    return { generation, lease, draining: this.#record.draining === true };
  }

  handle(message: OwnRecordEvent): void {
    switch (message.type) {
      case 'register':
        this.start();
        return;
      case 'leased':
        this.#onLeased(message.leasing, message.lease);
        return;
      case 'registered':
        if (message.attempt === this.#attempt) this.#onRegistered(message.outcome);
        return;
      case 'register-failed':
        if (message.attempt === this.#attempt) this.#onRegisterFailed(message.error);
        return;
      case 'lease-lost':
        if (message.leasing === this.#leasing) this.comeBack(`the lease was lost: ${message.reason}`);
        return;
      case 'write-record':
        this.#writeRecord();
        return;
      case 'record-written':
        if (message.attempt === this.#attempt) this.#onWritten(message.ok, message.revision);
        return;
      case 'record-failed':
        if (message.attempt === this.#attempt) this.#onWriteFailed(message.error);
    }
  }

  /** Whoever holds the name seems to be gone. */
  onNameFree(): void {
    if (this.#heldSinceMs !== undefined) this.start();
  }

  change(record: HostRecord): void {
    this.#record = record;
    this.#writeRecord();
  }

  /** The actor ends without a word to the store. */
  end(): void {
    this.#isOver = true;
    this.#dropLease();
  }

  /** Takes the record out of the store, for good. Whether it was in and is out now. */
  async leave(): Promise<boolean> {
    const generation = this.#generation;
    const lease = this.#lease;
    const wasJoined = this.#phase === 'joined';
    this.#phase = 'left';
    this.#generation = undefined;
    this.#lease = undefined;
    this.#attempt += 1;
    if (wasJoined && generation !== undefined && lease !== undefined) {
      await this.#deregister(generation, lease);
      return true;
    }
    lease?.abandon();
    return false;
  }

  /** Registers, or tries again. */
  start(): void {
    if (this.#phase !== 'joining') return;
    if (this.#lease !== undefined) {
      this.#register(this.#lease);
      return;
    }
    this.#attempt += 1;
    this.#leasing += 1;
    const attempt = this.#attempt;
    const leasing = this.#leasing;
    const { store, leaseMs } = this.#options;
    const { self } = this.#context;
    const leased = store.lease(
      leaseMs,
      (reason) => void self.tell({ type: 'lease-lost', leasing, reason }),
      this.#call(),
    );
    this.#context.pipeToSelf(
      leased.then((lease) => {
        if (this.#isOver) lease.abandon();
        return lease;
      }),
      (lease) => ({ type: 'leased', leasing, lease }),
      (thrown) => ({ type: 'register-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onLeased(leasing: number, lease: StoreLease): void {
    if (leasing !== this.#leasing || this.#phase !== 'joining') {
      lease.abandon();
      return;
    }
    this.#lease = lease;
    this.#register(lease);
  }

  #register(lease: StoreLease): void {
    this.#attempt += 1;
    const attempt = this.#attempt;
    const { store, keys } = this.#options;
    const key = keys.host(this.#record.host);
    this.#context.pipeToSelf(
      register({
        store,
        key,
        record: this.#record,
        lease: lease.id,
        isFirst: !this.#wasJoined,
        deadlineMs: () => this.#call().deadlineMs,
      }),
      (outcome) => ({ type: 'registered', attempt, outcome }),
      (thrown) => ({ type: 'register-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onRegistered(outcome: RegisterOutcome): void {
    if (outcome.type === 'held') {
      this.#onHeld(outcome.holder);
      return;
    }
    this.#retries = 0;
    this.#heldSinceMs = undefined;
    this.#wasJoined = true;
    this.#generation = outcome.generation;
    this.#phase = 'joined';
    this.#context.log.info('the host is in the grid', { generation: outcome.generation });
    this.#owner.onJoined(outcome.generation);
    if (!this.#mustWrite) this.#owner.onRecordInStore(this.#record, outcome.generation);
    else this.#writeRecord();
  }

  /** The holder of the name is given the time of a lease, and a little more, to turn out dead. */
  #onHeld(holder: RecordHolder): void {
    const nowMs = this.#context.clock.nowMs();
    this.#heldSinceMs ??= nowMs;
    const waitedMs = nowMs - this.#heldSinceMs;
    if (waitedMs >= this.#options.leaseMs * 1.5 + 2_000) {
      this.refuse(nameTaken(this.#record, holder, waitedMs));
      return;
    }
    this.#context.schedule(1_000, { type: 'register' });
  }

  #onRegisterFailed(error: IntarsiaError): void {
    // A host that was never in may not be: a wrong secret gets no better by waiting. One that was in has been let in before.
    if (error.code === 'PERMISSION_DENIED' && !this.#wasJoined) {
      this.refuse(error);
      return;
    }
    this.#waitAnew();
    this.#tellOfRetry('the host is not in the store yet; it tries again', error);
    this.#retryLater({ type: 'register' });
  }

  /** Registers again. Everything of the old generation is void with that. */
  comeBack(why: string): void {
    if (this.#phase !== 'joined' && this.#phase !== 'joining') return;
    this.#context.log.warn('the host lost its place in the store and comes back as a new generation', { why });
    this.#phase = 'joining';
    this.#generation = undefined;
    this.#isWriting = false;
    this.#dropLease();
    this.#waitAnew();
    this.#owner.onLost();
    this.start();
  }

  /** While the store is away no lease ends, and after it every lease has its whole time again: so has the holder's. */
  #waitAnew(): void {
    if (this.#heldSinceMs !== undefined) this.#heldSinceMs = this.#context.clock.nowMs();
  }

  refuse(error: IntarsiaError): void {
    this.#context.log.error('the host may not be in the grid', { reason: error.message });
    this.#phase = 'refused';
    this.#error = error;
    this.#generation = undefined;
    this.#attempt += 1;
    this.#dropLease();
    this.#owner.onRefused();
  }

  /** Writes the record as it is now, in place: the generation stays. */
  #writeRecord(): void {
    const generation = this.#generation;
    const lease = this.#lease?.id;
    this.#mustWrite = true;
    if (this.#isWriting || this.#phase !== 'joined' || generation === undefined || lease === undefined) return;
    this.#isWriting = true;
    this.#mustWrite = false;
    const attempt = this.#attempt;
    const key = this.#options.keys.host(this.#record.host);
    this.#context.pipeToSelf(
      this.#options.store.transact(
        {
          conditions: [{ key, test: 'createRevision', equals: generation }],
          operations: [{ type: 'put', key, value: writeMember(this.#record), lease }],
        },
        this.#call(),
      ),
      ({ ok, revision }) => ({ type: 'record-written', attempt, ok, revision }),
      (thrown) => ({ type: 'record-failed', attempt, error: asIntarsiaError(thrown) }),
    );
  }

  #onWritten(ok: boolean, revision: number): void {
    this.#isWriting = false;
    this.#retries = 0;
    // When it is no longer there, the watch says so too, and the host comes back with all of its record.
    if (this.#mustWrite) this.#writeRecord();
    else if (ok) this.#owner.onRecordInStore(this.#record, revision);
  }

  #onWriteFailed(error: IntarsiaError): void {
    this.#isWriting = false;
    this.#mustWrite = true;
    this.#tellOfRetry('a change of the host is not in the store yet; it tries again', error);
    this.#retryLater({ type: 'write-record' });
  }

  /** Aloud the first time and every so often: a store that is away for long must not fill the log. */
  #tellOfRetry(what: string, { message: reason }: IntarsiaError): void {
    this.#context.log[this.#retries % retriesPerWarning === 0 ? 'warn' : 'debug'](what, { reason });
  }

  #dropLease(): void {
    this.#lease?.abandon();
    this.#lease = undefined;
  }

  async #deregister(generation: number, lease: StoreLease): Promise<void> {
    const key = this.#options.keys.host(this.#record.host);
    try {
      await this.#options.store.transact(
        { conditions: [{ key, test: 'createRevision', equals: generation }], operations: [{ type: 'delete', key }] },
        this.#call(),
      );
      await lease.revoke();
    } finally {
      lease.abandon();
    }
  }

  #call(): { readonly deadlineMs: number } {
    return { deadlineMs: this.#context.clock.nowMs() + this.#options.callMs };
  }

  #retryLater(message: OwnRecordEvent): void {
    const { retryMsMin, retryMsMax } = this.#options;
    const waitMs = Math.min(retryMsMax, retryMsMin * 2 ** Math.min(this.#retries, 16));
    this.#retries += 1;
    this.#context.schedule(waitMs * (0.75 + 0.5 * this.#context.random.next()), message);
  }
}
