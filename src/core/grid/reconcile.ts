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
import { actualIndex, avoidKey, formField, placeHosts, readCopies, type Copies, type Copy } from './copies.js';
import { planDeployment, type DeploymentPlan } from './deployment-plan.js';
import { PlacementTable } from './placement.js';
import { formsOf } from './placement-forms.js';
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
import { editionText, pieceText, type EditionName } from './rollout.js';
import { isOfManifest, type VariantVerification } from './variant-verification.js';
import { verificationText, type VerificationRecord } from './verification.js';

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
  /** What the equivalence gate found of a split; undefined: it never looked. */
  readonly verificationOf: (
    model: ModelName,
    version: ModelVersion,
    split: string,
  ) => VerificationRecord | { readonly verdict: 'equal' } | undefined;
  /** What the gate found of variants that the version's configuration allows. */
  readonly variantsOf: (model: ModelName, version: ModelVersion) => readonly VariantVerification[];
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
  const copies = readCopies({ table, assignments, actualOf, draft, options: input.options });
  takeMemory(table, input, bytesOf, brokenPieces(copies));
  const events: ReconcileEvent[] = [];
  const plans = [...deployments.keys()].sort().map((name) => {
    const { deployment, revision } = deployments.get(name) as DesiredDeployment;
    const plan = planDeployment({
      deployment,
      revision,
      record: standingRecord(input.rollouts.get(name)),
      copies: copies.get(name)?.copies ?? [],
      broken: copies.get(name)?.broken ?? [],
      table,
      draft,
      options: input.options,
      bytesOf: (edition) => bytesOf(edition, deployment),
      formsOf: (edition) => {
        const variants = edition.split === undefined ? placeableVariants(input, edition) : [];
        const exactBytes = bytesOf(edition);
        if (variants.length === 0 || exactBytes === undefined) return undefined;
        return formsOf({
          exactBytes,
          saidBytes: deployment.model === edition.model ? deployment.memoryBytes : 0,
          variants,
        });
      },
      refusalOf: (edition) => splitRefusal(input, edition),
    });
    for (const event of plan.events) events.push({ ...event, subject: `deployment ${name}` });
    return plan;
  });
  const rollouts = new Map<string, RolloutRecord | undefined>();
  for (const { deployment, record } of plans) {
    const limitMs = deployment.rollout.progressMsMax;
    if (!isWritten(record, standingRecord(input.rollouts.get(deployment.name)), limitMs)) {
      rollouts.set(deployment.name, record);
    }
  }
  markRemoved(input, rollouts);
  return {
    assignments: changedAssignments(input, plans),
    rollouts,
    events,
    memory: draft.finish(),
    reviewMs: draft.reviewMs,
  };
}

/** Records of deployments that were taken back, kept at once: the others are deleted. */
const removedMax = 256;

function standingRecord(record: RolloutRecord | undefined): RolloutRecord | undefined {
  return record?.removed === true ? undefined : record;
}

function markRemoved(
  { rollouts: before, deployments }: ReconcileInput,
  rollouts: Map<string, RolloutRecord | undefined>,
): void {
  const gone = [...before].filter(([name]) => !deployments.has(name));
  for (const [index, [name, record]] of gone.entries()) {
    if (index < gone.length - removedMax) rollouts.set(name, undefined);
    else if (record.removed !== true) rollouts.set(name, { ...record, removed: true });
  }
}

/** Why an edition may not be placed, whatever room there is; empty when it may. */
function splitRefusal({ manifestOf, verificationOf }: ReconcileInput, { model, version, split }: Edition): string {
  const manifest = manifestOf(model, version);
  if (manifest === undefined) return 'no host has published the files of that version';
  if (split === undefined) return '';
  if (split.digest !== manifest.digest) {
    return `split ${split.id} was made of ${split.digest.slice(0, 12)}, and the published files are ${manifest.digest.slice(0, 12)}: deploy it again`;
  }
  const verification = verificationOf(model, version, split.id);
  if (verification === undefined) return `split ${split.id} was never compared with the whole model`;
  return verification.verdict === 'equal' ? '' : `split ${split.id} is ${verificationText(verification)}`;
}

/** Those that were compared as they are published. */
function placeableVariants(
  { manifestOf, variantsOf }: ReconcileInput,
  { model, version }: EditionName,
): readonly VariantVerification[] {
  const manifest = manifestOf(model, version);
  return manifest === undefined ? [] : variantsOf(model, version).filter((one) => isOfManifest(one, manifest));
}

