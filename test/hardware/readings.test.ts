import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { DeviceReadingsLoop } from '#adapters/hardware/device-readings.js';
import { discoverDevices } from '#adapters/hardware/discover.js';
import { exportHostMetrics } from '#adapters/hardware/host-metrics.js';
import { HostVitalsSampler } from '#adapters/hardware/host-vitals.js';
import { RaplMeter, findRapl } from '#adapters/hardware/rapl-meter.js';
import { NodeClock } from '#adapters/node/clock.js';
import { PrometheusMetrics } from '#adapters/prometheus/prometheus-metrics.js';
import { utilizationBetween, wattsBetween } from '#core/device-discovery-power.js';
import { builtInProfiles } from '#core/hardware-profile-book.js';
import { deviceId } from '#core/ids.js';
import { recordedMachine } from './recorded-machine.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { Clock } from '#ports/clock.js';
import type { RecordedMachine } from './recorded-machine.js';

/** A clock that stands still until it is turned; holds the one timer of the loop. */
class HandClock implements Clock {
  ms = 0;
  task: (() => void) | undefined;
  nowMs = (): number => this.ms;
  wallMs = (): number => this.ms;
  defer = (task: () => void): void => queueMicrotask(task);
  scheduleAt = (_momentMs: number, task: () => void): { cancel(): void } => this.schedule(0, task);
  schedule = (_delayMs: number, task: () => void): { cancel(): void } => {
    this.task = task;
    return { cancel: () => (this.task = undefined) };
  };
}

async function settled(loop: () => boolean): Promise<void> {
  while (!loop()) await new Promise((resolve) => setImmediate(resolve));
}

const discover = (reader: RecordedMachine): Promise<DiscoveryReport> =>
  discoverDevices({ reader, profiles: builtInProfiles, memoryShare: 0.9, cpuThreads: 0 });

describe('energy counters', () => {
  it('become watts, also when the counter starts again at its range', () => {
    const range = 262_143_328_850;
    expect(wattsBetween({ microjoules: 0, atMs: 0 }, { microjoules: 5_000_000, atMs: 1000 }, range)).toBe(5);
    expect(wattsBetween({ microjoules: range - 999_999, atMs: 0 }, { microjoules: 1_000_000, atMs: 1000 }, range)).toBe(
      2,
    );
    expect(wattsBetween({ microjoules: 1, atMs: 5 }, { microjoules: 2, atMs: 5 }, range)).toBeUndefined();
  });

  it('give the same watts wherever the counter stands', () => {
    const range = 65_532_610_987;
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: range }),
        fc.integer({ min: 0, max: range }),
        fc.integer({ min: 1, max: 100_000 }),
        (start, used, ms) => {
          const end = (start + used) % (range + 1);
          expect(wattsBetween({ microjoules: start, atMs: 0 }, { microjoules: end, atMs: ms }, range)).toBeCloseTo(
            used / 1000 / ms,
            6,
          );
        },
      ),
    );
  });

  it('are summed over sockets, and parts of a socket are not counted twice', async () => {
    const reader = recordedMachine('two-l4');
    const clock = new HandClock();
    const { domains, detail } = await findRapl(reader);
    expect(detail).toBe('RAPL: package-0, package-1');
    const meter = new RaplMeter(reader, clock, domains);
    expect(await meter.read()).toBeUndefined();
    clock.ms = 2000;
    reader.write('/sys/class/powercap/intel-rapl:0/energy_uj', '262143972000\n');
    // Socket 1 wrapped: 262,143,328,850 is the range, 262,143,970,001 cannot be; it stood at 262143970001.
    reader.write('/sys/class/powercap/intel-rapl:1/energy_uj', '262144170001\n');
    expect(await meter.read()).toBeCloseTo((2000 + 200_000) / 1e6 / 2, 9);
    reader.write('/sys/class/powercap/intel-rapl:1/energy_uj', '');
    expect(await meter.read()).toBeUndefined();
  });

  it('count the share of processor time in use', () => {
    expect(utilizationBetween({ busy: 10, total: 100 }, { busy: 40, total: 200 })).toBe(0.3);
    expect(utilizationBetween({ busy: 10, total: 100 }, { busy: 10, total: 100 })).toBe(0);
    expect(utilizationBetween({ busy: 10, total: 100 }, { busy: 5, total: 200 })).toBe(0);
  });
});

