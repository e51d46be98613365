/** Load, memory, power and temperature of AMD's and Intel's GPUs from sysfs, by PCI address. */
import type { DeviceReading } from '#ports/device-readings.js';
import type { SystemReader } from './system-reader.js';

/** Undefined when the kernel tells nothing of this device. */
export async function readPciGpu(reader: SystemReader, bus: string): Promise<Omit<DeviceReading, 'atMs'> | undefined> {
  const device = `/sys/bus/pci/devices/${bus}`;
  const [monitor] = await reader.list(`${device}/hwmon`);
  const numberOf = async (file: string): Promise<number | undefined> => {
    const text = (await reader.readText(file))?.trim();
    return text === undefined || text === '' || Number.isNaN(Number(text)) ? undefined : Number(text);
  };
  const ofMonitor = (file: string): Promise<number | undefined> =>
    monitor === undefined ? Promise.resolve(undefined) : numberOf(`${device}/hwmon/${monitor}/${file}`);
  const [busy, used, total, average, input, cap, temperature] = await Promise.all([
    numberOf(`${device}/gpu_busy_percent`),
    numberOf(`${device}/mem_info_vram_used`),
    numberOf(`${device}/mem_info_vram_total`),
    // Microwatts and thousandths of a degree; newer chips have `power1_input` instead of the average.
    ofMonitor('power1_average'),
    ofMonitor('power1_input'),
    ofMonitor('power1_cap'),
    ofMonitor('temp1_input'),
  ]);
  const microwatts = average ?? input;
  const reading = {
    ...(busy === undefined ? {} : { utilization: busy / 100 }),
    ...(used === undefined ? {} : { memoryUsedBytes: used }),
    ...(total === undefined ? {} : { memoryTotalBytes: total }),
    ...(microwatts === undefined ? {} : { powerWatts: microwatts / 1e6 }),
    ...(cap === undefined ? {} : { powerLimitWatts: cap / 1e6 }),
    ...(temperature === undefined ? {} : { temperatureCelsius: temperature / 1000 }),
  };
  return Object.keys(reading).length === 0 ? undefined : reading;
}
