/** Whether constraints allow a host and a device, and what they have against a host. */
import type { GridDevice, PlacementConstraints, Tier, ViewHost } from './records.js';

export function isHostAllowed({ record }: ViewHost, constraints: PlacementConstraints, tier?: Tier): boolean {
  return hostObjection(record, constraints, tier) === '';
}

export function isDeviceAllowed({ provider, id }: GridDevice, constraints: PlacementConstraints): boolean {
  const { providers, devices } = constraints;
  return (providers === undefined || providers.includes(provider)) && (devices === undefined || devices.includes(id));
}

export const gatewayOnly = 'it is a gateway only';

/** What the constraints have against a host; empty: nothing. */
export function hostObjection(
  record: ViewHost['record'],
  constraints: PlacementConstraints,
  tier: Tier | undefined,
): string {
  const { tiers, zones, labels, hosts, spot } = constraints;
  if (record.role !== 'host') return gatewayOnly;
  if (tier !== undefined && record.tier !== tier) return `its tier is ${record.tier}, not ${tier}`;
  if (tiers?.includes(record.tier) === false) return `its tier is ${record.tier}, not ${tiers.join(' or ')}`;
  if (zones?.includes(record.zone) === false) return `its zone is ${record.zone || 'none'}, not ${zones.join(' or ')}`;
  if (hosts?.includes(record.host) === false) return `it is not ${hosts.join(' or ')}`;
  if (spot === 'never' && record.spot) return 'it is a spot host';
  if (spot === 'only' && !record.spot) return 'it is not a spot host';
  for (const [name, value] of Object.entries(labels ?? {})) {
    const own = Object.hasOwn(record.labels, name) ? record.labels[name] : undefined;
    if (own !== value) return `its label ${name} is ${own ?? 'not set'}, not ${value}`;
  }
  return '';
}
