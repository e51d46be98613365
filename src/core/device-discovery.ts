/**
 * From what was found on a machine to the devices models can run on, and to the list of what cannot be used and why.
 * Pure: `src/adapters/hardware` reads files and asks drivers, this decides.
 */
import { deviceId } from './ids.js';
import { matchProfile } from './hardware-profile.js';
import { formatBytes } from './units.js';
import type { CpuFacts, MemoryFacts } from './device-discovery-cpu.js';
import type { ProviderFinding } from './device-discovery-providers.js';
import type { DeviceDescriptor, DevicePrice } from './device.js';
import type { HardwareProfile, ProfileBook } from './hardware-profile.js';
import type { ExecutionProvider } from './provider.js';

/** An accelerator that was seen, whether or not anything can run on it. */
export interface FoundAccelerator {
  readonly kind: 'gpu' | 'npu';
  readonly vendor: string;
  readonly name: string;
  /** PCI address, or empty. */
  readonly bus: string;
  /** The driver's own identifier, or empty. */
  readonly uuid: string;
  readonly driver: string;
  readonly memoryBytes?: number;
  /** Power limit the driver enforces. */
  readonly powerLimitWatts?: number;
  /** Why no provider may use it, when the driver itself says so or the operator hid it; empty otherwise. */
  readonly blocked: string;
  readonly blockedRemedy: string;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}

export interface HostFacts {
  readonly hostname: string;
  readonly platform: string;
  readonly arch: string;
  readonly kernel: string;
  readonly node: string;
  readonly cpu: CpuFacts;
  /** Logical cores this process may use: affinity and control groups honoured, whole cores, at least 1. */
  readonly usableCores: number;
  /** What limits the cores: `all`, `affinity` or `control group`. */
  readonly coresLimit: 'all' | 'affinity' | 'control group';
  readonly memory: MemoryFacts;
  /** Bytes this process may use: the machine's, or its control group's. */
  readonly usableMemoryBytes: number;
  readonly memoryLimit: 'machine' | 'control group';
  /** Power of the processor: `rapl`, or why it cannot be measured. */
  readonly powerMeter: { readonly available: boolean; readonly detail: string };
}

export interface MachineFacts {
  readonly host: HostFacts;
  readonly accelerators: readonly FoundAccelerator[];
  readonly providers: readonly ProviderFinding[];
  /** Vulkan manifests in force, to tell a software driver from silicon. */
  readonly vulkanManifests: readonly string[];
  /** Sources that failed, such as a driver that does not answer. */
  readonly troubles: readonly UnusableThing[];
}

export interface UnusableThing {
  readonly name: string;
  readonly reason: string;
  readonly remedy: string;
}

export interface DiscoveryReport {
  readonly host: HostFacts;
  readonly devices: readonly DeviceDescriptor[];
  readonly unusable: readonly UnusableThing[];
  /** Every accelerator seen, used or not. */
  readonly accelerators: readonly FoundAccelerator[];
}

export interface DeviceOptions {
  readonly profiles: ProfileBook;
  /** Share of a device's memory that models may take, 0.1 to 1. */
  readonly memoryShare: number;
  /** Threads of one run on the cpu device; 0: all usable cores. */
  readonly cpuThreads: number;
}

/** What a trial run said about a provider: it works (and what the adapter calls itself), or why not. */
export type ProbeOutcome =
  { readonly ok: true; readonly adapter?: string } | { readonly ok: false; readonly reason: string };

const wasmMemoryBytesMax = 4 * 2 ** 30;

/** Devices whose needs are all met, accelerators to be tried before they are believed (`probed` decides). */
export function candidateDevices(facts: MachineFacts, options: DeviceOptions): readonly DeviceDescriptor[] {
  const usable = new Set(facts.providers.filter((finding) => finding.usable).map(({ provider }) => provider));
  const devices = [cpuDevice(facts, options, usable), ...(usable.has('wasm') ? [wasmDevice(facts, options)] : [])];
  const accelerators = facts.accelerators.filter(({ blocked }) => blocked === '');
  if (usable.has('cuda')) {
    accelerators
      .filter(({ vendor }) => vendor === 'NVIDIA')
      .forEach((gpu, index) => devices.push(acceleratorDevice(gpu, `cuda:${index}`, 'cuda', ['cpu'], options)));
  }
  if (usable.has('webgpu')) devices.push(webgpuDevice(facts, accelerators, options));
  for (const provider of ['coreml', 'dml'] as const) {
    const [first] = accelerators;
    if (usable.has(provider))
      devices.push(acceleratorDevice(first ?? unnamed(facts, provider), `${provider}:0`, provider, ['cpu'], options));
  }
  return devices;
}

