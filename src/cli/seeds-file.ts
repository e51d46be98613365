/**
 * What is known of seeds that have run: a line a seed, appended to a file as each ends, so that a run of many can be stopped
 * and taken up again. A line that was cut off by a crash is passed over, and its seed runs again.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { intarsiaError } from '#core/errors.js';
import type { GridSimulationReport, GridSimulationRequest } from './simulation-report.js';

/** One seed, as the sums need it. */
export interface SeedLine {
  readonly seed: number;
  readonly trace: string;
  readonly violations: number;
  readonly sent: number;
  readonly failed: number;
  readonly hedges: number;
  readonly sequences: number;
  /** Sequences that a failure ended. */
  readonly broken: number;
  readonly virtualMs: number;
  /** By kind of fault: how many struck, how many of them met somebody, and how often they bit. */
  readonly faults: Readonly<Record<string, readonly [struck: number, fired: number, bites: number]>>;
}

/** What all seeds of a file have in common. */
type Common = Pick<GridSimulationRequest, 'hosts' | 'requests' | 'faults'>;

export function seedLine(report: GridSimulationReport): SeedLine {
  const { seed, traceHash, violationCount, requests, virtualMs } = report;
  const faults: Record<string, readonly [number, number, number]> = {};
  for (const { kind, fired } of report.faults) {
    const [struck, met, bites] = faults[kind] ?? [0, 0, 0];
    faults[kind] = [struck + 1, met + (fired > 0 ? 1 : 0), bites + fired];
  }
  const { sent, answered, hedges } = requests;
  const { begun, ended } = report.sequences;
  return {
    ...{ seed, trace: traceHash, violations: violationCount, sent, failed: sent - answered, hedges },
    ...{ sequences: begun, broken: begun - ended, virtualMs, faults },
  };
}

export class SeedsFile {
  readonly #path: string;
  /** The latest line of each seed. */
  readonly lines: ReadonlyMap<number, SeedLine>;

  /** @throws INVALID_ARGUMENT when the file is of other simulations, or of something else. */
  constructor(path: string, { hosts, requests, faults }: Common) {
    this.#path = path;
    const common = JSON.stringify({ format: 1, hosts, requests, faults: faults ?? 'all' });
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    const [head = '', ...rest] = text.split('\n');
    if (head === '') this.#append(common);
    else if (head !== common) {
      throw intarsiaError('INVALID_ARGUMENT', `--done ${path} is of other simulations: ${head.slice(0, 200)}`, {
        path,
      });
    }
    // What a crash cut off must not run into what is written next.
    if (text !== '' && !text.endsWith('\n')) appendFileSync(path, '\n');
    this.lines = new Map(rest.flatMap(readLine).map((line) => [line.seed, line]));
  }

  add(line: SeedLine): void {
    this.#append(JSON.stringify(line));
  }

  #append(text: string): void {
    appendFileSync(this.#path, `${text}\n`);
  }
}

function readLine(text: string): readonly SeedLine[] {
  try {
    const line = JSON.parse(text) as SeedLine;
    return Number.isInteger(line.seed) && typeof line.faults === 'object' ? [line] : [];
  } catch {
    return [];
  }
}
