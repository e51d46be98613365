/** Which executor runs a device: in a process or thread of this machine, on another server, or emulated. */
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import { deviceEnvironment } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { ExecutorFactory } from '#ports/executor.js';
import type { HostConfig } from '../config.js';

export interface ExecutorPlan {
  readonly startExecutor: ExecutorFactory;
  readonly fallbacks: readonly { readonly provider: ExecutionProvider; readonly startExecutor: ExecutorFactory }[];
}

/** A discovered device: its own provider first, then those it falls back to. */
export function localExecutors(device: DeviceDescriptor, config: HostConfig): ExecutorPlan {
  return {
    startExecutor: localExecutor(device.provider, device, config),
    fallbacks: device.fallbackProviders.map((provider) => ({
      provider,
      startExecutor: localExecutor(provider, device, config),
    })),
  };
}

/** An executor of this machine for a provider; `device` lends its environment. */
export function localExecutor(
  provider: ExecutionProvider,
  device: DeviceDescriptor,
  config: HostConfig,
): ExecutorFactory {
  if (config.isolation === 'thread') return () => startThreadExecutor({ provider });
  return () => startProcessExecutor({ provider, env: deviceEnvironment(device) });
}
