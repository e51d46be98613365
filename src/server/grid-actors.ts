/**
 * The actors that make a host part of a grid, spawned and bound to each other in the order in which they need each other.
 * Real hosts and simulated ones start them through here, so that what is simulated is what runs.
 *
 * It leaves to others: devices and the model registry (they are there before, with or without a grid), the links, the
 * store, and joining: `membership` registers the host at once; whoever wants to wait asks it to `join`.
 */
import { controllerActor } from '#actors/controller/actor.js';
import type { ControllerMessage } from '#actors/controller/protocol.js';
import { departureActor } from '#actors/departure/actor.js';
import { detectorActor } from '#actors/detector/actor.js';
import type { DetectorActorOptions } from '#actors/detector/options.js';
import type { DetectorMessage } from '#actors/detector/protocol.js';
import type { DeviceHealth } from '#actors/device/protocol.js';
import { electionActor } from '#actors/election/actor.js';
import type { ElectionMessage } from '#actors/election/protocol.js';
import { hostAgentActor } from '#actors/host-agent/actor.js';
import type { HostAgentOptions } from '#actors/host-agent/options.js';
import type { HostAgentMessage } from '#actors/host-agent/protocol.js';
import { ingressActor, type IngressOptions } from '#actors/ingress/actor.js';
import { ingressPath, type IngressMessage } from '#actors/ingress/protocol.js';
import { membershipActor } from '#actors/membership/actor.js';
import type { MembershipMessage, ViewNews } from '#actors/membership/protocol.js';
import { PeerRoster, peersActor, type PeersOptions } from '#actors/peer/peers.js';
import { servedSweepActor } from '#actors/served-sweep/actor.js';
import { replanActor, type ReplanOptions, type StageRow } from '#actors/replan/actor.js';
import { residencyActor, type ResidencyOptions } from '#actors/residency/actor.js';
import { routingActor } from '#actors/routing/actor.js';
import type { RoutingMessage } from '#actors/routing/protocol.js';
import type { ModelRegistryMessage } from '#actors/model-registry/protocol.js';
import type { Catalog } from '#core/catalog.js';
import { emptyCatalog } from '#core/catalog.js';
import type { DemandRow } from '#core/grid/demand.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { ReconcileOptions } from '#core/grid/reconcile-memory.js';
import type { HostRecord } from '#core/grid/records.js';
import type { DeviceId } from '#core/ids.js';
import type { Picker } from '#core/picker.js';
import type { Clock } from '#ports/clock.js';
import type { RemoteDelivery } from '#ports/remote-delivery.js';
import type { Store } from '#ports/store.js';
import type { ActorRef, Delivery } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import { DemandMeter } from './demand-meter.js';
import { DeviceLoads, type LoadedDevice } from './device-loads.js';
import { DeviceStanding } from './device-standing.js';
import type { PublishedRouter } from './router.js';
import { ReferenceRuns, type ReferenceOptions } from './reference-runs.js';
import { SpotChecks, type SpotCheckOptions } from './spot-checks.js';
import { StageDesk, type StageDeskOptions } from './stage-desk.js';

