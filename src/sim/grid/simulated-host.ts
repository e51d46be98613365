/**
 * One process of a host in a simulated grid: the production actors, devices with pretend executors, and a gateway, on a
 * clock, links and a store client of its own. A restart makes another one over the same disk.
 */
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage } from '#actors/device/protocol.js';
import { modelRegistryActor } from '#actors/model-registry/actor.js';
import type { ModelRegistryMessage, RegistryOutcome } from '#actors/model-registry/protocol.js';
import type { JoinOutcome, ViewNews } from '#actors/membership/protocol.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { GridKeys } from '#core/grid/keys.js';
import type { HostRecord } from '#core/grid/records.js';
import { deviceId, hostId, modelName, type HostId } from '#core/ids.js';
import { MiB } from '#core/units.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import { silentDiagnostics } from '#ports/diagnostics.js';
import type { Log } from '#ports/log.js';
import type { ActorRef } from '#runtime/actor.js';
import { entranceOf } from '#runtime/entrance.js';
import type { ActorSystem } from '#runtime/system.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { startGridActors, type GridActors } from '#server/grid-actors.js';
import { PublishedRouter } from '#server/router.js';
import { StageCounts } from '#server/stage-counts.js';
import type { HostClock } from '../host-clock.js';
import { PretendExecutors } from '../pretend-executor.js';
import type { PretendNetwork } from '../pretend-network.js';
import type { PretendStore } from '../pretend-store.js';
import type { Simulation } from '../simulation.js';
import { CheckedLinks } from './checked-links.js';
import { plantedStore, type PlantedBug } from './planted-bugs.js';
import { copyBytes, pretendModels, type SimulatedDisk } from './simulated-models.js';
import { silentMetrics } from './silent-metrics.js';
import type { Violations } from './violations.js';

/** What a host is, whichever process runs on it. */
export interface Machine {
  readonly name: string;
  readonly zone: string;
  readonly tier: HostRecord['tier'];
  readonly devices: number;
  /** Copies that fit on one device. */
  readonly copiesMax: number;
  readonly disk: SimulatedDisk;
  /** Whether every process of it listens at the same address. */
  readonly isSameAddress: boolean;
  /** Share of requests for which its gateway may ask a second replica. */
  readonly hedgeShare: number;
}

export interface HostWorld {
  readonly simulation: Simulation;
  readonly network: PretendNetwork;
  readonly store: PretendStore;
  readonly keys: GridKeys;
  readonly violations: Violations;
  readonly models: readonly string[];
  readonly names: readonly string[];
  readonly log: Log;
  readonly bug: PlantedBug | undefined;
  /** A host has left at the end of its drain: its process ends. */
  readonly departed: (name: string) => void;
}

interface SimulatedDevice {
  readonly descriptor: DeviceDescriptor;
  readonly ref: ActorRef<DeviceMessage>;
  readonly executors: PretendExecutors;
  readonly memoryBytes: number;
}

const bytesInFlightMax = 16 * MiB;
/** Of memory that a lying host has in truth. */
const lie = 4;

export class SimulatedHost {
  readonly name: HostId;
  readonly machine: Machine;
  readonly process: string;
  readonly clock: HostClock;
  readonly system: ActorSystem;
  readonly gateway: Gateway;
  readonly actors: GridActors;
  readonly devices: readonly SimulatedDevice[];
  readonly stageCounts = new StageCounts();
  isAlive = true;
  /** Times slower than usual its devices compute. */
  slowness = 1;
  catalog: Catalog = emptyCatalog;
  news: ViewNews | undefined;
  joined: JoinOutcome | undefined;
  /** World time at which it last went on after it had stood still. */
  resumedMs = -Infinity;
  readonly #models: readonly string[];
  readonly #router = new PublishedRouter();
  readonly #violations: Violations;
  readonly #endListeners = new Set<(how: 'killed' | 'unplugged') => void>();

