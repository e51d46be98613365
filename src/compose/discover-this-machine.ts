/** What this machine has, for `intarsia devices`: as a host would find it with the default options. */
import { discoverDevices } from '#adapters/hardware/discover.js';
import { thisMachine } from '#adapters/hardware/system-reader.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { completeConfig } from '../config.js';
import { probeDevice } from './probe.js';
import { readProfiles } from './profiles.js';

/** @throws CONFIG_INVALID when the file of profiles is wrong. */
export async function discoverThisMachine(profilesPath: string): Promise<DiscoveryReport> {
  const { memoryShare, cpuThreads } = completeConfig({ profilesPath });
  const profiles = await readProfiles(profilesPath);
  return discoverDevices({ reader: thisMachine(), profiles, memoryShare, cpuThreads, probe: probeDevice });
}