export interface GridActorsOptions {
  /** Made with `links` as its way to other hosts, and attached to them. */
  readonly system: ActorSystem;
  readonly clock: Clock;
  readonly store: Store;
  readonly keys: GridKeys;
  readonly links: RemoteDelivery;
  readonly record: HostRecord;
  /** Gets the grid's tables, and is told where devices are: those of other hosts, and the own ones, with their stages. */
  readonly router: PublishedRouter;
  readonly picker: Picker;
  /** Devices of this host; none on a host that is only a gateway. */
  readonly devices: readonly LoadedDevice[];
  /** What serves models here; absent on a host that is only a gateway. */
  readonly serving?: {
    readonly registry: ActorRef<ModelRegistryMessage>;
    readonly artifacts: HostAgentOptions['artifacts'];
    readonly onRuled?: HostAgentOptions['onRuled'];
    readonly isOwn?: HostAgentOptions['isOwn'];
    readonly agent?: Partial<Pick<HostAgentOptions, 'routeAwayMs' | 'publishMsMin' | 'retryMsMin' | 'retryMsMax'>>;
  };
  /** Called when a drain's deadline has come and the host has left the grid: what runs it ends now. Default: nobody is told. */
  readonly onDeparture?: () => void;
  /** Whether this host may lead. Default: true. */
  readonly isCandidate?: boolean;
  /** Time to live of the host's lease and of the leader's, ms. Defaults 10,000 and 6,000. */
  readonly leaseMs?: number;
  readonly leaderLeaseMs?: number;
  readonly detector?: DetectorActorOptions['limits'];
  readonly reconcile?: Partial<ReconcileOptions>;
  readonly ingress?: Omit<IngressOptions, 'deviceOf'>;
  readonly peers?: Pick<PeersOptions, 'requestsMax' | 'bytesMax'>;
  /** Cuts a split anew whose stages drift. Default: nothing is planned again. */
  readonly replan?: Pick<ReplanOptions, 'planAgain' | 'everyMs' | 'drift'>;
  /** Plans which models live where, for deployments that ask for it. Default: nothing is planned. */
  readonly residency?: Pick<ResidencyOptions, 'solver' | 'everyMs'>;
  /** Samples of answers that other holders run again. Default: none. */
  readonly spotChecks?: Pick<SpotCheckOptions, 'share' | 'random' | 'metrics' | 'judge'> & {
    /** Where samples are run that nobody else can run. Absent: they are not taken. */
    readonly reference?: Pick<ReferenceOptions, 'open' | 'log' | 'idleMs'>;
  };
  /** Counts of what happens between stages of split models, and bounds of what is kept for them. */
  readonly stages: Pick<StageDeskOptions, 'counts' | 'bytesMax' | 'requestsMax' | 'attemptsMax' | 'attempts'>;
}

/** The actors of a host of a grid. Their mailboxes take messages at once. */
export interface GridActors {
  readonly membership: ActorRef<MembershipMessage>;
  readonly detector: ActorRef<DetectorMessage>;
  readonly election: ActorRef<ElectionMessage>;
  readonly routing: ActorRef<RoutingMessage>;
  readonly roster: PeerRoster;
  readonly controller: ActorRef<ControllerMessage> | undefined;
  readonly ingress: ActorRef<IngressMessage> | undefined;
  readonly agent: ActorRef<HostAgentMessage> | undefined;
  /** To be called with each catalogue that the model registry publishes, from the first on. */
  onCatalog(catalog: Catalog): void;
  /** To be called with each change of a device's health. */
  onHealth(device: DeviceId, health: DeviceHealth, reason: string): void;
  /** Before the host stops: no answer is compared any more, and what that took is freed. */
  endChecks(): Promise<void>;
}

/** Messages that may wait for the ingress of a host. */
const ingressMessagesMax = 50_000;