/** The report, given what the trial of each accelerator said; a device without an outcome was not tried and stays. */
export function makeReport(
  facts: MachineFacts,
  candidates: readonly DeviceDescriptor[],
  outcomes: ReadonlyMap<string, ProbeOutcome>,
  profiles: ProfileBook,
): DiscoveryReport {
  const devices: DeviceDescriptor[] = [];
  const unusable: UnusableThing[] = [...facts.troubles];
  for (const device of candidates) {
    const outcome = outcomes.get(device.id);
    if (outcome?.ok === false) {
      unusable.push({
        name: `${device.id} (${device.name})`,
        reason: `a trial run failed: ${outcome.reason}`,
        remedy: remedyOf(device.provider),
      });
    } else {
      devices.push(outcome?.adapter === undefined ? device : withAdapter(device, outcome.adapter, profiles));
    }
  }
  for (const finding of facts.providers) {
    if (!finding.usable && finding.expected && finding.provider !== 'cuda') {
      unusable.push({ name: finding.provider, reason: finding.reason, remedy: finding.remedy });
    }
  }
  const served = new Set(devices.map(({ facts: { bus } }) => bus).filter((bus) => bus !== undefined && bus !== ''));
  const cuda = facts.providers.find(({ provider }) => provider === 'cuda');
  for (const found of facts.accelerators) {
    if (served.has(found.bus) && found.blocked === '') continue;
    unusable.push(
      whyUnused(
        found,
        cuda,
        devices.some(({ provider }) => provider === 'webgpu'),
      ),
    );
  }
  return { host: facts.host, devices, unusable, accelerators: facts.accelerators };
}

function whyUnused(found: FoundAccelerator, cuda: ProviderFinding | undefined, hasWebgpu: boolean): UnusableThing {
  const name = found.bus === '' ? found.name : `${found.name} (${found.bus})`;
  if (found.blocked !== '') return { name, reason: found.blocked, remedy: found.blockedRemedy };
  if (found.vendor === 'NVIDIA' && cuda !== undefined && !cuda.usable) {
    return { name, reason: `found, but ${cuda.reason}`, remedy: cuda.remedy };
  }
  if (found.kind === 'gpu' && hasWebgpu) {
    return {
      name,
      reason: 'found, but WebGPU offers one adapter and may have chosen another GPU',
      remedy: 'select the driver with VK_DRIVER_FILES',
    };
  }
  if (found.kind === 'gpu') {
    return {
      name,
      reason: `found, but onnxruntime-node reaches a GPU of ${found.vendor} through WebGPU only, which is not usable here`,
      remedy:
        "install libvulkan1 and the GPU's Vulkan driver, or serve it with an inference server (Triton, OVMS) and add it as a remote device",
    };
  }
  return {
    name,
    reason: `found, but onnxruntime-node has no provider for an NPU of ${found.vendor}`,
    remedy: 'serve it with an inference server that has one (OVMS for Intel) and add it as a remote device',
  };
}

function remedyOf(provider: ExecutionProvider): string {
  return provider === 'cuda'
    ? 'check that CUDA 12 and cuDNN 9 fit the driver (docs/hardware.md)'
    : 'check the driver of the GPU (docs/hardware.md)';
}

function cpuDevice(
  facts: MachineFacts,
  options: DeviceOptions,
  usable: ReadonlySet<ExecutionProvider>,
): DeviceDescriptor {
  const { host } = facts;
  const threads = options.cpuThreads > 0 ? options.cpuThreads : host.usableCores;
  return {
    id: deviceId('cpu:0'),
    kind: 'cpu',
    name: host.cpu.model,
    vendor: host.cpu.vendor,
    // Without a loadable onnxruntime-node the processor still runs models, through WebAssembly.
    provider: usable.has('cpu') ? 'cpu' : 'wasm',
    fallbackProviders: [],
    emulated: false,
    memoryBytes: Math.floor(host.usableMemoryBytes * options.memoryShare),
    threads,
    // Two for one busy model (one computes, one is handed over), two for others beside it.
    permits: 4,
    ...processorEconomics(host, options.profiles, host.usableCores),
    facts: {
      extensions: host.cpu.extensions.join(' '),
      sockets: host.cpu.sockets,
      physicalCores: host.cpu.physicalCores,
      logicalCores: host.cpu.logicalCores,
      usableCores: host.usableCores,
      coresLimit: host.coresLimit,
      memoryLimit: host.memoryLimit,
      powerMeter: host.powerMeter.detail,
    },
  };
}

