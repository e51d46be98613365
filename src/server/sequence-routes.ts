/**
 * Which replica holds the state of which sequence. The first request of a sequence goes where the picker says, the others
 * follow it: the state lives on one device.
 *
 * Bounded: when full, the sequence that was silent for longest is forgotten; should it come back, it is routed afresh and
 * its device says that it does not know it.
 */
import type { InferenceRequest, SequenceStep } from '#core/inference.js';
import type { Candidate } from '#core/picker.js';

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
    const id = this.#routes.get(keyOf(request, sequence));
    if (id === undefined) return undefined;
    const holds = ({ replica }: Candidate): boolean => replica.id === id;
    return candidates.find(holds) ?? reserve.find(holds);
  }

  /** The request goes to this replica. */
  follow(request: InferenceRequest, sequence: SequenceStep, candidate: Candidate): void {
    const key = keyOf(request, sequence);
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

function keyOf(request: InferenceRequest, { id }: SequenceStep): string {
  return `${request.model}/${request.version}/${typeof id === 'string' ? '"' : '#'}${id}`;
}
