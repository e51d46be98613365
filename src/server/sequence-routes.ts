/**
 * Which replica holds the state of which sequence. The first request of a sequence goes where the picker says, the others
 * follow it: the state lives on one device.
 *
 * A sequence whose replica is gone has ended: another replica that once had an attempt at its first request would go on
 * from a state that is too old. Bounded: when full, the sequence that was silent for longest is forgotten; should it come
 * back, it is routed afresh and its device says that it does not know it.
 */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { InferenceRequest, SequenceStep } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';
import { readShardName } from '#core/split/split-spec.js';

export class SequenceRoutes {
  readonly #sequencesMax: number;
  /** Replica by sequence; least recently used first. */
  readonly #routes = new Map<string, string>();

  constructor(sequencesMax: number) {
    this.#sequencesMax = sequencesMax;
  }

  /** The candidate that holds the sequence; undefined when none does, or the request starts afresh. */
  find(
    request: InferenceRequest,
    sequence: SequenceStep,
    candidates: readonly Candidate[],
    reserve: readonly Candidate[] = [],
  ): Candidate | undefined {
    if (sequence.start) return undefined;
    const id = this.#routes.get(sequenceKey(request, sequence));
    if (id === undefined) return undefined;
    const holds = ({ replica }: Candidate): boolean => replica.id === id;
    return candidates.find(holds) ?? reserve.find(holds);
  }

  /** Whether it is under way at a replica, which may be gone. False for a request that starts it afresh. */
  isUnderWay(request: InferenceRequest, sequence: SequenceStep): boolean {
    return !sequence.start && this.#routes.has(sequenceKey(request, sequence));
  }

  /** The request goes to this replica. */
  follow(request: InferenceRequest, sequence: SequenceStep, candidate: Candidate): void {
    const key = sequenceKey(request, sequence);
    this.#routes.delete(key);
    if (sequence.end) return;
    this.#routes.set(key, candidate.replica.id);
    if (this.#routes.size <= this.#sequencesMax) return;
    for (const oldest of this.#routes.keys()) {
      this.#routes.delete(oldest);
      return;
    }
  }
}

/** One text for a sequence of a model's version; numbers and texts never meet. */
export function sequenceKey({ model, version }: InferenceRequest, { id }: SequenceStep): string {
  return `${model}/${version}/${typeof id === 'string' ? '"' : '#'}${id}`;
}

/** Why a sequence cannot go on; whoever sends it may begin it again. */
export function lostSequence({ model, version }: InferenceRequest, { id }: SequenceStep, why: string): IntarsiaError {
  const whole = readShardName(model)?.model ?? model;
  return intarsiaError(
    'UNAVAILABLE',
    `sequence ${id} of model '${whole}' version ${version} has lost a state: ${why}; begin it again (sequence_start)`,
    { model: whole, sequence: String(id) },
  );
}
