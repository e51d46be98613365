/**
 * What gates need of the reports that `intarsia evaluate --json` and the calibration of the simulator print: read from JSON that
 * somebody else wrote, and checked.
 */
import { intarsiaError } from '../errors.js';

/** One policy over all cells and stress cases of a report; changes are shares, below 0 is better. */
export interface EvaluationSummary {
  readonly isDone: boolean;
  readonly cells: number;
  readonly change: number;
  readonly changeHigh: number;
  readonly worstCell: string;
  readonly worstChange: number;
  readonly worstMissChange: number;
  readonly worstP99Change: number;
  readonly fallbackRate: number;
  readonly maskViolations: number;
  readonly stressCases: number;
  /** One line for each case that was not passed. */
  readonly stressFailures: readonly string[];
}

export interface CalibrationSummary {
  readonly ksDistance: number;
  /** Simulated over logged latency, less 1. */
  readonly p50Error: number;
  readonly p99Error: number;
}

const stressFailuresMax = 16;

/** @throws INVALID_ARGUMENT for what is no such report, or says nothing of a policy of that name. */
export function readEvaluation(text: string, policy: string): EvaluationSummary {
  const report = objectOf(parse(text, 'the evaluation'), 'the evaluation');
  const isOwn = ({ contender }: Fields): boolean =>
    typeof contender === 'string' && (contender === policy || contender.startsWith(`${policy}@`));
  const overall = rowsOf(report, 'overall');
  const own = overall.filter(isOwn);
  const best = own[0];
  if (best === undefined) {
    const named = overall.map(({ contender }) => String(contender)).join(', ');
    throw invalid(`the evaluation says nothing of ${policy}; it is about ${named === '' ? 'no policy' : named}`);
  }
  const { contender } = best;
  const comparisons = rowsOf(report, 'cells').flatMap((cell) =>
    rowsOf(cell, 'comparisons').filter((row) => row.contender === contender),
  );
  const verdicts = rowsOf(report, 'verdicts').filter((row) => row.contender === contender);
  const failures = verdicts.filter(({ passed }) => passed !== true);
  return {
    isDone: report['isDone'] === true,
    cells: numberOf(best, 'cells'),
    change: numberOf(best, 'change'),
    changeHigh: numberOf(best, 'changeHigh'),
    worstCell: String(best['worstCell']).slice(0, 200),
    worstChange: numberOf(best, 'worstChange'),
    worstMissChange: numberOf(best, 'worstMissChange'),
    worstP99Change:
      comparisons.length === 0 ? Number.NaN : Math.max(...comparisons.map((row) => numberOf(row, 'p99Change'))),
    fallbackRate: numberOf(best, 'fallbackRate'),
    maskViolations: [best, ...verdicts].reduce((sum, row) => sum + numberOf(row, 'maskViolations'), 0),
    stressCases: verdicts.length,
    stressFailures: failures
      .slice(0, stressFailuresMax)
      .map((row) => `${String(row['cell']).slice(0, 100)}: ${(numberOf(row, 'change') * 100).toFixed(1)} %`),
  };
}

/** @throws INVALID_ARGUMENT for what is no such report. */
export function readCalibration(text: string): CalibrationSummary {
  const report = objectOf(parse(text, 'the calibration'), 'the calibration');
  return {
    ksDistance: numberOf(report, 'ksDistance'),
    p50Error: numberOf(report, 'p50Error'),
    p99Error: numberOf(report, 'p99Error'),
  };
}

interface Fields {
  readonly [name: string]: unknown;
  readonly contender?: unknown;
  readonly passed?: unknown;
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `${what} is not JSON`, { length: text.length }, error);
  }
}

function objectOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null) throw invalid(`${what} is no object`);
  return value as Fields;
}

function rowsOf(value: Fields, name: string): readonly Fields[] {
  const rows = value[name];
  if (!Array.isArray(rows)) throw invalid(`the evaluation has no list '${name}': it is no report of intarsia evaluate`);
  return rows.map((row: unknown) => objectOf(row, `a row of '${name}'`));
}

function numberOf(value: Fields, name: string): number {
  const number = value[name];
  if (typeof number !== 'number' || !Number.isFinite(number)) throw invalid(`the report has no number '${name}'`);
  return number;
}

function invalid(reason: string): Error {
  return intarsiaError('INVALID_ARGUMENT', reason, {});
}
