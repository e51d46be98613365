/**
 * What the reader says about an ONNX model: names, types, and where each piece lies in the file.
 *
 * Nothing is copied and no weight is decoded. Every piece keeps its byte range, so that whoever cuts a model writes the
 * original bytes again and holds no weight twice. Ranges are plain offsets: nothing here assumes one 2 GiB buffer.
 */
import type { ExternalData } from './tensor-proto.js';

/** Where a message lies in the file. */
export interface Encoded {
  /** Offset of the tag that introduces it in its parent; `bodyStart` for the model itself. */
  readonly start: number;
  /** Offset of its first field, after tag and length. */
  readonly bodyStart: number;
  /** Offset behind its last byte. */
  readonly end: number;
}

/** One dimension as declared. `size` is -1 when it may vary; `symbol` is its name, empty when it has none. */
export interface Dimension {
  readonly size: number;
  readonly symbol: string;
}

export type ValueType =
  | {
      readonly kind: 'tensor' | 'sparse-tensor';
      /** Number of TensorProto.DataType; 0 when the file does not say. */
      readonly dataType: number;
      /** Undefined: the rank is unknown. Empty: a scalar. */
      readonly shape: readonly Dimension[] | undefined;
    }
  | { readonly kind: 'sequence' | 'map' | 'optional' | 'opaque' };

/** A ValueInfoProto: a graph's input or output, or what is said about a value between nodes. */
export interface ValueView extends Encoded {
  readonly name: string;
  /** Undefined: the file does not say. */
  readonly type: ValueType | undefined;
}

/** A TensorProto without its data. */
export interface TensorView extends Encoded {
  readonly name: string;
  /** Number of TensorProto.DataType. */
  readonly dataType: number;
  readonly dims: readonly number[];
  /** Bytes of the elements, in the file or outside of it, by type and shape; for strings the bytes of the texts. */
  readonly dataBytes: number;
  /** Where the data lies when it is in another file. */
  readonly external: ExternalData | undefined;
}

export interface SparseTensorView extends Encoded {
  /** The name of its values: how the graph calls it. */
  readonly name: string;
  readonly values: TensorView;
  readonly indices: TensorView;
}

export interface AttributeView extends Encoded {
  readonly name: string;
  /** Number of AttributeProto.AttributeType; 0 when the file does not say. */
  readonly type: number;
  /** The attribute of the enclosing function that this one repeats; empty otherwise. */
  readonly refName: string;
  readonly tensors: readonly TensorView[];
  readonly sparseTensors: readonly SparseTensorView[];
  /** Subgraphs: bodies of If, Loop, Scan. They see every name of the graphs around them. */
  readonly graphs: readonly GraphView[];
}

export interface NodeView extends Encoded {
  /** Empty names stand for optional inputs left out: positions count. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly name: string;
  readonly opType: string;
  /** Empty: ONNX's own operators. */
  readonly domain: string;
  readonly overload: string;
  readonly attributes: readonly AttributeView[];
}

export interface GraphView extends Encoded {
  readonly name: string;
  /** In file order, which need not be topological. */
  readonly nodes: readonly NodeView[];
  readonly initializers: readonly TensorView[];
  readonly sparseInitializers: readonly SparseTensorView[];
  readonly inputs: readonly ValueView[];
  readonly outputs: readonly ValueView[];
  readonly values: readonly ValueView[];
}

export interface OpsetView extends Encoded {
  readonly domain: string;
  readonly version: number;
}

/** A model-local function; its identity is domain, name and overload. */
export interface FunctionView extends Encoded {
  readonly name: string;
  readonly domain: string;
  readonly overload: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly nodes: readonly NodeView[];
  readonly opsets: readonly OpsetView[];
}

export interface ModelView extends Encoded {
  readonly bytes: Uint8Array;
  readonly irVersion: number;
  readonly producerName: string;
  readonly producerVersion: string;
  readonly graph: GraphView;
  readonly opsets: readonly OpsetView[];
  readonly functions: readonly FunctionView[];
}
