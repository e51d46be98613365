/**
 * Nodes that are cheaper to repeat than their values are to send, and nodes whose answers no second run repeats.
 *
 * - `constant`: hangs on initializers alone, through light operators: repeated in every shard that uses it;
 * - `shape`: arithmetic on the sizes of tensors: repeated where those tensors are present anyway;
 * - `dequantize`: makes floats of small integers by constant scales: the integers are sent, a quarter of the bytes, and
 *   the operators around it stay together for the engine's fusions;
 * - `work`: everything else.
 */
import type { NodeView } from '../onnx/model-view.js';
import { functionKey, nodesInside, operatorName, type SplitGraph, type SplitNode } from './graph.js';

export type NodeKind = 'constant' | 'shape' | 'dequantize' | 'work';

const lightOperators: ReadonlySet<string> = new Set(
  `Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape DequantizeLinear Div Equal Expand Flatten Floor
   Gather Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pad Pow QuantizeLinear Range
   ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round Sign Slice Split Sqrt Squeeze Sub Tile Transpose Unsqueeze
   Where`.split(/\s+/),
);
const sizeOperators: ReadonlySet<string> = new Set(['Shape', 'Size']);
const dequantizeOperators: ReadonlySet<string> = new Set(['DequantizeLinear', 'com.microsoft::DequantizeLinear']);
/** Operators of a repeated chain, itself included, above which it counts as work. */
const chainMax = 64;

/** The kind of each node, by index. */
export function nodeKinds(graph: SplitGraph): readonly NodeKind[] {
  const { producers, initializers } = graph;
  const kinds: NodeKind[] = [];
  const chains: number[] = [];
  for (const node of graph.nodes) {
    let chain = 1;
    let isConstant = true;
    let isSizes = true;
    for (const name of node.uses) {
      const producer = producers.get(name);
      const kind = producer === undefined ? (initializers.has(name) ? 'constant' : 'work') : kinds[producer];
      if (kind !== 'constant') isConstant = false;
      if (kind !== 'constant' && kind !== 'shape') isSizes = false;
      if (producer !== undefined && (kind === 'constant' || kind === 'shape')) chain += chains[producer] ?? 0;
    }
    chains.push(chain);
    kinds.push(kindOf(graph, node, kinds, { isLight: chain <= chainMax, isConstant, isSizes }));
  }
  return kinds;
}

function kindOf(
  { producers, initializers }: SplitGraph,
  { operator, view }: SplitNode,
  kinds: readonly NodeKind[],
  {
    isLight,
    isConstant,
    isSizes,
  }: { readonly isLight: boolean; readonly isConstant: boolean; readonly isSizes: boolean },
): NodeKind {
  if (view.attributes.some(({ graphs }) => graphs.length > 0) || !isLight) return 'work';
  if (lightOperators.has(operator) && isConstant) return 'constant';
  if (sizeOperators.has(operator) || (lightOperators.has(operator) && isSizes)) return 'shape';
  if (!dequantizeOperators.has(operator)) return 'work';
  const hasConstantScales = view.inputs.slice(1).every((name) => {
    const producer = producers.get(name);
    return name === '' || (producer === undefined ? initializers.has(name) : kinds[producer] === 'constant');
  });
  return hasConstantScales ? 'dequantize' : 'work';
}

const randomOperators: ReadonlySet<string> = new Set([
  'RandomNormal',
  'RandomNormalLike',
  'RandomUniform',
  'RandomUniformLike',
  'Multinomial',
  'Bernoulli',
]);

/** Operators of the model that draw random numbers, sorted; subgraphs and called functions included. */
export function drawingOperators(graph: SplitGraph): readonly string[] {
  const found = new Set<string>();
  const called = new Set<string>();
  const visit = (node: NodeView): void => {
    if (draws(node)) found.add(operatorName(node));
    const key = functionKey({ domain: node.domain, name: node.opType, overload: node.overload });
    const body = graph.functions.get(key);
    if (body === undefined || called.has(key)) return;
    called.add(key);
    for (const inner of body.nodes) visitAll(inner);
  };
  const visitAll = (node: NodeView): void => {
    visit(node);
    for (const inner of nodesInside(node)) visit(inner);
  };
  for (const { view } of graph.nodes) visitAll(view);
  return [...found].sort();
}

/** Dropout draws only in training, which its third input asks for. */
function draws(node: NodeView): boolean {
  const operator = operatorName(node);
  return randomOperators.has(operator) || (operator === 'Dropout' && (node.inputs[2] ?? '') !== '');
}
