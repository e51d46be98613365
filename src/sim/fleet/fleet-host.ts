/** The host of a simulated fleet: its devices as actors of the production code, their silicon, and the table of routes. */
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage, LoadOutcome } from '#actors/device/protocol.js';
import type { DeviceDescriptor } from '#core/device.js';
import { deviceId } from '#core/ids.js';
import type { Picker } from '#core/picker.js';
import { deviceKey, ReplicaLoads } from '#core/routing-table.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { silentLog } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type { ActorRef } from '#runtime/actor.js';
import { ActorSystem } from '#runtime/system.js';
import { PublishedRouter } from '#server/router.js';
import { silentMetrics } from '../grid/silent-metrics.js';
import type { VirtualClock } from '../virtual-clock.js';
import { Contention } from './contention.js';
import { FleetSilicon, type Settlements } from './fleet-executor.js';
import { FleetLink } from './fleet-link.js';
import { fleetCatalog, fleetHost, fleetPlacement } from './fleet-models.js';
import type { DeviceSummary } from './fleet-result.js';
import type { Fleet, FleetDevice } from './fleet.js';
import { ServiceNoise } from './service-noise.js';

const host = fleetHost;
/** Losses say nothing of the models that ran: nobody is blamed for them. */
const noQuarantine = { crashesMax: 1_000_000, intervalMs: 1 };
const queueRequestsMax = 1_000_000;

export interface FleetHostOptions {
  readonly fleet: Fleet;
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly settled: Settlements;
  readonly picker: Picker;
  readonly batching: ((device: FleetDevice) => BatchingPolicy) | undefined;
  readonly devicesKnow: boolean;
}

export class FleetHost {
  readonly router = new PublishedRouter();
  readonly system: ActorSystem;
  readonly #options: FleetHostOptions;
  readonly #silicon: readonly FleetSilicon[];
  readonly #refs: readonly ActorRef<DeviceMessage>[];
  readonly #loads = new ReplicaLoads();
  readonly #losses: number[];
  /** Losses that last, by device: they may overlap. */
  readonly #gone: number[];

  constructor(options: FleetHostOptions) {
    this.#options = options;
    const { fleet, clock, random, settled, picker } = options;
    const { models, devices, lastingNoise } = fleet;
    this.#losses = devices.map(() => 0);
    this.#gone = devices.map(() => 0);
    this.system = new ActorSystem({ host, clock, random: random.stream('actors'), log: silentLog });
    const service = random.stream('service times');
    const contention = new Contention(clock, devices);
    this.#silicon = devices.map(
      (device) =>
        new FleetSilicon({
          ...{ device, models, clock, settled },
          noise: new ServiceNoise(service.stream(device.id), device.noise, lastingNoise),
          contention: contention.concerns(device.id) ? contention : undefined,
        }),
    );
    this.#refs = this.#silicon.map((silicon, index) => this.#spawn(silicon, index));
    const byName = new Map(models.map((model) => [model.name, model]));
    for (const [index, device] of devices.entries()) {
      const ref = this.#refs[index] as ActorRef<DeviceMessage>;
      const isNear = device.netMs === 0 && device.linkMBs === Infinity;
      this.router.setDevice(host, deviceId(device.id), isNear ? ref : new FleetLink(device, byName, ref, clock));
    }
    this.router.publish(this.#loads.table({ catalog: fleetCatalog(fleet), host, picker }));
  }

  /** Loads every model where it lives. @throws what the first load failed with. */
  async load(): Promise<void> {
    const outcomes: Promise<LoadOutcome>[] = [];
    for (const [at, device] of this.#options.fleet.devices.entries()) {
      for (const [index, profile] of device.service.entries()) {
        if (profile === undefined) continue;
        const placement = fleetPlacement(this.#options.fleet, index);
        const ref = this.#refs[at] as ActorRef<DeviceMessage>;
        outcomes.push(ref.ask((replyTo) => ({ type: 'load', placement, replyTo }), { deadlineMs: Infinity }));
      }
    }
    for (const outcome of await Promise.all(outcomes)) if (!outcome.ok) throw outcome.error;
    for (const silicon of this.#silicon) silicon.forget();
  }

  lose(index: number): void {
    this.#losses[index] = (this.#losses[index] ?? 0) + 1;
    this.#gone[index] = (this.#gone[index] ?? 0) + 1;
    const silicon = this.#silicon[index];
    silicon?.lose(`device ${silicon.device.id} was lost`);
  }

  restore(index: number): void {
    const gone = (this.#gone[index] ?? 1) - 1;
    this.#gone[index] = gone;
    if (gone === 0) this.#silicon[index]?.back();
  }

  slow(index: number, factor: number): void {
    const silicon = this.#silicon[index];
    if (silicon !== undefined) silicon.slowness = factor;
  }

  summaries(): readonly DeviceSummary[] {
    return this.#silicon.map(({ device, busyMs, lostMs, runs, items }, index) => {
      return { id: device.id, busyMs, lostMs, runs, items, losses: this.#losses[index] ?? 0 };
    });
  }

  #spawn(silicon: FleetSilicon, index: number): ActorRef<DeviceMessage> {
    const { device } = silicon;
    const {
      batching,
      devicesKnow,
      fleet: { models },
    } = this.#options;
    const actor = deviceActor({
      descriptor: descriptorOf(device),
      startExecutor: silicon.start,
      metrics: silentMetrics,
      quarantine: noQuarantine,
      limits: { queueRequestsMax },
      // Nobody reads the figures, and whoever is lost is lost visibly.
      usageMs: 0,
      canaryMs: 0,
      profileOf: ({ model: wanted }) =>
        devicesKnow ? device.service[models.findIndex(({ name }) => name === wanted)] : undefined,
      ...(batching === undefined ? {} : { batchingPolicy: batching(device) }),
      hooks: {
        onHealth: (health) => {
          this.#loads.setReady(deviceKey(host, deviceId(device.id)), health === 'ready');
        },
      },
    });
    return this.system.spawn(`device-${index}`, actor, { mailbox: { messagesMax: queueRequestsMax } });
  }
}

function descriptorOf(device: FleetDevice): DeviceDescriptor {
  return {
    id: deviceId(device.id),
    kind: 'emulated',
    name: device.type,
    vendor: 'none',
    provider: 'cpu',
    fallbackProviders: [],
    emulated: true,
    memoryBytes: device.memoryBytes,
    threads: 0,
    permits: device.permits,
    busyWatts: { watts: device.watts, source: 'configured' },
    price: { usdPerHour: device.usdPerHour, source: 'configured', origin: 'fleet file' },
    facts: {},
  };
}
