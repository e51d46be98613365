/**
 * Chance as an argument: seeded streams that do not disturb each other.
 *
 * Promise: two generators with the same seed and the same labels give the same numbers; a draw from one stream never
 * changes another.
 */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform whole number in [0, bound). `bound` is at least 1. */
  below(bound: number): number;
  /** An independent stream; the same label gives the same stream. */
  stream(label: string): Random;
}