function wasmDevice(facts: MachineFacts, options: DeviceOptions): DeviceDescriptor {
  const { host } = facts;
  return {
    id: deviceId('wasm:0'),
    kind: 'wasm',
    name: `${host.cpu.model}, WebAssembly`,
    vendor: host.cpu.vendor,
    provider: 'wasm',
    fallbackProviders: [],
    emulated: false,
    memoryBytes: Math.min(wasmMemoryBytesMax, Math.floor(host.usableMemoryBytes * options.memoryShare)),
    threads: 1,
    permits: 2,
    ...processorEconomics(host, options.profiles, 1),
    facts: { sharesSiliconWith: 'cpu:0' },
  };
}

function webgpuDevice(
  facts: MachineFacts,
  accelerators: readonly FoundAccelerator[],
  options: DeviceOptions,
): DeviceDescriptor {
  const software =
    facts.vulkanManifests.length > 0 && facts.vulkanManifests.every((path) => /swiftshader|lvp_icd/.test(path));
  const gpus = accelerators.filter(({ kind }) => kind === 'gpu');
  const [gpu] = gpus;
  if (software || gpu === undefined) {
    const device = acceleratorDevice(unnamed(facts, 'webgpu'), 'webgpu:0', 'webgpu', ['cpu'], options);
    return {
      ...device,
      ...(software
        ? {
            name: 'software Vulkan driver',
            vendor: facts.host.cpu.vendor,
            ...processorEconomics(facts.host, options.profiles, facts.host.usableCores),
          }
        : {}),
      facts: { ...device.facts, software },
    };
  }
  const device = acceleratorDevice(gpu, 'webgpu:0', 'webgpu', ['cpu'], options);
  return gpus.length === 1 ? device : { ...device, facts: { ...device.facts, adapterGuessed: true } };
}

function unnamed(facts: MachineFacts, provider: ExecutionProvider): FoundAccelerator {
  return {
    kind: provider === 'coreml' ? 'npu' : 'gpu',
    vendor: 'unknown',
    name: `${provider} adapter`,
    bus: '',
    uuid: '',
    driver: '',
    memoryBytes: facts.host.usableMemoryBytes,
    blocked: '',
    blockedRemedy: '',
    facts: { memoryGuessed: true },
  };
}

function acceleratorDevice(
  found: FoundAccelerator,
  id: string,
  provider: ExecutionProvider,
  fallbackProviders: readonly ExecutionProvider[],
  options: DeviceOptions,
): DeviceDescriptor {
  const profile = matchProfile(options.profiles, found.name);
  const memoryBytes = found.memoryBytes ?? (profile?.figures.memoryGiB?.value ?? 0) * 2 ** 30;
  return {
    id: deviceId(id),
    kind: found.kind,
    name: found.name,
    vendor: found.vendor,
    provider,
    fallbackProviders,
    emulated: false,
    memoryBytes: Math.floor(memoryBytes * options.memoryShare),
    threads: 0,
    permits: 2,
    ...(profile === undefined ? {} : { profile: profile.key }),
    ...accessoryWatts(found, profile),
    ...withPrice(profile === undefined ? undefined : profilePrice(profile)),
    facts: {
      ...found.facts,
      ...(found.bus === '' ? {} : { bus: found.bus }),
      ...(found.uuid === '' ? {} : { uuid: found.uuid }),
      ...(found.driver === '' ? {} : { driver: found.driver }),
    },
  };
}

/** Power when busy: the profile's, capped by the limit the driver enforces; the limit alone where there is no profile. */
function accessoryWatts(
  found: FoundAccelerator,
  profile: HardwareProfile | undefined,
): Pick<DeviceDescriptor, 'busyWatts'> {
  const limit = found.powerLimitWatts;
  const tdp = profile?.figures.tdpWatts?.value;
  if (tdp !== undefined) return { busyWatts: { watts: Math.min(tdp, limit ?? tdp), source: 'profile' } };
  return limit === undefined ? {} : { busyWatts: { watts: limit, source: 'estimated' } };
}

function withPrice(price: DevicePrice | undefined): Pick<DeviceDescriptor, 'price'> {
  return price === undefined ? {} : { price };
}

