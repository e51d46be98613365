/**
 * How far each kind of variant may be from the exact model.
 *
 * Fewer bits make an error that grows with a tensor's largest values, not with each value: fp16 and int8 are judged by the
 * difference as a share of the largest magnitude of the output. A fixed shape and ONNX Runtime's own optimisation change no
 * numbers on purpose: they are judged as a split model is. Whole numbers, booleans and texts must be equal in all.
 */
import { numberReader, type Tolerance } from '../split/equivalence.js';
import type { Tensor } from '../tensor.js';

export type MadeKind = 'fp16' | 'int8' | 'fixed' | 'ort';

/** Largest error that passes unless another is asked for. */
export const variantTolerances: Readonly<Record<MadeKind, number>> = { fp16: 0.01, int8: 0.05, fixed: 1e-3, ort: 1e-3 };

/**
 * What passes for these expected outputs.
 * @param usual What a split model of this graph may differ by, with the optimiser on.
 */
export function toleranceFor(
  kind: MadeKind,
  limit: number,
  { expected, usual }: { readonly expected: readonly Tensor[]; readonly usual: Tolerance },
): Tolerance {
  if (kind === 'fixed' || kind === 'ort') return { relative: Math.max(limit, usual.relative), steps: usual.steps };
  const steps = new Map<string, number>();
  for (const tensor of expected) {
    const peak = peakOf(tensor);
    if (peak !== undefined) steps.set(tensor.name, limit * peak);
  }
  return { relative: 0, steps };
}

/** Largest difference of floats by the largest magnitude of their output; infinite where they cannot be compared. */
export function errorShareOf(actual: readonly Tensor[], expected: readonly Tensor[]): number {
  const byName = new Map(actual.map((tensor) => [tensor.name, tensor]));
  let worst = 0;
  for (const wanted of expected) {
    const read = numberReader(wanted.datatype);
    const got = byName.get(wanted.name);
    if (read?.isFloat !== true) continue;
    if (got?.datatype !== wanted.datatype || got.data.byteLength !== wanted.data.byteLength) return Infinity;
    const left = viewOf(got.data);
    const right = viewOf(wanted.data);
    let difference = 0;
    for (let at = 0; at + read.bytes <= wanted.data.byteLength; at += read.bytes) {
      const value = read.at(left, at);
      const want = read.at(right, at);
      if (Object.is(value, want)) continue;
      const apart = Number.isFinite(value) && Number.isFinite(want) ? Math.abs(value - want) : Infinity;
      if (apart > difference) difference = apart;
    }
    if (difference > 0) worst = Math.max(worst, difference / Math.max(peakOf(wanted) ?? 0, Number.MIN_VALUE));
  }
  return worst;
}

/** Largest finite magnitude of a tensor of floats; undefined for others. */
function peakOf({ datatype, data }: Tensor): number | undefined {
  const read = numberReader(datatype);
  if (read?.isFloat !== true) return undefined;
  const view = viewOf(data);
  let peak = 0;
  for (let at = 0; at + read.bytes <= data.byteLength; at += read.bytes) {
    const value = Math.abs(read.at(view, at));
    if (value > peak && value < Infinity) peak = value;
  }
  return peak;
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}
