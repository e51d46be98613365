/**
 * Stands between a picker and a policy and counts: decisions, those a shield left to its rule, and answers that the mask
 * forbids. The picker turns a forbidden answer into none; here it is made known.
 */
import {
  NONE,
  SHED,
  type Chance,
  type ChoiceTrace,
  type DispatchCandidate,
  type DispatchPolicy,
  type DispatchRequest,
  type FleetView,
} from '#core/scheduling/dispatch-view.js';

export class ChoiceWitness implements DispatchPolicy {
  readonly name: string;
  readonly trace?: ChoiceTrace;
  readonly counts = { decisions: 0, fallbacks: 0, maskViolations: 0 };
  readonly #policy: DispatchPolicy;

  constructor(policy: DispatchPolicy) {
    this.#policy = policy;
    this.name = policy.name;
    if (policy.trace !== undefined) this.trace = policy.trace;
  }

  choose(request: DispatchRequest, candidates: readonly DispatchCandidate[], fleet: FleetView, random: Chance): number {
    const { counts } = this;
    const chosen = this.#policy.choose(request, candidates, fleet, random);
    counts.decisions += 1;
    if (this.trace !== undefined && this.trace.fallback !== '') counts.fallbacks += 1;
    if (!isAllowed(chosen, request, candidates)) counts.maskViolations += 1;
    return chosen;
  }

  finished(...told: Parameters<NonNullable<DispatchPolicy['finished']>>): void {
    this.#policy.finished?.(...told);
  }
}

function isAllowed(chosen: number, { mayShed }: DispatchRequest, candidates: readonly DispatchCandidate[]): boolean {
  if (chosen === SHED) return mayShed;
  return chosen === NONE || candidates[chosen]?.masked === '';
}