/** The profile's price on demand with its origin; undefined for silicon that is bought. */
export function profilePrice(profile: HardwareProfile): DevicePrice | undefined {
  const figure = profile.figures.usdPerHour;
  if (figure === undefined) return undefined;
  const fromFile = figure.sources.includes('file');
  const details = [`sources ${figure.sources.join(' ')}`, figure.note].filter((part) => part !== undefined);
  return {
    usdPerHour: figure.value,
    source: fromFile ? 'configured' : 'profile',
    origin: `profile ${profile.key} (${profile.version}), ${details.join(', ')}`,
  };
}

/**
 * Power and price of a number of logical cores: their share of the processor's profile, or of the class of cloud
 * processors. Estimated unless the profile comes from the operator's file.
 */
function processorEconomics(
  host: HostFacts,
  profiles: ProfileBook,
  cores: number,
): Pick<DeviceDescriptor, 'profile' | 'busyWatts' | 'price'> {
  const own = matchProfile(profiles, host.cpu.model);
  const cloud = profiles.get('class-cloud-cpu');
  const forWatts = own?.figures.tdpWatts === undefined ? cloud : own;
  const forPrice = own?.figures.usdPerHour === undefined ? cloud : own;
  const share = (profile: HardwareProfile): number =>
    cores / (profile.logicalCores ?? Math.max(cores, host.cpu.logicalCores));
  const watts = forWatts?.figures.tdpWatts;
  const price = forPrice?.figures.usdPerHour;
  return {
    ...(own === undefined ? {} : { profile: own.key }),
    ...(forWatts === undefined || watts === undefined
      ? {}
      : {
          busyWatts: {
            watts: rounded(watts.value * share(forWatts)),
            source: watts.sources.includes('file') ? 'configured' : 'estimated',
          },
        }),
    ...(forPrice === undefined || price === undefined
      ? {}
      : {
          price: {
            usdPerHour: rounded(price.value * share(forPrice)),
            source: price.sources.includes('file') ? 'configured' : 'estimated',
            origin: `profile ${forPrice.key} (${forPrice.version}): ${price.value} $/h for ${forPrice.logicalCores ?? host.cpu.logicalCores} logical cores, share of ${cores}`,
          },
        }),
  };
}

const rounded = (value: number): number => Number(value.toPrecision(6));

/** The device under the name its adapter gave, matched again: WebGPU may have chosen another GPU than we guessed. */
function withAdapter(device: DeviceDescriptor, adapter: string, profiles: ProfileBook): DeviceDescriptor {
  if (adapter === '' || adapter === device.name) return device;
  const profile = matchProfile(profiles, adapter);
  const { profile: _profile, busyWatts: _busyWatts, price: _price, ...rest } = device;
  if (profile === undefined) return { ...device, facts: { ...device.facts, adapter } };
  const watts = profile.figures.tdpWatts?.value;
  return {
    ...rest,
    name: adapter,
    vendor: profile.vendor,
    profile: profile.key,
    ...(watts === undefined ? {} : { busyWatts: { watts, source: 'profile' as const } }),
    ...withPrice(profilePrice(profile)),
    facts: { ...device.facts, adapter },
  };
}

/**
 * Variables an executor process of this device needs: an NVIDIA device is the only one its process sees, so that inside
 * of it the device has number 0, whatever order CUDA or nvidia-smi counts in; slices of a GPU work no other way.
 */
export function deviceEnvironment(device: DeviceDescriptor): Readonly<Record<string, string>> {
  const { uuid } = device.facts;
  return device.provider === 'cuda' && typeof uuid === 'string' ? { CUDA_VISIBLE_DEVICES: uuid } : {};
}

/** The devices as rows of texts for a table, header first. */
export function deviceRows(report: DiscoveryReport): readonly (readonly string[])[] {
  return [
    ['device', 'kind', 'name', 'provider', 'memory', 'threads', 'busy W', '$/h', 'profile'],
    ...report.devices.map((device) => [
      device.id,
      device.emulated ? `${device.kind} (emulated)` : device.kind,
      device.name,
      [device.provider, ...device.fallbackProviders].join(' → '),
      formatBytes(device.memoryBytes),
      device.threads === 0 ? '' : String(device.threads),
      device.busyWatts === undefined ? '' : `${device.busyWatts.watts} (${device.busyWatts.source})`,
      device.price === undefined ? '' : `${device.price.usdPerHour} (${device.price.source})`,
      device.profile ?? '',
    ]),
  ];
}

/** What cannot be used as rows of texts for a table, header first. */
export function unusableRows(report: DiscoveryReport): readonly (readonly string[])[] {
  return [
    ['not usable', 'why', 'what to do'],
    ...report.unusable.map(({ name, reason, remedy }) => [name, reason, remedy]),
  ];
}
