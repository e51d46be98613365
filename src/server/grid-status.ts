/** What operators are shown of a grid: its hosts by a view, its replicas and deployments by what the store has. */
import type { DesiredState } from '#core/grid/desired-state.js';
import type { AssignedReplica, ViewHost } from '#core/grid/records.js';
import { pieceText } from '#core/grid/rollout.js';
import { verificationText } from '#core/grid/verification.js';
import type { HostId } from '#core/ids.js';
import type {
  GridDeploymentStatus,
  GridHosts,
  GridHostStatus,
  GridReplicaStatus,
  GridStatus,
} from '#ports/grid-admin.js';
import type { ViewNews } from '#actors/membership/protocol.js';

/** The hosts of the view, with what this host knows of them. */
export function hostStatuses(news: ViewNews | undefined): readonly GridHostStatus[] {
  const peers = news?.peers;
  return [...(news?.view.hosts.values() ?? [])]
    .map((host): GridHostStatus => {
      const { record, generation, cordoned } = host;
      const peer = peers?.get(record.host);
      return {
        ...gatewayOf(host),
        cordoned,
        generation,
        spot: record.spot,
        labels: record.labels,
        softwareVersion: record.softwareVersion,
        linkAddress: record.linkAddress,
        roundTripMs: peer?.roundTripMs ?? 0,
        degraded: peer?.reachable === false ? 'it does not answer this host' : (peer?.degraded ?? ''),
        devices: record.devices.map((device) => {
          const load = peer?.load?.devices.find(({ device: id }) => id === device.id);
          return {
            id: device.id,
            provider: device.provider,
            profile: device.profile,
            emulated: device.emulated,
            memoryBytes: device.memoryBytes,
            memoryUsedBytes: 0,
            pricePerHour: device.pricePerHour,
            queued: load?.queued ?? 0,
            inFlight: load?.inFlight ?? 0,
            degraded: load?.degraded ?? '',
            name: device.name ?? '',
            threads: device.threads ?? 0,
          };
        }),
      };
    })
    .sort(byHost);
}

/** What clients need of a host to ask it. */
export function gatewayOf({ record, state }: ViewHost): GridHosts['gateways'][number] {
  const { host, grpcEndpoint, httpEndpoint, role, zone, tier } = record;
  return { host, grpcEndpoint, httpEndpoint, role, zone, tier, state };
}

/** In the order of names. */
export function byHost(left: { readonly host: string }, right: { readonly host: string }): number {
  return left.host < right.host ? -1 : Number(left.host > right.host);
}

/** What is served, and how far every deployment is. */
export function servedReport(state: DesiredState): Pick<GridStatus, 'replicas' | 'deployments'> {
  // How many stages a piece is one of, and whether it is a standby, is what the leader assigned.
  const assigned = new Map<string, AssignedReplica>();
  for (const [host, { replicas: own }] of state.assignments) {
    for (const replica of own) assigned.set(`${host} ${replica.device} ${pieceText(replica)}`, replica);
  }
  const replicas: GridReplicaStatus[] = [...state.actuals.values()].flatMap(({ host, replicas: own, degraded }) =>
    own.map((replica) => {
      const { model, version, device, state: word, reason, memoryBytes, deployment, split = '', shard } = replica;
      const order = assigned.get(`${host} ${device} ${pieceText(replica)}`);
      return {
        ...{ model, version, host, device, state: word, memoryBytes, deployment, split },
        reason: [reason, outOfService(degraded[device]), order?.form?.reason ?? ''].find((text) => text !== '') ?? '',
        stage: shard === undefined ? 0 : shard + 1,
        stages: order?.split?.shards.length ?? 0,
        standby: order?.standby === true,
        variant: replica.variant ?? '',
        variantGate: replica.variantGate ?? '',
      };
    }),
  );
  const deployments = [...state.deployments.values()].map(({ deployment, revision }): GridDeploymentStatus => {
    const { name, model, version, split } = deployment;
    const known = state.rollouts.get(name);
    // What the leader said of an earlier text says nothing of this one.
    const rollout = known?.deploymentRevision === revision ? known : undefined;
    const wanted =
      deployment.replicas ?? Object.values(deployment.replicasPerTier ?? {}).reduce((sum, count) => sum + count, 0);
    const verification = split === undefined ? undefined : state.verificationOf(model, version, split.id);
    return {
      name,
      model,
      version,
      wanted,
      ready: readyCopies(name, state, replicas),
      state: rollout?.phase ?? 'progressing',
      reason: rollout?.reason ?? 'nobody has looked at it yet',
      gate: verification === undefined ? '' : verificationText(verification),
    };
  });
  const order = (left: GridReplicaStatus, right: GridReplicaStatus): number =>
    `${left.model}/${left.version}/${left.host}/${left.device}` <
    `${right.model}/${right.version}/${right.host}/${right.device}`
      ? -1
      : 1;
  return { replicas: replicas.sort(order), deployments: deployments.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

function outOfService(reason: string | undefined): string {
  return reason === undefined ? '' : `its device is out of service: ${reason}`;
}

/** Whole copies that are ready, and split ones of which every stage is, on devices that are in service. */
function readyCopies(
  name: string,
  { assignments, actuals }: DesiredState,
  replicas: readonly GridReplicaStatus[],
): number {
  const own = replicas.filter(
    ({ deployment, state, host, device }) =>
      deployment === name && state === 'ready' && actuals.get(host as HostId)?.degraded[device] === undefined,
  );
  const ready = new Set(own.map(({ host, device, split, stage }) => `${host} ${device} ${split} ${stage}`));
  const missing = new Map<number, number>();
  for (const [host, { replicas: orders }] of assignments) {
    for (const { deployment, replica, device, split, shard, standby } of orders) {
      if (deployment !== name || split === undefined || standby === true) continue;
      const isReady = ready.has(`${host} ${device} ${split.id} ${shard + 1}`);
      missing.set(replica, (missing.get(replica) ?? split.shards.length) - (isReady ? 1 : 0));
    }
  }
  const whole = own.filter(({ split }) => split === '').length;
  return whole + [...missing.values()].filter((count) => count === 0).length;
}
