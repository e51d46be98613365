/**
 * Where a stateful model can be cut. A state is what one run makes and the next run reads; it stays where it was made, so
 * everything that reads it and what makes it must be in one shard, and no cut may lie between.
 */
import type { SequenceState } from '../model-config.js';
import type { SplitGraph } from './graph.js';

export interface StateSpan {
  readonly inputName: string;
  readonly outputName: string;
  /** Positions of the first and of the last node of it. */
  readonly first: number;
  readonly last: number;
}

/** States that the graph does not have, or that nothing reads, bind nothing. */
export function stateSpans(
  { producers, users }: Pick<SplitGraph, 'producers' | 'users'>,
  states: readonly Pick<SequenceState, 'inputName' | 'outputName'>[],
): readonly StateSpan[] {
  return states.flatMap(({ inputName, outputName }): readonly StateSpan[] => {
    const producer = producers.get(outputName);
    const nodes = [...(users.get(inputName) ?? []), ...(producer === undefined ? [] : [producer])];
    if (nodes.length < 2) return [];
    return [{ inputName, outputName, first: Math.min(...nodes), last: Math.max(...nodes) }];
  });
}

/** Why there can be no cut before that node; empty when there can. */
export function stateProblem(spans: readonly StateSpan[], position: number): string {
  const span = spans.find(({ first, last }) => first < position && position <= last);
  if (span === undefined) return '';
  const { inputName, outputName, first, last } = span;
  return `${JSON.stringify(inputName)} is a state, which must be read and made (${JSON.stringify(outputName)}) in one shard: nodes ${first} to ${last} cannot be parted`;
}
