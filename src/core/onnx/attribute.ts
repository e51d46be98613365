/**
 * Attributes of ONNX nodes: JavaScript has one kind of number where ONNX has two, so the kind is said.
 *
 * `{ axis: int(1), alpha: float(0.2), pads: ints([1, 1, 1, 1]), then_branch: graph(body) }`
 */
import type { Attribute, GraphDraft } from './draft.js';
import type { OnnxTensor } from './tensor-proto.js';

export function float(value: number): Attribute {
  return { kind: 'float', value };
}

export function int(value: number | bigint): Attribute {
  return { kind: 'int', value };
}

export function text(value: string | Uint8Array): Attribute {
  return { kind: 'string', value };
}

export function tensor(value: OnnxTensor): Attribute {
  return { kind: 'tensor', value };
}

export function graph(value: GraphDraft): Attribute {
  return { kind: 'graph', value };
}

export function floats(value: readonly number[]): Attribute {
  return { kind: 'floats', value };
}

export function ints(value: readonly (number | bigint)[]): Attribute {
  return { kind: 'ints', value };
}

export function texts(value: readonly (string | Uint8Array)[]): Attribute {
  return { kind: 'strings', value };
}
