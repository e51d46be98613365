/**
 * What operators and clients ask of the grid, answered by any gateway: from the view it has, and from the store where the
 * view does not tell. Orders and deployments are written to the store; whoever leads carries them out.
 */
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { deploymentsOfFile, deploymentToText, type WantedDeployment } from '#core/grid/deployment-file.js';
import { DesiredState, prefixOf, type Folder } from '#core/grid/desired-state.js';
import { deploymentDifferences, differenceText } from '#core/grid/difference.js';
import { readLeader } from '#core/grid/election.js';
import type { GridKeys } from '#core/grid/keys.js';
import { readHostOrder, writeMember } from '#core/grid/member-text.js';
import { modelRecords } from '#core/grid/model-records.js';
import { placedReplicas, placementLine, type PlacedReplica } from '#core/grid/placement-lines.js';
import { reconcile } from '#core/grid/reconcile.js';
import { defaultReconcileOptions, emptyMemory } from '#core/grid/reconcile-memory.js';
import type { AssignedReplica, Deployment, GridEvent, HostOrder, ModelManifest, ViewHost } from '#core/grid/records.js';
import { editionText, pieceText, wantedEdition } from '#core/grid/rollout.js';
import { variantVerificationText, type DescribedVariant } from '#core/grid/variant-verification.js';
import { verificationText } from '#core/grid/verification.js';
import { hostId, type HostId, type ModelName, type ModelVersion } from '#core/ids.js';
import type { ModelConfig } from '#core/model-config.js';
import { whyNotSpread } from '#core/split/spread-rule.js';
import type { Clock } from '#ports/clock.js';
import type {
  DeployOutcome,
  GridAdmin,
  GridCall,
  GridDeploymentStatus,
  GridEventLine,
  GridEventListener,
  GridHosts,
  GridHostStatus,
  GridProfiles,
  GridReplicaStatus,
  GridStatus,
  PreparedSplit,
} from '#ports/grid-admin.js';
import type { PolicyBook, PolicyOrder, PolicyOutcome } from '#ports/policy-admin.js';
import type { SplitGate } from '#ports/split-gate.js';
import type { Store, StoreSnapshot } from '#ports/store.js';
import type { ViewNews } from '#actors/membership/protocol.js';
import { PolicyDesk, type PolicyTools } from './policy-desk.js';
import { publishedProfiles } from './published-profiles.js';
import { SplitDesk } from './split-desk.js';
import type { ServingStage } from '#core/split/replan.js';

export interface GridDeskOptions {
  readonly grid: string;
  readonly host: HostId;
  readonly store: Store;
  /** What the store is, in words: `etcd` or `embedded`. */
  readonly storeKind: string;
  readonly keys: GridKeys;
  readonly clock: Clock;
  /** Makes and compares splits; absent: this host cannot. */
  readonly gate?: SplitGate;
  /** The files of a version in this host's own repository, loaded or not; undefined when it has none. */
  readonly describe?: (model: ModelName, version: ModelVersion) => Promise<ModelManifest | undefined>;
  /** Of such a version: its variants that were compared with it and are allowed. Default: none. */
  readonly variants?: (model: ModelName, version: ModelVersion) => Promise<readonly DescribedVariant[]>;
  /** What policies are checked with; absent: none is promoted through this host. */
  readonly policyTools?: PolicyTools;
  /** The configuration of a version that this gateway knows as served; undefined when it knows none. */
  readonly configOf?: (model: ModelName, version: ModelVersion) => ModelConfig | undefined;
  /** What is served as far as this gateway knows, for as long as the store does not say. Default: nothing is known. */
  readonly served?: () => readonly GridReplicaStatus[];
}

/** Longest wait for the store where the caller gave no deadline, ms. */
const callMsMax = 10_000;
/** Attempts at a write that others write at the same time. */
const writeAttemptsMax = 5;
const listenersMax = 10_000;

export class GridDesk implements GridAdmin {
  readonly #options: GridDeskOptions;
  readonly #splits: SplitDesk | undefined;
  readonly #policies: PolicyDesk | undefined;
  readonly #listeners = new Set<(hosts: GridHosts) => void>();
  #news: ViewNews | undefined;

