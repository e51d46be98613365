/**
 * What samples of a device's answers, run again elsewhere, say of the device. One difference says nothing: the other may be
 * wrong. So a difference is asked about again, and only what somebody else confirms counts against the device; of its
 * latest samples so many have to be wrong before it is given up.
 */
import type { Tensor } from '../tensor.js';
import { compareOutputs, largestMagnitude } from './equivalence.js';

export interface JudgeOptions {
  /** Wrong samples among the latest ones that cost a device its place. Default 3. */
  readonly wrongMax?: number;
  /** Samples that are looked at. Default 20. */
  readonly window?: number;
}

/** Difference of an element that passes, as a share of the largest magnitude of its tensor: engines and steps differ by less. */
const passes = 0.02;

/** Empty when two answers are as near as two engines come; else what is not. */
export function answerDifference(actual: readonly Tensor[], expected: readonly Tensor[]): string {
  const steps = new Map(expected.map((tensor) => [tensor.name, largestMagnitude(tensor) * passes]));
  return compareOutputs(actual, expected, { relative: 0, steps }).problem;
}

/** How two that differ are told apart. */
export interface Testimony {
  /** The second opinion agrees with the first other answer. */
  readonly isConfirmed: boolean;
  /** It is a third holder's, or the device that differs is not a CPU and the other one is. */
  readonly isTrusted: boolean;
}

export type SampleVerdict = 'equal' | 'wrong' | 'unclear';

export function verdictOf({ isConfirmed, isTrusted }: Testimony): SampleVerdict {
  return isConfirmed && isTrusted ? 'wrong' : 'unclear';
}

/** The latest samples of one device. */
export class DriftJudge {
  readonly #wrongMax: number;
  readonly #window: number;
  readonly #samples: boolean[] = [];

  constructor({ wrongMax = 3, window = 20 }: JudgeOptions = {}) {
    this.#wrongMax = wrongMax;
    this.#window = window;
  }

  get wrong(): number {
    return this.#samples.filter((isWrong) => isWrong).length;
  }

  get samples(): number {
    return this.#samples.length;
  }

  /** True when the device is to be given up. What is unclear counts for nothing. */
  add(verdict: SampleVerdict): boolean {
    if (verdict === 'unclear') return false;
    this.#samples.push(verdict === 'wrong');
    if (this.#samples.length > this.#window) this.#samples.shift();
    return verdict === 'wrong' && this.wrong >= this.#wrongMax;
  }
}
