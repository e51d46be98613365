/** Which shards of a model are worth measuring: pieces of about even work, and everything before each cut. */
import type { NodeWork } from '../split/node-work.js';
import { onnxDataType } from '../onnx/data-type.js';
import type { SplitGraph } from '../split/graph.js';

export interface Piece {
  readonly from: number;
  readonly to: number;
}

/** So many legal cuts, each the one nearest to an even share of the work; fewer where there are fewer. */
export function evenCuts(legal: readonly number[], work: readonly NodeWork[], count: number): readonly number[] {
  const sums = [0];
  // A node counts for something even where no size is known.
  for (const { flops, activationBytes } of work) sums.push((sums.at(-1) as number) + flops + 4 * activationBytes + 1);
  const total = sums.at(-1) as number;
  const chosen = new Set<number>();
  for (let cut = 1; cut <= count; cut += 1) {
    const wanted = (total * cut) / (count + 1);
    let best: number | undefined;
    for (const position of legal) {
      if (chosen.has(position)) continue;
      const distance = Math.abs((sums[position] as number) - wanted);
      if (best === undefined || distance < Math.abs((sums[best] as number) - wanted)) best = position;
    }
    if (best !== undefined) chosen.add(best);
  }
  return [...chosen].sort((a, b) => a - b);
}

/** Shards between neighbouring cuts. */
export function piecesBetween(cuts: readonly number[], nodes: number): readonly Piece[] {
  const bounds = [0, ...cuts, nodes];
  return bounds.slice(1).map((to, index) => ({ from: bounds[index] as number, to }));
}

/**
 * Times of nodes from times of shards that begin at the first one: what each adds, spread over its nodes evenly. Negative
 * differences, which are noise, count as nothing.
 */
export function nodeTimesOfPrefixes(
  prefixes: readonly { readonly to: number; readonly ms: number }[],
): readonly number[] {
  const sorted = [...prefixes].sort((a, b) => a.to - b.to);
  const nodeMs: number[] = [];
  let before = 0;
  let known = 0;
  for (const { to, ms } of sorted) {
    const added = Math.max(0, ms - known);
    for (let at = before; at < to; at += 1) nodeMs.push(added / (to - before));
    before = to;
    known = Math.max(known, ms);
  }
  return nodeMs;
}

const precisionNames: ReadonlyMap<number, string> = new Map([
  [onnxDataType.FLOAT, 'fp32'],
  [onnxDataType.DOUBLE, 'fp64'],
  [onnxDataType.FLOAT16, 'fp16'],
  [onnxDataType.BFLOAT16, 'bf16'],
  [onnxDataType.INT8, 'int8'],
  [onnxDataType.UINT8, 'int8'],
]);

/** The type of most bytes of a model's weights; of its first input where it has none. */
export function precisionOf(graph: SplitGraph): string {
  const bytes = new Map<string, number>();
  for (const tensor of graph.initializers.values()) {
    const { dataType, dataBytes } = 'values' in tensor ? tensor.values : tensor;
    const name = precisionNames.get(dataType);
    if (name !== undefined) bytes.set(name, (bytes.get(name) ?? 0) + dataBytes);
  }
  const [most] = [...bytes].sort((a, b) => b[1] - a[1]);
  if (most !== undefined) return most[0];
  const type = graph.inputs[0]?.type;
  return (type?.kind === 'tensor' ? precisionNames.get(type.dataType) : undefined) ?? 'fp32';
}
