/** Small ONNX models written field by field, so that tests can also write what no builder would. */
import { WireWriter } from '#core/wire.js';

export type Write = (writer: WireWriter) => void;

/** Dimension sizes; a text is a symbol, undefined says nothing. */
export type Dims = readonly (number | string | undefined)[];

export function value(name: string, type: Write | undefined): Write {
  return (writer) => {
    writer.string(1, name);
    if (type !== undefined) writer.message(2, type);
  };
}

export function tensorType(dataType: number, dims?: Dims): Write {
  return (writer) =>
    writer.message(1, (tensor) => {
      if (dataType !== 0) tensor.uint(1, dataType);
      if (dims === undefined) return;
      tensor.message(2, (shape) => {
        for (const size of dims) {
          shape.message(1, (dimension) => {
            if (typeof size === 'number') dimension.int64(1, size);
            else if (size !== undefined) dimension.string(2, size);
          });
        }
      });
    });
}

export function tensor(name: string, dataType: number, dims: readonly number[], rest?: Write): Write {
  return (writer) => {
    for (const size of dims) writer.int64(1, size);
    writer.uint(2, dataType).string(8, name);
    rest?.(writer);
  };
}

export function externalData(pairs: Readonly<Record<string, string>>): Write {
  return (writer) => {
    for (const [key, text] of Object.entries(pairs)) writer.message(13, (pair) => pair.string(1, key).string(2, text));
    writer.uint(14, 1);
  };
}

export function node(opType: string, inputs: readonly string[], outputs: readonly string[], rest?: Write): Write {
  return (writer) => {
    for (const name of inputs) writer.string(1, name);
    for (const name of outputs) writer.string(2, name);
    writer.string(4, opType);
    rest?.(writer);
  };
}

export interface GraphParts {
  readonly nodes?: readonly Write[];
  readonly initializers?: readonly Write[];
  readonly inputs?: readonly Write[];
  readonly outputs?: readonly Write[];
  readonly rest?: Write;
}

export function graph(parts: GraphParts): Write {
  return (writer) => {
    for (const write of parts.nodes ?? []) writer.message(1, write);
    writer.string(2, 'graph');
    for (const write of parts.initializers ?? []) writer.message(5, write);
    for (const write of parts.inputs ?? []) writer.message(11, write);
    for (const write of parts.outputs ?? []) writer.message(12, write);
    parts.rest?.(writer);
  };
}

export interface ModelParts extends GraphParts {
  readonly irVersion?: number;
  readonly modelRest?: Write;
}

export function modelBytes(parts: ModelParts): Uint8Array<ArrayBuffer> {
  const writer = new WireWriter();
  writer.uint(1, parts.irVersion ?? 8);
  writer.message(7, graph(parts));
  writer.message(8, (opset) => opset.string(1, '').uint(2, 17));
  parts.modelRest?.(writer);
  return writer.finish();
}

/** `y = Identity(x)` with the given types. */
export function identityModel(input: Write, output: Write): Uint8Array<ArrayBuffer> {
  return modelBytes({
    nodes: [node('Identity', ['x'], ['y'])],
    inputs: [value('x', input)],
    outputs: [value('y', output)],
  });
}
