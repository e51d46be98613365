/**
 * What a benchmark hands back: rows with units and targets, and the machine they were measured on. Printed as a table for
 * people or as JSON for machines; a benchmark itself prints nothing.
 */
import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import Table from 'cli-table3';
import { intarsiaError } from '#core/errors.js';

export interface BenchOptions {
  /** Small sizes and few repetitions: shows that it runs, not how fast. */
  readonly quick: boolean;
  /** As many repetitions as a verdict needs, however long it takes; benchmarks that have no such size ignore it. */
  readonly full?: boolean;
  /** Names of the parts to run; absent: all. Benchmarks that have no parts ignore it. */
  readonly only?: readonly string[];
}

export interface BenchTarget {
  /** `at-least` for ratios and throughput, `at-most` for times and memory. */
  readonly kind: 'at-least' | 'at-most';
  readonly value: number;
}

export interface BenchRow {
  /** Stable name for machines, such as `actors.tell.ratio-to-nact`. */
  readonly key: string;
  /** What it is, for people. */
  readonly label: string;
  readonly value: number;
  /** Unit of `value` and of the target, such as `messages/s` or `x`. */
  readonly unit: string;
  readonly target?: BenchTarget;
  /** Whether the target was reached; absent when there is none. */
  readonly met?: boolean;
}

export interface BenchEnvironment {
  readonly cpuModel: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly node: string;
  readonly platform: string;
  readonly commit: string;
  /** ISO 8601, UTC. */
  readonly date: string;
}

export interface BenchReport {
  readonly name: string;
  readonly quick: boolean;
  readonly rows: readonly BenchRow[];
  readonly environment: BenchEnvironment;
  /** What a reader must know to judge the rows. */
  readonly notes: readonly string[];
}

/** What a benchmark module exports as `run`. */
export type Bench = (options: BenchOptions) => Promise<BenchReport>;

/** The parts that were asked for, in their own order. @throws INVALID_ARGUMENT for a name that none has. */
export function chosenParts<T extends { readonly name: string }>(
  parts: readonly T[],
  { only }: BenchOptions,
): readonly T[] {
  if (only === undefined) return parts;
  const unknown = only.find((name) => parts.every((part) => part.name !== name));
  if (unknown !== undefined) {
    const names = parts.map(({ name }) => name).join(', ');
    throw intarsiaError('INVALID_ARGUMENT', `no part ${unknown}; there are ${names}`);
  }
  return parts.filter(({ name }) => only.includes(name));
}

/** A row; `met` follows from the target. */
export function benchRow(row: Omit<BenchRow, 'met'>): BenchRow {
  if (row.target === undefined) return row;
  const { kind, value } = row.target;
  return { ...row, met: kind === 'at-least' ? row.value >= value : row.value <= value };
}

/** A report of rows measured on this machine, now. */
export function benchReport(
  name: string,
  options: BenchOptions,
  rows: readonly BenchRow[],
  notes: readonly string[] = [],
): BenchReport {
  return { name, quick: options.quick, rows, environment: captureEnvironment(), notes };
}

export function captureEnvironment(): BenchEnvironment {
  const processors = cpus();
  return {
    cpuModel: processors[0]?.model ?? 'unknown',
    cores: processors.length,
    memoryBytes: totalmem(),
    node: process.version,
    platform: `${process.platform} ${process.arch} ${release()}`,
    commit: currentCommit(),
    date: new Date().toISOString(),
  };
}

/** Middle of the values; mean of the two middle ones when their number is even. NaN when there are none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((left, right) => left - right);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** Writes the report to standard output: a table, or one JSON document. */
export function printReport(report: BenchReport, options: { readonly json: boolean }): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    return;
  }
  const table = new Table({ head: ['what', 'value', 'unit', 'target', ''], style: { head: [], border: [] } });
  for (const { label, value, unit, target, met } of report.rows) {
    table.push([label, formatValue(value), unit, target === undefined ? '' : formatTarget(target), formatMet(met)]);
  }
  const { environment } = report;
  const lines = [
    `${report.name}${report.quick ? ' (quick: sizes too small to judge speed by)' : ''}`,
    table.toString(),
    ...report.notes,
    `${environment.cpuModel}, ${environment.cores} cores, Node ${environment.node}, ${environment.platform}, commit ${environment.commit}, ${environment.date}`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

function currentCommit(): string {
  try {
    const text = (args: string[]): string => execFileSync('git', args, { encoding: 'utf8', stdio: 'pipe' }).trim();
    return text(['rev-parse', '--short', 'HEAD']) + (text(['status', '--porcelain']) === '' ? '' : '+changes');
  } catch {
    // A copy without git, such as a container image, has no commit to name.
    return 'unknown';
  }
}

function formatValue(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

function formatTarget({ kind, value }: BenchTarget): string {
  return `${kind === 'at-least' ? '≥' : '≤'} ${formatValue(value)}`;
}

function formatMet(met: boolean | undefined): string {
  if (met === undefined) return '';
  return met ? 'met' : 'MISSED';
}
