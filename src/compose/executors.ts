/** Which executor runs a device: in a process or thread of this machine, on another server, or emulated. */
import { emulateExecutor } from '#adapters/emulated/emulated-executor.js';
import type { EmulationProfile } from '#adapters/emulated/latency-model.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { startRemoteExecutor } from '#adapters/remote/remote-executor.js';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import { deviceEnvironment } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import { intarsiaError, invariant } from '#core/errors.js';
import type { HardwareProfile, ProfileBook } from '#core/hardware-profile.js';
import type { ExecutionProvider } from '#core/provider.js';
import { GiB } from '#core/units.js';
import type { Clock } from '#ports/clock.js';
import type { ExecutorFactory } from '#ports/executor.js';
import type { EmulatedDeviceConfig, HostConfig } from '#config.js';

export interface ExecutorPlan {
  readonly startExecutor: ExecutorFactory;
  readonly fallbacks: readonly { readonly provider: ExecutionProvider; readonly startExecutor: ExecutorFactory }[];
}

export interface ExecutorSources {
  readonly config: HostConfig;
  readonly clock: Clock;
  readonly profiles: ProfileBook;
}

/** The executors of a device of `hostDevices`: its own first, then those of the providers it falls back to. */
export function executorsOf(device: DeviceDescriptor, sources: ExecutorSources): ExecutorPlan {
  const { config, clock, profiles } = sources;
  const remote = config.remoteDevices.find(({ id }) => id === device.id);
  if (remote !== undefined) return { startExecutor: () => startRemoteExecutor(remote), fallbacks: [] };
  const emulated = config.emulatedDevices.find(({ id }) => id === device.id);
  if (emulated !== undefined) {
    const profile = profiles.get(emulated.profile);
    invariant(profile !== undefined, `the profile of ${device.id} was checked before`);
    return { startExecutor: emulatedExecutor(device, emulated, { profile, config, clock }), fallbacks: [] };
  }
  return {
    startExecutor: localExecutor(device.provider, device, config),
    fallbacks: device.fallbackProviders.map((provider) => ({
      provider,
      startExecutor: localExecutor(provider, device, config),
    })),
  };
}

/** An executor of this machine for a provider; `device` lends its environment. */
function localExecutor(provider: ExecutionProvider, device: DeviceDescriptor, config: HostConfig): ExecutorFactory {
  const { runMsMax } = config.limits;
  if (config.isolation === 'thread') return () => startThreadExecutor({ provider, runMsMax });
  return () => startProcessExecutor({ provider, runMsMax, env: deviceEnvironment(device) });
}

function emulatedExecutor(
  device: DeviceDescriptor,
  { provider, timeScale }: EmulatedDeviceConfig,
  { profile, config, clock }: { readonly profile: HardwareProfile; readonly config: HostConfig; readonly clock: Clock },
): ExecutorFactory {
  const emulation = emulationOf(profile, device);
  return async () => {
    const inner = provider === 'none' ? {} : { inner: await localExecutor(provider, device, config)() };
    return emulateExecutor({ ...inner, profile: emulation, clock, timeScale });
  };
}

/** What the emulation takes of a hardware profile. @throws CONFIG_INVALID when it lacks what times are told by. */
export function emulationOf(
  profile: HardwareProfile,
  device: { readonly id: string; readonly memoryBytes: number },
): EmulationProfile {
  const { bandwidthGBs, fp16Tflops, tdpWatts, usdPerHour, memoryGiB } = profile.figures;
  if (bandwidthGBs === undefined || fp16Tflops === undefined) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `emulated device ${device.id}: profile '${profile.key}' has no memory bandwidth or no TFLOPS, so its times cannot be told`,
      { device: device.id, profile: profile.key },
    );
  }
  return {
    key: profile.key,
    memoryBytes: (memoryGiB?.value ?? device.memoryBytes / GiB) * GiB,
    bandwidthBytesPerSecond: bandwidthGBs.value * 1e9,
    flopsPerSecond: fp16Tflops.value * 1e12,
    ...(tdpWatts === undefined ? {} : { busyWatts: tdpWatts.value }),
    ...(usdPerHour === undefined ? {} : { usdPerHour: usdPerHour.value }),
  };
}
