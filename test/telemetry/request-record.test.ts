import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deviceId, modelName, modelVersion, tenantId } from '#core/ids.js';
import { intarsiaError } from '#core/errors.js';
import { makeReceipt } from '#core/receipt.js';
import { makeRequestRecord } from '#core/request-record.js';
import { RequestRecordRing } from '#core/request-record-ring.js';
import type { Billing } from '#core/billing.js';
import type { InferenceOutcome, InferenceRequest } from '#core/inference.js';
import type { RequestId } from '#core/ids.js';
import type { RequestRecord } from '#core/request-record.js';
import type { Telemetry } from '#ports/telemetry.js';

function request(
  options: { id?: number; tenant?: string; model?: string; deadlineMs?: number } = {},
): InferenceRequest {
  const billing: Billing = { tenant: tenantId(options.tenant ?? 'acme'), project: 'p', user: 'u' };
  return {
    id: (options.id ?? 1) as RequestId,
    model: modelName(options.model ?? 'digits'),
    version: modelVersion('1'),
    inputs: [],
    outputs: [],
    items: 2,
    batchKey: '',
    bytes: 64,
    priority: 0,
    queueTimeoutUs: 0,
    deadlineMs: options.deadlineMs ?? Number.POSITIVE_INFINITY,
    billing,
    arrivedMs: 100,
  };
}

function success(of: InferenceRequest): InferenceOutcome {
  const receipt = makeReceipt({
    device: {
      id: deviceId('cpu:0'),
      emulated: false,
      price: { usdPerHour: 3.6, source: 'configured', origin: 'test' },
      busyWatts: { watts: 10, source: 'measured' },
    },
    billing: of.billing,
    items: of.items,
    batchItems: 4,
    queueUs: 5,
    roundTripUs: 1200,
    computeInputUs: 100,
    computeInferUs: 800,
    computeOutputUs: 100,
  });
  return { ok: true, outputs: [], receipt };
}

describe('request record', () => {
  it('tells outcome, duration, deadline and receipt of an answered request', () => {
    const asked = request({ deadlineMs: 150 });
    const row = makeRequestRecord({
      request: asked,
      outcome: success(asked),
      finishedMs: 112.5,
      finishedWallMs: 1_000_000,
    });
    expect(row).toMatchObject({
      outcome: 'ok',
      good: true,
      durationMs: 12.5,
      allowedMs: 50,
      arrivedWallMs: 999_987.5,
      items: 2,
    });
    expect(row.receipt?.energyJoules).toBeCloseTo(10 * 0.001 * 0.5, 12);
    expect(row.receipt?.costUsd).toBeCloseTo((3.6 / 3600) * 0.001 * 0.5, 15);
  });

  it('counts an answer after its deadline as not good, and keeps the code of a failure', () => {
    const late = request({ deadlineMs: 110 });
    expect(makeRequestRecord({ request: late, outcome: success(late), finishedMs: 111, finishedWallMs: 0 }).good).toBe(
      false,
    );
    const failed = makeRequestRecord({
      request: request(),
      outcome: { ok: false, error: intarsiaError('QUEUE_FULL', 'full') },
      finishedMs: 101,
      finishedWallMs: 0,
    });
    expect(failed).toMatchObject({ outcome: 'QUEUE_FULL', good: false });
    expect(failed.receipt).toBeUndefined();
    expect(failed.allowedMs).toBeUndefined();
  });
});

describe('RequestRecordRing', () => {
  const row = (id: number, tenant: string, model: string, ok = true): RequestRecord => {
    const asked = request({ id, tenant, model });
    const outcome = ok ? success(asked) : ({ ok: false, error: intarsiaError('CANCELLED', 'gone') } as const);
    return makeRequestRecord({ request: asked, outcome, finishedMs: 110, finishedWallMs: 0 });
  };

  it('keeps the latest rows and totals, equal to a list that forgets nothing', () => {
    const rowArbitrary = fc.record({
      tenant: fc.constantFrom('a', 'b', 'c'),
      model: fc.constantFrom('m', 'n'),
      ok: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(rowArbitrary, { maxLength: 60 }), fc.integer({ min: 1, max: 10 }), (drawn, rowsMax) => {
        const ring = new RequestRecordRing({ rowsMax });
        const rows = drawn.map((one, index) => row(index + 1, one.tenant, one.model, one.ok));
        for (const one of rows) ring.record(one);
        expect(ring.recorded).toBe(rows.length);
        expect(ring.latest(1000)).toEqual(rows.slice(-rowsMax));
        expect(ring.latest(3)).toEqual(rows.slice(-Math.min(3, rowsMax)));
        for (const totals of ring.totals()) {
          const same = rows.filter((one) => one.billing.tenant === totals.tenant && one.model === totals.model);
          expect(totals.requests).toBe(same.length);
          expect(totals.failed).toBe(same.filter((one) => one.outcome !== 'ok').length);
          expect(totals.good).toBe(same.filter((one) => one.good).length);
          expect(totals.billedUnits).toBe(same.reduce((sum, one) => sum + (one.receipt?.billedUnits ?? 0), 0));
          expect(totals.costUsd).toBeCloseTo(
            same.reduce((sum, one) => sum + (one.receipt?.costUsd ?? 0), 0),
            12,
          );
        }
        expect(ring.totals().reduce((sum, totals) => sum + totals.requests, 0)).toBe(rows.length);
      }),
      { numRuns: 100 },
    );
  });

  it('sums tenants beyond its bound under other, and loses none', () => {
    const ring = new RequestRecordRing({ keysMax: 2 });
    const telemetry: Telemetry = ring;
    for (const [index, tenant] of ['a', 'b', 'c', 'd', 'a'].entries()) telemetry.record(row(index + 1, tenant, 'm'));
    expect(ring.totals().map(({ tenant, model, requests }) => ({ tenant, model, requests }))).toEqual([
      { tenant: 'a', model: 'm', requests: 2 },
      { tenant: 'b', model: 'm', requests: 1 },
      { tenant: 'other', model: 'other', requests: 2 },
    ]);
  });
});
