/** What hosts tell the leader of what is asked of their devices: requests and run times by model, for planning what lives where. */
import { intarsiaError } from '../errors.js';
import { isRecord } from './file-place.js';

/** A model on a device of a host, over the last while. */
export interface DemandRow {
  readonly model: string;
  readonly version: string;
  readonly device: string;
  /** Items answered or refused a second. */
  readonly itemsPerSecond: number;
  /** The device's time for one, ms; 0 while it is not known. */
  readonly msPerItem: number;
}

export interface HostDemand {
  readonly host: string;
  readonly rows: readonly DemandRow[];
}

export function demandToText({ host, rows }: HostDemand): string {
  return JSON.stringify({ format: 1, host, rows });
}

/** @throws CONFIG_INVALID for a text that is none. */
export function demandFromText(text: string, key: string): HostDemand {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    data = undefined;
  }
  const rows = isRecord(data) ? data['rows'] : undefined;
  if (isRecord(data) && typeof data['host'] === 'string' && Array.isArray(rows) && rows.every(isRow)) {
    return { host: data['host'], rows };
  }
  throw intarsiaError('CONFIG_INVALID', `${key} is no record of demand`, { key });
}

function isRow(row: unknown): row is DemandRow {
  return (
    isRecord(row) &&
    ['model', 'version', 'device'].every((field) => typeof row[field] === 'string') &&
    ['itemsPerSecond', 'msPerItem'].every((field) => typeof row[field] === 'number' && row[field] >= 0)
  );
}
