import { describe, expect, it } from 'vitest';
import type { Tensor } from '#core/tensor.js';
import { agreementOf } from '#core/variants/task-agreement.js';
import { parseVariantRecord } from '#core/variants/variant-record.js';
import { errorShareOf } from '#core/variants/variant-tolerance.js';

const row = {
  provider: 'cpu',
  engine: 'onnxruntime-node 1.30.0',
  verdict: 'equal',
  reason: '',
  maxAbsoluteError: 0.001,
  maxRelativeError: 0.01,
  errorShare: 0.002,
  argMaxAgreement: 1,
  cosine: 0.9999,
  runMs: 1,
  exactRunMs: 2,
};
const record = {
  kind: 'fp16',
  digest: 'a'.repeat(64),
  bytes: 100,
  madeFrom: { digest: 'b'.repeat(64), bytes: 200 },
  tolerance: 0.01,
  vectors: ['test_data_set_0'],
  rows: [row],
  notes: [],
};
const foreign = {
  ...record,
  kind: 'foreign',
  digest: '',
  rows: [{ ...row, provider: 'remote', engine: 'TensorRT 10.3' }],
  remote: { device: 'triton:0', format: 'TensorRT plan', model: 'resnet50_trt', version: '1' },
};
const parse = (value: unknown): unknown => parseVariantRecord(JSON.stringify(value), 'variant.json');

describe('the record of a variant', () => {
  it('reads what was written, a foreign artefact bound to a remote device included', () => {
    expect(parse(record)).toEqual(record);
    expect(parse(foreign)).toEqual(foreign);
  });

  it('is refused with the field, what it must be and what it is', () => {
    const refusals: readonly (readonly [unknown, RegExp])[] = [
      [[], /variant.json is \[\]; it must be an object/],
      [{ ...record, kind: 'tiny' }, /kind is "tiny"; it must be one of fp16, int8, fixed, ort, foreign/],
      [{ ...record, digest: 'abc' }, /digest is "abc"; it must be a SHA-256/],
      [{ ...record, rows: [] }, /rows is empty: a variant needs an accuracy row/],
      [{ ...record, rows: [{ ...row, cosine: 2 }] }, /rows\[0\]: cosine is 2; it must be a number from -1 to 1/],
      [{ ...record, rows: [{ ...row, maxAbsoluteError: null }] }, /maxAbsoluteError is null; it must be a number/],
      [{ ...record, kind: 'ort' }, /boundTo is missing; it must be an object/],
      [{ ...record, kind: 'fixed', shapes: { x: [0] } }, /shapes.x: a size is 0; it must be a whole number above 0/],
      [{ ...foreign, remote: { ...foreign.remote, device: '' } }, /device is ""; it must be a text that is not empty/],
      [{ ...foreign, rows: [row] }, /runs on a remote device; its rows must have the provider remote/],
    ];
    for (const [value, message] of refusals) expect(() => parse(value)).toThrow(message);
    expect(() => parseVariantRecord('{', 'variant.json')).toThrow(/variant.json is no JSON/);
  });
});

describe('what errors mean for the task', () => {
  const scores = (values: readonly number[]): Tensor => {
    const data = new Uint8Array(Float32Array.from(values).buffer);
    return { name: 'y', datatype: 'FP32', shape: [values.length / 2, 2], data };
  };

  it('counts rows whose largest score moved, and the angle between outputs', () => {
    const wanted = [scores([1, 2, 4, 3])];
    expect(agreementOf([scores([1, 2, 4, 3])], wanted)).toEqual({ argMax: 1, cosine: 1, rows: 2 });
    const moved = agreementOf([scores([2, 1, 4, 3])], wanted);
    expect(moved.argMax).toBe(0.5);
    expect(moved.cosine).toBeCloseTo(29 / 30, 12);
    expect(agreementOf([], wanted)).toEqual({ argMax: 0, cosine: 0, rows: 2 });
  });

  it('measures the largest difference by the largest magnitude', () => {
    expect(errorShareOf([scores([1, 2, 4, 3.5])], [scores([1, 2, 4, 3])])).toBe(0.125);
    expect(errorShareOf([scores([1, 2, Number.NaN, 3])], [scores([1, 2, 4, 3])])).toBe(Infinity);
  });
});
