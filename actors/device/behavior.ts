/** What a device decides, as plain functions: its health, how long to wait before a restart, how much may run at once. */
import type { DeviceDescriptor } from '#core/device.js';
import type { InstanceGroup, ModelConfig } from '#core/model-config.js';
import type { DeviceHealth } from './protocol.js';

export interface HealthInput {
  readonly draining: boolean;
  /** Of the device's own executor: `off` before its first start. */
  readonly executor: 'off' | 'starting' | 'running' | 'waiting' | 'closed';
  /** Why the executor is not there; empty when it is. */
  readonly executorReason: string;
  readonly startFailures: number;
  readonly startFailuresMax: number;
  /** Failed canaries in a row, and what the last one said. */
  readonly canaryFailures: number;
  readonly canaryFailuresMax: number;
  readonly canaryReason: string;
  /** True once the executor ran. */
  readonly everStarted: boolean;
}

export interface Health {
  readonly health: DeviceHealth;
  /** Empty when `ready`. */
  readonly reason: string;
}

/** The worst thing that is true of the device. */
export function deviceHealth(input: HealthInput): Health {
  if (input.draining) return { health: 'draining', reason: 'the device is being drained' };
  if (input.startFailures >= input.startFailuresMax) {
    return {
      health: 'failed',
      reason: `the executor failed to start ${input.startFailures} times: ${input.executorReason}`,
    };
  }
  if (input.canaryFailures >= input.canaryFailuresMax) {
    return { health: 'failed', reason: `${input.canaryFailures} canary runs failed: ${input.canaryReason}` };
  }
  if (input.executor === 'waiting' || (input.executor === 'starting' && input.everStarted)) {
    return { health: 'degraded', reason: `the executor is being restarted: ${input.executorReason}` };
  }
  if (input.executor === 'starting') return { health: 'starting', reason: 'the executor is being started' };
  if (input.canaryFailures > 0) return { health: 'degraded', reason: `a canary run failed: ${input.canaryReason}` };
  return { health: 'ready', reason: '' };
}

/** Milliseconds before restart number `attempt` (from 1): the minimum, doubled each time up to the maximum. */
export function restartDelayMs(attempt: number, limits: { readonly minMs: number; readonly maxMs: number }): number {
  return Math.min(limits.maxMs, limits.minMs * 2 ** Math.min(30, attempt - 1));
}

/** Instances of the model on this device, which share its session: the counts of the groups that mean devices of its kind, at least one. */
export function instancesOn(config: ModelConfig, descriptor: DeviceDescriptor): number {
  let count = 0;
  for (const group of config.instanceGroups) if (groupMeans(group, descriptor)) count += group.count;
  return Math.max(1, count);
}

function groupMeans(group: InstanceGroup, descriptor: DeviceDescriptor): boolean {
  switch (group.kind) {
    case 'AUTO':
    case 'MODEL':
      return true;
    case 'CPU':
      return descriptor.kind === 'cpu';
    case 'GPU':
      return descriptor.kind === 'gpu';
  }
}

/**
 * Batches of one model that may be with the executor at once: its instances compute and, where the device has more permits
 * than that, one more is handed over meanwhile. The permits beyond are other models': a busy large model leaves them free.
 */
export function batchesInFlightMax(
  instances: number,
  device: { readonly permits: number; readonly concurrency: number },
): number {
  return instances + (device.permits > device.concurrency ? 1 : 0);
}

/** Urgency between models, 0 to 1, of a priority level of so many; 0.5 for a model without levels. */
export function urgencyOf(level: number, levels: number): number {
  return levels === 0 || level === 0 ? 0.5 : level / (levels + 1);
}

/** Milliseconds from one moment to another, such that their sum is not before the latter: fractions may round down. */
export function delayUntil(atMs: number, nowMs: number): number {
  const delayMs = Math.max(0, atMs - nowMs);
  return nowMs + delayMs < atMs ? delayMs + atMs * Number.EPSILON : delayMs;
}
