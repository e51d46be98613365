/** Reads what NVIDIA's driver tells: nvidia-smi's table, its XML, its list of slices, and /proc/driver/nvidia. */

/** Fields asked of `nvidia-smi --query-gpu=… --format=csv,nounits`; every driver since R450 knows them. */
export const nvidiaQueryFields = [
  'index',
  'uuid',
  'name',
  'pci.bus_id',
  'driver_version',
  'memory.total',
  'memory.used',
  'utilization.gpu',
  'temperature.gpu',
  'power.draw',
  'power.limit',
  'mig.mode.current',
] as const;

/** One GPU. Figures the driver does not give (`[N/A]`) are absent. */
export interface NvidiaGpu {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  /** `0000:01:00.0`. */
  readonly bus: string;
  readonly driver: string;
  readonly memoryTotalBytes?: number;
  readonly memoryUsedBytes?: number;
  /** 0 to 1. */
  readonly utilization?: number;
  readonly temperatureCelsius?: number;
  readonly powerWatts?: number;
  readonly powerLimitWatts?: number;
  readonly migEnabled: boolean;
}

/** The table with its header line; columns are found by their names, with or without units. */
export function parseNvidiaCsv(text: string): readonly NvidiaGpu[] {
  const [header, ...lines] = text.split('\n').filter((line) => line.trim() !== '');
  if (header === undefined) return [];
  const columns = header.split(',').map((name) => name.trim().replace(/ \[.*\]$/, ''));
  return lines.flatMap((line) => {
    const cells = line.split(',').map((cell) => cell.trim());
    const cell = (name: (typeof nvidiaQueryFields)[number]): string => cells[columns.indexOf(name)] ?? '';
    const index = Number(cell('index'));
    if (cell('uuid') === '' || !Number.isInteger(index)) return [];
    return [
      {
        index,
        uuid: cell('uuid'),
        name: cell('name'),
        bus: busOf(cell('pci.bus_id')),
        driver: cell('driver_version'),
        ...present('memoryTotalBytes', figure(cell('memory.total')), 1024 * 1024),
        ...present('memoryUsedBytes', figure(cell('memory.used')), 1024 * 1024),
        ...present('utilization', figure(cell('utilization.gpu')), 0.01),
        ...present('temperatureCelsius', figure(cell('temperature.gpu'))),
        ...present('powerWatts', figure(cell('power.draw'))),
        ...present('powerLimitWatts', figure(cell('power.limit'))),
        migEnabled: cell('mig.mode.current') === 'Enabled',
      },
    ];
  });
}

/** A slice of a GPU in MIG mode. */
export interface MigInstance {
  readonly gpuUuid: string;
  readonly uuid: string;
  /** Its number on the GPU. */
  readonly index: number;
  /** `1g.10gb`: compute slices and memory. */
  readonly slice: string;
  readonly memoryTotalBytes: number;
}

/** Slices listed by `nvidia-smi -L`. */
export function parseMigInstances(list: string): readonly MigInstance[] {
  const instances: MigInstance[] = [];
  let gpuUuid = '';
  for (const line of list.split('\n')) {
    gpuUuid = /^GPU \d+: .*\(UUID: ([^)]+)\)/.exec(line)?.[1] ?? gpuUuid;
    const [, slice, gigabytes, index, uuid] =
      /^\s+MIG (\S*?(\d+)gb\S*)\s+Device\s+(\d+): \(UUID: ([^)]+)\)/.exec(line) ?? [];
    if (slice === undefined || uuid === undefined) continue;
    instances.push({ gpuUuid, uuid, index: Number(index), slice, memoryTotalBytes: Number(gigabytes) * 2 ** 30 });
  }
  return instances;
}

/** GPUs of `nvidia-smi -q -x`: the same figures as the table, for drivers whose table lacks a field. */
export function parseNvidiaXml(xml: string): readonly NvidiaGpu[] {
  const driver = text(xml, 'driver_version') ?? '';
  return elements(xml, 'gpu').map((gpu, index) => {
    const memory = text(gpu, 'fb_memory_usage') ?? '';
    const power = text(gpu, 'gpu_power_readings') ?? text(gpu, 'power_readings') ?? '';
    return {
      index,
      uuid: text(gpu, 'uuid') ?? '',
      name: text(gpu, 'product_name') ?? '',
      bus: busOf(text(text(gpu, 'pci') ?? '', 'pci_bus_id') ?? ''),
      driver,
      ...present('memoryTotalBytes', figure(text(memory, 'total') ?? ''), 1024 * 1024),
      ...present('memoryUsedBytes', figure(text(memory, 'used') ?? ''), 1024 * 1024),
      ...present('utilization', figure(text(text(gpu, 'utilization') ?? '', 'gpu_util') ?? ''), 0.01),
      ...present('temperatureCelsius', figure(text(text(gpu, 'temperature') ?? '', 'gpu_temp') ?? '')),
      ...present('powerWatts', figure(text(power, 'power_draw') ?? text(power, 'instant_power_draw') ?? '')),
      ...present('powerLimitWatts', figure(text(power, 'current_power_limit') ?? text(power, 'power_limit') ?? '')),
      migEnabled: text(text(gpu, 'mig_mode') ?? '', 'current_mig') === 'Enabled',
    };
  });
}

/** /proc/driver/nvidia/gpus/<bus>/information: the driver is loaded and knows this GPU. */
export function parseNvidiaInformation(
  file: string,
): { readonly name: string; readonly uuid: string; readonly bus: string; readonly driver: string } | undefined {
  const fields = new Map(
    file.split('\n').flatMap((line) => {
      const [, name, value] = /^([^:]+):\s*(.*)$/.exec(line) ?? [];
      return name === undefined || value === undefined ? [] : [[name.trim(), value.trim()] as const];
    }),
  );
  const name = fields.get('Model');
  if (name === undefined) return undefined;
  return {
    name,
    uuid: fields.get('GPU UUID') ?? '',
    bus: busOf(fields.get('Bus Location') ?? ''),
    driver: fields.get('GPU Firmware') ?? '',
  };
}

/** `00000000:01:00.0` → `0000:01:00.0`, as the kernel writes it. */
function busOf(bus: string): string {
  return bus.toLowerCase().replace(/^0000(?=[0-9a-f]{4}:)/, '');
}

/** The number in `23034 MiB`, `2 %`, `27.22 W`; undefined for `[N/A]`, `[Not Supported]` and the like. */
function figure(cell: string): number | undefined {
  const match = /^-?\d+(?:\.\d+)?/.exec(cell.trim());
  return match === null ? undefined : Number(match[0]);
}

function present<Name extends string>(
  name: Name,
  value: number | undefined,
  factor = 1,
): { readonly [Key in Name]?: number } {
  return (value === undefined ? {} : { [name]: value * factor }) as { readonly [Key in Name]?: number };
}

/** Inner texts of every outermost element with that name. nvidia-smi nests no element in one of its own name. */
function elements(xml: string, name: string): readonly string[] {
  return [...xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?>([\\s\\S]*?)</${name}>`, 'g'))].map(
    ([, inner]) => inner ?? '',
  );
}

function text(xml: string, name: string): string | undefined {
  return elements(xml, name)[0]?.trim();
}
