/**
 * Executors of a simulated fleet: they take the time their table says, times noise and the device's present speed, compute
 * nothing, and die when the device is lost. One run computes at a time, the others wait in order: that is what permits mean.
 *
 * Every settled promise is reported, because the loop that turns virtual time must let what waits for it go on first.
 */
import { intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Shape, Tensor } from '#core/tensor.js';
import { serviceMs, type ServiceProfile } from '#core/scheduling/service-profile.js';
import type { Clock } from '#ports/clock.js';
import type {
  Executor,
  ExecutorDescription,
  ExecutorUsage,
  LoadRequest,
  LoadedSession,
  RunRequest,
  RunResult,
} from '#ports/executor.js';
import type { Contention } from './contention.js';
import { fleetInput, fleetOutput } from './fleet-models.js';
import type { FleetDevice, FleetModel } from './fleet.js';
import type { ServiceNoise } from './service-noise.js';

/** Told of promises that were settled: those of runs, and those that longer chains wait for. */
export interface Settlements {
  runSettled(): void;
  otherSettled(): void;
}

export interface FleetExecutorOptions {
  readonly device: FleetDevice;
  readonly models: readonly FleetModel[];
  readonly clock: Clock;
  readonly noise: ServiceNoise;
  readonly settled: Settlements;
  /** Where the device slows others or is slowed by them. */
  readonly contention: Contention | undefined;
}

const description: ExecutorDescription = {
  provider: 'cpu',
  isolation: 'inline',
  emulated: true,
  engine: 'fleet 1.0',
  concurrency: 1,
};

/** The silicon of one device: outlives its executors. */
export class FleetSilicon {
  readonly device: FleetDevice;
  /** Factor of service times beside noise and drift: above 1 for a straggler. */
  slowness = 1;
  /** When the work it has been given will be done (ms). */
  busyUntilMs = 0;
  /** Milliseconds it computed, and those of runs that were lost with it. */
  busyMs = 0;
  lostMs = 0;
  runs = 0;
  items = 0;
  readonly #options: FleetExecutorOptions;
  #executor: FleetExecutor | undefined;
  #isGone = false;

  constructor(options: FleetExecutorOptions) {
    this.#options = options;
    this.device = options.device;
  }

  readonly start = (): Promise<Executor> => {
    this.#options.settled.otherSettled();
    if (this.#isGone) {
      return Promise.reject(intarsiaError('DEVICE_UNAVAILABLE', `device ${this.device.id} is gone`));
    }
    this.#executor = new FleetExecutor(this, this.#options);
    return Promise.resolve(this.#executor);
  };

  /** The device is lost with everything on it, until it is `back`. */
  lose(reason: string): void {
    this.#isGone = true;
    this.#executor?.die(reason);
    this.#executor = undefined;
    this.busyUntilMs = 0;
  }

  /** Counts anew: what it did before, such as trial runs, is no part of the simulation. */
  forget(): void {
    this.busyMs = 0;
    this.runs = 0;
    this.items = 0;
  }

  back(): void {
    this.#isGone = false;
  }

  /** Milliseconds of the next run of so many items, noise included. Draws from the device's stream. */
  drawMs(profile: ServiceProfile, items: number, nowMs: number): number {
    return serviceMs(profile, items) * this.speedFactor(nowMs) * this.#options.noise.factor(nowMs);
  }

  /** Present factor of service times, without noise. */
  speedFactor(nowMs: number): number {
    const { drift, driftPeriodMs } = this.device;
    return this.slowness * (drift === 0 ? 1 : 1 + drift * Math.sin((2 * Math.PI * nowMs) / driftPeriodMs));
  }
}

class Flight {
  readonly reject: (error: IntarsiaError) => void;
  /** When it begins to compute, as far as that is known. */
  startMs: number;
  /** What it computes, ms. */
  runMs: number;
  cancel: (() => void) | undefined;

  constructor(reject: (error: IntarsiaError) => void, startMs: number, runMs: number) {
    this.reject = reject;
    this.startMs = startMs;
    this.runMs = runMs;
  }
}

class FleetExecutor implements Executor {
  readonly description = description;
  readonly #silicon: FleetSilicon;
  readonly #options: FleetExecutorOptions;
  readonly #sessions = new Map<string, number>();
  readonly #flights = new Set<Flight>();
  readonly #listeners: ((reason: IntarsiaError) => void)[] = [];
  #lost: IntarsiaError | undefined;

  constructor(silicon: FleetSilicon, options: FleetExecutorOptions) {
    this.#silicon = silicon;
    this.#options = options;
  }