export function startGridActors(options: GridActorsOptions): GridActors {
  const { system, clock, store, keys, links, record, router, picker, devices, serving, isCandidate = true } = options;
  const { host, process } = record;
  const { leaseMs, leaderLeaseMs, detector: limits } = options;

  const membership: ActorRef<MembershipMessage> = system.spawn(
    'membership',
    membershipActor({ store, keys, record, ...(leaseMs === undefined ? {} : { leaseMs }) }),
  );

  const loads = new DeviceLoads(clock, devices);
  const detector: ActorRef<DetectorMessage> = system.spawn(
    'detector',
    detectorActor({
      host,
      process,
      store,
      keys,
      membership,
      detectorOf: (other) => system.ref({ host: other, path: 'detector', incarnation: 0 }),
      readLoad: () => loads.read(),
      ...(limits === undefined ? {} : { limits }),
    }),
  );

  // Requests of other hosts' gateways, and this gateway's requests to other hosts.
  const stages = new StageDesk({ ...options.stages, host, process, router, clock });
  const health = new DeviceStanding((device, ready, reason) => {
    routing.tell({ type: 'ready', device, ready });
    agent?.tell({ type: 'device-health', device, reason });
  });
  const { spotChecks } = options;
  const isBusy = (): boolean => loads.read().some(({ queued }) => queued > 0);
  const reference =
    spotChecks?.reference === undefined || serving === undefined
      ? undefined
      : new ReferenceRuns({ ...spotChecks.reference, registry: serving.registry, clock, isBusy });
  const checks =
    spotChecks === undefined
      ? undefined
      : new SpotChecks({
          ...{ share: spotChecks.share, random: spotChecks.random, metrics: spotChecks.metrics },
          ...(spotChecks.judge === undefined ? {} : { judge: spotChecks.judge }),
          ...(reference === undefined ? {} : { reference }),
          ...{ host, router, clock },
          isReference: cpusOfView(membership),
          onDrift: (device, reason) => health.giveUp(device, reason),
        });
  const own = new Map(
    devices.map(({ descriptor: { id }, ref }) => [
      id,
      stages.device(checks === undefined ? ref : checks.device(id, ref)),
    ]),
  );
  for (const [device, ref] of own) router.setDevice(host, device, ref);
  const ingress: ActorRef<IngressMessage> | undefined =
    devices.length === 0
      ? undefined
      : system.spawn(ingressPath, ingressActor({ ...options.ingress, deviceOf: (device) => own.get(device) }), {
          // What does not fit is lost without a word until its attempt is overdue: its own bounds answer long before.
          mailbox: { messagesMax: ingressMessagesMax },
        });
  const roster = new PeerRoster();
  roster.onChange = () => router.forget();
  router.setRemote((other, device) => roster.device(other, device));
  system.spawn('peers', peersActor({ ...options.peers, clock, links, host, membership, roster }));
  const routing: ActorRef<RoutingMessage> = system.spawn(
    'routing',
    routingActor({ host, keys, store, picker, membership, publish: (table) => router.publish(table) }),
  );

  // Who decides what is served where, and who does it here.
  const election: ActorRef<ElectionMessage> = system.spawn(
    'election',
    electionActor({
      host,
      process,
      store,
      keys,
      membership,
      isCandidate,
      ...(leaderLeaseMs === undefined ? {} : { leaseMs: leaderLeaseMs }),
    }),
  );
  const controller: ActorRef<ControllerMessage> | undefined = isCandidate
    ? system.spawn(
        'controller',
        controllerActor({
          host,
          store,
          keys,
          membership,
          election,
          ...(options.reconcile === undefined ? {} : { reconcile: options.reconcile }),
        }),
      )
    : undefined;
  if (options.replan !== undefined && isCandidate) {
    const rows = (): readonly StageRow[] => options.stages.counts.rows().map(({ model: _, ...row }) => row);
    system.spawn('replan', replanActor({ ...options.replan, host, store, keys, election, rows }));
  }
  if (options.residency !== undefined) {
    const meter = new DemandMeter(clock, devices);
    const demand = (): Promise<readonly DemandRow[]> => meter.look();
    system.spawn(
      'residency',
      residencyActor({ ...options.residency, host, store, keys, election, membership, demand }),
    );
  }
  if (isCandidate) system.spawn('served-sweep', servedSweepActor({ store, keys, election }));
  const agent: ActorRef<HostAgentMessage> | undefined =
    serving === undefined
      ? undefined
      : system.spawn(
          'host-agent',
          hostAgentActor({
            host,
            store,
            keys,
            membership,
            registry: serving.registry,
            artifacts: serving.artifacts,
            devices: devices.map(({ descriptor, ref }) => ({ id: descriptor.id, ref })),
            catalog: emptyCatalog,
            ...(serving.onRuled === undefined ? {} : { onRuled: serving.onRuled }),
            ...(serving.isOwn === undefined ? {} : { isOwn: serving.isOwn }),
            ...serving.agent,
          }),
        );

  system.spawn(
    'departure',
    departureActor({ host, store, keys, membership, ingress, onDeparture: options.onDeparture ?? (() => undefined) }),
  );

  return {
    membership,
    detector,
    election,
    routing,
    roster,
    controller,
    ingress,
    agent,
    onCatalog: (catalog) => {
      routing.tell({ type: 'catalog', catalog });
      agent?.tell({ type: 'catalog', catalog });
    },
    onHealth: (device, word, reason) => health.tell(device, word, reason),
    endChecks: async () => reference?.end(),
  };
}

/** Whether a device of the grid is a true CPU, as hosts registered them. */
function cpusOfView(membership: ActorRef<MembershipMessage>): SpotCheckOptions['isReference'] {
  let hosts: ViewNews['view']['hosts'] = new Map();
  const tell = ({ view }: ViewNews): Delivery => {
    hosts = view.hosts;
    return 'accepted';
  };
  membership.tell({ type: 'subscribe', subscriber: { tell }, about: 'members' });
  return (host, device) => {
    const found = hosts.get(host)?.record.devices.find(({ id }) => id === device);
    return found?.provider === 'cpu' && !found.emulated;
  };
}
