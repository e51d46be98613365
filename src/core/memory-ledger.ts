/**
 * Who holds how much of a device's memory. Pure book-keeping: what is asked for before a load (an estimate), what a load
 * really took (measured), and whose idle session goes first when room is needed (the longest unused).
 *
 * Left to others: freeing the sessions the ledger names, and reloading them when somebody asks for them again.
 */
import { invariant } from './errors.js';
import { elementCount, type TensorSpec } from './tensor.js';
import { datatypeBytes } from './datatype.js';

export interface MemoryEstimateInput {
  /** Bytes of weights in the artefact. */
  readonly weightBytes: number;
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  /** Items of the largest batch. */
  readonly items: number;
}

/** What engines add to the weights: packed copies, the graph, buffers. Measured values replace the estimate after a load. */
const weightFactor = 1.25;
/** Inner tensors are not known; they are taken to be this many times the inputs and outputs. */
const activationFactor = 4;
/** Bytes that a string element is taken to have. */
const stringBytes = 64;

/** Bytes a session is expected to take: weights × 1.25 + 4 × (inputs + outputs of the largest batch). Unknown sizes count 1. */
export function estimateSessionBytes(input: MemoryEstimateInput): number {
  let itemBytes = 0;
  for (const spec of [...input.inputs, ...input.outputs]) {
    const count = elementCount(spec.shape.map((size) => (size < 0 ? 1 : size)));
    itemBytes += count * (datatypeBytes(spec.datatype) || stringBytes);
  }
  return Math.ceil(input.weightBytes * weightFactor + itemBytes * Math.max(1, input.items) * activationFactor);
}

interface Holding {
  bytes: number;
  /** Last use (ms). */
  usedMs: number;
}

/** What must happen before the bytes are there: free these sessions, or give up for lack of so many bytes. */
export type RoomPlan =
  { readonly fits: true; readonly evict: readonly string[] } | { readonly fits: false; readonly bytesMissing: number };

export class MemoryLedger {
  readonly capacityBytes: number;
  readonly #holdings = new Map<string, Holding>();
  #usedBytes = 0;

  constructor(capacityBytes: number) {
    this.capacityBytes = capacityBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  bytesOf(key: string): number {
    return this.#holdings.get(key)?.bytes ?? 0;
  }

  /** Whether `bytes` more fit, and which idle sessions must go for it, longest unused first. Changes nothing. */
  plan(bytes: number, isIdle: (key: string) => boolean): RoomPlan {
    let missing = this.#usedBytes + bytes - this.capacityBytes;
    const evict: string[] = [];
    if (missing <= 0) return { fits: true, evict };
    const idle = [...this.#holdings].filter(([key]) => isIdle(key));
    idle.sort(([, a], [, b]) => a.usedMs - b.usedMs);
    for (const [key, holding] of idle) {
      evict.push(key);
      missing -= holding.bytes;
      if (missing <= 0) return { fits: true, evict };
    }
    return { fits: false, bytesMissing: missing };
  }

  /** Writes down a session that is being loaded. */
  hold(key: string, bytes: number, nowMs: number): void {
    invariant(!this.#holdings.has(key), 'a session is held once');
    this.#holdings.set(key, { bytes, usedMs: nowMs });
    this.#usedBytes += bytes;
  }

  /** Replaces an estimate by what was measured. The ledger may be over its capacity afterwards: ask `plan(0, …)`. */
  trueUp(key: string, bytes: number): void {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return;
    this.#usedBytes += bytes - holding.bytes;
    holding.bytes = bytes;
  }

  /** The session was used just now. */
  touch(key: string, nowMs: number): void {
    const holding = this.#holdings.get(key);
    if (holding !== undefined) holding.usedMs = nowMs;
  }

  release(key: string): void {
    const holding = this.#holdings.get(key);
    if (holding === undefined) return;
    this.#holdings.delete(key);
    this.#usedBytes -= holding.bytes;
  }
}
