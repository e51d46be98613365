/**
 * From what is wanted and what is, to what every host should have. One pure step: the same input gives the same output, and
 * a second look at an unchanged grid changes nothing.
 *
 * - Copies that serve are left where they are. One moves only for a reason (its host drains, is gone or was suspected for
 *   too long, its constraints changed, it failed there) or where the spread gets better by two copies or more.
 * - The new place is ready before the old one is given up, wherever the old one still serves.
 * - Every copy has a number that is never used again: no shard of a copy has two owners, in whatever epoch.
 * - What finds no place is reported with what each host has against it, and takes nothing.
 */
import type { HostId, ModelName, ModelVersion } from '../ids.js';
import { actualIndex, placeHosts, readCopies, type Copy } from './copies.js';
import { planDeployment, type DeploymentPlan } from './deployment-plan.js';
import { PlacementTable } from './placement.js';
import { MemoryDraft, type ReconcileMemory, type ReconcileOptions } from './reconcile-memory.js';
import type {
  AssignedReplica,
  Deployment,
  Edition,
  HostActual,
  HostAssignment,
  ModelManifest,
  RolloutRecord,
  View,
} from './records.js';
import { editionText } from './rollout.js';

export interface DesiredDeployment {
  readonly deployment: Deployment;
  /** Revision of its key. */
  readonly revision: number;
}

export interface ReconcileInput {
  /** Of the leader's monotonic clock. */
  readonly nowMs: number;
  readonly epoch: number;
  readonly view: View;
  readonly deployments: ReadonlyMap<string, DesiredDeployment>;
  readonly rollouts: ReadonlyMap<string, RolloutRecord>;
  readonly assignments: ReadonlyMap<HostId, HostAssignment>;
  readonly actuals: ReadonlyMap<HostId, HostActual>;
  readonly manifestOf: (model: ModelName, version: ModelVersion) => ModelManifest | undefined;
  readonly memory: ReconcileMemory;
  readonly options: ReconcileOptions;
}

export interface ReconcileEvent {
  readonly level: 'info' | 'warn';
  readonly subject: string;
  readonly text: string;
}

export interface ReconcileOutput {
  /** Only what is to be written; undefined: to be deleted. */
  readonly assignments: ReadonlyMap<HostId, HostAssignment | undefined>;
  readonly rollouts: ReadonlyMap<string, RolloutRecord | undefined>;
  readonly events: readonly ReconcileEvent[];
  readonly memory: ReconcileMemory;
  /** Moment at which time alone may change something; Infinity: only news can. */
  readonly reviewMs: number;
}

export function reconcile(input: ReconcileInput): ReconcileOutput {
  const { view, deployments, assignments, actuals } = input;
  const draft = new MemoryDraft(input.memory, input.nowMs);
  const table = new PlacementTable(placeHosts(view, actuals));
  const actualOf = actualIndex(actuals);
  const bytesOf = memoryBytesOf(input);
  const copies = readCopies({ table, assignments, actualOf, draft, options: input.options, shardsOf: () => 1 });
  takeMemory(table, input, bytesOf);
  const events: ReconcileEvent[] = [];
  const plans = [...deployments.keys()].sort().map((name) => {
    const { deployment, revision } = deployments.get(name) as DesiredDeployment;
    const plan = planDeployment({
      deployment,
      revision,
      record: input.rollouts.get(name),
      copies: copies.get(name) ?? [],
      table,
      draft,
      options: input.options,
      bytesOf: (edition) => bytesOf(edition, deployment),
    });
    for (const event of plan.events) events.push({ ...event, subject: `deployment ${name}` });
    return plan;
  });
  const rollouts = new Map<string, RolloutRecord | undefined>();
  for (const { deployment, record } of plans) {
    const limitMs = deployment.rollout.progressMsMax;
    if (!isWritten(record, input.rollouts.get(deployment.name), limitMs)) rollouts.set(deployment.name, record);
  }
  for (const name of input.rollouts.keys()) if (!deployments.has(name)) rollouts.set(name, undefined);
  return {
    assignments: changedAssignments(input, plans),
    rollouts,
    events,
    memory: draft.finish(),
    reviewMs: draft.reviewMs,
  };
}

/** Bytes of a copy: what the deployment says, else the manifest; undefined when there is no manifest. */
function memoryBytesOf({
  manifestOf,
}: ReconcileInput): (edition: Edition, deployment?: Deployment) => number | undefined {
  return ({ model, version }, deployment) => {
    const manifest = manifestOf(model, version);
    if (manifest === undefined) return undefined;
    const said = deployment?.model === model ? deployment.memoryBytes : 0;
    return said > 0 ? said : manifest.memoryBytes;
  };
}

/** Writes down what is on the devices: what is assigned and what hosts say is there, until they say it is gone. */
function takeMemory(
  table: PlacementTable,
  { assignments, actuals, deployments }: ReconcileInput,
  bytesOf: (edition: Edition, deployment?: Deployment) => number | undefined,
): void {
  for (const [host, { generation, replicas }] of assignments) {
    if (table.hosts.get(host)?.view.generation !== generation) continue;
    for (const replica of replicas) {
      const device = table.device(host, replica.device);
      const bytes = bytesOf(replica, deployments.get(replica.deployment)?.deployment) ?? 0;
      if (device !== undefined) table.take(device, editionText(replica), { bytes, assigned: true });
    }
  }
  for (const [host, { replicas }] of actuals) {
    for (const replica of replicas) {
      const device = table.device(host, replica.device);
      const bytes = Math.max(replica.memoryBytes, replica.memoryBytes > 0 ? 0 : (bytesOf(replica) ?? 0));
      if (device !== undefined) table.take(device, editionText(replica), { bytes, assigned: false });
    }
  }
}

