/** The devices of this machine as commands without a host see them, with the hardware profiles that describe them. */
import { discoverDevices } from '#adapters/hardware/discover.js';
import { thisMachine } from '#adapters/hardware/system-reader.js';
import { completeConfig } from '#config.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import { probeDevice } from './probe.js';
import { readProfiles } from './profiles.js';

/** @throws CONFIG_INVALID for a profiles file that is wrong. */
export async function discoverHere(
  profilesPath: string,
): Promise<{ readonly report: DiscoveryReport; readonly profiles: ProfileBook }> {
  const { memoryShare, cpuThreads } = completeConfig({});
  const profiles = await readProfiles(profilesPath);
  const report = await discoverDevices({
    ...{ reader: thisMachine(), profiles, memoryShare, cpuThreads },
    probe: probeDevice,
  });
  return { report, profiles };
}
