/** Records of the store as gateways read them: JSON that somebody else wrote, checked for what routing relies on. */
import { intarsiaError } from '../errors.js';
import type { ModelName, ModelVersion } from '../ids.js';
import { spreadStrategies, type SpreadStrategy } from '../split/spread-rule.js';
import type { HostActual, RolloutRecord, ServedRecord } from './records.js';

/** @throws INVALID_ARGUMENT for a text that is no such record, or one of a format that is not known here. */
export function readActual(text: string): HostActual {
  const record = recordOf(text, 'what a host serves');
  const { host, replicas, degraded } = record;
  const isWhole =
    typeof host === 'string' &&
    Array.isArray(replicas) &&
    (replicas as readonly unknown[]).every(isReplica) &&
    typeof degraded === 'object' &&
    degraded !== null;
  if (!isWhole) throw incomplete('what a host serves');
  return record as unknown as HostActual;
}

/** @throws as `readActual`. */
export function readServed(text: string): ServedRecord {
  const record = recordOf(text, 'a served model');
  if (typeof record['facts'] !== 'string') throw incomplete('a served model');
  return record as unknown as ServedRecord;
}

/**
 * The version of a model that its deployment makes the default: the target once all its copies were ready, until then what
 * served before; none before the first success. @throws as `readActual`.
 */
export function readCurrentVersion(text: string): {
  readonly model: ModelName;
  readonly version: ModelVersion | undefined;
  readonly strategy: SpreadStrategy | undefined;
} {
  const record = recordOf(text, 'a rollout') as Partial<RolloutRecord>;
  const { target, stable, phase, removed, strategy } = record;
  if (typeof target?.model !== 'string' || typeof target.version !== 'string') throw incomplete('a rollout');
  const standing = phase === 'complete' ? target : stable;
  const current = removed === true ? undefined : standing;
  return {
    model: target.model,
    version: current?.model === target.model ? current.version : undefined,
    strategy: removed === true ? undefined : spreadStrategies.find((one) => one === strategy),
  };
}

function isReplica(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { model, version, device, state } = value as Record<string, unknown>;
  return [model, version, device, state].every((text) => typeof text === 'string');
}

function recordOf(text: string, what: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `the record of ${what} is not JSON`, { length: text.length }, error);
  }
  if (typeof parsed !== 'object' || parsed === null) throw incomplete(what);
  const record = parsed as Record<string, unknown>;
  if (record['format'] !== 1) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `the record of ${what} has format ${String(record['format']).slice(0, 20)}; 1 is known`,
    );
  }
  return record;
}

function incomplete(what: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `the record of ${what} lacks fields that it must have`);
}