  load(request: LoadRequest): Promise<LoadedSession> {
    const index = this.#options.models.findIndex(({ name }) => name === request.model.name);
    const model = this.#options.models[index];
    this.#options.settled.otherSettled();
    if (model === undefined) return Promise.reject(intarsiaError('MODEL_INVALID', `no model ${request.model.name}`));
    return this.#later(model.loadMs, () => {
      this.#sessions.set(request.session, index);
      return {
        inputs: [fleetInput],
        outputs: [fleetOutput],
        loadMs: model.loadMs,
        memoryBytes: model.memoryBytes,
        optimization: request.options.optimization,
        notes: [],
      };
    });
  }

  run(request: RunRequest): Promise<RunResult> {
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const index = this.#sessions.get(request.session);
    const profile = index === undefined ? undefined : this.#silicon.device.service[index];
    if (profile === undefined) {
      return Promise.reject(intarsiaError('NOT_FOUND', `there is no session ${request.session}`));
    }
    const items = request.inputs[0]?.shape[0] ?? 1;
    return new Promise((resolve, reject) => {
      const silicon = this.#silicon;
      const flight = new Flight(reject, Infinity, 0);
      this.#flights.add(flight);
      this.#compute(flight, profile, items, () => {
        this.#flights.delete(flight);
        silicon.busyMs += flight.runMs;
        silicon.runs += 1;
        silicon.items += items;
        this.#options.settled.runSettled();
        resolve({
          outputs: [zeros(items)],
          computeInputUs: 0,
          computeInferUs: flight.runMs * 1000,
          computeOutputUs: 0,
        });
      });
    });
  }

  /** Calls `end` when the run is over; the flight knows by then how long it computed. */
  #compute(flight: Flight, profile: ServiceProfile, items: number, end: () => void): void {
    const { clock, contention } = this.#options;
    const silicon = this.#silicon;
    const { handOverMs } = silicon.device;
    const begin = (startMs: number): number => {
      flight.startMs = startMs;
      flight.runMs = silicon.drawMs(profile, items, startMs);
      return flight.runMs + handOverMs;
    };
    if (contention === undefined) {
      const startMs = Math.max(clock.nowMs(), silicon.busyUntilMs);
      silicon.busyUntilMs = startMs + begin(startMs);
      const timer = clock.scheduleAt(silicon.busyUntilMs, end);
      flight.cancel = () => {
        timer.cancel();
      };
      return;
    }
    flight.cancel = contention.run(silicon.device.id, begin, (tookMs) => {
      flight.runMs *= tookMs / (flight.runMs + handOverMs);
      end();
    });
  }

  unload(session: string): Promise<void> {
    this.#options.settled.otherSettled();
    this.#sessions.delete(session);
    return Promise.resolve();
  }

  usage(): ExecutorUsage {
    return {};
  }

  onLost(listener: (reason: IntarsiaError) => void): void {
    this.#listeners.push(listener);
  }

  close(): Promise<void> {
    this.#lost ??= intarsiaError('EXECUTOR_LOST', 'the executor is closed');
    this.#options.settled.otherSettled();
    return Promise.resolve();
  }

  die(reason: string): void {
    if (this.#lost !== undefined) return;
    const error = intarsiaError('EXECUTOR_LOST', reason);
    this.#lost = error;
    const nowMs = this.#options.clock.nowMs();
    this.#options.settled.otherSettled();
    for (const flight of this.#flights) {
      flight.cancel?.();
      this.#silicon.lostMs += Math.max(0, Math.min(nowMs - flight.startMs, flight.runMs));
      flight.reject(error);
    }
    this.#flights.clear();
    for (const listener of this.#listeners.splice(0)) listener(error);
  }

  #later<Value>(delayMs: number, end: () => Value): Promise<Value> {
    const { clock, settled } = this.#options;
    return new Promise((resolve, reject) => {
      const flight = new Flight(reject, Infinity, 0);
      this.#flights.add(flight);
      const timer = clock.schedule(delayMs, () => {
        this.#flights.delete(flight);
        settled.otherSettled();
        resolve(end());
      });
      flight.cancel = () => {
        timer.cancel();
      };
    });
  }
}

const zeroBytes = new Uint8Array(4096);
const zeroTensors = new Map<number, Tensor>();

/** Outputs of a run: nobody reads them, so that all runs of a size share theirs. */
function zeros(items: number): Tensor {
  let tensor = zeroTensors.get(items);
  if (tensor === undefined) {
    const shape: Shape = [items, 1];
    tensor = { name: fleetOutput.name, datatype: fleetOutput.datatype, shape, data: zeroBytes.subarray(0, items) };
    zeroTensors.set(items, tensor);
  }
  return tensor;
}
