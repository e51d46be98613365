/**
 * How the host itself is doing: processor and memory in use, and how late its own thread is. A late thread delays every
 * request, whatever the devices do.
 */
import os from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { utilizationBetween } from '#core/device-discovery-power.js';
import type { Clock } from '#ports/clock.js';
import type { HostFacts } from '#core/device-discovery.js';
import type { IntervalHistogram } from 'node:perf_hooks';

export interface HostVitals {
  /** Share of the time of all cores in use since the last sample, 0 to 1. */
  readonly cpuUtilization: number;
  readonly memoryTotalBytes: number;
  readonly memoryUsedBytes: number;
  /** Of this process. */
  readonly rssBytes: number;
  readonly heapUsedBytes: number;
  readonly externalBytes: number;
  /** Milliseconds the event loop was late since the last sample. */
  readonly eventLoopLagMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly uptimeSeconds: number;
}

/** Milliseconds between two looks at the loop. Higher: cheaper, short stalls are seen less often. */
const resolutionMs = 20;
/** Samples closer than this share one: two readers must not halve each other's interval. */
const sampleMsMin = 1000;

export class HostVitalsSampler {
  readonly #clock: Clock;
  readonly #host: Pick<HostFacts, 'memoryLimit' | 'usableMemoryBytes'>;
  readonly #delay: IntervalHistogram;
  readonly #ticksOf: () => CpuTicks;
  #ticks: CpuTicks;
  #sample: HostVitals | undefined;
  #sampledMs = 0;

  constructor(options: {
    readonly clock: Clock;
    readonly host: Pick<HostFacts, 'memoryLimit' | 'usableMemoryBytes'>;
    /** Source of processor ticks; this machine's by default. */
    readonly ticks?: () => CpuTicks;
  }) {
    this.#clock = options.clock;
    this.#host = options.host;
    this.#ticksOf = options.ticks ?? machineTicks;
    this.#ticks = this.#ticksOf();
    this.#delay = monitorEventLoopDelay({ resolution: resolutionMs });
    this.#delay.enable();
  }

  /** Figures since the last sample; the last sample itself when that is younger than a second. */
  read(): HostVitals {
    const nowMs = this.#clock.nowMs();
    if (this.#sample !== undefined && nowMs - this.#sampledMs < sampleMsMin) return this.#sample;
    const ticks = this.#ticksOf();
    const { rss, heapUsed, external } = process.memoryUsage();
    const machineUsed = os.totalmem() - os.freemem();
    this.#sample = {
      cpuUtilization: utilizationBetween(this.#ticks, ticks),
      memoryTotalBytes: this.#host.usableMemoryBytes,
      memoryUsedBytes:
        this.#host.memoryLimit === 'machine'
          ? machineUsed
          : Math.max(0, this.#host.usableMemoryBytes - process.availableMemory()),
      rssBytes: rss,
      heapUsedBytes: heapUsed,
      externalBytes: external,
      eventLoopLagMs: {
        p50: lagMs(this.#delay.percentile(50)),
        p99: lagMs(this.#delay.percentile(99)),
        max: lagMs(this.#delay.max),
      },
      uptimeSeconds: process.uptime(),
    };
    this.#ticks = ticks;
    this.#sampledMs = nowMs;
    this.#delay.reset();
    return this.#sample;
  }

  close(): void {
    this.#delay.disable();
  }
}

interface CpuTicks {
  readonly busy: number;
  readonly total: number;
}

/** The histogram holds whole intervals in nanoseconds: an idle loop shows the resolution itself. */
function lagMs(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e6 - resolutionMs);
}

function machineTicks(): CpuTicks {
  let idle = 0;
  let total = 0;
  for (const { times } of os.cpus()) {
    idle += times.idle;
    total += times.user + times.nice + times.sys + times.idle + times.irq;
  }
  return { busy: total - idle, total };
}
