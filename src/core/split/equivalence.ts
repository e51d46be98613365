/**
 * How near two answers of the same model are: the measure of the equivalence gate.
 *
 * Floats are compared by value. An element's relative error is its difference by the larger of its own magnitude and one
 * hundredth of the largest magnitude in its tensor, so that rounding beside zero does not count as a large error. Whole
 * numbers, booleans and texts are equal or wrong, but for quantised outputs, which may be some steps apart.
 */
import type { Datatype } from '../datatype.js';
import { formatShape, type Tensor } from '../tensor.js';

export interface Tolerance {
  /** Largest relative error of a float. 0: every bit counts. */
  readonly relative: number;
  /** Absolute difference that passes by output name: one quantisation step of a quantised output, in its own unit. */
  readonly steps: ReadonlyMap<string, number>;
}

export interface Comparison {
  /** Every byte of every output is the same. */
  readonly bitExact: boolean;
  /** Everything is within tolerance. */
  readonly close: boolean;
  readonly maxAbsoluteError: number;
  readonly maxRelativeError: number;
  /** The first thing out of tolerance; empty when all is within. */
  readonly problem: string;
}

/** Share of a tensor's largest magnitude below which elements are measured against it instead of themselves. */
const floorShare = 0.01;

/** Compares outputs by name; every expected one must be there. */
export function compareOutputs(
  actual: readonly Tensor[],
  expected: readonly Tensor[],
  tolerance: Tolerance,
): Comparison {
  const byName = new Map(actual.map((tensor) => [tensor.name, tensor]));
  return worstOf(expected.map((wanted) => compareTensor(byName.get(wanted.name), wanted, tolerance)));
}

/** The comparison of several runs in one. */
export function worstOf(comparisons: readonly Comparison[]): Comparison {
  let worst: Comparison = { bitExact: true, close: true, maxAbsoluteError: 0, maxRelativeError: 0, problem: '' };
  for (const next of comparisons) {
    worst = {
      bitExact: worst.bitExact && next.bitExact,
      close: worst.close && next.close,
      maxAbsoluteError: Math.max(worst.maxAbsoluteError, next.maxAbsoluteError),
      maxRelativeError: Math.max(worst.maxRelativeError, next.maxRelativeError),
      problem: worst.problem === '' ? next.problem : worst.problem,
    };
  }
  return worst;
}

function compareTensor(actual: Tensor | undefined, expected: Tensor, tolerance: Tolerance): Comparison {
  const { name } = expected;
  if (actual === undefined) return wrong(`output '${name}' is missing`);
  if (actual.datatype !== expected.datatype) {
    return wrong(`output '${name}' is ${actual.datatype}, the reference ${expected.datatype}`);
  }
  if (formatShape(actual.shape) !== formatShape(expected.shape)) {
    return wrong(
      `output '${name}' has shape ${formatShape(actual.shape)}, the reference ${formatShape(expected.shape)}`,
    );
  }
  if (haveSameBytes(actual.data, expected.data)) {
    return { bitExact: true, close: true, maxAbsoluteError: 0, maxRelativeError: 0, problem: '' };
  }
  const read = numberReader(expected.datatype);
  if (read === undefined) return wrong(`output '${name}' differs`);
  return compareNumbers(actual, expected, read, tolerance);
}

