/**
 * Records under `members/` as texts and back. A text comes from a store that others write to as well, so what is not of
 * the right shape is told as a problem and never trusted.
 */
import { hostId, type HostId } from '../ids.js';
import type { GridDevice, HostOrder, HostRecord } from './records.js';

export type MemberText<Value> =
  { readonly ok: true; readonly value: Value } | { readonly ok: false; readonly problem: string };

/** Why a host cannot be reached, as its voter saw it. For people; the key says the rest. */
export interface VoteRecord {
  readonly format: 1;
  readonly reason: string;
}

export function writeMember(record: HostRecord | HostOrder | VoteRecord): string {
  return JSON.stringify(record);
}

/** The record of that host. */
export function readHostRecord(text: string, host: HostId): MemberText<HostRecord> {
  const fields = readFields(text);
  if (typeof fields === 'string') return { ok: false, problem: fields };
  const wrong = wrongField(fields, hostChecks);
  if (wrong !== undefined) return { ok: false, problem: wrong };
  if (fields['host'] !== host) return { ok: false, problem: 'it is of another host' };
  return { ok: true, value: fields as unknown as HostRecord };
}

export function readHostOrder(text: string): MemberText<HostOrder> {
  const fields = readFields(text);
  if (typeof fields === 'string') return { ok: false, problem: fields };
  const wrong = wrongField(fields, orderChecks);
  return wrong === undefined ? { ok: true, value: fields as unknown as HostOrder } : { ok: false, problem: wrong };
}

type Fields = Readonly<Record<string, unknown>>;
type Check = (value: unknown) => boolean;

const isText: Check = (value) => typeof value === 'string';
const isFlag: Check = (value) => typeof value === 'boolean';
const isNumber: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const isTextMap: Check = (value) => isFields(value) && Object.values(value).every(isText);

const hostChecks: Readonly<Record<keyof Required<HostRecord>, Check>> = {
  format: (value) => value === 1,
  host: isHostName,
  process: isText,
  linkAddress: isText,
  grpcEndpoint: isText,
  httpEndpoint: isText,
  role: (value) => value === 'host' || value === 'gateway',
  softwareVersion: isText,
  linkVersions: (value) => Array.isArray(value) && value.length === 2 && value.every(isNumber),
  tier: (value) => value === 'edge' || value === 'regional' || value === 'core',
  zone: isText,
  labels: isTextMap,
  spot: isFlag,
  devices: (value) => Array.isArray(value) && value.every(isDevice),
  draining: (value) => value === undefined || isFlag(value),
};

const deviceChecks: Readonly<Record<keyof Required<GridDevice>, Check>> = {
  id: isText,
  provider: isText,
  profile: isText,
  emulated: isFlag,
  memoryBytes: isNumber,
  speed: isNumber,
  pricePerHour: isNumber,
  name: (value) => value === undefined || isText(value),
  threads: (value) => value === undefined || isNumber(value),
  engine: (value) => value === undefined || isText(value),
};

const orderChecks: Readonly<Record<keyof Required<HostOrder>, Check>> = {
  format: (value) => value === 1,
  cordoned: isFlag,
  draining: isFlag,
  deadlineWallMs: isNumber,
  reason: isText,
};

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isDevice(value: unknown): boolean {
  return isFields(value) && wrongField(value, deviceChecks) === undefined;
}

function isHostName(value: unknown): boolean {
  if (typeof value !== 'string') return false;
  try {
    hostId(value);
    return true;
  } catch {
    return false;
  }
}

/** The fields of a JSON object, or what is wrong with the text. */
function readFields(text: string): Fields | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'it is not JSON';
  }
  return isFields(value) ? value : 'it is not an object';
}

function wrongField(fields: Fields, checks: Readonly<Record<string, Check>>): string | undefined {
  for (const [name, check] of Object.entries(checks)) {
    if (!check(fields[name])) return `its field ${name} is missing or wrong`;
  }
  return undefined;
}
