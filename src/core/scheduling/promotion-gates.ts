/**
 * The gates a learned policy passes before each step of its promotion, as pure checks of what was found. docs/policies.md is the
 * operator's copy of this list.
 *
 * | gate        | before      | passes when                                                                             |
 * | ----------- | ----------- | --------------------------------------------------------------------------------------- |
 * | artefact    | every step  | file is whole, of this schema, gives numbers; kernel within 1e-5 of plain arithmetic     |
 * | evaluation  | share, all  | against the best rule of each cell: interval below 0, no class misses 0.2 points more …  |
 * | stress      | share, all  | every case of the stress suite passed, nothing masked was ever chosen                    |
 * | calibration | share, all  | the simulator against the log: KS distance below 0.1, p50 within 10 %, p99 within 20 %   |
 * | shadow      | share, all  | asked about enough requests                                                              |
 * | latency     | share, all  | p99 of a choice at most 100 µs                                                           |
 * | fallback    | share, all  | at most 5 % of its decisions left to its rule                                            |
 * | duration    | raise, all  | it has had the share it has for an hour                                                  |
 * | trial       | all         | enough answers in its slices, and late no more often than the base by 0.2 points and noise |
 *
 * The artefact gate cannot be passed over: a file that cannot be trusted is not stored.
 */
import type { CalibrationSummary, EvaluationSummary } from './evaluation-summary.js';

export type GateName =
  'artefact' | 'evaluation' | 'stress' | 'calibration' | 'shadow' | 'latency' | 'fallback' | 'duration' | 'trial';

export interface GateFinding {
  readonly gate: GateName;
  readonly passed: boolean;
  /** What was found, with the numbers. */
  readonly text: string;
}

/** What all gateways saw of the policy on trial. */
export interface TrialFigures {
  /** Decisions it was asked about, as shadow or in its slices. */
  readonly decisions: number;
  readonly fallbacks: number;
  readonly latencyUsP99: number;
  /** Answers of requests that it and the base decided about, and late ones among them. */
  readonly answers: number;
  readonly late: number;
  readonly baseAnswers: number;
  readonly baseLate: number;
  /** Hosts that refuse it, with the reason. */
  readonly refusals: readonly string[];
}

export interface GateLimits {
  /** Default 50,000. */
  readonly decisionsMin: number;
  /** Default 20,000. */
  readonly answersMin: number;
  /** Minutes between two steps of its share. Default 60: what comes once an hour is seen. */
  readonly shareMinutesMin: number;
}

export const defaultGateLimits: GateLimits = { decisionsMin: 50_000, answersMin: 20_000, shareMinutesMin: 60 };

export interface GateSources {
  readonly evaluation: EvaluationSummary | undefined;
  readonly calibration: CalibrationSummary | undefined;
  readonly trial: TrialFigures;
  /** How long it has had the share that it is to have more than, by the wall clock, ms; undefined when it has none. */
  readonly shareMs: number | undefined;
  readonly limits: GateLimits;
}

const latencyUsMax = 100;
const fallbackShareMax = 0.05;
const missChangeMax = 0.002;
const p99ChangeMax = 0.05;
const cellChangeMax = 0.01;
const minuteMs = 60_000;

/** What stands before a share of the slices; `all` has one gate more. */
export function gatesBefore(step: 'share' | 'all', sources: GateSources): readonly GateFinding[] {
  const { evaluation, calibration, trial, shareMs, limits } = sources;
  const { decisions, fallbacks, latencyUsP99, refusals } = trial;
  const gates: GateFinding[] = [
    evaluationGate(evaluation),
    stressGate(evaluation),
    calibrationGate(calibration),
    finding(
      'shadow',
      decisions >= limits.decisionsMin && refusals.length === 0,
      `asked about ${decisions} requests of ${limits.decisionsMin}${refusals.length === 0 ? '' : `; refused by ${refusals.join('; ')}`}`,
    ),
    finding(
      'latency',
      decisions > 0 && latencyUsP99 <= latencyUsMax,
      decisions === 0 ? 'not measured yet' : `p99 of a choice ${latencyUsP99.toFixed(0)} µs of ${latencyUsMax} µs`,
    ),
    finding(
      'fallback',
      decisions > 0 && fallbacks <= fallbackShareMax * decisions,
      decisions === 0
        ? 'not measured yet'
        : `${share(fallbacks / decisions)} of its decisions were left to its rule, of ${share(fallbackShareMax)}`,
    ),
  ];
  if (step === 'all' || shareMs !== undefined) gates.push(durationGate(shareMs, limits));
  return step === 'all' ? [...gates, trialGate(trial, limits)] : gates;
}

