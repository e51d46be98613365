/** How far answers of a variant are from those of the exact model: the one measure by which variants are let in or refused. */
import { compareOutputs, worstOf, type Comparison, type Tolerance } from '../split/equivalence.js';
import type { Tensor } from '../tensor.js';
import type { VariantKind } from './variant-record.js';
import { errorShareOf, toleranceFor, type MadeKind } from './variant-tolerance.js';

/** What a variant is asked, and what the exact model answers on the reference. */
export interface VariantQuestion {
  readonly inputs: readonly Tensor[];
  readonly expected: readonly Tensor[];
}

/** What a variant is asked on a device before that device serves it. */
export interface VariantExam {
  readonly kind: VariantKind;
  /** Largest error that passes, in the unit of its kind. */
  readonly limit: number;
  /** What a split of the exact model may differ by. */
  readonly usual: Tolerance;
  readonly questions: readonly VariantQuestion[];
}

export interface VariantDifference extends Pick<Comparison, 'close' | 'maxAbsoluteError' | 'maxRelativeError'> {
  /** Largest difference by the largest magnitude of its output. */
  readonly errorShare: number;
  /** The largest error in the unit of its kind, and what passes. */
  readonly text: string;
  /** The first thing out of tolerance; empty when all is within. */
  readonly problem: string;
}

/** @param answers Of the variant, by question. */
export function variantDifference(
  { kind, limit, usual, questions }: VariantExam,
  answers: readonly (readonly Tensor[])[],
): VariantDifference {
  // Whatever its maker did to a foreign artefact, it was let in by the share of its output.
  const made: MadeKind = kind === 'foreign' ? 'int8' : kind;
  const comparison = worstOf(
    questions.map(({ expected }, index) =>
      compareOutputs(answers[index] ?? [], expected, toleranceFor(made, limit, { expected, usual })),
    ),
  );
  const errorShare = Math.max(
    0,
    ...questions.map(({ expected }, index) => errorShareOf(answers[index] ?? [], expected)),
  );
  const { close, maxAbsoluteError, maxRelativeError, problem } = comparison;
  const isShare = made === 'fp16' || made === 'int8';
  const text = `largest error ${(isShare ? errorShare : maxRelativeError).toPrecision(3)}${isShare ? ' of the output’s largest value' : ' relative'}, ${limit} passes`;
  return { close, maxAbsoluteError, maxRelativeError, errorShare, text, problem };
}