  constructor(world: HostWorld, machine: Machine, clock: HostClock) {
    const { simulation, network, keys, bug } = world;
    this.name = hostId(machine.name);
    this.machine = machine;
    this.clock = clock;
    this.#violations = world.violations;
    this.#models = world.models;
    machine.disk.clock = clock;
    const links = network.host(machine.name);
    this.process = links.process;
    const checked = new CheckedLinks({ links, violations: world.violations, bug });
    const random = simulation.random.stream(`${machine.name} ${links.process}`);
    this.system = simulation.system({
      host: machine.name,
      clock,
      random,
      remote: checked,
      incarnationMin: links.incarnationMin,
      metrics: silentMetrics,
      // Every task of the clock is in the trace already.
      diagnostics: silentDiagnostics,
      log: world.log,
    });
    checked.attach(entranceOf(this.system));
    this.devices = Array.from({ length: machine.devices }, (_, index) => this.#device(index, world));
    const registry: ActorRef<ModelRegistryMessage> = this.system.spawn(
      'model-registry',
      modelRegistryActor({
        files: machine.disk,
        mode: 'explicit',
        pollMs: 15_000,
        startupModels: [],
        devices: this.devices,
        residency: firstFit,
        publish: (catalog) => {
          this.catalog = catalog;
          this.actors.onCatalog(catalog);
        },
      }),
    );
    const [first = '', last = ''] = [world.names[0], world.names.at(-1)];
    this.actors = startGridActors({
      system: this.system,
      clock,
      store: plantedStore(world.store.client(machine.name, clock), bug, { keys, host: machine.name, first, last }),
      keys,
      links: checked,
      record: this.#record(),
      router: this.#router,
      picker: gridPicker(random.stream('picker')),
      devices: this.devices,
      serving: { registry, artifacts: machine.disk, isOwn: () => false },
      stages: { counts: this.stageCounts },
      onDeparture: () => world.departed(machine.name),
    });
    const attempts = { hedgeShare: machine.hedgeShare };
    this.gateway = createGateway({ router: this.#router, clock, bytesInFlightMax, receipts: false, attempts });
    const newsKeeper = keep((news: ViewNews) => (this.news = news));
    this.actors.membership.tell({ type: 'subscribe', subscriber: newsKeeper, about: 'members' });
    this.actors.membership.tell({ type: 'join', replyTo: keep((outcome: JoinOutcome) => (this.joined = outcome)) });
    registry.tell({ type: 'scan', replyTo: keep((_outcome: RegistryOutcome) => undefined) });
  }

  /** Whether its gateway takes requests: it is in the grid and knows every model that was deployed there. */
  get isOpen(): boolean {
    return (
      this.isAlive &&
      this.joined?.ok === true &&
      this.#models.every((model) => this.#router.current.catalog.models.has(modelName(model)))
    );
  }

  /** `model/version device` of everything that is loaded here, sorted. */
  serving(): readonly string[] {
    return [...this.catalog.models.values()]
      .flatMap(({ served }) =>
        [...served.values()].flatMap(({ name, version, devices }) =>
          devices.map((device) => `${name}/${version} on ${this.name} ${device}`),
        ),
      )
      .sort();
  }

  get runs(): number {
    return this.devices.reduce((sum, { executors }) => sum + executors.runs.length, 0);
  }

  /** Looks at everything that has a bound. */
  checkMemory(): void {
    for (const { descriptor, executors, memoryBytes } of this.devices) {
      const copies = executors.started.reduce((sum, { sessions, closed }) => sum + (closed ? 0 : sessions.size), 0);
      const bytes = copies * copyBytes;
      if (bytes <= memoryBytes) continue;
      this.#violations.report(
        'memory-kept',
        `device ${descriptor.id} of ${this.name} holds ${copies} copies, ${bytes} bytes; it has ${memoryBytes} bytes`,
      );
    }
    if (this.gateway.bytesInFlight > bytesInFlightMax) {
      this.#violations.report(
        'memory-kept',
        `the gateway of ${this.name} holds ${this.gateway.bytesInFlight} bytes of requests; it may hold ${bytesInFlightMax}`,
      );
    }
  }

  /** Calls back when the process ends; the result forgets the listener. */
  onEnd(listener: (how: 'killed' | 'unplugged') => void): () => void {
    this.#endListeners.add(listener);
    return () => void this.#endListeners.delete(listener);
  }

  /** The process ends without a word. */
  end(how: 'killed' | 'unplugged'): void {
    this.isAlive = false;
    this.clock.stop();
    this.system.terminate();
    for (const listener of this.#endListeners) listener(how);
    this.#endListeners.clear();
  }

  #device(index: number, world: HostWorld): SimulatedDevice {
    const { copiesMax } = this.machine;
    const memoryBytes = copiesMax * copyBytes;
    const toldBytes = world.bug === 'boundless-memory' ? memoryBytes * lie : memoryBytes;
    const descriptor: DeviceDescriptor = {
      id: deviceId(`cpu:${index}`),
      kind: 'cpu',
      name: 'simulated',
      vendor: '',
      provider: 'cpu',
      fallbackProviders: [],
      emulated: true,
      memoryBytes: toldBytes,
      threads: 1,
      permits: 1,
      facts: {},
    };
    const models = pretendModels(world.models, () => this.slowness, world.bug);
    const executors = new PretendExecutors({ clock: this.clock, models, startMs: 20 });
    const ref: ActorRef<DeviceMessage> = this.system.spawn(
      `device-cpu-${index}`,
      deviceActor({
        descriptor,
        startExecutor: executors.start,
        metrics: silentMetrics,
        hooks: { onHealth: (health, reason) => this.actors.onHealth(descriptor.id, health, reason) },
      }),
    );
    return { descriptor, ref, executors, memoryBytes };
  }

  #record(): HostRecord {
    const { name, zone, tier, isSameAddress } = this.machine;
    return {
      format: 1,
      host: hostId(name),
      process: this.process,
      // Some come back where they were, others at another port.
      linkAddress: isSameAddress ? `${name}:8003` : `${name}:${this.process}`,
      grpcEndpoint: `${name}:8001`,
      httpEndpoint: '',
      role: 'host',
      softwareVersion: '0.0.0',
      linkVersions: [1, 1],
      tier,
      zone,
      labels: {},
      spot: false,
      devices: this.devices.map(({ descriptor: { id, memoryBytes } }) => ({
        id,
        provider: 'cpu',
        profile: '',
        emulated: true,
        memoryBytes,
        speed: 1,
        pricePerHour: 0,
      })),
    };
  }
}

/** Somewhere for replies to go. */
function keep<Reply>(take: (reply: Reply) => unknown): { tell(reply: Reply): 'accepted' } {
  return {
    tell: (reply) => {
      take(reply);
      return 'accepted';
    },
  };
}
