/** What the parts of the pretend store see of each other: the store around a client, and the client of a watch or a lease. */
import type { StoreMachine } from '#core/store/machine.js';
import type { Clock } from '#ports/clock.js';
import type { StoreCallOptions, StoreLease, StoreWatch } from '#ports/store.js';

/** What a client sees of the pretend store around it. */
export interface PretendStoreWorld {
  readonly clock: Clock;
  readonly machine: StoreMachine;
  readonly progressMs: number;
  latencyMs(): number;
  absenceOf(host: string): 'refused' | 'silent' | undefined;
  noteAbsence(absence: 'refused' | 'silent'): void;
  takeOutcome(host: string): 'outcome-unknown' | 'request-lost' | undefined;
  refusesWrites(): boolean;
  newLeaseId(): string;
  changed(): void;
}

/** What has changed since watches were told last. */
export interface StoreNews {
  readonly fromRevision: number;
  /** Undefined when that is not known. */
  readonly keys: readonly string[] | undefined;
}

/** A client as its watches and leases see it. */
export interface PretendStoreParty {
  readonly host: string;
  readonly clock: Clock;
  readonly world: PretendStoreWorld;
  call<Result>(options: StoreCallOptions, work: (machine: StoreMachine) => Result): Promise<Result>;
  /** The same without a promise, for what must go on while only the clock runs. */
  send<Result>(
    options: StoreCallOptions,
    work: (machine: StoreMachine) => Result,
    answer: { readonly resolve: (result: Result) => void; readonly reject: (error: unknown) => void },
  ): void;
  /** Notes which store answers; another one than before ends every watch and every lease. */
  meet(machine: StoreMachine): void;
  forget(part: StoreWatch | StoreLease): void;
}
