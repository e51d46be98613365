/**
 * How near a split model must come to the whole one.
 *
 * Without optimisation and on the reference's own engine every bit must be the same: cutting changes no arithmetic. Three
 * things do: half floats, which the CPU computes in single precision inside a shard and rounds where they leave it; the
 * optimiser, which fuses other neighbours; and another engine. A quantised model may then round one step further.
 */
import { onnxDataType } from '../onnx/data-type.js';
import { readTensorProto } from '../onnx/tensor-proto.js';
import type { ValueTypes } from './boundary-type.js';
import type { Tolerance } from './equivalence.js';
import type { SplitGraph, SplitNode } from './graph.js';
import type { SplitCompression } from './split-spec.js';

const relativeFloat = 1e-3;
const relativeHalf = 1e-2;

/** Nodes looked at behind one output for the scale it was quantised by. */
const lookBackMax = 64;

export interface ToleranceQuestion {
  /** Whether shards run without the engine's optimiser. */
  readonly isUnoptimized: boolean;
  /** Whether shards run on the engine that the reference runs on. */
  readonly isReferenceEngine: boolean;
}

export function toleranceOf(graph: SplitGraph, types: ValueTypes, question: ToleranceQuestion): Tolerance {
  const isExact = question.isUnoptimized && question.isReferenceEngine;
  if (hasHalves(graph, types)) return { relative: relativeHalf, steps: new Map() };
  return { relative: isExact ? 0 : relativeFloat, steps: isExact ? new Map() : quantizationSteps(graph) };
}

/** What compressing activations between stages allows on top: fp16 keeps 11 bits of each value, int8 of its tensor's range 8. */
const relativeCompressed = { none: 0, fp16: 1e-2, int8: 5e-2 } as const;

export function compressedTolerance({ relative, steps }: Tolerance, compression: SplitCompression): Tolerance {
  return { relative: Math.max(relative, relativeCompressed[compression]), steps };
}

function hasHalves(graph: SplitGraph, types: ValueTypes): boolean {
  const isHalf = (name: string): boolean => {
    const type = types.get(name);
    return (
      type?.kind === 'tensor' && (type.dataType === onnxDataType.FLOAT16 || type.dataType === onnxDataType.BFLOAT16)
    );
  };
  return (
    [...graph.inputs, ...graph.outputs].some(({ name }) => isHalf(name)) ||
    graph.nodes.some(({ defines }) => defines.some(isHalf))
  );
}

/** One quantisation step of each output that comes from quantised values, in the output's unit. */
export function quantizationSteps(graph: SplitGraph): ReadonlyMap<string, number> {
  const steps = new Map<string, number>();
  const isQuantized = graph.nodes.some(({ operator }) => /Quantize|QLinear|Integer$/.test(operator));
  if (!isQuantized) return steps;
  for (const { name, type } of graph.outputs) {
    const isInteger =
      type?.kind === 'tensor' && type.dataType !== onnxDataType.FLOAT && type.dataType !== onnxDataType.DOUBLE;
    const step = isInteger ? 1 : scaleBehind(graph, name);
    if (step > 0) steps.set(name, step);
  }
  return steps;
}

/**
 * The largest scale among the nearest DequantizeLinear nodes behind a value, with the scale behind those where only
 * operators that never enlarge a difference lie between: one step of the scores before a Softmax moves its result by
 * several of the finer steps that the result is rounded to. 0 when there is none.
 */
function scaleBehind(graph: SplitGraph, output: string): number {
  const seen = new Set<number>();
  const queue = [output];
  let largest = 0;
  for (let name = queue.shift(); name !== undefined && seen.size < lookBackMax; name = queue.shift()) {
    const producer = graph.producers.get(name);
    const node = graph.nodes[producer ?? -1];
    if (producer === undefined || node === undefined || seen.has(producer)) continue;
    seen.add(producer);
    if (!node.operator.endsWith('DequantizeLinear')) queue.push(...node.uses);
    else largest = Math.max(largest, scaleOf(graph, node.view.inputs[1] ?? '') + scaleBefore(graph, node));
  }
  return largest;
}

const contractions: ReadonlySet<string> = new Set(
  'Clip Flatten Identity MaxPool QuantizeLinear Relu Reshape Sigmoid Softmax Squeeze Tanh Transpose Unsqueeze'.split(
    ' ',
  ),
);

/** The scale of the DequantizeLinear from which contractions lead to this one; 0 when none does. */
function scaleBefore(graph: SplitGraph, node: SplitNode): number {
  let name = node.view.inputs[0] ?? '';
  for (let steps = 0; steps < lookBackMax; steps += 1) {
    const before = graph.nodes[graph.producers.get(name) ?? -1];
    if (before === undefined) return 0;
    if (before.operator.endsWith('DequantizeLinear')) return scaleOf(graph, before.view.inputs[1] ?? '');
    if (!contractions.has(before.operator)) return 0;
    name = before.view.inputs[0] ?? '';
  }
  return 0;
}

function scaleOf(graph: SplitGraph, name: string): number {
  const producer = graph.nodes[graph.producers.get(name) ?? -1];
  const tensor = graph.initializers.get(name) ?? producer?.view.attributes[0]?.tensors[0];
  if (tensor === undefined || 'values' in tensor || tensor.external !== undefined) return 0;
  if (tensor.dataType !== onnxDataType.FLOAT) return 0;
  const { data } = readTensorProto(graph.model.bytes.subarray(tensor.bodyStart, tensor.end));
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let largest = 0;
  for (let at = 0; at + 4 <= data.byteLength; at += 4) largest = Math.max(largest, Math.abs(view.getFloat32(at, true)));
  return largest;
}
