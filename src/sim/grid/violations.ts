/** What checkers found wrong in a simulated grid: who says it, when, and what. */
import type { Clock } from '#ports/clock.js';

export const checkers = [
  'answered-once',
  'known-code',
  'right-answer',
  'one-owner',
  'order-kept',
  'memory-kept',
  'views-converge',
  'desired-is-actual',
  'calm-requests',
  'enough-faults',
  'same-trace',
] as const;
export type Checker = (typeof checkers)[number];

export interface Violation {
  readonly checker: Checker;
  /** Virtual ms. */
  readonly atMs: number;
  readonly text: string;
}

/** Texts kept of one checker; the rest is counted. */
const keptMax = 10;

export class Violations {
  readonly #clock: Clock;
  readonly #counts = new Map<Checker, number>();
  readonly kept: Violation[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get total(): number {
    let sum = 0;
    for (const count of this.#counts.values()) sum += count;
    return sum;
  }

  report(checker: Checker, text: string): void {
    const count = (this.#counts.get(checker) ?? 0) + 1;
    this.#counts.set(checker, count);
    if (count <= keptMax) this.kept.push({ checker, atMs: Math.round(this.#clock.nowMs() * 1000) / 1000, text });
  }
}
