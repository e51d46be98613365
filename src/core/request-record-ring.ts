/**
 * The latest request rows in memory, and running totals per tenant and model: what `intarsia status` shows, and where
 * rows wait until a decision log takes them. Bounded: the ring forgets its oldest row, and totals beyond `keysMax` pairs
 * of tenant and model are summed under `other`.
 */
import { invariant } from './errors.js';
import type { RequestRecord } from './request-record.js';

/** Sums over the requests of one tenant to one model, since the host started. */
export interface RequestTotals {
  readonly tenant: string;
  readonly model: string;
  readonly requests: number;
  readonly failed: number;
  /** Answered within their deadline. */
  readonly good: number;
  readonly items: number;
  readonly billedUnits: number;
  readonly durationMs: number;
  readonly energyJoules: number;
  readonly costUsd: number;
}

type Writable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** Tenant and model of totals beyond the bound. */
export const overflowKey = 'other';

export class RequestRecordRing {
  readonly #rowsMax: number;
  readonly #keysMax: number;
  readonly #rows: RequestRecord[] = [];
  /** Rows recorded since the start; the next one is written at this number modulo `rowsMax`. */
  #recorded = 0;
  readonly #totals = new Map<string, Map<string, Writable<RequestTotals>>>();
  #keys = 0;

  constructor(options: { readonly rowsMax?: number; readonly keysMax?: number } = {}) {
    this.#rowsMax = options.rowsMax ?? 1000;
    this.#keysMax = options.keysMax ?? 1000;
    invariant(Number.isInteger(this.#rowsMax) && this.#rowsMax >= 1, 'the ring holds at least one row');
  }

  record(row: RequestRecord): void {
    this.#rows[this.#recorded % this.#rowsMax] = row;
    this.#recorded += 1;
    const totals = this.#totalsOf(row.billing.tenant, row.model);
    totals.requests += 1;
    if (row.outcome !== 'ok') totals.failed += 1;
    if (row.good) totals.good += 1;
    totals.items += row.items;
    totals.durationMs += row.durationMs;
    const { receipt } = row;
    if (receipt === undefined) return;
    totals.billedUnits += receipt.billedUnits;
    totals.energyJoules += receipt.energyJoules ?? 0;
    totals.costUsd += receipt.costUsd ?? 0;
  }

  /** Rows recorded since the start, those forgotten included. */
  get recorded(): number {
    return this.#recorded;
  }

  /** Up to `count` of the latest rows, oldest first. */
  latest(count: number): readonly RequestRecord[] {
    const kept = Math.min(count, this.#rows.length);
    const rows: RequestRecord[] = [];
    for (let back = kept; back >= 1; back -= 1) {
      const row = this.#rows[(this.#recorded - back) % this.#rowsMax];
      if (row !== undefined) rows.push(row);
    }
    return rows;
  }

  /** Totals per tenant and model, in the order of their first request. */
  totals(): readonly RequestTotals[] {
    return [...this.#totals.values()].flatMap((models) => [...models.values()].map((totals) => ({ ...totals })));
  }

  #totalsOf(tenant: string, model: string): Writable<RequestTotals> {
    const known = this.#totals.get(tenant)?.get(model);
    if (known !== undefined) return known;
    if (this.#keys >= this.#keysMax && (tenant !== overflowKey || model !== overflowKey)) {
      return this.#totalsOf(overflowKey, overflowKey);
    }
    const fresh: Writable<RequestTotals> = {
      tenant,
      model,
      requests: 0,
      failed: 0,
      good: 0,
      items: 0,
      billedUnits: 0,
      durationMs: 0,
      energyJoules: 0,
      costUsd: 0,
    };
    const models = this.#totals.get(tenant) ?? new Map<string, Writable<RequestTotals>>();
    models.set(model, fresh);
    this.#totals.set(tenant, models);
    this.#keys += 1;
    return fresh;
  }
}