describe('DeviceReadingsLoop', () => {
  const withCuda = (): RecordedMachine => {
    const reader = recordedMachine('two-l4');
    reader.write('*/libonnxruntime_providers_cuda.so', '');
    return reader;
  };

  it('reads NVIDIA GPUs and the processor, and integrates power to energy', async () => {
    const reader = withCuda();
    const report = await discover(reader);
    const clock = new HandClock();
    const loop = new DeviceReadingsLoop({ reader, report, clock });
    await loop.start();
    expect(loop.latest(deviceId('cuda:0'))).toEqual({
      utilization: 0.02,
      memoryUsedBytes: 2 ** 20,
      memoryTotalBytes: 23_034 * 2 ** 20,
      powerWatts: 27.22,
      powerLimitWatts: 72,
      temperatureCelsius: 45,
      energyJoules: 0,
      atMs: 0,
    });
    expect(loop.latest(deviceId('cuda:1'))).toMatchObject({ utilization: 0.97, temperatureCelsius: 71 });
    expect(loop.latest(deviceId('cuda:1'))?.powerWatts).toBeUndefined();
    expect(loop.latest(deviceId('cpu:0'))).toBeUndefined();
    clock.ms = 10_000;
    reader.write('/sys/class/powercap/intel-rapl:0/energy_uj', '262643970000');
    clock.task!();
    await settled(() => loop.latest(deviceId('cuda:1'))?.atMs === 10_000);
    expect(loop.latest(deviceId('cuda:0'))?.energyJoules).toBeCloseTo(272.2, 9);
    expect(loop.latest(deviceId('cpu:0'))?.powerWatts).toBeCloseTo(50, 9);
    loop.close();
    expect(clock.task).toBeUndefined();
  });

  it('leaves nvidia-smi alone after three failures, forgets stale figures, and asks again later', async () => {
    const reader = withCuda();
    const report = await discover(reader);
    const failing: RecordedMachine = {
      ...reader,
      run: (command, args) => (reader.run(command, args, 0), Promise.resolve({ ok: false, reason: 'timeout' })),
    };
    const clock = new HandClock();
    let current: RecordedMachine = reader;
    const switching: RecordedMachine = { ...reader, run: (command, args, ms) => current.run(command, args, ms) };
    const loop = new DeviceReadingsLoop({ reader: switching, report, clock });
    await loop.start();
    const asked = (): number => reader.commands.filter((line) => line.startsWith('nvidia-smi')).length;
    const before = asked();
    current = failing;
    const nextRound = async (): Promise<void> => {
      const task = clock.task!;
      clock.task = undefined;
      task();
      await settled(() => clock.task !== undefined);
    };
    for (let round = 0; round < 6; round += 1) await nextRound();
    expect(asked() - before).toBe(3);
    expect(loop.trouble).toBe('nvidia-smi failed: timeout');
    expect(loop.latest(deviceId('cuda:0'))).toBeUndefined();
    current = reader;
    clock.ms = 300_001;
    await nextRound();
    expect(loop.latest(deviceId('cuda:0'))?.powerWatts).toBe(27.22);
    expect(loop.trouble).toBe('');
    loop.close();
  });

  it('reads an AMD GPU from sysfs', async () => {
    const reader = recordedMachine('two-instincts');
    const clock = new HandClock();
    const loop = new DeviceReadingsLoop({ reader, report: await discover(reader), clock });
    await loop.start();
    expect(loop.latest(deviceId('webgpu:0'))).toMatchObject({
      utilization: 0.37,
      powerWatts: 41,
      temperatureCelsius: 38,
      memoryUsedBytes: 10_485_760,
    });
    loop.close();
  });
});

