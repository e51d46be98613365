/**
 * A host's life in a grid: it registers once its ports are open, its actors do the rest, and it leaves in the order that
 * costs nobody a request: say so, wait until the others know, finish, deregister.
 */
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import type { DeviceDescriptor } from '#core/device.js';
import { linkVersionMax, linkVersionMin } from '#core/grid/link-frames.js';
import { manifestFromText } from '#core/grid/manifest.js';
import type { PublishedManifests } from '#core/grid/published-manifests.js';
import type { GridDevice, HostRecord, ModelManifest } from '#core/grid/records.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import type { HostId } from '#core/ids.js';
import type { ExecutionProvider } from '#core/provider.js';
import { entranceOf } from '#runtime/entrance.js';
import { StoreFollower, type FollowerMessage } from '#runtime/store-follower.js';
import type { ActorFactory, ActorRef } from '#runtime/actor.js';
import type { ActorSystem } from '#runtime/system.js';
import type { DrainOutcome, JoinOutcome, ViewNews } from '#actors/membership/protocol.js';
import { policyFollowerActor } from '#actors/policy-follower/actor.js';
import type { ModelRegistryMessage } from '#actors/model-registry/protocol.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import { startGridActors, type GridActors } from '#server/grid-actors.js';
import { GridDesk } from '#server/grid-desk.js';
import type { PublishedRouter } from '#server/router.js';
import { servedReplicas } from '#server/served-replicas.js';
import type { StageCounts } from '#server/stage-counts.js';
import type { ArtifactPeer } from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Metrics } from '#ports/metrics.js';
import type { Random } from '#ports/random.js';
import type { HostConfig } from '#config.js';
import { askAdmission } from './admission.js';
import type { GridPorts } from './grid-ports.js';
import type { StartedDevice } from './statistics.js';
import { splitGate } from './split/split-gate.js';
import type { HostDispatch } from './dispatch.js';
import { policyTools } from './promotion.js';
import { LinkedHosts } from './linked-hosts.js';
import { openReferenceDevice } from './reference-device.js';
import { nativeEngine } from './variants/native-engine.js';
import { version } from './version.js';

export interface GridHostOptions {
  readonly ports: GridPorts;
  readonly config: HostConfig;
  readonly host: HostId;
  readonly system: ActorSystem;
  readonly router: PublishedRouter;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly profiles: ProfileBook;
  readonly devices: readonly StartedDevice[];
  /** This machine's CPU, whether it serves or not; undefined where discovery found none. */
  readonly cpu: DeviceDescriptor | undefined;
  readonly registry: ActorRef<ModelRegistryMessage>;
  readonly stageCounts: StageCounts;
  readonly metrics: Metrics;
  readonly dispatch: HostDispatch;
  /** The time of a drain is over and the host has left the grid: it is to be ended. */
  readonly onDeparture: () => void;
}

/** Where clients reach this host; empty where they reach it by other processes. */
export interface ClientEndpoints {
  readonly grpc: string;
  readonly http: string;
}

/** A host may wait this long for the store, and for a predecessor's lease, when it starts, ms. */
const joinMsMax = 60_000;
/** The other hosts get this long to notice that this one leaves, ms. */
const drainWaitMsMax = 3_000;
const leaveMsMax = 5_000;
const manifestCallMs = 5_000;
/** A new cut of a split that drifts may take this long, its comparison included, ms. */
const replanMsMax = 600_000;
/** TFLOPS of one core, for devices whose profile says more than their number of threads. */
const coreTeraflops = 0.05;

export class GridHost {
  /** Answers clients and operators, from the moment the ports are open. */
  readonly desk: GridDesk;
  readonly #options: GridHostOptions;
  #actors: GridActors | undefined;
  #news: ViewNews | undefined;
  readonly #linked: LinkedHosts;

  constructor(options: GridHostOptions) {
    const { ports, host, clock, router, devices } = options;
    this.#options = options;
    this.#linked = new LinkedHosts(host, ports.links);
    this.desk = new GridDesk({
      grid: ports.config.name,
      host,
      store: ports.store,
      storeKind: ports.storeKind,
      keys: ports.keys,
      clock,
      gate: splitGate({
        borrow: (manifest, limits) => ports.artifacts.borrow(manifest, limits),
        startExecutor: (provider) => startProcessExecutor({ provider, lanes: 1 }),
        providers: ownProviders(devices),
      }),
      describe: (model, version) => ports.artifacts.describe(model, version),
      variants: (model, version) => ports.artifacts.variants(model, version),
      served: () => servedReplicas(router.current),
      configOf: (model, version) => router.current.catalog.models.get(model)?.served.get(version)?.config,
      policyTools,
    });
  }

  get generation(): number {
    return this.#news?.self?.generation ?? 0;
  }

  /** Undefined before `join`. */
  get actors(): GridActors | undefined {
    return this.#actors;
  }

