/**
 * Lets a dispatch policy decide in a simulated fleet as it does live: the production picker and its ledger, told of every
 * attempt by the gateway. What the ledger believes of devices comes from the fleet's own tables, which a scenario may falsify,
 * and reaches it late while telemetry is stale.
 */
import type { InferenceRequest } from '#core/inference.js';
import type { AttemptObserver } from '#core/picker.js';
import { deviceKey } from '#core/routing-table.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import type { DispatchCandidate, DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { unknownDevice, unknownReplica, type FleetBook } from '#core/scheduling/fleet-book.js';
import { LedgerObserver } from '#core/scheduling/ledger-observer.js';
import type { ServiceProfile } from '#core/scheduling/service-profile.js';
import { defaultSloRules, sloClasses, type SloRules } from '#core/scheduling/slo-class.js';
import { deviceId } from '#core/ids.js';
import {
  dispatchPicker,
  type DispatchPicker,
  type DispatchPickerOptions,
} from '#policies/placement/dispatch-picker.js';
import { fleetHost } from './fleet-models.js';
import { linkMs, type Fleet, type FleetModel } from './fleet.js';
import type { FleetDispatcher, FleetWorld } from './run-fleet.js';

export interface FleetDispatchOptions {
  /** Told of every decision, as a live host's log is. */
  readonly onDecision?: DispatchPickerOptions['onDecision'];
  /** What the tables that policies know are, times what they should be, by device. Default: 1 for all. */
  readonly profileError?: (device: number) => number;
  /**
   * What policies know of a model's run times on a device beforehand, by their numbers; undefined: they learn from answers.
   * Default: the fleet's tables.
   */
  readonly believed?: (device: number, model: number) => ServiceProfile | undefined;
}

/** For `FleetRun.dispatch`. */
export function fleetDispatch(
  policy: DispatchPolicy,
  options: FleetDispatchOptions = {},
): (world: FleetWorld) => FleetDispatcher {
  return (world) => new PolicyDispatcher(policy, options, world);
}

class PolicyDispatcher implements FleetDispatcher {
  readonly picker: DispatchPicker;
  readonly observer: AttemptObserver;
  readonly #book: BookOfFleet;
  readonly #ledger: DispatchLedger;

