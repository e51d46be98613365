/**
 * Runs a fleet on virtual time: the production gateway from the decoded request on, router, picker, device actors, queues,
 * batch formers and batching policies, on executors that pretend. Only sockets, codecs and silicon are left out.
 *
 * Everything follows from the fleet, the arrivals, the faults, the policies and the seed: same values, same hash.
 */
import { intarsiaError } from '#core/errors.js';
import { anonymousTenant } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { AttemptObserver, Picker, ShedReason } from '#core/picker.js';
import type { Caller, InferCall, InferReply } from '#ports/inference-gateway.js';
import type { Random } from '#ports/random.js';
import type { BatchingPolicy } from '#policies/batching/batching-policy.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { seededRandom } from '../random.js';
import { VirtualClock } from '../virtual-clock.js';
import type { Arrivals } from './arrivals.js';
import type { Settlements } from './fleet-executor.js';
import { planFaults, type FleetFault } from './fleet-faults.js';
import { FleetHost } from './fleet-host.js';
import { FleetMessages } from './fleet-models.js';
import { ResultColumns, type SimulationResult } from './fleet-result.js';
import type { Fleet, FleetDevice } from './fleet.js';

/** What a dispatcher may know of the world it decides in. */
export interface FleetWorld {
  readonly fleet: Fleet;
  /** Virtual time, ms. */
  readonly nowMs: () => number;
  /** For the policy alone: its draws change nothing else. */
  readonly random: Random;
  /** Present factor of a device's price. */
  readonly priceFactor: (device: number) => number;
  /** How old what is known of devices is, ms; 0: fresh. */
  readonly staleMs: () => number;
  /** Calls `task` after so many virtual ms. */
  readonly schedule: (delayMs: number, task: () => void) => void;
  /**
   * Somebody beside the requests awaits promises: they go on after each of the tasks that follow at once. Otherwise only those of
   * runs are waited for, and others are late by as much virtual time as passes meanwhile.
   */
  readonly awaits: () => void;
}

/** Who decides, and what he is told meanwhile. */
export interface FleetDispatcher {
  readonly picker: Picker;
  readonly observer?: AttemptObserver;
  /** Prices are others than before. */
  pricesChanged?(): void;
  /** What became of a request. */
  finished?(request: InferenceRequest, ok: boolean, finishedMs: number): void;
}

export interface FleetRun {
  readonly fleet: Fleet;
  readonly arrivals: Arrivals;
  /** Of service times, losses and the policy's dice. */
  readonly seed: string | number;
  /** Makes whoever decides in this run; see `fleetDispatch` for policies. */
  readonly dispatch: (world: FleetWorld) => FleetDispatcher;
  /** Told of every attempt: the reckoning of a picker that keeps one. */
  readonly attemptObserver?: AttemptObserver;
  /** Makes the batching policy of each device. Default: Triton's. */
  readonly batching?: (device: FleetDevice) => BatchingPolicy;
  /** Whether devices know their tables when they form batches. Default true; false: they learn from their runs, as hosts do. */
  readonly devicesKnow?: boolean;
  readonly faults?: readonly FleetFault[];
  /** Told the share of requests that have come, now and then. */
  readonly onProgress?: (share: number) => void;
}

/** Requests left unanswered this long (ms) after the last arrival are a fault of the fleet: it cannot serve them. */
const drainMsMax = 24 * 3_600_000;
/** Tasks after a deep settlement during which every task lets promises go on. */
const deepTasks = 64;
const progressEvery = 8192;

/**
 * @throws INVALID_ARGUMENT for faults the fleet does not know, DEVICE_UNAVAILABLE when a model cannot be loaded,
 * RESOURCE_EXHAUSTED when requests stay unanswered for a day.
 */
export function runFleet(run: FleetRun): Promise<SimulationResult> {
  return new FleetRunner(run).run();
}

