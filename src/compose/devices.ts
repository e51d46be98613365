/**
 * The devices of a host: those discovery found and the configuration wants, other inference servers, and emulated ones.
 */
import { deviceId } from '#core/ids.js';
import { intarsiaError } from '#core/errors.js';
import { profilePrice, type DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import { GiB } from '#core/units.js';
import type { EmulatedDeviceConfig, HostConfig, RemoteDeviceConfig } from '#config.js';

/** Permits of a remote server: it batches by itself and wants several requests at once. */
const remotePermits = 16;

/** @throws CONFIG_INVALID when a device is named twice, is not there, or names a profile nobody knows. */
export function hostDevices(
  config: HostConfig,
  report: DiscoveryReport,
  profiles: ProfileBook,
): readonly DeviceDescriptor[] {
  const discovered = chosen(report.devices, config.devices);
  const devices = [
    ...discovered,
    ...config.remoteDevices.map(remoteDescriptor),
    ...config.emulatedDevices.map((device) => emulatedDescriptor(device, profiles)),
  ];
  const seen = new Set<string>();
  for (const { id } of devices) {
    if (seen.has(id)) throw intarsiaError('CONFIG_INVALID', `device ${id} is declared twice`, { device: id });
    seen.add(id);
  }
  return devices;
}

/** Those named by id or by provider, in the order of discovery; all when none is named. */
function chosen(found: readonly DeviceDescriptor[], wanted: readonly string[]): readonly DeviceDescriptor[] {
  if (wanted.length === 0) return found;
  for (const name of wanted) {
    if (!found.some(({ id, provider }) => id === name || provider === name)) {
      throw intarsiaError(
        'CONFIG_INVALID',
        `option devices names ${name}; this machine has ${found.map(({ id }) => id).join(', ')}. See: intarsia devices`,
        { device: name },
      );
    }
  }
  return found.filter(({ id, provider }) => wanted.includes(id) || wanted.includes(provider));
}

function remoteDescriptor(device: RemoteDeviceConfig): DeviceDescriptor {
  return {
    id: deviceId(device.id),
    kind: 'remote',
    name: `inference server at ${device.endpoint}`,
    vendor: '',
    provider: 'remote',
    fallbackProviders: [],
    emulated: false,
    // What a model takes there is that server's business.
    memoryBytes: 1024 * GiB,
    threads: 0,
    permits: remotePermits,
    facts: { endpoint: device.endpoint, tls: device.tls },
  };
}

function emulatedDescriptor(device: EmulatedDeviceConfig, profiles: ProfileBook): DeviceDescriptor {
  const profile = profiles.get(device.profile);
  if (profile === undefined) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `emulated device ${device.id} names the hardware profile '${device.profile}', which nobody knows; docs/hardware.md lists them`,
      { device: device.id, profile: device.profile },
    );
  }
  const watts = profile.figures.tdpWatts?.value;
  const price = profilePrice(profile);
  return {
    id: deviceId(device.id),
    kind: 'emulated',
    name: `${profile.name} (emulated)`,
    vendor: profile.vendor,
    provider: device.provider,
    fallbackProviders: [],
    emulated: true,
    memoryBytes: (profile.figures.memoryGiB?.value ?? 16) * GiB,
    threads: 1,
    permits: 2,
    profile: profile.key,
    ...(watts === undefined ? {} : { busyWatts: { watts, source: 'profile' as const } }),
    ...(price === undefined ? {} : { price }),
    facts: { timeScale: device.timeScale },
  };
}
