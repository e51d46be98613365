/** Judges records that come from files and other hosts: whatever is not a record as this version writes them is none. */
import { profileHost, profileSchema, type ProfileRecord } from './profile-record.js';

const textMax = 300;
const nodesMax = 1_000_000;
const nodeTimesMax = 100_000;
const classesMax = 1_000;
const besideMax = 64;
/** Records of one snapshot. */
export const snapshotRecordsMax = 20_000;

type Fields = Readonly<Record<string, unknown>>;

/** The record, or undefined when it is none. */
export function readProfileRecord(value: unknown): ProfileRecord | undefined {
  if (!isFields(value) || value['schema'] !== profileSchema || !isNumber(value['atMs'])) return undefined;
  const known = value as unknown as ProfileRecord;
  switch (value['type']) {
    case 'link':
      return isEnd(value['from']) && isEnd(value['to']) && isCount(value['bytes']) && isTimes(value['times'])
        ? known
        : undefined;
    case 'shard':
      return isMeasured(value) && isShard(value) ? known : undefined;
    case 'contention':
      return isMeasured(value) && isContention(value) ? known : undefined;
    case 'nodes':
      return isMeasured(value) && isNodes(value) ? known : undefined;
    default:
      return undefined;
  }
}

export interface ReadSnapshot {
  readonly host: string;
  readonly model: string;
  readonly atMs: number;
  readonly records: readonly ProfileRecord[];
}

/** A snapshot as another host sent it: undefined unless everything in it is of that host and that model. */
export function readProfileSnapshot(value: unknown): ReadSnapshot | undefined {
  if (!isFields(value)) return undefined;
  const { host, model, atMs, records } = value;
  if (!isText(host) || !isDigest(model) || !isNumber(atMs)) return undefined;
  if (!Array.isArray(records) || records.length > snapshotRecordsMax) return undefined;
  const read: ProfileRecord[] = [];
  for (const item of records as readonly unknown[]) {
    const record = readProfileRecord(item);
    if (record === undefined || profileHost(record) !== host) return undefined;
    if (record.type !== 'link' && record.model !== model) return undefined;
    read.push(record);
  }
  return { host, model, atMs, records: read };
}

function isMeasured(value: Fields): boolean {
  const texts = ['host', 'device', 'silicon', 'provider', 'engine', 'precision', 'optimization'];
  return (
    texts.every((name) => isText(value[name])) &&
    isDigest(value['model']) &&
    isCount(value['nodes']) &&
    value['nodes'] <= nodesMax &&
    isCount(value['threads']) &&
    isCount(value['batch']) &&
    value['batch'] >= 1 &&
    typeof value['emulated'] === 'boolean'
  );
}

function isShard(value: Fields): boolean {
  const { from, to, nodes, source, times } = value;
  const counts = ['weightBytes', 'peakActivationBytes', 'loadedBytes', 'inputBytes', 'outputBytes'];
  return (
    isCount(from) &&
    isCount(to) &&
    // A host that serves a model knows it whole and does not count its nodes.
    (from < to || (nodes === 0 && to === 0)) &&
    to <= (nodes as number) &&
    (source === 'profiled' || source === 'served') &&
    isTimes(times) &&
    counts.every((name) => isCount(value[name]))
  );
}

function isContention(value: Fields): boolean {
  const { from, to, nodes, beside, times, aloneMs } = value;
  return (
    isCount(from) &&
    isCount(to) &&
    from < to &&
    to <= (nodes as number) &&
    Array.isArray(beside) &&
    beside.length >= 1 &&
    beside.length <= besideMax &&
    beside.every((kind) => isText(kind)) &&
    isTimes(times) &&
    isNumber(aloneMs) &&
    aloneMs > 0
  );
}

function isNodes(value: Fields): boolean {
  const { method, nodeMs, nodes } = value;
  return (
    (method === 'engine' || method === 'prefixes') &&
    Array.isArray(nodeMs) &&
    nodeMs.length === nodes &&
    nodeMs.length <= nodeTimesMax &&
    nodeMs.every(isNumber)
  );
}

function isTimes(value: unknown): boolean {
  if (!isFields(value)) return false;
  const { count, sumMs, squaresMs2, minMs, maxMs, classes } = value;
  if (!isCount(count) || count < 1 || ![sumMs, squaresMs2, minMs, maxMs].every(isNumber)) return false;
  if (!Array.isArray(classes) || classes.length === 0 || classes.length > classesMax) return false;
  let total = 0;
  let before = -Infinity;
  for (const pair of classes as readonly unknown[]) {
    if (!Array.isArray(pair) || pair.length !== 2) return false;
    const [index, inside] = pair as readonly unknown[];
    if (!Number.isInteger(index) || (index as number) <= before || !isCount(inside) || inside < 1) return false;
    before = index as number;
    total += inside;
  }
  return total === count;
}

function isEnd(value: unknown): boolean {
  return isFields(value) && isText(value['host']) && isText(value['device'], 0);
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isText(value: unknown, min = 1): value is string {
  return typeof value === 'string' && value.length >= min && value.length <= textMax;
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
}

/** Not negative and finite. */
function isNumber(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && Number.isFinite(value);
}

function isCount(value: unknown): value is number {
  return isNumber(value) && Number.isSafeInteger(value);
}