/** A record is not written for the time alone, but for each quarter of the time limit. */
function isWritten(record: RolloutRecord, before: RolloutRecord | undefined, limitMs: number): boolean {
  if (before === undefined) return false;
  const quarter = ({ waitedMs }: RolloutRecord): number => Math.floor((4 * waitedMs) / limitMs);
  return (
    record.phase === before.phase &&
    record.reason === before.reason &&
    record.deploymentRevision === before.deploymentRevision &&
    record.nextReplica === before.nextReplica &&
    record.readyMost === before.readyMost &&
    editionText(record.target) === editionText(before.target) &&
    (record.stable === undefined ? '' : editionText(record.stable)) ===
      (before.stable === undefined ? '' : editionText(before.stable)) &&
    quarter(record) === quarter(before)
  );
}

function changedAssignments(
  input: ReconcileInput,
  plans: readonly DeploymentPlan[],
): ReadonlyMap<HostId, HostAssignment | undefined> {
  const { view, epoch, assignments, actuals } = input;
  const wanted = new Map<HostId, AssignedReplica[]>();
  for (const { copies } of plans) for (const copy of copies) addShards(wanted, copy);
  const complete = new Map<ModelName, boolean>();
  for (const { deployment, isCalm } of plans) {
    complete.set(deployment.model, isCalm && complete.get(deployment.model) !== false);
  }
  const calm = new Set(plans.flatMap(({ deployment, isCalm }) => (isCalm ? [deployment.name] : [])));
  const changed = new Map<HostId, HostAssignment | undefined>();
  for (const [host, { generation, record }] of view.hosts) {
    const before = assignments.get(host);
    const own = before?.generation === generation ? before : undefined;
    const replicas = (wanted.get(host) ?? []).sort(byPlace);
    const assigned = new Set(replicas.map(({ model }) => model));
    const withdrawn = withdrawnModels(before, actuals.get(host), { complete, assigned });
    if (own === undefined && replicas.length === 0 && withdrawn.length === 0) {
      // An incarnation that was told nothing keeps what it has, until whose copies it has can do without them.
      const hadCopies = before !== undefined && before.replicas.length > 0;
      if (record.role !== 'host' || !(hadCopies || hasSurplus(actuals.get(host), calm))) continue;
    }
    if (own !== undefined && isSameAssignment(own, replicas, withdrawn)) continue;
    changed.set(host, { format: 1, host, generation, epoch, replicas, withdrawn });
  }
  for (const host of assignments.keys()) if (!view.hosts.has(host)) changed.set(host, undefined);
  return changed;
}

function addShards(wanted: Map<HostId, AssignedReplica[]>, { deployment, replica, edition, places }: Copy): void {
  for (const [shard, { host, device }] of places.entries()) {
    const { model, version } = edition;
    const assigned: AssignedReplica = { deployment, model, version, device: device.id, replica, shard };
    const ofHost = wanted.get(host.host);
    if (ofHost === undefined) wanted.set(host.host, [assigned]);
    else ofHost.push(assigned);
  }
}

/** Whether a host has copies of deployments that are complete without them, as one that was away for a while. */
function hasSurplus(actual: HostActual | undefined, calm: ReadonlySet<string>): boolean {
  return actual?.replicas.some(({ deployment }) => calm.has(deployment)) === true;
}

/**
 * Models of the host's own repository that deployments rule and serve: once withdrawn they stay so while the deployment
 * lasts. A model is withdrawn only when all copies of its deployments are ready.
 */
function withdrawnModels(
  before: HostAssignment | undefined,
  actual: HostActual | undefined,
  {
    complete,
    assigned,
  }: { readonly complete: ReadonlyMap<ModelName, boolean>; readonly assigned: ReadonlySet<ModelName> },
): readonly ModelName[] {
  const models = new Set<ModelName>();
  for (const model of before?.withdrawn ?? []) if (complete.has(model)) models.add(model);
  for (const { model } of before?.replicas ?? []) {
    if (complete.has(model) && (complete.get(model) === true || !assigned.has(model))) models.add(model);
  }
  for (const { model, deployment } of actual?.replicas ?? []) {
    if (deployment === '' && complete.get(model) === true) models.add(model);
  }
  return [...models].sort();
}

function isSameAssignment(
  { replicas, withdrawn }: HostAssignment,
  nowReplicas: readonly AssignedReplica[],
  nowWithdrawn: readonly ModelName[],
): boolean {
  return (
    replicas.length === nowReplicas.length &&
    withdrawn.length === nowWithdrawn.length &&
    withdrawn.every((model, index) => model === nowWithdrawn[index]) &&
    replicas.every((replica, index) => isSameReplica(replica, nowReplicas[index]))
  );
}

function isSameReplica(one: AssignedReplica, other: AssignedReplica | undefined): boolean {
  return (
    one.deployment === other?.deployment &&
    one.replica === other.replica &&
    one.shard === other.shard &&
    one.device === other.device &&
    one.version === other.version &&
    one.model === other.model
  );
}

function byPlace(one: AssignedReplica, other: AssignedReplica): number {
  return compare(one.deployment, other.deployment) || one.replica - other.replica || one.shard - other.shard;
}

function compare(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}