function evaluationGate(evaluation: EvaluationSummary | undefined): GateFinding {
  if (evaluation === undefined) return finding('evaluation', false, 'no report of intarsia evaluate --json was given');
  const { cells, change, changeHigh, worstCell, worstChange, worstMissChange, worstP99Change, fallbackRate, isDone } =
    evaluation;
  const faults: string[] = [];
  if (!isDone) faults.push('the evaluation was stopped before its end');
  if (!(changeHigh < 0)) faults.push(`its 95 % interval reaches up to ${signed(changeHigh)}`);
  if (!(worstChange <= cellChangeMax))
    faults.push(`in ${worstCell} it is ${signed(worstChange)} against the best rule`);
  if (!(worstMissChange <= missChangeMax)) faults.push(`a class misses ${points(worstMissChange)} more`);
  if (!(worstP99Change <= p99ChangeMax)) faults.push(`p99 is ${signed(worstP99Change)} in a cell`);
  if (!(fallbackRate <= fallbackShareMax)) faults.push(`${share(fallbackRate)} of its decisions were left to its rule`);
  const text = `objective ${signed(change)} against the best rule of each of ${cells} cells, at most ${signed(changeHigh)}`;
  return finding('evaluation', faults.length === 0, [text, ...faults].join('; '));
}

function stressGate(evaluation: EvaluationSummary | undefined): GateFinding {
  if (evaluation === undefined) return finding('stress', false, 'no report of intarsia evaluate --json was given');
  const { stressCases, stressFailures, maskViolations } = evaluation;
  const faults = [...stressFailures];
  if (stressCases === 0) faults.push('the report has no stress suite: evaluate with --stress');
  if (maskViolations > 0) faults.push(`${maskViolations} choices of masked candidates`);
  const text = `${stressCases - stressFailures.length} of ${stressCases} cases passed`;
  return finding('stress', faults.length === 0, [text, ...faults].join('; '));
}

/** An evaluation says of a grid what the simulator that it ran on does. */
function calibrationGate(calibration: CalibrationSummary | undefined): GateFinding {
  if (calibration === undefined) {
    return finding('calibration', false, 'no report of intarsia evaluate --log DIR --calibrate --json was given');
  }
  const { ksDistance, p50Error, p99Error } = calibration;
  const passed = ksDistance < 0.1 && Math.abs(p50Error) <= 0.1 && Math.abs(p99Error) <= 0.2;
  const text = `KS distance ${ksDistance.toFixed(3)} of 0.1, p50 ${signed(p50Error)} of 10 %, p99 ${signed(p99Error)} of 20 %`;
  return finding('calibration', passed, text);
}

function durationGate(shareMs: number | undefined, { shareMinutesMin }: GateLimits): GateFinding {
  if (shareMs === undefined) return finding('duration', false, 'it has had no share of the time slices yet');
  const minutes = shareMs / minuteMs;
  const text = `its share for ${Math.floor(minutes)} minutes of ${shareMinutesMin}`;
  return finding('duration', minutes >= shareMinutesMin, text);
}

function trialGate({ answers, late, baseAnswers, baseLate }: TrialFigures, { answersMin }: GateLimits): GateFinding {
  const own = answers === 0 ? 0 : late / answers;
  const base = baseAnswers === 0 ? 0 : baseLate / baseAnswers;
  // Three standard errors of the difference, as if answers were independent.
  const noise =
    3 * Math.sqrt((own * (1 - own)) / Math.max(1, answers) + (base * (1 - base)) / Math.max(1, baseAnswers));
  const enough = answers >= answersMin && baseAnswers > 0;
  const text = `${answers} answers of ${answersMin} in its slices, ${share(own)} late; ${share(base)} of ${baseAnswers} under the base`;
  return finding('trial', enough && own - base <= missChangeMax + noise, text);
}

function finding(gate: GateName, passed: boolean, text: string): GateFinding {
  return { gate, passed, text };
}

function share(value: number): string {
  return `${(value * 100).toFixed(2)} %`;
}

function points(value: number): string {
  return `${(value * 100).toFixed(2)} points`;
}

function signed(value: number): string {
  return `${value < 0 ? '−' : '+'}${(Math.abs(value) * 100).toFixed(1)} %`;
}
