/**
 * Outputs that stay in a slot of the shared area, where the next executor process reads them: the host counts who still
 * may, and gives the slot out again after the last one. A result that nobody lets go of is noticed by the garbage
 * collector, so that no slot is lost.
 */
import type { BufferPool } from '#core/buffer-pool.js';
import { intarsiaError } from '#core/errors.js';
import { resultIn, type SlotRange } from '#core/executor-frame.js';
import type { Frame } from '#core/frame.js';
import type { HeldBytes } from '#core/held-bytes.js';
import type { RunInput, RunResult } from '#ports/executor.js';
import type { SharedArea } from './shared-area.js';

interface SlotOfArea {
  readonly area: SharedArea;
  readonly slot: number;
}

const forgotten = new FinalizationRegistry<SlotOfArea>(({ area, slot }) => area.giveBack(slot));

/** A slot for as long as somebody may read it. Whoever makes it is the first reader. */
export class SlotLease {
  readonly area: SharedArea;
  readonly slot: number;
  readonly pool: BufferPool;
  readonly #buffers: ArrayBufferLike[] = [];
  #readers = 1;

  /** @param pool Where bytes that are brought here get their memory. */
  constructor(area: SharedArea, slot: number, pool: BufferPool) {
    this.area = area;
    this.slot = slot;
    this.pool = pool;
    forgotten.register(this, { area, slot }, this);
  }

  /** @throws UNAVAILABLE when the last reader has let go: whoever comes now is not waited for by anybody. */
  retain(): void {
    this.check();
    this.#readers += 1;
  }

  release(): void {
    this.#readers -= 1;
    if (this.#readers > 0) return;
    forgotten.unregister(this);
    this.area.giveBack(this.slot);
    for (const buffer of this.#buffers) this.pool.release(buffer);
  }

  check(): void {
    if (this.#readers > 0) return;
    throw intarsiaError('UNAVAILABLE', 'the values of an earlier stage were let go of: nobody waits for the answer');
  }

  read(offset: number, byteLength: number): Uint8Array {
    this.check();
    const bytes = this.pool.allocate(byteLength);
    this.#buffers.push(bytes.buffer);
    this.area.read(this.slot, offset, bytes);
    return bytes;
  }
}

class SharedBytes implements HeldBytes {
  readonly lease: SlotLease;
  readonly offset: number;
  readonly byteLength: number;
  #read: Uint8Array | undefined;

  constructor(lease: SlotLease, offset: number, byteLength: number) {
    this.lease = lease;
    this.offset = offset;
    this.byteLength = byteLength;
  }

  read(): Uint8Array {
    this.#read ??= this.lease.read(this.offset, this.byteLength);
    return this.#read;
  }

  part(offset: number, byteLength: number): SharedBytes {
    const start = Math.min(offset, this.byteLength);
    return new SharedBytes(this.lease, this.offset + start, Math.min(byteLength, this.byteLength - start));
  }
}

/** The result of a run whose outputs stay in the slot. @throws INVALID_ARGUMENT as `resultIn`. */
export function heldResult(frame: Frame, lease: SlotLease, bytes: number): RunResult {
  let isHeld = true;
  // A second time must not take the slot from those who still read it.
  const release = (): void => {
    if (isHeld) lease.release();
    isHeld = false;
  };
  try {
    return { ...resultIn(frame, new SharedBytes(lease, 0, bytes)), release };
  } catch (error) {
    release();
    throw error;
  }
}

/** Inputs of a run as its frame tells of them, and the slots that the run reads. */
export interface PlacedInputs {
  readonly inputs: readonly (RunInput & { readonly slots?: readonly SlotRange[] | undefined })[];
  readonly leases: readonly SlotLease[];
}

const none: readonly SlotLease[] = [];

/**
 * What of a run's inputs its process reads by itself: only where this host has put it there. Its slots are kept from now on.
 * @throws UNAVAILABLE when they were let go of.
 */
export function placedInputs(inputs: readonly RunInput[], area: SharedArea | undefined): PlacedInputs {
  if (area === undefined || inputs.every(({ held }) => held === undefined)) return { inputs, leases: none };
  const leases: SlotLease[] = [];
  const placed = inputs.map((input) => {
    const own = input.held?.filter((part) => part instanceof SharedBytes).filter(({ lease }) => lease.area === area);
    if (own === undefined || own.length < (input.held?.length ?? 0)) return input;
    const { name, datatype, shape } = input;
    leases.push(...own.map(({ lease }) => lease));
    const slots = own.map(({ lease: { slot }, offset, byteLength: bytes }) => ({ slot, offset, bytes }));
    return { name, datatype, shape, chunks: [], slots };
  });
  for (const lease of leases) lease.check();
  for (const lease of leases) lease.retain();
  return { inputs: placed, leases };
}
