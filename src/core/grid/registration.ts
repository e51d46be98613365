/**
 * What a host may do about a record under its own name that is in the store already.
 *
 * Its own record, under an earlier lease: it is replaced, by a new generation. A record of another process at the same
 * link address: that process cannot be listening there any more, since this one is; it is replaced at once. Any other
 * process may live: its lease is given time to end, and when it does not, the name is taken and this host is refused.
 * A host whose record is replaced by another process steps down and does not come back: two of one name would go on so.
 */
import { intarsiaError, type IntarsiaError } from '../errors.js';
import type { HostRecord } from './records.js';

export interface RecordHolder {
  readonly process: string;
  readonly linkAddress: string;
  readonly lease: string | undefined;
}

export type RecordVerdict = 'ours' | 'replace' | 'wait';

/** `holder` is undefined when the record cannot be read. */
export function judgeRecord(
  holder: RecordHolder | undefined,
  own: Pick<HostRecord, 'process' | 'linkAddress'> & { readonly lease: string },
): RecordVerdict {
  if (holder === undefined) return 'replace';
  if (holder.process === own.process) return holder.lease === own.lease ? 'ours' : 'replace';
  return holder.linkAddress === own.linkAddress ? 'replace' : 'wait';
}

/** Why a host may not join. */
export function nameTaken(record: HostRecord, holder: RecordHolder, waitedMs: number): IntarsiaError {
  return intarsiaError(
    'ALREADY_EXISTS',
    `host name ${record.host} is taken by another living process at ${holder.linkAddress}: its lease was still kept after ${Math.round(waitedMs)} ms. Give this host another name`,
    { host: record.host, holderAddress: holder.linkAddress, waitedMs: Math.round(waitedMs) },
  );
}

/** Why a host that was in the grid is there no more. */
export function nameLost(record: HostRecord, other: HostRecord): IntarsiaError {
  return intarsiaError(
    'ALREADY_EXISTS',
    `host name ${record.host} was taken over by another process at ${other.linkAddress}; this host does not come back under it`,
    { host: record.host, holderAddress: other.linkAddress },
  );
}

/** Whether an assignment, a vote or anything else that names a generation is meant for the host as it is now. */
export function isForGeneration(named: number, own: number | undefined): boolean {
  return own !== undefined && named === own;
}
