/**
 * Plans for a running grid: its devices as hosts registered them, what they measured of the model and of the links between
 * them, and what the grid calls the model. Devices whose like this machine has are measured here.
 */
import { connect, type ClientOptions, type GridHost } from '#client/index.js';
import type { PlanRequest } from '#cli/plan-report.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { intarsiaError } from '#core/errors.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import { readProfileRecord } from '#core/profile/profile-check.js';
import type { ProfileRecord } from '#core/profile/profile-record.js';
import { executionProviders } from '#core/provider.js';
import { allowedDevices, emulatedPlanDevice, siliconOf, type PlanDevice } from './plan-devices.js';

/** What a plan needs to know of a grid. */
export interface GridFacts {
  readonly hosts: readonly GridHost[];
  readonly records: readonly ProfileRecord[];
  /** Versions that were made of the model's file. */
  readonly models: readonly { readonly model: string; readonly version: string }[];
}

const devicesMax = 64;

/** @throws UNIMPLEMENTED (a host without a grid), and what calls throw. */
export async function askGrid(options: ClientOptions, digest: string): Promise<GridFacts> {
  const client = connect(options);
  try {
    const [{ hosts }, { recordsJson, models }] = await Promise.all([
      client.grid.status(),
      client.grid.profiles(digest),
    ]);
    const records = recordsJson.flatMap((text): readonly ProfileRecord[] => {
      const list: unknown = JSON.parse(text);
      return (Array.isArray(list) ? (list as readonly unknown[]) : []).flatMap((each) => readProfileRecord(each) ?? []);
    });
    return { hosts, records, models };
  } finally {
    client.close();
  }
}

export interface GridDevices {
  readonly devices: readonly PlanDevice[];
  /** Which were left out and why. */
  readonly notes: readonly string[];
}

/**
 * Devices called `host/cpu:0`. `request.devices` picks by that name, by a host's, by a device's or by a provider.
 * @throws INVALID_ARGUMENT when nothing is left, with the reasons.
 */
export function gridDevices(
  request: Pick<PlanRequest, 'devices' | 'providers' | 'memoryBytes' | 'tiers' | 'zones' | 'hosts'>,
  { hosts }: Pick<GridFacts, 'hosts'>,
  { discovery, profiles }: { readonly discovery: DiscoveryReport; readonly profiles: ProfileBook },
): GridDevices {
  const notes: string[] = [];
  const found: PlanDevice[] = [];
  const { tiers = [], zones = [], hosts: names = [] } = request;
  for (const host of hosts) {
    const isWanted =
      (tiers.length === 0 || tiers.includes(host.tier)) &&
      (zones.length === 0 || zones.includes(host.zone)) &&
      (names.length === 0 || names.includes(host.host));
    if (!isWanted || host.role === 'gateway') continue;
    const closed = host.state !== 'up' ? host.state : host.cordoned ? 'cordoned' : host.degraded;
    if (closed !== '') notes.push(`host ${host.host} is left out: ${closed}`);
    else found.push(...devicesOf(host, { discovery, profiles, notes }));
  }
  const { devices: wanted } = request;
  for (const word of wanted) {
    if (!found.some((device) => isMeant(device, word))) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `--devices names ${word}; the grid has ${found.map(({ id }) => id).join(', ') || 'none that may be used'}`,
      );
    }
  }
  const chosen = wanted.length === 0 ? found : found.filter((device) => wanted.some((word) => isMeant(device, word)));
  if (chosen.length === 0) {
    const places = hosts.map(({ host, tier, zone }) => `${host} (${tier}${zone === '' ? '' : `, zone ${zone}`})`);
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `no host of the grid has devices for the plan; it has ${places.join(', ') || 'no hosts'}${notes.length > 0 ? `; ${notes.join('; ')}` : ''}`,
    );
  }
  if (chosen.length > devicesMax) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `a plan takes at most ${devicesMax} devices; ${chosen.length} of the grid are meant: name fewer with --devices, --hosts, --tiers or --zones`,
    );
  }
  return { devices: allowedDevices(chosen, request), notes };
}

function devicesOf(
  { host, tier, zone, devices }: GridHost,
  {
    discovery,
    profiles,
    notes,
  }: { readonly discovery: DiscoveryReport; readonly profiles: ProfileBook; readonly notes: string[] },
): readonly PlanDevice[] {
  return devices.flatMap((device): readonly PlanDevice[] => {
    const { id: own, emulated, memoryBytes, pricePerHour, profile, degraded } = device;
    const id = `${host}/${own}`;
    const place = { host, device: own, tier, zone };
    const constraints = { hosts: [host], devices: [own] };
    const provider = executionProviders.find((each) => each === device.provider);
    if (degraded !== '' || provider === undefined || (provider === 'remote' && !emulated)) {
      notes.push(
        `${id} is left out: ${degraded !== '' ? degraded : `no shard can be loaded on provider ${device.provider}`}`,
      );
      return [];
    }
    if (emulated) {
      const like = emulatedPlanDevice(profile, id, profiles);
      if (like !== undefined) return [{ ...like, type: id, memoryBytes, usdPerHour: pricePerHour, place, constraints }];
      notes.push(`${id} is left out: no hardware profile is called '${profile}' here`);
      return [];
    }
    const threads = device.threads;
    const silicon = profile === '' ? device.name : profile;
    const here = discovery.devices.find(
      (each) => each.provider === provider && silicon !== '' && (each.profile ?? each.name) === silicon,
    );
    return [
      {
        // Devices of one host are alike when they are of one kind; those of different hosts have different links.
        ...{ id, type: `${host} ${provider} ${threads} ${silicon} ${memoryBytes}` },
        ...{ name: device.name === '' ? own : device.name, provider, emulated: false, threads, memoryBytes },
        ...{ kind: `${silicon} ${provider} ${threads}`, isHere: here !== undefined },
        ...{ usdPerHour: pricePerHour, busyWatts: here?.busyWatts?.watts ?? 0 },
        ...{ silicon: siliconOf({ provider, threads, profile }, profiles), constraints, place, descriptor: here },
      },
    ];
  });
}

function isMeant({ id, place, provider }: PlanDevice, word: string): boolean {
  return word === id || word === place?.host || word === place?.device || word === provider;
}
