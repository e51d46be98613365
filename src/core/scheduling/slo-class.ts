/**
 * How urgent a request is to whoever sent it, in three classes: each allows a share of answers to miss its target, and says
 * what becomes of a request whose target can no longer be met.
 */

export type SloClass = 'interactive' | 'standard' | 'batch';
export type OnMiss = 'shed' | 'serve-late';

export const sloClasses: readonly SloClass[] = ['interactive', 'standard', 'batch'];

export interface SloClassRules {
  /** Share of requests that may miss the target, 0 to 1. */
  readonly allowedMiss: number;
  /** `shed` refuses a request that will be late anyway, `serve-late` computes it all the same. */
  readonly onMiss: OnMiss;
  /** Milliseconds to an answer where neither the request nor its model or tenant says so. */
  readonly sloMs: number;
}

export type SloRules = Readonly<Record<SloClass, SloClassRules>>;

export const defaultSloRules: SloRules = {
  interactive: { allowedMiss: 0.01, onMiss: 'shed', sloMs: 300 },
  standard: { allowedMiss: 0.02, onMiss: 'serve-late', sloMs: 1500 },
  batch: { allowedMiss: 0.05, onMiss: 'serve-late', sloMs: 20_000 },
};

export function isSloClass(text: string): text is SloClass {
  return text === 'interactive' || text === 'standard' || text === 'batch';
}
