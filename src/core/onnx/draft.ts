/**
 * A model to be written, as plain data: what `encodeModel` (writer.ts) turns into an ONNX file.
 *
 * Usually made by a GraphBuilder (builder.ts). Only what the project writes: dense tensors, no functions, no training.
 */
import type { OnnxTensor } from './tensor-proto.js';

/** A size, the name of one that varies (`batch`), or undefined where nothing is known. */
export type DimensionDraft = number | string | undefined;

export interface ValueDraft {
  readonly name: string;
  /** Number of TensorProto.DataType. */
  readonly dataType: number;
  /** Absent: even the rank is unknown. `[]` is a scalar. */
  readonly shape?: readonly DimensionDraft[];
}

/** An attribute of a node; attribute.ts makes them. */
export type Attribute =
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'int'; readonly value: number | bigint }
  | { readonly kind: 'string'; readonly value: string | Uint8Array }
  | { readonly kind: 'tensor'; readonly value: OnnxTensor }
  | { readonly kind: 'graph'; readonly value: GraphDraft }
  | { readonly kind: 'floats'; readonly value: readonly number[] }
  | { readonly kind: 'ints'; readonly value: readonly (number | bigint)[] }
  | { readonly kind: 'strings'; readonly value: readonly (string | Uint8Array)[] };

export interface NodeDraft {
  readonly opType: string;
  /** Empty for ONNX's own operators. */
  readonly domain?: string;
  readonly name?: string;
  /** The empty string leaves an optional one out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

export interface GraphDraft {
  readonly name: string;
  /** In topological order. */
  readonly nodes: readonly NodeDraft[];
  readonly inputs: readonly ValueDraft[];
  readonly outputs: readonly ValueDraft[];
  readonly initializers: readonly OnnxTensor[];
}

export interface ModelDraft {
  readonly graph: GraphDraft;
  /** Version of ONNX's operators; further domains in `domains`. */
  readonly opset: number;
  readonly domains?: Readonly<Record<string, number>>;
  /** Default: the oldest that knows the opset, so that old readers can read the file. */
  readonly irVersion?: number;
  readonly producer?: { readonly name: string; readonly version: string };
  readonly documentation?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}