  constructor(options: GridDeskOptions) {
    this.#options = options;
    const { gate, policyTools: tools } = options;
    this.#splits = gate === undefined ? undefined : new SplitDesk({ ...options, gate });
    this.#policies = tools === undefined ? undefined : new PolicyDesk({ ...options, tools });
  }

  /** The newest view: subscribe it at the membership actor. */
  tell(news: ViewNews): void {
    const before = this.#news?.view;
    this.#news = news;
    if (before === news.view) return;
    const hosts = this.discover();
    for (const listener of this.#listeners) listener(hosts);
  }

  discover(): GridHosts {
    const { grid } = this.#options;
    const view = this.#news?.view;
    const gateways = [...(view?.hosts.values() ?? [])].filter(({ record }) => record.grpcEndpoint !== '');
    return { grid, revision: view?.revision ?? 0, gateways: gateways.map(gatewayOf).sort(byHost) };
  }

  watchHosts(listener: (hosts: GridHosts) => void): () => void {
    if (this.#listeners.size >= listenersMax) {
      throw intarsiaError('RESOURCE_EXHAUSTED', `${listenersMax} watchers of hosts are here already`, { listenersMax });
    }
    let isOver = false;
    const told = (hosts: GridHosts): void => {
      if (!isOver) listener(hosts);
    };
    this.#listeners.add(told);
    this.#options.clock.defer(() => told(this.discover()));
    return () => {
      isOver = true;
      this.#listeners.delete(told);
    };
  }

  async status(call: GridCall): Promise<GridStatus> {
    const { grid, host, storeKind } = this.#options;
    const news = this.#news;
    const common = {
      grid,
      revision: news?.view.revision ?? 0,
      host,
      store: storeKind,
      hosts: this.#hosts(),
    };
    try {
      const [state, leader] = await Promise.all([this.#desired(call), this.#leader(call)]);
      return { ...common, leader, storeConnected: news?.stale === false, ...reportOf(state) };
    } catch (error) {
      // Without the store the view is still worth telling: an operator looks because the store is away.
      if (!asIntarsiaError(error).retryable && asIntarsiaError(error).code !== 'DEADLINE_EXCEEDED') throw error;
      const replicas = this.#options.served?.() ?? [];
      return { ...common, leader: '', storeConnected: false, replicas, deployments: [] };
    }
  }

  watchEvents(
    { after, follow }: { readonly after: number; readonly follow: boolean },
    listener: GridEventListener,
  ): () => void {
    const { store, keys, clock } = this.#options;
    let isOver = false;
    let last = after;
    let stopWatch = (): void => {};
    const end = (error?: unknown): void => {
      if (isOver) return;
      isOver = true;
      stopWatch();
      listener.end(error);
    };
    const tell = (events: readonly GridEventLine[]): void => {
      for (const event of [...events].sort((a, b) => a.number - b.number)) {
        if (isOver || event.number <= last) continue;
        last = event.number;
        listener.event(event);
      }
    };
    const begin = async (): Promise<void> => {
      const snapshot = await store.range(keys.events, { deadlineMs: clock.nowMs() + callMsMax });
      if (isOver) return;
      tell(snapshot.entries.flatMap(({ value }) => eventOf(value)));
      if (!follow) {
        end();
        return;
      }
      const watch = store.watch(keys.events, snapshot.revision + 1, (event) => {
        if (event.type === 'lost') {
          watch.cancel();
          begin().catch(end);
        } else if (event.type === 'changes') {
          tell(event.changes.flatMap((change) => (change.type === 'put' ? eventOf(change.entry.value) : [])));
        }
      });
      stopWatch = () => watch.cancel();
    };
    begin().catch(end);
    return () => {
      isOver = true;
      stopWatch();
    };
  }

  async deploy(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
  ): Promise<DeployOutcome> {
    const { splitWish, ...deployment } = parseDeployment(request.deploymentJson);
    if (splitWish !== undefined) {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        'the split of the deployment is not made yet: PrepareSplit makes it',
        {},
      );
    }
    const { store, keys } = this.#options;
    const key = keys.deployment(deployment.name);
    this.#checkStrategy(deployment);
    await this.#offerFiles(deployment, call);
    for (let attempt = 1; attempt <= writeAttemptsMax; attempt += 1) {
      const state = await this.#desired(call);
      const known = new Map([...state.deployments].map(([name, desired]) => [name, desired.deployment]));
      const differences = deploymentDifferences(known, [deployment]);
      const { refusal, placed } = this.#place(state, deployment, request.dryRun);
      const outcome = {
        name: deployment.name,
        differences: differenceText(differences).split('\n'),
        refusals: refusal === '' ? [] : [refusal],
        placements: [...placed.map(placementLine), ...variantLines(state, deployment, placed)],
      };
      if (request.dryRun || refusal !== '') return { ...outcome, applied: false };
      const before = state.deployments.get(deployment.name);
      const { ok } = await store.transact(
        {
          conditions: [
            before === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: before.revision },
          ],
          operations: [{ type: 'put', key, value: deploymentToText(deployment) }],
        },
        this.#until(call),
      );
      if (ok) return { ...outcome, applied: true };
    }
    throw busy(`deployment ${deployment.name}`);
  }

  async prepareSplit(
    request: { readonly deploymentJson: string; readonly dryRun: boolean },
    call: GridCall,
    onProgress: (share: number, words: string) => void,
  ): Promise<PreparedSplit> {
    const wanted = parseDeployment(request.deploymentJson);
    const { splitWish, model, version } = wanted;
    if (splitWish === undefined) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `deployment ${wanted.name} says nothing of a split that is to be made`,
        {},
      );
    }
    if (this.#splits === undefined) throw intarsiaError('UNIMPLEMENTED', 'this host cannot compare splits', {});
    await this.#offerFiles(wanted, call);
    const state = await this.#desired(call);
    const manifest = state.manifestOf(model, version);
    if (manifest === undefined) throw intarsiaError('MODEL_NOT_FOUND', noFiles(wanted), { model, version });
    return await this.#splits.prepare({
      wanted: { ...wanted, splitWish },
      dryRun: request.dryRun,
      manifest,
      place: (deployment) => this.#place(state, deployment, true),
      known: (split) => state.verificationOf(model, version, split),
      deadlineMs: call.deadlineMs,
      onProgress,
    });
  }

  /**
   * A deployment that is in pieces, cut anew for the times that its stages show; undefined when no cut is better by a tenth.
   * Nothing is applied. @throws as `prepareSplit`, and FAILED_PRECONDITION when what would be better is refused.
   */
  async planAgain(
    deployment: Deployment,
    stages: readonly ServingStage[],
    call: Pick<GridCall, 'deadlineMs'>,
  ): Promise<Deployment | undefined> {
    const { model, version } = deployment;
    const state = await this.#desired(call);
    const manifest = state.manifestOf(model, version);
    if (manifest === undefined || this.#splits === undefined) return undefined;
    return await this.#splits.planAgain({
      ...{ deployment, stages, manifest },
      place: (wanted) => this.#place(state, wanted, true),
      known: (split) => state.verificationOf(model, version, split),
      deadlineMs: call.deadlineMs,
    });
  }

  async profiles({ digest }: { readonly digest: string }, call: GridCall): Promise<GridProfiles> {
    const { store, keys } = this.#options;
    return await publishedProfiles(digest, { store, keys, ...this.#until(call) });
  }

  async undeploy({ name }: { readonly name: string }, call: GridCall): Promise<{ readonly replicas: number }> {
    const { store, keys } = this.#options;
    const state = await this.#desired(call);
    const desired = state.deployments.get(name);
    if (desired === undefined) {
      throw intarsiaError('NOT_FOUND', `there is no deployment ${JSON.stringify(name.slice(0, 80))}`, {});
    }
    const key = keys.deployment(name);
    const { ok } = await store.transact(
      {
        conditions: [{ key, test: 'modRevision', equals: desired.revision }],
        operations: [{ type: 'delete', key }],
      },
      this.#until(call),
    );
    if (!ok) throw busy(`deployment ${name}`);
    const replicas = [...state.assignments.values()].flatMap((assignment) => assignment.replicas);
    return { replicas: replicas.filter(({ deployment }) => deployment === name).length };
  }

  async order(
    request: {
      readonly host: string;
      readonly order: 'cordon' | 'uncordon' | 'drain';
      readonly reason: string;
      readonly withinMs: number;
    },
    call: GridCall,
  ): Promise<{ readonly cordoned: boolean; readonly draining: boolean }> {
    const { store, keys, clock } = this.#options;
    const host = hostId(request.host);
    const key = keys.order(host);
    if (this.#news?.view.hosts.has(host) !== true) {
      const known = [...(this.#news?.view.hosts.keys() ?? [])].sort().join(', ');
      throw intarsiaError('NOT_FOUND', `there is no host ${host} in the grid; there are ${known}`, { host });
    }
    if (!(request.withinMs >= 0 && request.withinMs <= 86_400_000)) {
      throw intarsiaError('INVALID_ARGUMENT', `within_ms must be from 0 to 86,400,000; it is ${request.withinMs}`);
    }
    const until = this.#until(call);
    for (let attempt = 1; attempt <= writeAttemptsMax; attempt += 1) {
      const { entry } = await store.get(key, until);
      const read = entry === undefined ? undefined : readHostOrder(entry.value);
      const before = read?.ok === true ? read.value : undefined;
      const draining = request.order === 'drain' || (request.order === 'cordon' && before?.draining === true);
      const order: HostOrder = {
        format: 1,
        cordoned: request.order !== 'uncordon',
        draining,
        deadlineWallMs: request.order === 'drain' && request.withinMs > 0 ? clock.wallMs() + request.withinMs : 0,
        reason: request.reason.slice(0, 255),
      };
      const { ok } = await store.transact(
        {
          conditions: [
            entry === undefined ? { key, test: 'absent' } : { key, test: 'modRevision', equals: entry.modRevision },
          ],
          operations: [
            request.order === 'uncordon' ? { type: 'delete', key } : { type: 'put', key, value: writeMember(order) },
          ],
        },
        until,
      );
      if (ok) return { cordoned: order.cordoned, draining: order.draining };
    }
    throw busy(`the orders of host ${host}`);
  }

  /** @throws INVALID_ARGUMENT for a strategy that the model's configuration makes impossible, as far as it is known here. */
  #checkStrategy({ name, model, version, strategy }: Deployment): void {
    const config = strategy === 'data' ? this.#options.configOf?.(model, version) : undefined;
    const why = config === undefined ? '' : whyNotSpread(config);
    if (why === '') return;
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `deployment ${name}: strategy: 'data' is not possible for ${model}/${version}, because ${why}; it may be 'pipeline' or 'auto'`,
      { model, version },
    );
  }

  /** Hosts publish what they serve. What this one only has on disk is published once a deployment asks for it. */
  async #offerFiles({ model, version }: Deployment, call: GridCall): Promise<void> {
    const { store, keys, describe, variants, host, clock } = this.#options;
    const key = keys.model(model, version);
    if (describe === undefined || (await store.get(key, this.#until(call))).entry !== undefined) return;
    const manifest = await describe(model, version);
    if (manifest === undefined) return;
    const found = (await variants?.(model, version)) ?? [];
    const records = modelRecords({ keys, manifest, variants: found, host, wallMs: clock.wallMs() });
    await store.transact(
      {
        conditions: [{ key, test: 'absent' }],
        operations: records.map((record) => ({ type: 'put', key: record.key, value: record.value })),
      },
      this.#until(call),
    );
  }

  policies(call: GridCall): Promise<PolicyBook> {
    return this.#policyDesk().policies(call);
  }

  orderPolicy(order: PolicyOrder, call: GridCall): Promise<PolicyOutcome> {
    return this.#policyDesk().orderPolicy(order, call);
  }

  #policyDesk(): PolicyDesk {
    if (this.#policies === undefined) throw intarsiaError('UNIMPLEMENTED', 'this host promotes no policies', {});
    return this.#policies;
  }

  #hosts(): readonly GridHostStatus[] {
    const peers = this.#news?.peers;
    return [...(this.#news?.view.hosts.values() ?? [])]
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

  /**
   * Where the deployment would be, and why it as a whole can find no place now: empty when it can, or when it takes the
   * place of an older one. @param isTrial A split that the gate has not seen yet counts as one that it found equal.
   */
  #place(
    state: DesiredState,
    deployment: Deployment,
    isTrial: boolean,
  ): { readonly refusal: string; readonly placed: readonly PlacedReplica[] } {
    const { clock } = this.#options;
    const view = this.#news?.view;
    if (view === undefined) return { refusal: 'this host has no view of the grid yet', placed: [] };
    if (state.manifestOf(deployment.model, deployment.version) === undefined) {
      return { refusal: noFiles(deployment), placed: [] };
    }
    const revision = (state.deployments.get(deployment.name)?.revision ?? 0) + 1;
    const output = reconcile({
      nowMs: clock.nowMs(),
      epoch: 0,
      view,
      deployments: new Map([...state.deployments, [deployment.name, { deployment, revision }]]),
      rollouts: state.rollouts,
      assignments: state.assignments,
      actuals: state.actuals,
      manifestOf: state.manifestOf,
      verificationOf: isTrial ? (): typeof trial => trial : state.verificationOf,
      variantsOf: state.variantsOf,
      memory: emptyMemory,
      options: defaultReconcileOptions,
    });
    const assignments = new Map(state.assignments);
    for (const [host, assignment] of output.assignments) {
      if (assignment === undefined) assignments.delete(host);
      else assignments.set(host, assignment);
    }
    const wanted = editionText(wantedEdition(deployment));
    const placed = placedReplicas(deployment.name, view, assignments);
    return {
      refusal: output.memory.refusals.get(deployment.name) ?? '',
      placed: placed.filter(({ replica }) => editionText(replica) === wanted),
    };
  }

  async #desired(call: Pick<GridCall, 'deadlineMs'>): Promise<DesiredState> {
    const { store, keys } = this.#options;
    const state = new DesiredState(keys, () => {});
    const folders: readonly Folder[] = ['deployments', 'rollouts', 'assignments', 'actual', 'models', 'verifications'];
    const snapshots = await Promise.all(
      folders.map((folder) => store.range(prefixOf(keys, folder), this.#until(call))),
    );
    for (const [index, folder] of folders.entries()) {
      for (const entry of (snapshots[index] as StoreSnapshot).entries) state.set(folder, entry.key, entry);
    }
    return state;
  }

  async #leader(call: GridCall): Promise<string> {
    const { store, keys } = this.#options;
    const { entry } = await store.get(keys.leader, this.#until(call));
    return entry === undefined ? '' : (readLeader(entry.value)?.host ?? '');
  }

  #until({ deadlineMs }: Pick<GridCall, 'deadlineMs'>): { readonly deadlineMs: number } {
    return { deadlineMs: Math.min(deadlineMs, this.#options.clock.nowMs() + callMsMax) };
  }
}

function gatewayOf({ record, state }: ViewHost): GridHosts['gateways'][number] {
  const { host, grpcEndpoint, httpEndpoint, role, zone, tier } = record;
  return { host, grpcEndpoint, httpEndpoint, role, zone, tier, state };
}

function byHost(left: { readonly host: string }, right: { readonly host: string }): number {
  return left.host < right.host ? -1 : Number(left.host > right.host);
}

function reportOf(state: DesiredState): Pick<GridStatus, 'replicas' | 'deployments'> {
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

/** What the gate found of the variants that copies are placed in. */
function variantLines(
  { variantsOf }: DesiredState,
  { model, version }: Deployment,
  placed: readonly PlacedReplica[],
): readonly string[] {
  const used = new Set(placed.map(({ replica }) => replica.form?.variant ?? ''));
  return variantsOf(model, version)
    .filter(({ name }) => used.has(name))
    .map(variantVerificationText);
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

/** What stands for the verdict on a split that is only tried. */
const trial = { verdict: 'equal' } as const;

function noFiles({ model, version }: Deployment): string {
  return `no host of the grid has model ${model} version ${version} in its repository`;
}

function parseDeployment(text: string): WantedDeployment {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', 'the deployment is not JSON', { length: text.length }, error);
  }
  const deployments = deploymentsOfFile(data, 'deployment');
  const [deployment] = deployments;
  if (deployment === undefined || deployments.length !== 1) {
    throw intarsiaError('INVALID_ARGUMENT', `one deployment is taken at a time; there are ${deployments.length}`, {});
  }
  return deployment;
}

/** What somebody wrote under `events/`: nothing when it is no event. */
function eventOf(text: string): readonly GridEventLine[] {
  try {
    const { sequence, wallMs, level, subject, text: said } = JSON.parse(text) as GridEvent;
    return [{ number: sequence, wallMs, level, subject, text: said }];
  } catch {
    return [];
  }
}

function busy(what: string): Error {
  return intarsiaError('UNAVAILABLE', `${what} is being changed by somebody else; try again`, {});
}
