/** Where a deployment's copies are, for people: one line for each copy, or for each stage of a split one. */
import type { HostId } from '../ids.js';
import { formatBytes } from '../units.js';
import type { AssignedReplica, HostAssignment, View } from './records.js';

export interface PlacedReplica {
  readonly host: HostId;
  readonly provider: string;
  readonly replica: AssignedReplica;
}

/** A deployment's replicas in the order of copies and stages, standbys last. */
export function placedReplicas(
  name: string,
  view: View,
  assignments: ReadonlyMap<HostId, HostAssignment>,
): readonly PlacedReplica[] {
  const found: PlacedReplica[] = [];
  for (const [host, { generation, replicas }] of assignments) {
    const known = view.hosts.get(host);
    if (known?.generation !== generation) continue;
    for (const replica of replicas) {
      if (replica.deployment !== name) continue;
      const provider = known.record.devices.find(({ id }) => id === replica.device)?.provider ?? '';
      found.push({ host, provider, replica });
    }
  }
  return found.sort(
    (a, b) =>
      Number(a.replica.standby === true) - Number(b.replica.standby === true) ||
      a.replica.replica - b.replica.replica ||
      a.replica.shard - b.replica.shard,
  );
}

export function placementLine({ host, provider, replica }: PlacedReplica): string {
  const { device, replica: number, shard, split, standby, form } = replica;
  const place = `${host}/${device} (${provider})`;
  if (split === undefined) {
    if (form === undefined) return `copy ${number}: ${place}`;
    const what = form.variant === '' ? 'the exact model' : `variant ${form.variant}`;
    return `copy ${number}: ${place}, ${what}${form.reason === '' ? '' : ` (${form.reason})`}`;
  }
  const bytes = split.shards[shard]?.memoryBytes ?? 0;
  const what = `stage ${shard + 1} of ${split.shards.length}`;
  return `${standby === true ? 'standby' : `copy ${number}`}, ${what}: ${place}, ${formatBytes(bytes)}`;
}
