/**
 * Whether the hosts of a grid would speak with this one, asked before it registers: with etcd the store lets everybody in who
 * may write to it, and a host that no other speaks with would only be accused, and accuse.
 *
 * Some hosts are dialled as the store names them. One that opens a link lets this host in. When all that answer refuse it for
 * what it is (token, certificate, grid), it is not one of them. Silence says nothing: they may be dead.
 */
import { asIntarsiaError, intarsiaError, type ErrorCode } from '#core/errors.js';
import type { GridKeys } from '#core/grid/keys.js';
import { readHostRecord } from '#core/grid/member-text.js';
import type { HostId } from '#core/ids.js';
import type { Clock } from '#ports/clock.js';
import type { LinkEvent } from '#ports/links.js';
import type { Store } from '#ports/store.js';

/** The links of this host, as far as they are asked here. */
export interface AdmissionLinks {
  setPeer(host: HostId, address: string): void;
  peer(host: string): { connect(): void };
  subscribe(listener: (event: LinkEvent) => void): () => void;
}

export interface AdmissionOptions {
  readonly host: HostId;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly links: AdmissionLinks;
  readonly clock: Clock;
}

const askedMax = 3;
const answerMsMax = 2_000;
const refusing: ReadonlySet<ErrorCode> = new Set(['UNAUTHENTICATED', 'PERMISSION_DENIED']);

/** The hosts that were asked. @throws UNAUTHENTICATED, PERMISSION_DENIED: what the other hosts said. */
export async function askAdmission(options: AdmissionOptions): Promise<ReadonlySet<HostId>> {
  const { links, clock } = options;
  const others = await otherHosts(options);
  if (others.length === 0) return new Set();
  const waiting = new Set<string>(others.map(({ host }) => host));
  let refusal: LinkEvent | undefined;
  await new Promise<void>((resolve) => {
    const end = (): void => {
      timer.cancel();
      unsubscribe();
      resolve();
    };
    const timer = clock.schedule(answerMsMax, end);
    const unsubscribe = links.subscribe((event) => {
      if (event.type === 'up') {
        refusal = undefined;
        end();
        return;
      }
      if (!waiting.delete(event.host)) return;
      if (event.code !== undefined && refusing.has(event.code)) refusal = event;
      if (waiting.size === 0) end();
    });
    for (const { host, address } of others) {
      links.setPeer(host, address);
      links.peer(host).connect();
    }
  });
  if (refusal?.code !== undefined) {
    throw intarsiaError(refusal.code, `host ${options.host} is not let into the grid: ${refusal.reason}`, {
      peer: refusal.host,
    });
  }
  return new Set(others.map(({ host }) => host));
}

/** None when the store cannot be read: registering will say so. */
async function otherHosts({ host, store, keys, clock }: AdmissionOptions) {
  const found: { readonly host: HostId; readonly address: string }[] = [];
  try {
    const { entries } = await store.range(keys.hosts, { deadlineMs: clock.nowMs() + answerMsMax });
    for (const { key, value } of entries) {
      const named = keys.parseMember(key);
      if (named?.kind !== 'host' || named.host === host || found.length === askedMax) continue;
      const record = readHostRecord(value, named.host);
      if (record.ok && record.value.linkAddress !== '') {
        found.push({ host: named.host, address: record.value.linkAddress });
      }
    }
  } catch (error) {
    if (!asIntarsiaError(error).retryable) throw error;
  }
  return found;
}