describe('HostVitalsSampler', () => {
  let sampler: HostVitalsSampler | undefined;
  afterEach(() => sampler?.close());

  it('samples at most once a second, so that two readers do not halve the interval', () => {
    const clock = new HandClock();
    let busy = 0;
    const ticks = (): { busy: number; total: number } => ({ busy: (busy += 25), total: busy * 4 });
    sampler = new HostVitalsSampler({ clock, host: { memoryLimit: 'machine', usableMemoryBytes: 8 * 2 ** 30 }, ticks });
    const first = sampler.read();
    clock.ms = 500;
    expect(sampler.read()).toBe(first);
    clock.ms = 1001;
    expect(sampler.read()).not.toBe(first);
    expect(first).toMatchObject({ cpuUtilization: 0.25, memoryTotalBytes: 8 * 2 ** 30 });
    expect(first.memoryUsedBytes).toBeGreaterThan(0);
    expect(first.rssBytes).toBeGreaterThan(10 * 2 ** 20);
  });

  it('sees a stall of the event loop', async () => {
    const clock = new NodeClock();
    sampler = new HostVitalsSampler({ clock, host: { memoryLimit: 'machine', usableMemoryBytes: 2 ** 30 } });
    const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 25));
    await turn();
    const until = performance.now() + 200;
    while (performance.now() < until);
    await turn();
    expect(sampler.read().eventLoopLagMs.max).toBeGreaterThan(100);
  });
});

describe('host metrics', () => {
  it('show vitals and readings under Triton names and ours', async () => {
    const reader = recordedMachine('two-l4');
    reader.write('*/libonnxruntime_providers_cuda.so', '');
    const report = await discover(reader);
    const clock = new HandClock();
    const readings = new DeviceReadingsLoop({ reader, report, clock });
    await readings.start();
    const metrics = new PrometheusMetrics();
    const vitals = {
      cpuUtilization: 0.5,
      memoryTotalBytes: 1000,
      memoryUsedBytes: 400,
      rssBytes: 3,
      heapUsedBytes: 2,
      externalBytes: 1,
      eventLoopLagMs: { p50: 1, p99: 20, max: 300 },
      uptimeSeconds: 7,
    };
    exportHostMetrics({
      metrics,
      vitals: { read: () => vitals },
      readings,
      report,
      droppedLogLines: () => 4,
      recordedRows: () => 9,
    });
    await metrics.exposition();
    clock.ms = 1000;
    clock.task!();
    await settled(() => readings.latest(deviceId('cuda:1'))?.atMs === 1000);
    const text = await metrics.exposition();
    const uuid = 'GPU-00000000-5a60-059e-348d-000000000001';
    for (const line of [
      'nv_cpu_utilization 0.5',
      'nv_cpu_memory_used_bytes 400',
      'intarsia_log_lines_dropped_total 4',
      'intarsia_telemetry_rows_total 9',
      'intarsia_event_loop_lag_seconds{quantile="0.99"} 0.02',
      'intarsia_host_memory_bytes{kind="rss"} 3',
      `nv_gpu_power_usage{gpu_uuid="${uuid}"} 27.22`,
      `nv_gpu_power_limit{gpu_uuid="${uuid}"} 72`,
      `nv_energy_consumption{gpu_uuid="${uuid}"} 27.22`,
      'intarsia_device_temperature_celsius{device="cuda:1"} 71',
    ]) {
      expect(text).toContain(line);
    }
    // Not told, not shown: the second GPU's power.
    expect(text).not.toContain('nv_gpu_power_usage{gpu_uuid="GPU-00000000-5a60-059e-348d-000000000002"}');
    readings.close();
  });
});
