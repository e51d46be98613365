/**
 * Cuts of equal work from the file alone: where a deployment says only how many stages it wants. Work is estimated, never
 * measured (the planner's cuts are): two operations for each weight and element it is applied to, one for every other
 * output element, unknown sizes counted as one. Among cuts of equal balance the one that sends less is taken.
 */
import { datatypeBytes, datatypeOfOnnx } from '../datatype.js';
import { intarsiaError } from '../errors.js';
import type { ValueType } from '../onnx/model-view.js';
import type { ValueTypes } from './boundary-type.js';
import { cutCandidates, preferredCuts, type CutCandidate } from './cut-candidates.js';
import type { Cutter } from './cut.js';
import type { SplitGraph, SplitNode } from './graph.js';
import type { StateSpan } from './state-spans.js';

/** Operators whose work grows with their weights. */
const weighted = /(?:Conv|ConvTranspose|MatMul|Gemm|LSTM|GRU|RNN|Attention|ConvInteger|MatMulInteger|MatMulNBits)$/;

/** A stage may do this much more than the best cut's busiest one, where it sends less. */
const slack = 1.05;

/** Work of each node, in operations; at least 1. */
export function estimatedWork(graph: SplitGraph, types: ValueTypes): readonly number[] {
  return graph.nodes.map((node) => {
    const elements = node.defines.reduce((sum, name) => sum + elementsOf(types.get(name)), 0);
    const weights = weightsOf(graph, node);
    if (weights === 0 || !weighted.test(node.operator)) return Math.max(1, elements);
    // Each weight meets every element of the output that is not of its own output channel.
    const output = types.get(node.defines[0] ?? '');
    return Math.max(1, 2 * weights * (isConvolution(node) ? spatialOf(output) : rowsOf(output)));
  });
}

/**
 * The legal cut into so many stages whose busiest stage has the least estimated work.
 * @throws INVALID_ARGUMENT naming how many legal positions there are, with the reason of the first that is none.
 */
export function balancedCut(
  cutter: Cutter,
  types: ValueTypes,
  stages: number,
  spans: readonly StateSpan[] = [],
): readonly number[] {
  const all = cutCandidates(cutter, types, spans);
  const legal = preferredCuts(all);
  if (legal.length < stages - 1) {
    const problem = all.find((candidate) => candidate.problem !== '')?.problem;
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `the model cannot be cut into ${stages} stages: ${stages - 1} positions are needed and ${legal.length} are legal${problem === undefined ? `; the graph has ${cutter.graph.nodes.length} nodes` : `; the first that is not: ${problem}`}`,
      { stages, legal: legal.length, nodes: cutter.graph.nodes.length },
    );
  }
  // Of a batch whose size is not known, one item counts.
  const sent = legal.map(({ position, values }) => ({
    position,
    boundaryBytes: values.reduce((sum, name) => sum + bytesOf(types.get(name)), 0),
  }));
  return chooseBalanced(estimatedWork(cutter.graph, types), sent, stages);
}

/** @param work By node. @param legal Ascending positions, at least `stages` - 1. */
export function chooseBalanced(
  work: readonly number[],
  legal: readonly Pick<CutCandidate, 'position' | 'boundaryBytes'>[],
  stages: number,
): readonly number[] {
  const before = [0];
  for (const one of work) before.push((before.at(-1) ?? 0) + one);
  // bounds[0] is the begin, the last one the end; a stage lies between two of them.
  const bounds = [0, ...legal.map(({ position }) => position), work.length];
  const bytes = [0, ...legal.map(({ boundaryBytes }) => boundaryBytes ?? 0), 0];
  const between = (from: number, to: number): number =>
    (before[bounds[to] as number] as number) - (before[bounds[from] as number] as number);
  const busiest = search(bounds.length, stages, (sofar, from, to) => Math.max(sofar, between(from, to)));
  const limit = busiest.cost * slack;
  const { path } = search(bounds.length, stages, (sofar, from, to) =>
    between(from, to) > limit ? Infinity : sofar + (bytes[to] as number),
  );
  return path.map((index) => bounds[index] as number);
}

/** The path of `steps` ascending steps from bound 0 to the last whose cost is least; the bounds between, in order. */
function search(
  bounds: number,
  steps: number,
  costOf: (sofar: number, from: number, to: number) => number,
): { readonly cost: number; readonly path: readonly number[] } {
  let costs = Array.from({ length: bounds }, (_, at) => (at === 0 ? 0 : Infinity));
  const froms: number[][] = [];
  for (let step = 0; step < steps; step += 1) {
    const next = new Array<number>(bounds).fill(Infinity);
    const from = new Array<number>(bounds).fill(0);
    for (let to = step + 1; to < bounds; to += 1) {
      for (let at = step; at < to; at += 1) {
        if (costs[at] === Infinity) continue;
        const cost = costOf(costs[at] as number, at, to);
        if (cost < (next[to] as number)) {
          next[to] = cost;
          from[to] = at;
        }
      }
    }
    costs = next;
    froms.push(from);
  }
  const path: number[] = [];
  let at = bounds - 1;
  for (let step = steps - 1; step > 0; step -= 1) {
    at = froms[step]?.[at] ?? 0;
    path.unshift(at);
  }
  return { cost: costs[bounds - 1] ?? Infinity, path };
}

function weightsOf(graph: SplitGraph, { view }: SplitNode): number {
  let count = 0;
  for (const name of view.inputs) {
    const tensor = graph.initializers.get(name);
    if (tensor === undefined || 'values' in tensor) continue;
    count += tensor.dims.reduce((product, size) => product * size, 1);
  }
  return count;
}

function isConvolution({ operator }: SplitNode): boolean {
  return /Conv(?:Transpose|Integer)?$/.test(operator);
}

/** Batch and places of [batch, channels, ...places]. */
function spatialOf(type: ValueType | undefined): number {
  const sizes = sizesOf(type);
  return sizes.reduce((product, size, axis) => (axis === 1 ? product : product * size), 1);
}

/** Everything but the last dimension. */
function rowsOf(type: ValueType | undefined): number {
  return sizesOf(type)
    .slice(0, -1)
    .reduce((product, size) => product * size, 1);
}

function bytesOf(type: ValueType | undefined): number {
  const datatype = type?.kind === 'tensor' ? datatypeOfOnnx.get(type.dataType) : undefined;
  return datatype === undefined ? 0 : elementsOf(type) * datatypeBytes(datatype);
}

function elementsOf(type: ValueType | undefined): number {
  return sizesOf(type).reduce((product, size) => product * size, 1);
}

function sizesOf(type: ValueType | undefined): readonly number[] {
  if (type?.kind !== 'tensor') return [];
  return (type.shape ?? []).map(({ size }) => (size > 0 ? size : 1));
}
