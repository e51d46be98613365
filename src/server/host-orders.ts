/** Cordon, uncordon and drain: an operator's orders about a host, written to the store by compare-and-swap. */
import { intarsiaError } from '#core/errors.js';
import { readHostOrder, writeMember } from '#core/grid/member-text.js';
import type { HostOrder, View } from '#core/grid/records.js';
import { hostId } from '#core/ids.js';
import type { Clock } from '#ports/clock.js';
import type { StoreCallOptions } from '#ports/store.js';
import { changedMeanwhile, writeAttemptsMax, type StoreOfGrid } from './grid-reads.js';

export interface HostOrderOptions extends StoreOfGrid {
  readonly clock: Clock;
  readonly view: View | undefined;
}

export interface HostOrderRequest {
  readonly host: string;
  readonly order: 'cordon' | 'uncordon' | 'drain';
  readonly reason: string;
  /** Of a drain: the time after which the host leaves, ms; 0: it stays. */
  readonly withinMs: number;
}

/** Writes what an operator orders of a host. @throws NOT_FOUND, INVALID_ARGUMENT, UNAVAILABLE (others write it, too) */
export async function orderHost(
  { store, keys, clock, view }: HostOrderOptions,
  request: HostOrderRequest,
  until: StoreCallOptions,
): Promise<{ readonly cordoned: boolean; readonly draining: boolean }> {
  const host = hostId(request.host);
  const key = keys.order(host);
  if (view?.hosts.has(host) !== true) {
    const known = [...(view?.hosts.keys() ?? [])].sort().join(', ');
    throw intarsiaError('NOT_FOUND', `there is no host ${host} in the grid; there are ${known}`, { host });
  }
  if (!(request.withinMs >= 0 && request.withinMs <= 86_400_000)) {
    throw intarsiaError('INVALID_ARGUMENT', `within_ms must be from 0 to 86,400,000; it is ${request.withinMs}`);
  }
  for (let attempt = 1; attempt <= writeAttemptsMax; attempt += 1) {
    const { entry } = await store.get(key, until);
    const read = entry === undefined ? undefined : readHostOrder(entry.value);
    const before = read?.ok === true ? read.value : undefined;
    const draining = request.order === 'drain' || (request.order === 'cordon' && before?.draining === true);
    const order: HostOrder = {
      format: 1,
      cordoned: request.order !== 'uncordon',
      draining,
      deadlineWallMs: request.order === 'drain' && request.withinMs > 0 ? clock.wallMs() + request.withinMs : 0,
      reason: request.reason.slice(0, 255),
    };
    const { ok } = await store.transact(
      {
        conditions: [
          entry === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: entry.modRevision },
        ],
        operations: [
          request.order === 'uncordon' ? { type: 'delete', key } : { type: 'put', key, value: writeMember(order) },
        ],
      },
      until,
    );
    if (ok) return { cordoned: order.cordoned, draining: order.draining };
  }
  throw changedMeanwhile(`the orders of host ${host}`);
}
