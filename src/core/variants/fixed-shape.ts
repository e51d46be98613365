/**
 * A model for inputs of one size: dimensions that vary get a number, in the inputs and, where a dimension has a name,
 * wherever that name stands. Engines then plan memory and choose kernels once. Nothing else changes.
 */
import { intarsiaError } from '../errors.js';
import type { Dimension, ModelView, ValueView } from '../onnx/model-view.js';
import { quote } from '../split/graph.js';
import { formatShape } from '../tensor.js';
import { WireReader, WireWriter } from '../wire.js';
import { GraphEdit, type EncodedVariant, type SideFiles } from './graph-edit.js';

export interface FixedShapeOptions {
  /** For the first dimension of inputs, where it varies. */
  readonly batch?: number;
  /** All sizes of an input, by name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly sideFiles: SideFiles;
}

export interface FixedShapeVariant extends EncodedVariant {
  /** What was put in the place of what: `batch = 8`, `x[2] = 224`. */
  readonly fixed: readonly string[];
  readonly inputs: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

/**
 * @throws FAILED_PRECONDITION (nothing varies), INVALID_ARGUMENT (sizes that are missing, contradict each other, or do not
 * fit the model).
 */
export function fixedShapeVariant(model: ModelView, options: FixedShapeOptions): FixedShapeVariant {
  const { graph } = model;
  const weights = new Set([...graph.initializers, ...graph.sparseInitializers].map(({ name }) => name));
  const inputs = graph.inputs.filter(({ name }) => !weights.has(name));
  for (const name of options.shapes.keys()) {
    if (inputs.some((input) => input.name === name)) continue;
    const known = inputs.map((input) => quote(input.name)).join(', ');
    throw wrong(`a shape is given for ${quote(name)}; the model's inputs are ${known}`);
  }
  const symbols = new Map<string, number>();
  const sizes = inputs.map((input) => sizesOf(input, options, symbols));
  const fixed: string[] = [...symbols].map(([symbol, size]) => `${symbol} = ${size}`);
  const open: string[] = [];
  const shapes = inputs.map(({ name, type }, index) => ({
    name,
    shape: dimensionsOf(name, type).map(({ size, symbol }, axis) => {
      const chosen = size >= 0 ? size : (symbols.get(symbol) ?? sizes[index]?.get(axis));
      if (chosen === undefined) open.push(`${name}[${axis}]${symbol === '' ? '' : ` (${symbol})`}`);
      else if (size < 0 && symbol === '') fixed.push(`${name}[${axis}] = ${chosen}`);
      return chosen ?? -1;
    }),
  }));
  if (fixed.length === 0 && open.length === 0) {
    throw intarsiaError('FAILED_PRECONDITION', 'nothing to fix: every size of every input is fixed in the model');
  }
  if (open.length > 0) {
    throw wrong(`sizes are missing for ${open.join(', ')}: give a batch or the input's whole shape`);
  }
  const edit = new GraphEdit(model, options.sideFiles);
  const bySymbol = ({ symbol }: Dimension): number | undefined => symbols.get(symbol);
  for (const [index, input] of inputs.entries()) {
    edit.replace(
      input,
      valueWithSizes(model, input, (dimension, axis) => bySymbol(dimension) ?? sizes[index]?.get(axis)),
    );
  }
  for (const value of [...graph.outputs, ...graph.values]) {
    if (value.type === undefined || !('shape' in value.type)) continue;
    const { shape = [] } = value.type;
    if (shape.some((dimension) => bySymbol(dimension) !== undefined)) {
      edit.replace(value, valueWithSizes(model, value, bySymbol));
    }
  }
  return { ...edit.encode(), fixed, inputs: shapes };
}

function dimensionsOf(name: string, type: ValueView['type']): readonly Dimension[] {
  if (type === undefined || !('shape' in type) || type.shape === undefined) {
    throw wrong(`input ${quote(name)} has no known rank, so that its sizes cannot be fixed`);
  }
  return type.shape;
}

/** Sizes by dimension for those that vary; dimensions with a name go to `symbols`. */
function sizesOf(
  { name, type }: ValueView,
  { batch, shapes }: FixedShapeOptions,
  symbols: Map<string, number>,
): ReadonlyMap<number, number> {
  const dimensions = dimensionsOf(name, type);
  const given = shapes.get(name);
  if (given !== undefined && given.length !== dimensions.length) {
    throw wrong(`input ${quote(name)} has ${dimensions.length} dimensions; the shape ${formatShape(given)} is given`);
  }
  const sizes = new Map<number, number>();
  for (const [axis, { size, symbol }] of dimensions.entries()) {
    const wanted = given?.[axis] ?? (axis === 0 && size < 0 ? batch : undefined);
    if (wanted === undefined) continue;
    if (!Number.isSafeInteger(wanted) || wanted < 1) throw wrong(`size ${wanted} of input ${quote(name)} is none`);
    if (size >= 0) {
      if (size !== wanted)
        throw wrong(`dimension ${axis} of input ${quote(name)} is ${size} in the model, not ${wanted}`);
      continue;
    }
    if (symbol === '') {
      sizes.set(axis, wanted);
      continue;
    }
    const other = symbols.get(symbol);
    if (other !== undefined && other !== wanted) {
      throw wrong(`dimension ${quote(symbol)} would be ${other} in one place and ${wanted} in input ${quote(name)}`);
    }
    symbols.set(symbol, wanted);
  }
  return sizes;
}

const valueType = 2;
const tensorType = 1;
const tensorShape = 2;
const shapeDimension = 1;
const dimensionField = { value: 1, symbol: 2 } as const;

/** A ValueInfoProto in which some dimensions have a size. Everything else is copied. */
function valueWithSizes(
  model: ModelView,
  view: ValueView,
  sizeOf: (dimension: Dimension, axis: number) => number | undefined,
): WireWriter {
  const dimensions = view.type !== undefined && 'shape' in view.type ? (view.type.shape ?? []) : [];
  const reader = new WireReader(model.bytes, view.bodyStart, view.end);
  return within(reader, valueType, (type) =>
    within(type, tensorType, (tensor) =>
      within(tensor, tensorShape, (shape) => {
        let axis = -1;
        return within(shape, shapeDimension, (dimension) => {
          axis += 1;
          const declared = dimensions[axis];
          const size = declared === undefined || declared.size >= 0 ? undefined : sizeOf(declared, axis);
          return dimensionOf(dimension, size);
        });
      }),
    ),
  );
}

/** Copies a message; those of one field go through `change`. */
function within(reader: WireReader, field: number, change: (inner: WireReader) => WireWriter): WireWriter {
  const writer = new WireWriter();
  while (reader.next()) {
    const { fieldStart } = reader;
    if (reader.field === field) writer.embed(field, change(reader.message()));
    else {
      reader.skip();
      writer.raw(reader.source.subarray(fieldStart, reader.position));
    }
  }
  return writer;
}

function dimensionOf(reader: WireReader, size: number | undefined): WireWriter {
  const writer = new WireWriter();
  if (size !== undefined) writer.int64(dimensionField.value, size);
  while (reader.next()) {
    const { field, fieldStart } = reader;
    reader.skip();
    if (size !== undefined && (field === dimensionField.value || field === dimensionField.symbol)) continue;
    writer.raw(reader.source.subarray(fieldStart, reader.position));
  }
  return writer;
}

function wrong(problem: string): Error {
  return intarsiaError('INVALID_ARGUMENT', problem);
}