/** Shards of broken copies: they are there, and a copy may be made of them again. */
function brokenPieces(copies: ReadonlyMap<string, Copies>): ReadonlySet<string> {
  const pieces = new Set<string>();
  for (const { broken } of copies.values()) {
    for (const { edition, places } of broken) {
      for (const [shard, place] of places.entries()) {
        if (place !== undefined) pieces.add(avoidKey({ ...edition, shard }, place));
      }
    }
  }
  return pieces;
}

/** Bytes of a copy: what the deployment says, else the manifest; undefined when there is no manifest. */
function memoryBytesOf({
  manifestOf,
}: ReconcileInput): (edition: EditionName, deployment?: Deployment) => number | undefined {
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
  input: ReconcileInput,
  bytesOf: (edition: EditionName, deployment?: Deployment) => number | undefined,
  broken: ReadonlySet<string>,
): void {
  const { assignments, actuals, deployments } = input;
  for (const [host, { generation, replicas }] of assignments) {
    if (table.hosts.get(host)?.view.generation !== generation) continue;
    for (const replica of replicas) {
      const device = table.device(host, replica.device);
      if (device === undefined) continue;
      const deployment = deployments.get(replica.deployment)?.deployment;
      const bytes =
        replica.split?.shards[replica.shard]?.memoryBytes ?? formBytes(input, replica, deployment, bytesOf) ?? 0;
      const assigned = broken.size === 0 || !broken.has(avoidKey(replica, device));
      table.take(device, pieceText(replica), { bytes, assigned, ...formField(replica.form) });
    }
  }
  for (const [host, { replicas }] of actuals) {
    for (const replica of replicas) {
      const device = table.device(host, replica.device);
      const unknown = replica.memoryBytes > 0 || replica.split !== undefined;
      const bytes = Math.max(replica.memoryBytes, unknown ? 0 : (bytesOf(replica) ?? 0));
      if (device !== undefined) table.take(device, pieceText(replica), { bytes, assigned: false });
    }
  }
}

/** Bytes of a whole copy in the form that it was given. */
function formBytes(
  input: ReconcileInput,
  replica: AssignedReplica,
  deployment: Deployment | undefined,
  bytesOf: (edition: EditionName, deployment?: Deployment) => number | undefined,
): number | undefined {
  const exact = bytesOf(replica, deployment);
  const { form } = replica;
  const variant =
    form === undefined || form.variant === ''
      ? undefined
      : placeableVariants(input, replica).find(({ name }) => name === form.variant);
  const own = bytesOf(replica);
  if (variant === undefined || exact === undefined || own === undefined || own === 0) return exact;
  return Math.ceil((variant.memoryBytes * exact) / own);
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
    isSameText(record.target, before.target) &&
    isSameText(record.stable, before.stable) &&
    quarter(record) === quarter(before)
  );
}

/** With what a split says beside its id. */
function isSameText(one: Edition | undefined, other: Edition | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return editionText(one) === editionText(other) && JSON.stringify(one.split) === JSON.stringify(other.split);
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
  // A deployment of which nothing is known at all may be one that the store has forgotten: its copies serve on.
  for (const name of input.rollouts.keys()) if (!input.deployments.has(name)) calm.add(name);
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

function addShards(
  wanted: Map<HostId, AssignedReplica[]>,
  { deployment, replica, edition, places, standby, form }: Copy,
): void {
  for (const [index, { host, device }] of places.entries()) {
    const assigned: AssignedReplica = {
      deployment,
      ...edition,
      device: device.id,
      replica,
      shard: standby ?? index,
      ...(standby === undefined ? {} : { standby: true }),
      ...formField(form),
    };
    const ofHost = wanted.get(host.host);
    if (ofHost === undefined) wanted.set(host.host, [assigned]);
    else ofHost.push(assigned);
  }
}

/** Whether a host has copies of deployments that are complete without them, or taken back, as one that was away has. */
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
    one.model === other.model &&
    one.standby === other.standby &&
    one.form?.variant === other.form?.variant &&
    JSON.stringify(one.split) === JSON.stringify(other.split)
  );
}

function byPlace(one: AssignedReplica, other: AssignedReplica): number {
  return compare(one.deployment, other.deployment) || one.replica - other.replica || one.shard - other.shard;
}

function compare(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}
