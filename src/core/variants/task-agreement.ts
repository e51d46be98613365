/**
 * What a variant's errors mean for the task: how often the largest score is the same, and how the outputs point the same
 * way. Both look at floats only; scores are taken along the last dimension.
 */
import { numberReader } from '../split/equivalence.js';
import type { Tensor } from '../tensor.js';

export interface Agreement {
  /** Share of rows, of two scores or more, whose largest score is in the same place; 1 when there are no such rows. */
  readonly argMax: number;
  /** Cosine of the angle between outputs, the least over all; 1 when outputs are zero or there are no floats. */
  readonly cosine: number;
  readonly rows: number;
}

/** Compares outputs by name. Outputs of another type or size count as no agreement. */
export function agreementOf(actual: readonly Tensor[], expected: readonly Tensor[]): Agreement {
  const byName = new Map(actual.map((tensor) => [tensor.name, tensor]));
  let rows = 0;
  let same = 0;
  let cosine = 1;
  for (const wanted of expected) {
    const read = numberReader(wanted.datatype);
    if (read?.isFloat !== true) continue;
    const got = byName.get(wanted.name);
    const width = wanted.shape.at(-1) ?? 1;
    const values = numbers(wanted, read);
    const others = got?.datatype === wanted.datatype ? numbers(got, read) : [];
    if (others.length !== values.length) {
      cosine = 0;
      if (width > 1) rows += values.length / width;
      continue;
    }
    cosine = Math.min(cosine, cosineOf(values, others));
    if (width < 2) continue;
    for (let at = 0; at + width <= values.length; at += width) {
      rows += 1;
      if (largestAt(values, at, width) === largestAt(others, at, width)) same += 1;
    }
  }
  return { argMax: rows === 0 ? 1 : same / rows, cosine, rows };
}

/** Over several runs. */
export function agreementOfAll(parts: readonly Agreement[]): Agreement {
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const same = parts.reduce((sum, part) => sum + part.argMax * part.rows, 0);
  return { argMax: rows === 0 ? 1 : same / rows, cosine: Math.min(1, ...parts.map((part) => part.cosine)), rows };
}

function numbers({ data }: Tensor, read: NonNullable<ReturnType<typeof numberReader>>): readonly number[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: Math.floor(data.byteLength / read.bytes) }, (_, index) =>
    read.at(view, index * read.bytes),
  );
}

function cosineOf(one: readonly number[], other: readonly number[]): number {
  let product = 0;
  let square = 0;
  let otherSquare = 0;
  for (let index = 0; index < one.length; index += 1) {
    const left = one[index] as number;
    const right = other[index] as number;
    product += left * right;
    square += left * left;
    otherSquare += right * right;
  }
  if (square === 0 && otherSquare === 0) return 1;
  const cosine = product / Math.sqrt(square * otherSquare);
  return Number.isFinite(cosine) ? Math.max(-1, Math.min(1, cosine)) : 0;
}

function largestAt(values: readonly number[], start: number, width: number): number {
  let best = start;
  for (let at = start + 1; at < start + width; at += 1)
    if ((values[at] as number) > (values[best] as number)) best = at;
  return best - start;
}