function compareNumbers(actual: Tensor, expected: Tensor, read: NumberReader, tolerance: Tolerance): Comparison {
  const { name } = expected;
  const got = viewOf(actual.data);
  const wanted = viewOf(expected.data);
  const count = Math.floor(wanted.byteLength / read.bytes);
  const peak = largestMagnitude(expected);
  const step = tolerance.steps.get(name) ?? 0;
  const relative = read.isFloat ? tolerance.relative : 0;
  let maxAbsoluteError = 0;
  let maxRelativeError = 0;
  let problem = '';
  for (let index = 0; index < count; index += 1) {
    const value = read.at(got, index * read.bytes);
    const want = read.at(wanted, index * read.bytes);
    if (Object.is(value, want)) continue;
    const difference = Number.isFinite(value) && Number.isFinite(want) ? Math.abs(value - want) : Infinity;
    const error = difference === 0 ? 0 : difference / Math.max(Math.abs(want), peak * floorShare, Number.MIN_VALUE);
    maxAbsoluteError = Math.max(maxAbsoluteError, difference);
    maxRelativeError = Math.max(maxRelativeError, error);
    // A step is one rounding apart; the rounding of the step itself is allowed on top.
    const isClose = (relative > 0 && error <= relative) || (step > 0 && difference <= step * 1.001);
    if (!isClose && problem === '') {
      problem = `output '${name}' at ${index} is ${value}, the reference ${want}`;
    }
  }
  const close = problem === '';
  return { bitExact: false, close, maxAbsoluteError, maxRelativeError, problem };
}

function wrong(problem: string): Comparison {
  return { bitExact: false, close: false, maxAbsoluteError: Infinity, maxRelativeError: Infinity, problem };
}

function haveSameBytes(left: Uint8Array, right: Uint8Array): boolean {
  if (left.byteLength !== right.byteLength) return false;
  for (let at = 0; at < left.byteLength; at += 1) if (left[at] !== right[at]) return false;
  return true;
}

/** The largest finite magnitude of a tensor; 0 for texts and booleans. */
export function largestMagnitude({ datatype, data }: Tensor): number {
  const read = numberReader(datatype);
  if (read === undefined) return 0;
  const view = viewOf(data);
  let peak = 0;
  for (let at = 0; at + read.bytes <= view.byteLength; at += read.bytes) {
    const value = Math.abs(read.at(view, at));
    if (value > peak && value < Infinity) peak = value;
  }
  return peak;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

interface NumberReader {
  readonly bytes: number;
  readonly isFloat: boolean;
  readonly at: (view: DataView, offset: number) => number;
}

/** How to read numbers of a type; undefined for booleans and texts. */
export function numberReader(datatype: Datatype): NumberReader | undefined {
  switch (datatype) {
    case 'FP64':
      return { bytes: 8, isFloat: true, at: (view, offset) => view.getFloat64(offset, true) };
    case 'FP32':
      return { bytes: 4, isFloat: true, at: (view, offset) => view.getFloat32(offset, true) };
    case 'FP16':
      return { bytes: 2, isFloat: true, at: (view, offset) => halfToNumber(view.getUint16(offset, true)) };
    case 'BF16':
      return { bytes: 2, isFloat: true, at: (view, offset) => brainToNumber(view.getUint16(offset, true)) };
    case 'INT64':
      return { bytes: 8, isFloat: false, at: (view, offset) => Number(view.getBigInt64(offset, true)) };
    case 'UINT64':
      return { bytes: 8, isFloat: false, at: (view, offset) => Number(view.getBigUint64(offset, true)) };
    case 'INT32':
      return { bytes: 4, isFloat: false, at: (view, offset) => view.getInt32(offset, true) };
    case 'UINT32':
      return { bytes: 4, isFloat: false, at: (view, offset) => view.getUint32(offset, true) };
    case 'INT16':
      return { bytes: 2, isFloat: false, at: (view, offset) => view.getInt16(offset, true) };
    case 'UINT16':
      return { bytes: 2, isFloat: false, at: (view, offset) => view.getUint16(offset, true) };
    case 'INT8':
      return { bytes: 1, isFloat: false, at: (view, offset) => view.getInt8(offset) };
    case 'UINT8':
      return { bytes: 1, isFloat: false, at: (view, offset) => view.getUint8(offset) };
    case 'BOOL':
    case 'BYTES':
      return undefined;
  }
}

/** An IEEE 754 half, by its definition. */
function halfToNumber(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function brainToNumber(bits: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, bits * 65_536);
  return view.getFloat32(0);
}
