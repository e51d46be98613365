/**
 * Reads load, memory, power and temperature of the devices in the background: NVIDIA's with one short nvidia-smi call a
 * round, AMD's and Intel's from sysfs, the processor's from its energy counters.
 *
 * Bounded: one round at a time, the next begins an interval after the last has ended; a call is killed after its
 * time; a source that fails three rounds in a row is left alone for `restMs` and the reason can be read.
 */
import { nvidiaQueryFields, parseNvidiaCsv } from '#core/device-discovery-nvidia.js';
import { readPciGpu } from './pci-readings.js';
import { RaplMeter, findRapl } from './rapl-meter.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceId } from '#core/ids.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { DeviceReading, DeviceReadings } from '#ports/device-readings.js';
import type { SystemReader } from './system-reader.js';

export interface DeviceReadingsOptions {
  readonly reader: SystemReader;
  readonly report: DiscoveryReport;
  readonly clock: Clock;
  /** Milliseconds between the end of a round and the next, 500 to 600,000, default 5,000. Lower: fresher figures, more nvidia-smi. */
  readonly intervalMs?: number;
}

type Figures = Omit<DeviceReading, 'energyJoules' | 'atMs'>;

const nvidiaSmiMsMax = 5000;
const failuresMax = 3;
const restMs = 300_000;

export class DeviceReadingsLoop implements DeviceReadings {
  readonly #options: Required<DeviceReadingsOptions>;
  readonly #latest = new Map<DeviceId, DeviceReading>();
  #rapl: RaplMeter | undefined;
  #timer: Timer | undefined;
  #closed = false;
  #nvidiaFailures = 0;
  #nvidiaRestsUntilMs = Number.NEGATIVE_INFINITY;
  #trouble = '';

  constructor(options: DeviceReadingsOptions) {
    this.#options = { intervalMs: 5000, ...options };
  }

  /** Begins to read; resolves after the first round. */
  async start(): Promise<void> {
    const { reader, clock } = this.#options;
    const { domains } = await findRapl(reader);
    if (domains.length > 0) this.#rapl = new RaplMeter(reader, clock, domains);
    await this.#round();
  }

  latest(device: DeviceId): DeviceReading | undefined {
    return this.#latest.get(device);
  }

  /** Why a source is left alone at present; empty when all answer. */
  get trouble(): string {
    return this.#trouble;
  }

  /** No round begins after this; one under way ends by itself. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  async #round(): Promise<void> {
    const { report, reader, clock, intervalMs } = this.#options;
    const nvidia = await this.#readNvidia();
    for (const device of report.devices) {
      const { uuid, bus } = device.facts;
      const figures =
        device.id === 'cpu:0'
          ? await this.#readProcessor()
          : ((typeof uuid === 'string' ? nvidia.get(uuid) : undefined) ??
            (typeof bus === 'string' ? await readPciGpu(reader, bus) : undefined));
      if (figures !== undefined) this.#keep(device.id, figures);
    }
    if (!this.#closed) this.#timer = clock.schedule(intervalMs, () => void this.#round());
  }

  async #readNvidia(): Promise<ReadonlyMap<string, Figures>> {
    const { report, reader, clock } = this.#options;
    const wanted = report.devices.some(({ vendor, facts }) => vendor === 'NVIDIA' && typeof facts['uuid'] === 'string');
    if (!wanted || clock.nowMs() < this.#nvidiaRestsUntilMs) return new Map();
    const answer = await reader.run(
      'nvidia-smi',
      [`--query-gpu=${nvidiaQueryFields.join()}`, '--format=csv,nounits'],
      nvidiaSmiMsMax,
    );
    if (!answer.ok) {
      this.#nvidiaFailures += 1;
      this.#trouble = `nvidia-smi failed: ${answer.reason}`;
      if (this.#nvidiaFailures >= failuresMax) {
        this.#nvidiaFailures = 0;
        this.#nvidiaRestsUntilMs = clock.nowMs() + restMs;
        // Stale figures would look like live ones.
        for (const { id, vendor } of report.devices) if (vendor === 'NVIDIA') this.#latest.delete(id);
      }
      return new Map();
    }
    this.#nvidiaFailures = 0;
    this.#trouble = '';
    return new Map(
      parseNvidiaCsv(answer.stdout).map((gpu) => [
        gpu.uuid,
        {
          ...(gpu.utilization === undefined ? {} : { utilization: gpu.utilization }),
          ...(gpu.memoryUsedBytes === undefined ? {} : { memoryUsedBytes: gpu.memoryUsedBytes }),
          ...(gpu.memoryTotalBytes === undefined ? {} : { memoryTotalBytes: gpu.memoryTotalBytes }),
          ...(gpu.powerWatts === undefined ? {} : { powerWatts: gpu.powerWatts }),
          ...(gpu.powerLimitWatts === undefined ? {} : { powerLimitWatts: gpu.powerLimitWatts }),
          ...(gpu.temperatureCelsius === undefined ? {} : { temperatureCelsius: gpu.temperatureCelsius }),
        },
      ]),
    );
  }

  async #readProcessor(): Promise<Figures | undefined> {
    const watts = await this.#rapl?.read();
    return watts === undefined ? undefined : { powerWatts: watts };
  }

  #keep(device: DeviceId, figures: Figures): void {
    const atMs = this.#options.clock.nowMs();
    const last = this.#latest.get(device);
    const { powerWatts } = figures;
    const joules =
      (last?.energyJoules ?? 0) + (last === undefined ? 0 : ((powerWatts ?? 0) * (atMs - last.atMs)) / 1000);
    const energy = powerWatts === undefined && last?.energyJoules === undefined ? {} : { energyJoules: joules };
    this.#latest.set(device, { ...figures, ...energy, atMs });
  }
}