class FleetRunner implements Settlements {
  readonly #given: FleetRun;
  readonly #clock = new VirtualClock();
  readonly #random: Random;
  readonly #host: FleetHost;
  readonly #gateway: Gateway;
  readonly #columns: ResultColumns;
  readonly #messages: FleetMessages;
  readonly #priceFactors: Float64Array;
  readonly #dispatcher: FleetDispatcher;
  #staleMs = 0;
  #decisions = 0;
  #runSettled = false;
  #deep = 0;
  #startMs = 0;
  #nextArrival = 0;
  /** One for all requests: the gateway reads it only while it is called. */
  readonly #call: { -readonly [Key in keyof InferCall]: InferCall[Key] };

  constructor(given: FleetRun) {
    this.#given = given;
    const { fleet, arrivals } = given;
    this.#random = seededRandom(given.seed);
    this.#columns = new ResultColumns(fleet, arrivals);
    this.#messages = new FleetMessages(fleet);
    this.#priceFactors = new Float64Array(fleet.devices.length).fill(1);
    const { reservedParameters } = { reservedParameters: new Set<string>() };
    this.#call = {
      caller,
      deadlineMs: Infinity,
      messageBytes: 0,
      sloMs: 0,
      traceparent: undefined,
      reservedParameters,
    };
    const world: FleetWorld = {
      fleet,
      nowMs: () => this.#clock.nowMs(),
      random: this.#random.stream('policy'),
      priceFactor: (device) => this.#priceFactors[device] ?? 1,
      staleMs: () => this.#staleMs,
      schedule: (delayMs, task) => void this.#clock.schedule(delayMs, task),
      awaits: () => this.otherSettled(),
    };
    this.#dispatcher = given.dispatch(world);
    const { observer } = this.#dispatcher;
    this.#host = new FleetHost({
      fleet,
      clock: this.#clock,
      random: this.#random,
      settled: this,
      picker: this.#counted(this.#dispatcher.picker),
      batching: given.batching,
      devicesKnow: given.devicesKnow ?? true,
    });
    this.#gateway = createGateway({
      router: this.#host.router,
      clock: this.#clock,
      bytesInFlightMax: Infinity,
      receipts: false,
      ...(observer === undefined ? {} : { attemptObserver: observer }),
      ...(given.attemptObserver === undefined ? {} : { attemptObserver: given.attemptObserver }),
      onFinished: ({ request, outcome, finishedMs }) => {
        this.#columns.end(request.id - 1, outcome, finishedMs - this.#startMs, world.priceFactor);
        this.#dispatcher.finished?.(request, outcome.ok, finishedMs);
      },
    });
  }

  async run(): Promise<SimulationResult> {
    const { fleet, arrivals, faults = [] } = this.#given;
    await this.#settleUntil(this.#host.load());
    this.#deep = deepTasks;
    this.#startMs = this.#clock.nowMs();
    const lastMs = arrivals.atMs.at(-1) ?? 0;
    const horizonMs = lastMs + Math.max(...fleet.models.flatMap(({ sloMs }) => sloMs));
    for (const fault of planFaults(fleet, faults, horizonMs, this.#random.stream('losses'))) this.#order(fault);
    this.#arriveNext();
    await this.#turn(lastMs);
    const { doneMs, device, costUsd, joules, batchItems, outcome } = this.#columns;
    this.#columns.fold(this.#clock.trace);
    const result: SimulationResult = {
      ...{ arrivals, doneMs, device, costUsd, joules, batchItems, outcome },
      devices: this.#host.summaries(),
      decisions: this.#decisions,
      steps: this.#clock.steps,
      spanMs: this.#clock.nowMs() - this.#startMs,
      hash: this.#clock.trace.hash(),
    };
    this.#host.system.terminate();
    return result;
  }

  runSettled(): void {
    this.#runSettled = true;
  }

  otherSettled(): void {
    this.#deep = Math.max(this.#deep, deepTasks);
  }

  /** Turns virtual time, every promise going on between two tasks, until that one is settled. */
  async #settleUntil(promise: Promise<void>): Promise<void> {
    const watch = { isOver: false };
    const end = (): void => {
      watch.isOver = true;
    };
    promise.then(end, end);
    await promisesReady();
    while (!watch.isOver) {
      this.#clock.step();
      await promisesReady();
    }
    await promise;
  }

  /** Turns virtual time until every request has ended. */
  async #turn(lastMs: number): Promise<void> {
    const clock = this.#clock;
    const endMs = this.#startMs + lastMs + drainMsMax;
    let progress = progressEvery;
    while (this.#columns.left > 0) {
      if (!clock.step() || clock.nowMs() > endMs) {
        throw intarsiaError(
          'RESOURCE_EXHAUSTED',
          `${this.#columns.left} of ${this.#given.arrivals.atMs.length} requests stay unanswered ${drainMsMax} ms after the last arrival: the fleet cannot serve the load`,
          { unanswered: this.#columns.left },
        );
      }
      if (this.#deep > 0) {
        this.#deep -= 1;
        this.#runSettled = false;
        await promisesReady();
      } else if (this.#runSettled) {
        // The one reaction of a run's promise was queued before this one.
        this.#runSettled = false;
        await Promise.resolve();
      }
      if (this.#nextArrival < progress) continue;
      progress += progressEvery;
      this.#given.onProgress?.(this.#nextArrival / this.#given.arrivals.atMs.length);
    }
  }

  readonly #arrive = (): void => {
    const { fleet, arrivals } = this.#given;
    const index = this.#nextArrival;
    this.#nextArrival += 1;
    const model = arrivals.model[index] as number;
    const sloClass = arrivals.sloClass[index] as number;
    const items = arrivals.items[index] as number;
    const sloMs = fleet.models[model]?.sloMs[sloClass] ?? Infinity;
    this.#call.sloMs = sloMs;
    this.#call.deadlineMs = fleet.classOnMiss[sloClass] === 'shed' ? this.#clock.nowMs() + sloMs : Infinity;
    this.#call.messageBytes = items;
    this.#gateway.infer(this.#messages.of(model, sloClass, items), this.#call, nobody);
    this.#arriveNext();
  };

  #arriveNext(): void {
    const atMs = this.#given.arrivals.atMs[this.#nextArrival];
    if (atMs !== undefined) this.#clock.scheduleAt(this.#startMs + atMs, this.#arrive);
  }

  /** A fault begins and ends at its times. */
  #order(fault: FleetFault): void {
    const begin = (task: () => void): void => void this.#clock.scheduleAt(this.#startMs + fault.atMs, task);
    const end = (task: () => void): void => void this.#clock.scheduleAt(this.#startMs + fault.atMs + fault.forMs, task);
    if (fault.kind === 'stale') {
      begin(() => (this.#staleMs = fault.ageMs));
      end(() => (this.#staleMs = 0));
      return;
    }
    const index = this.#given.fleet.devices.findIndex(({ id }) => id === fault.device);
    switch (fault.kind) {
      case 'loss':
        begin(() => this.#host.lose(index));
        end(() => this.#host.restore(index));
        return;
      case 'straggler':
        begin(() => this.#host.slow(index, fault.factor));
        end(() => this.#host.slow(index, 1));
        return;
      case 'price':
        begin(() => this.#setPrice(index, fault.factor));
        end(() => this.#setPrice(index, 1));
        return;
    }
  }

  #setPrice(device: number, factor: number): void {
    this.#priceFactors[device] = factor;
    this.#dispatcher.pricesChanged?.();
  }

  #counted(picker: Picker): Picker {
    return {
      policy: picker.policy,
      ...(picker.explainShed === undefined ? {} : { explainShed: () => picker.explainShed?.() ?? nothingShed }),
      pick: (request, candidates, nowMs, exclude) => {
        this.#decisions += 1;
        return picker.pick(request, candidates, nowMs, exclude);
      },
    };
  }
}

const caller: Caller = { tenant: anonymousTenant, namesTenant: true, mayUse: () => true };
const nothingShed: ShedReason = { class: '', sloMs: 0, soonestMs: 0 };
/** Outcomes are taken from the gateway's own record. */
const nobody: InferReply = { succeed: () => {}, fail: () => {} };

/** Promise reactions run before the event loop's next phase: when this resolves, none that was ready is left. */
function promisesReady(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
