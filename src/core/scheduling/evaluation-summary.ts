/**
 * What gates need of the reports that `intarsia evaluate --json` prints, with policies and with `--log … --calibrate`: read from JSON that
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

/** @throws INVALID_ARGUMENT for what is no such report, or says nothing of a policy file of that digest. */
export function readEvaluation(text: string, sha256: string): EvaluationSummary {
  const report = objectOf(parse(text, 'the evaluation'), 'the evaluation');
  const named = rowsOf(report, 'files').filter((row) => row['sha256'] === sha256);
  const best = rowsOf(report, 'overall').find(({ contender: each }) => named.some((row) => row.contender === each));
  if (best === undefined) {
    const others = rowsOf(report, 'files').map(({ contender: each }) => String(each).slice(0, 100));
    throw invalid(
      `the evaluation says nothing of the file with digest ${sha256.slice(0, 12)}…; it is about ${others.length === 0 ? 'no learned policy' : `other bytes: ${others.join(', ')}`}`,
    );
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
  const all = rowsOf(report, 'rows').find((row) => row['model'] === '');
  if (all === undefined) throw invalid('the calibration has no row over all models');
  return {
    ksDistance: numberOf(all, 'ksDistance'),
    p50Error: numberOf(all, 'p50Error'),
    p99Error: numberOf(all, 'p99Error'),
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
  if (!Array.isArray(rows)) throw invalid(`there is no list '${name}': it is no report of intarsia evaluate --json`);
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