  constructor(policy: DispatchPolicy, options: FleetDispatchOptions, world: FleetWorld) {
    const { onDecision } = options;
    this.#book = new BookOfFleet(world, options);
    this.#ledger = new DispatchLedger({ book: this.#book });
    this.observer = new LateObserver(new LedgerObserver(this.#ledger), world);
    this.picker = dispatchPicker({
      policy: withAge(policy, world),
      ledger: this.#ledger,
      random: world.random,
      rules: rulesOf(world.fleet),
      ...(onDecision === undefined ? {} : { onDecision }),
    });
  }

  finished(request: InferenceRequest, ok: boolean, finishedMs: number): void {
    this.picker.finished(request, ok, finishedMs);
  }

  pricesChanged(): void {
    this.#book.revision += 1;
    this.#ledger.keepOnly(this.#book.replicas);
  }
}

/** What the fleet's tables say, as the policies' book of facts. */
class BookOfFleet implements FleetBook {
  revision = 0;
  /** Every replica that was asked about. */
  readonly replicas = new Set<Parameters<FleetBook['replica']>[0]>();
  readonly #world: FleetWorld;
  readonly #devices: ReadonlyMap<string, number>;
  readonly #models: ReadonlyMap<string, number>;
  readonly #profileError: (device: number) => number;
  readonly #believedOf: NonNullable<FleetDispatchOptions['believed']>;
  readonly #profiles = new Map<ServiceProfile, Map<number, ServiceProfile>>();

  constructor(world: FleetWorld, { profileError, believed }: FleetDispatchOptions) {
    this.#world = world;
    this.#profileError = profileError ?? (() => 1);
    const { devices, models } = world.fleet;
    this.#believedOf = believed ?? ((device, model) => devices[device]?.service[model]);
    this.#devices = new Map(devices.map(({ id }, index) => [deviceKey(fleetHost, deviceId(id)), index]));
    this.#models = new Map(models.map(({ name }, index) => [name, index]));
  }

  device(key: string): ReturnType<FleetBook['device']> {
    const index = this.#devices.get(key) ?? -1;
    const device = this.#world.fleet.devices[index];
    if (device === undefined) return unknownDevice;
    const { usdPerHour, watts, memoryBytes, spotHazardPerHour } = device;
    return { usdPerHour: usdPerHour * this.#world.priceFactor(index), watts, memoryBytes, spotHazardPerHour };
  }

  replica(replica: Parameters<FleetBook['replica']>[0]): ReturnType<FleetBook['replica']> {
    this.replicas.add(replica);
    const [stage] = replica.stages;
    const at = stage === undefined ? -1 : (this.#devices.get(deviceKey(stage.host, stage.device)) ?? -1);
    const device = this.#world.fleet.devices[at];
    const number = this.#models.get(replica.model) ?? -1;
    const model: FleetModel | undefined = this.#world.fleet.models[number];
    if (device === undefined || model === undefined || device.service[number] === undefined) return unknownReplica;
    const profile = this.#believedOf(at, number);
    return {
      ...unknownReplica,
      profile: profile === undefined ? undefined : this.#believed(profile, at),
      itemsMax: model.itemsMax,
      tailMs: linkMs(device, model, 1),
    };
  }

  /** The same object for the same table, so that a change of prices alone changes no table. */
  #believed(profile: ServiceProfile, device: number): ServiceProfile {
    const factor = this.#profileError(device);
    if (factor === 1) return profile;
    let byFactor = this.#profiles.get(profile);
    if (byFactor === undefined) this.#profiles.set(profile, (byFactor = new Map<number, ServiceProfile>()));
    let believed = byFactor.get(factor);
    if (believed === undefined) {
      believed = { ...profile, ms: profile.ms.map((ms) => ms * factor) };
      byFactor.set(factor, believed);
    }
    return believed;
  }
}

/** News of answers takes as long as telemetry is old; what this sender did itself it knows at once. */
class LateObserver implements AttemptObserver {
  readonly #observer: AttemptObserver;
  readonly #world: FleetWorld;

  constructor(observer: AttemptObserver, world: FleetWorld) {
    this.#observer = observer;
    this.#world = world;
  }

  began(...told: Parameters<AttemptObserver['began']>): void {
    this.#observer.began(...told);
  }

  ended(...told: Parameters<AttemptObserver['ended']>): void {
    const staleMs = this.#world.staleMs();
    if (staleMs === 0) {
      this.#observer.ended(...told);
      return;
    }
    const [candidate, request, , outcome] = told;
    this.#world.schedule(staleMs, () => {
      this.#observer.ended(candidate, request, this.#world.nowMs(), outcome);
    });
  }
}

/** Candidates of stale telemetry carry its age, as those of other hosts do live. */
function withAge(policy: DispatchPolicy, world: FleetWorld): DispatchPolicy {
  return {
    name: policy.name,
    ...(policy.trace === undefined ? {} : { trace: policy.trace }),
    ...(policy.finished === undefined ? {} : { finished: policy.finished.bind(policy) }),
    choose: (request, candidates, fleet, random) => {
      const ageMs = world.staleMs();
      if (ageMs > 0) for (const candidate of candidates) setAge(candidate, ageMs);
      return policy.choose(request, candidates, fleet, random);
    },
  };
}

function setAge(candidate: DispatchCandidate, ageMs: number): void {
  candidate.telemetryAgeMs = Math.max(candidate.telemetryAgeMs, ageMs);
}

function rulesOf({ classOnMiss }: Fleet): SloRules {
  const rules = { ...defaultSloRules };
  for (const [index, name] of sloClasses.entries()) {
    rules[name] = { ...rules[name], onMiss: classOnMiss[index] ?? rules[name].onMiss };
  }
  return rules;
}
