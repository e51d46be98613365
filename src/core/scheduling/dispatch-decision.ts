/** A decision of dispatch at the moment it was made: what whoever keeps decisions is shown. */
import type { InferenceRequest } from '../inference.js';
import type { Candidate } from '../picker.js';
import type { DispatchCandidate, DispatchPolicy, DispatchRequest, FleetView } from './dispatch-view.js';

/** Everything in it is reused for the next one: whoever keeps it copies it. */
export interface DispatchDecision {
  readonly request: InferenceRequest;
  readonly dispatch: DispatchRequest;
  /** All replicas there are; candidate `index` is replica `(start + index) % replicas.length`. */
  readonly replicas: readonly Candidate[];
  readonly start: number;
  readonly candidates: readonly DispatchCandidate[];
  readonly fleet: FleetView;
  /** Index of the candidate, `SHED` or `NONE`. */
  readonly chosen: number;
  readonly policy: DispatchPolicy;
}
