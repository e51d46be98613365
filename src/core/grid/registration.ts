/**
 * What a host may do about a record under its own name that is in the store already.
 *
 * Its own record, under an earlier lease: it is replaced, by a new generation. A record of another process at the same
 * link address: that process cannot be listening there any more, since this one is; it is replaced at once. Any other
 * process may live: its lease is given time to end, and when it does not, the name is taken and this host is refused.
 * A host that was in the grid before and finds another process under its name never takes it back: two of one name would
 * go on so for ever.
 */
import { intarsiaError, type IntarsiaError } from '../errors.js';
import type { HostRecord } from './records.js';

export interface RecordHolder {
  readonly process: string;
  readonly linkAddress: string;
  readonly lease: string | undefined;
}

export type RecordVerdict = 'ours' | 'replace' | 'wait';

/** `holder` is undefined when the record cannot be read; `isFirst`: this process was not in the grid before. */
export function judgeRecord(
  holder: RecordHolder | undefined,
  own: Pick<HostRecord, 'process' | 'linkAddress'> & { readonly lease: string; readonly isFirst: boolean },
): RecordVerdict {
  if (holder === undefined) return 'replace';
  if (holder.process === own.process) return holder.lease === own.lease ? 'ours' : 'replace';
  return own.isFirst && holder.linkAddress === own.linkAddress ? 'replace' : 'wait';
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
