/** Candidates by chance, sane and insane, for properties that hold for all of them. */
import fc from 'fast-check';
import { newDispatchCandidate, type DispatchCandidate, type DispatchRequest } from '#core/scheduling/dispatch-view.js';

const figure = fc.oneof(
  { weight: 8, arbitrary: fc.double({ min: 0, max: 500, noNaN: true }) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1e300, Number.NaN, Infinity, -5) },
);

const insane: fc.Arbitrary<DispatchCandidate> = fc
  .record({
    netMs: figure,
    runningMs: figure,
    queuedAheadMs: figure,
    serviceMs: figure,
    marginalMs: figure,
    soloMs: figure,
    workMs: figure,
    queueItems: fc.nat({ max: 100 }),
    usdPerHour: figure,
    watts: figure,
    telemetryAgeMs: figure,
    ratioEwma: figure,
    resident: fc.boolean(),
    masked: fc.constantFrom('', '', 'not ready', 'banned'),
  })
  .map((part) => ({ ...newDispatchCandidate(), ...part }));

/** Whatever a broken sensor or table may make of figures. */
export const insaneCandidates: fc.Arbitrary<DispatchCandidate[]> = fc.array(insane, { minLength: 1, maxLength: 20 });

export const interactiveRequest: DispatchRequest = {
  model: 'm',
  items: 1,
  sloMs: 100,
  class: 'interactive',
  nowMs: 0,
  arrivedMs: 0,
  mayShed: true,
};