  /** Opens the links and registers. @throws ALREADY_EXISTS (another host has the name), STORE_UNAVAILABLE, FAILED_PRECONDITION, UNAUTHENTICATED (refused by the others) */
  async join(endpoints: ClientEndpoints): Promise<void> {
    const { ports, host, config, system, router, clock, random, log, devices, registry, dispatch } = this.#options;
    const { cpu, metrics } = this.#options;
    ports.links.attach(entranceOf(system));
    const port = await ports.listen();
    const { store, keys, links } = ports;
    this.#linked.begin(await askAdmission({ host, store, keys, links, clock }));
    const isHost = ports.config.role === 'host';
    const actors = startGridActors({
      system,
      clock,
      store,
      keys,
      links,
      record: this.#record(endpoints, `${reachedAt(config)}:${port}`),
      router,
      picker: dispatch.pickerOver(gridPicker(random.stream('picker'))),
      devices,
      isCandidate: isHost,
      stages: { counts: this.#options.stageCounts },
      replan: {
        planAgain: (deployment, serving) =>
          this.desk.planAgain(deployment, serving, { deadlineMs: clock.nowMs() + replanMsMax }),
      },
      ...(ports.config.residencySeconds === 0
        ? {}
        : {
            residency: {
              everyMs: ports.config.residencySeconds * 1000,
              solver: async () => (await import('#adapters/highs/highs-solver.js')).loadHighsSolver(),
            },
          }),
      spotChecks: {
        share: ports.config.checkShare,
        random: random.stream('spot-checks'),
        metrics,
        ...(cpu === undefined ? {} : { reference: { open: openReferenceDevice({ system, cpu, metrics }), log } }),
      },
      leaseMs: ports.config.leaseMs,
      onDeparture: this.#options.onDeparture,
      ...(isHost
        ? {
            serving: {
              registry,
              artifacts: ports.artifacts,
              onRuled: (models, splits) => {
                this.#options.stageCounts.splits = splits;
                ports.rule(models, splits);
              },
            },
          }
        : {}),
    });
    this.#actors = actors;
    system.spawn('manifests', manifestsActor(ports));
    if (dispatch.promotion !== undefined) {
      system.spawn('policy-follower', policyFollowerActor({ ...dispatch.promotion, host, store, keys }));
    }
    actors.membership.tell({ type: 'subscribe', subscriber: { tell: (news) => this.#onNews(news) } });
    const deadlineMs = clock.nowMs() + joinMsMax;
    const joined = actors.membership.ask<JoinOutcome>((replyTo) => ({ type: 'join', replyTo }), { deadlineMs });
    const outcome = await joined.catch((error: unknown) => {
      if (asIntarsiaError(error).code !== 'DEADLINE_EXCEEDED') throw error;
      const { storeKind, config: wanted } = ports;
      const message = `host ${host} could not register in grid ${wanted.name} within ${joinMsMax} ms; the store is ${storeKind}, and the log says what it answered`;
      throw intarsiaError('STORE_UNAVAILABLE', message, { grid: wanted.name }, error);
    });
    if (!outcome.ok) throw outcome.error;
    log.info('joined the grid', { grid: ports.config.name, generation: outcome.generation, links: port });
  }

  /** Resolves once this host knows what the others serve. @throws DEADLINE_EXCEEDED when the store cannot be read for long. */
  async untilRouted(): Promise<void> {
    const deadlineMs = this.#options.clock.nowMs() + joinMsMax;
    await this.#actors?.routing.ask((replyTo) => ({ type: 'whole', replyTo }), { deadlineMs });
  }

  /** Says that this host goes, and waits until the others know, as far as they can be asked. */
  async announceDeparture(): Promise<void> {
    if (this.#actors === undefined) return;
    const { clock, log } = this.#options;
    const { membership } = this.#actors;
    const deadlineMs = clock.nowMs() + drainWaitMsMax + leaveMsMax;
    const { acknowledged, peers } = await membership.ask<DrainOutcome>(
      (replyTo) => ({ type: 'drain', waitMsMax: drainWaitMsMax, replyTo }),
      { deadlineMs },
    );
    log.info('the grid knows that this host leaves', { acknowledged, peers });
  }

  /** No answer is compared any more. */
  async endChecks(): Promise<void> {
    await this.#actors?.endChecks();
  }

  /** Deregisters. */
  async leave(): Promise<void> {
    if (this.#actors === undefined) return;
    const { clock, log } = this.#options;
    const deadlineMs = clock.nowMs() + leaveMsMax;
    const { deregistered } = await this.#actors.membership.ask<{ readonly deregistered: boolean }>(
      (replyTo) => ({ type: 'leave', replyTo }),
      { deadlineMs },
    );
    if (!deregistered) log.warn('the store could not be told: it forgets this host when the lease ends');
  }

  /** Other hosts that may hold a model's files. */
  holders(manifest: ModelManifest): readonly ArtifactPeer[] {
    const { host, router, ports } = this.#options;
    const served = router.current.candidates.get(manifest.model)?.get(manifest.version) ?? [];
    const serving = new Set(served.flatMap(({ replica }) => replica.stages.map((stage) => stage.host)));
    const own = this.#news?.view.hosts.get(host)?.record.linkAddress ?? '';
    return [...(this.#news?.view.hosts.values() ?? [])]
      .filter(({ record }) => record.host !== host && record.role === 'host')
      .map(({ record }): ArtifactPeer => {
        const rttMs = ports.links.peers().find(({ host: peer }) => peer === record.host)?.roundTripMs;
        return {
          host: record.host,
          linkAddress: record.linkAddress,
          zone: record.zone,
          sameMachine: addressOf(record.linkAddress) === addressOf(own),
          rttMs: rttMs ?? Infinity,
          serves: serving.has(record.host),
        };
      });
  }

  #onNews(news: ViewNews): 'accepted' {
    const { log } = this.#options;
    const before = this.#news;
    this.#news = news;
    if (news.phase === 'refused' && before?.phase !== 'refused') {
      log.error('this host is no longer part of the grid', { reason: news.error?.message ?? '' });
    }
    if (before?.view !== news.view) {
      this.#options.dispatch.learnView(news.view);
      this.#linked.follow(news.view);
    }
    this.#options.dispatch.learnPeers(news.peers);
    this.desk.tell(news);
    return 'accepted';
  }

  #record(endpoints: ClientEndpoints, linkAddress: string): HostRecord {
    const { ports, host, devices, profiles } = this.#options;
    const { role, tier, zone, labels, spot } = ports.config;
    return {
      format: 1,
      host,
      process: ports.process,
      linkAddress,
      grpcEndpoint: endpoints.grpc,
      httpEndpoint: endpoints.http,
      role,
      softwareVersion: version,
      linkVersions: [linkVersionMin, linkVersionMax],
      tier,
      zone,
      labels: Object.fromEntries(labels.map(({ name, value }) => [name, value])),
      spot,
      devices: devices.map(({ descriptor }) => gridDevice(descriptor, profiles, nativeEngine())),
    };
  }
}

/** Address at which others reach the host. @throws CONFIG_INVALID where it listens on every address and names none. */
export function reachedAt({ grid, bindAddress }: HostConfig): string {
  const address = grid === undefined || grid.advertiseAddress === '' ? bindAddress : grid.advertiseAddress;
  if (address === '0.0.0.0' || address === '::') {
    throw intarsiaError(
      'CONFIG_INVALID',
      `option grid.advertiseAddress must name the address that other hosts reach this one at (--advertise), because it listens on ${address}`,
      { option: 'grid.advertiseAddress' },
    );
  }
  return address.includes(':') ? `[${address}]` : address;
}

function gridDevice(descriptor: DeviceDescriptor, profiles: ProfileBook, engine: string): GridDevice {
  const { id, provider, profile, emulated, memoryBytes, threads, price } = descriptor;
  const figures = profile === undefined ? undefined : profiles.get(profile)?.figures;
  const teraflops = figures?.fp16Tflops?.value;
  const byThreads = Math.max(1, threads);
  const speed = descriptor.kind === 'cpu' || descriptor.kind === 'wasm' ? byThreads : (teraflops ?? 0) / coreTeraflops;
  return {
    id,
    provider,
    profile: profile ?? '',
    emulated,
    memoryBytes,
    speed: speed > 0 ? speed : 1,
    pricePerHour: price?.usdPerHour ?? 0,
    name: descriptor.name,
    threads,
    ...(provider === 'cpu' && engine !== '' ? { engine } : {}),
  };
}

/** Engines that pieces of models can be compared on here. */
function ownProviders(devices: readonly StartedDevice[]): ReadonlySet<ExecutionProvider> {
  const all = devices.map(({ descriptor }) => descriptor.provider);
  return new Set(all.filter((provider) => provider !== 'none' && provider !== 'remote'));
}

function addressOf(endpoint: string): string {
  return endpoint.slice(0, endpoint.lastIndexOf(':'));
}

/** Keeps what may be given to other hosts in step with the store. */
function manifestsActor({ store, keys, published }: GridPorts): ActorFactory<FollowerMessage<'models'>> {
  return (context) => {
    const follower = new StoreFollower(
      { folder: 'models', store, prefix: keys.models, callMs: manifestCallMs, retryMsMin: 250, retryMsMax: 5_000 },
      context,
    );
    follower.start();
    return {
      receive: (message) => {
        if (follower.handle(message).size === 0) return;
        refill(published, follower.entries.values(), (problem) => context.log.warn(problem));
      },
      signal: (signal) => {
        if (signal.type === 'drain') context.stop();
        if (signal.type === 'post-stop' || signal.type === 'pre-restart') follower.stop();
      },
    };
  };
}

function refill(
  published: PublishedManifests,
  entries: Iterable<{ readonly key: string; readonly value: string }>,
  warn: (problem: string) => void,
): void {
  const manifests: ModelManifest[] = [];
  for (const { key, value } of entries) {
    try {
      manifests.push(manifestFromText(value));
    } catch (error) {
      warn(`${key} cannot be read: ${String(error)}`);
    }
  }
  published.clear();
  for (const manifest of manifests) published.set(manifest);
}
