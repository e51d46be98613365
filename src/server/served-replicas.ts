/** Which replicas a routing table knows, for a status without the store: what hosts serve is known as long as they live. */
import type { RoutingTable } from '#core/routing-table.js';
import type { GridReplicaStatus } from '#ports/grid-admin.js';

/** One row for each stage of each replica that takes requests, in a fixed order. By which deployment is not known here. */
export function servedReplicas({ candidates, reserve }: RoutingTable): readonly GridReplicaStatus[] {
  const rows = new Map<string, GridReplicaStatus>();
  for (const models of [candidates, reserve ?? new Map<never, never>()]) {
    for (const versions of models.values()) {
      for (const { replica, load } of [...versions.values()].flat()) {
        const { model, version, stages } = replica;
        for (const [index, { host, device }] of stages.entries()) {
          const row = {
            model,
            version,
            host,
            device,
            state: load.ready ? 'ready' : 'failed',
            reason: load.ready ? '' : 'its device takes no requests now',
            memoryBytes: 0,
            deployment: '',
            stage: stages.length > 1 ? index + 1 : 0,
            stages: stages.length > 1 ? stages.length : 0,
            split: '',
            standby: false,
            ...{ variant: '', variantGate: '' },
          };
          rows.set(`${model}/${version}/${host}/${device}/${row.stage}`, row);
        }
      }
    }
  }
  return [...rows.entries()].sort(([left], [right]) => (left < right ? -1 : 1)).map(([, row]) => row);
}
