/**
 * Where a graph may be cut in two, with what each cut would send: the planner's menu.
 *
 * A cut into more shards is made of several of these. Only values at the cut itself are counted; what a wider cut sends
 * past a shard is the sum over the cuts it passes. Costs in time are the planner's, from measurements.
 */
import { datatypeOfOnnx } from '../datatype.js';
import { crossingBytes, crossingProblem, type ValueTypes } from './boundary-type.js';
import type { Cutter } from './cut.js';
import type { SplitGraph } from './graph.js';
import { stateProblem, type StateSpan } from './state-spans.js';

export interface CutCandidate {
  /** The cut lies before this node of the sorted graph. */
  readonly position: number;
  /** Values that cross. */
  readonly values: readonly string[];
  /** Their bytes for one run; undefined when a size is not known. */
  readonly boundaryBytes: number | undefined;
  /** Nodes that the second shard repeats. */
  readonly copies: number;
  /** Floats between DequantizeLinear and QuantizeLinear cross: the engine loses its integer operator there. */
  readonly splitsQuantized: boolean;
  /** Why the cut is impossible; empty when it is legal. */
  readonly problem: string;
}

/**
 * Every cut in two, in order; impossible ones with their reason. Takes time in nodes squared: 4,000 nodes, seconds.
 * @param spans Of a model that keeps states.
 */
export function cutCandidates(
  cutter: Cutter,
  types: ValueTypes,
  spans: readonly StateSpan[] = [],
): readonly CutCandidate[] {
  const { graph } = cutter;
  const candidates: CutCandidate[] = [];
  for (let position = 1; position < graph.nodes.length; position += 1) {
    const plan = cutter.cut([position]);
    const values = plan.crossings.map(({ name }) => name);
    let boundaryBytes: number | undefined = 0;
    for (const name of values) {
      const bytes = crossingBytes(types.get(name));
      boundaryBytes = bytes === undefined || boundaryBytes === undefined ? undefined : boundaryBytes + bytes;
    }
    candidates.push({
      position,
      values,
      boundaryBytes,
      copies: plan.shards[1]?.copies ?? 0,
      splitsQuantized: values.some((name) => isInsideQuantized(graph, name, types)),
      problem:
        values.map((name) => crossingProblem(name, types.get(name))).find((text) => text !== '') ??
        stateProblem(spans, position),
    });
  }
  return candidates;
}

/**
 * The legal candidates, without those that split a quantised operator where a neighbour within `reach` nodes does not and
 * sends no more.
 */
export function preferredCuts(candidates: readonly CutCandidate[], reach = 8): readonly CutCandidate[] {
  const legal = candidates.filter(({ problem }) => problem === '');
  return legal.filter((candidate) => {
    if (!candidate.splitsQuantized) return true;
    return !legal.some(
      (other) =>
        !other.splitsQuantized &&
        Math.abs(other.position - candidate.position) <= reach &&
        (other.boundaryBytes ?? 0) <= (candidate.boundaryBytes ?? Infinity),
    );
  });
}

function isInsideQuantized(graph: SplitGraph, name: string, types: ValueTypes): boolean {
  const type = types.get(name);
  const datatype = type?.kind === 'tensor' ? datatypeOfOnnx.get(type.dataType) : undefined;
  if (datatype !== 'FP32' && datatype !== 'FP16') return false;
  const operatorAt = (index: number | undefined): string => graph.nodes[index ?? -1]?.operator ?? '';
  if ((graph.users.get(name) ?? []).some((index) => operatorAt(index).endsWith('QuantizeLinear'))) return true;
  const producer = graph.nodes[graph.producers.get(name) ?? -1];
  return (producer?.uses ?? []).some((used) => operatorAt(graph.producers.get(used)).endsWith('DequantizeLinear'));
}
