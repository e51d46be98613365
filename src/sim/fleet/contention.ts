/**
 * Devices that share a processor, a memory bus or a roof of power slow each other: what a device computes goes on at a pace that
 * changes whenever another one begins or ends. Each device computes one run at a time, the others wait in order.
 *
 * Of devices nobody slows and that slow nobody nothing is asked here: their end is known when they begin.
 */
import type { Clock, Timer } from '#ports/clock.js';
import type { FleetDevice } from './fleet.js';

interface Run {
  /** Told when it begins; answers the ms it takes alone. */
  readonly begin: (startMs: number) => number;
  readonly end: (tookMs: number) => void;
}

interface Lane {
  readonly slowedBy: ReadonlyMap<string, number>;
  readonly waiting: Run[];
  running: Run | undefined;
  startMs: number;
  /** What is left to do, in ms of the device alone, as of `sinceMs`; and how fast it goes. */
  leftMs: number;
  sinceMs: number;
  pace: number;
  timer: Timer | undefined;
}

export class Contention {
  readonly #clock: Clock;
  readonly #lanes = new Map<string, Lane>();

  /** Knows the devices that are slowed or slow others. */
  constructor(clock: Clock, devices: readonly Pick<FleetDevice, 'id' | 'slowedBy'>[]) {
    this.#clock = clock;
    const slowers = new Set(devices.flatMap(({ slowedBy }) => [...slowedBy.keys()]));
    for (const { id, slowedBy } of devices) {
      if (slowedBy.size === 0 && !slowers.has(id)) continue;
      const idle = { running: undefined, startMs: 0, leftMs: 0, sinceMs: 0, pace: 1, timer: undefined };
      this.#lanes.set(id, { slowedBy, waiting: [], ...idle });
    }
  }

  concerns(device: string): boolean {
    return this.#lanes.has(device);
  }

  /** Computes as soon as the device is free. Answers how to give it up. */
  run(device: string, begin: Run['begin'], end: Run['end']): () => void {
    const lane = this.#lanes.get(device) as Lane;
    const run: Run = { begin, end };
    lane.waiting.push(run);
    if (lane.running === undefined) this.#next(lane);
    return () => {
      const at = lane.waiting.indexOf(run);
      if (at >= 0) lane.waiting.splice(at, 1);
      if (lane.running === run) this.#next(lane);
    };
  }

  /** The run that computes is over, or none is there: the next one begins. */
  #next(lane: Lane): void {
    const nowMs = this.#clock.nowMs();
    const wasRunning = lane.running !== undefined;
    lane.timer?.cancel();
    lane.running = lane.waiting.shift();
    if (lane.running !== undefined) {
      lane.startMs = nowMs;
      lane.sinceMs = nowMs;
      lane.leftMs = lane.running.begin(nowMs);
      this.#order(lane, nowMs);
    }
    if (wasRunning !== (lane.running !== undefined)) this.#repace(lane, nowMs);
  }

  /** A lane has begun or stopped to compute: the others go at another pace. */
  #repace(changed: Lane, nowMs: number): void {
    for (const lane of this.#lanes.values()) {
      if (lane === changed || lane.running === undefined) continue;
      lane.leftMs = Math.max(0, lane.leftMs - (nowMs - lane.sinceMs) * lane.pace);
      lane.sinceMs = nowMs;
      this.#order(lane, nowMs);
    }
  }

  #order(lane: Lane, nowMs: number): void {
    let factor = 1;
    for (const [device, slower] of lane.slowedBy) {
      if (this.#lanes.get(device)?.running !== undefined) factor *= slower;
    }
    lane.pace = 1 / factor;
    lane.timer?.cancel();
    lane.timer = this.#clock.scheduleAt(nowMs + lane.leftMs * factor, () => {
      const { running, startMs } = lane;
      this.#next(lane);
      running?.end(this.#clock.nowMs() - startMs);
    });
  }
}
