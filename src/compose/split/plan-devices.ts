/** The devices that a plan is made for: of this machine by discovery, emulated ones by their hardware profile. */
import type { DiscoveryReport } from '#core/device-discovery.js';
import { profilePrice } from '#core/device-discovery.js';
import { intarsiaError } from '#core/errors.js';
import type { PlacementConstraints } from '#core/grid/constraints.js';
import type { ProfileBook } from '#core/hardware-profile.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { PlannerDevice } from '#core/split/plan-problem.js';
import type { Silicon } from '#core/split/stage-times.js';
import { GiB } from '#core/units.js';
import type { PlanRequest } from '#cli/plan-report.js';

export interface PlanDevice extends PlannerDevice {
  readonly name: string;
  readonly provider: ExecutionProvider;
  /** What was measured on one device counts for all of the same kind: silicon, engine and threads. */
  readonly kind: string;
  /** Whether this machine can measure it: has it, or its like. */
  readonly isHere: boolean;
  /** Its place, where the plan is for a grid. */
  readonly place?: { readonly host: string; readonly device: string; readonly tier: string; readonly zone: string };
  readonly emulated: boolean;
  readonly threads: number;
  readonly busyWatts: number;
  readonly silicon: Silicon;
  /** What a deployment asks for to get it. */
  readonly constraints: PlacementConstraints;
  /** The same device when nothing else of the plan shares its silicon: for the whole model on it alone. */
  readonly alone?: PlanDevice;
  /** Environment that its executors need. */
  readonly descriptor: DiscoveryReport['devices'][number] | undefined;
}

const devicesMax = 64;
/** One thread of a processor on 32-bit floats, by engine: what its vector units reach at best. */
const threadFlopsPerSecond: Readonly<Partial<Record<ExecutionProvider, number>>> = { cpu: 60e9, wasm: 20e9 };
/** What one thread reads from memory. */
const threadBytesPerSecond = 10e9;
/** A profile of the silicon is off by a factor of two, a guess from its kind by four. */
const profileDeviation = Math.log(2);
const guessDeviation = Math.log(4);

/** @throws INVALID_ARGUMENT for a name that means nothing, or a device that is not there. */
export function planDevices(
  request: Pick<PlanRequest, 'devices' | 'providers' | 'memoryBytes'>,
  report: DiscoveryReport,
  profiles: ProfileBook,
): readonly PlanDevice[] {
  const wanted = request.devices.length > 0 ? request.devices : report.devices.map(({ id }) => id);
  const named = wanted.flatMap((text) => namedDevice(text));
  if (named.length > devicesMax) {
    throw intarsiaError('INVALID_ARGUMENT', `a plan takes at most ${devicesMax} devices; ${named.length} are named`);
  }
  const processors = named.filter(({ kind }) => kind === 'cpu' || kind === 'wasm');
  const taken = new Map<string, number>();
  const devices = named.map(({ kind, rest }): PlanDevice => {
    const count = taken.get(`${kind}:${rest}`) ?? 0;
    taken.set(`${kind}:${rest}`, count + 1);
    return kind === 'emulated'
      ? emulatedDevice(rest, count, profiles)
      : realDevice({ kind, rest, count }, report, { profiles, processors });
  });
  return allowedDevices(devices, request);
}

/** With the limits of a request. @throws INVALID_ARGUMENT for a limit of no device, or when none is left. */
export function allowedDevices(
  devices: readonly PlanDevice[],
  request: Pick<PlanRequest, 'providers' | 'memoryBytes'>,
): readonly PlanDevice[] {
  const seen = new Set<string>();
  const limited = devices.map((device) => {
    if (seen.has(device.id)) throw intarsiaError('INVALID_ARGUMENT', `device ${device.id} is named twice`);
    seen.add(device.id);
    const memoryBytes = request.memoryBytes.get(device.id) ?? device.memoryBytes;
    if (memoryBytes === device.memoryBytes) return device;
    // Another limit makes it another kind of device for the planner.
    const { alone } = device;
    const limited = { ...device, memoryBytes, type: `${device.type} ${memoryBytes}` };
    return alone === undefined ? limited : { ...limited, alone: { ...alone, memoryBytes } };
  });
  for (const id of request.memoryBytes.keys()) {
    if (!seen.has(id))
      throw intarsiaError('INVALID_ARGUMENT', `--memory names ${id}; the devices are ${[...seen].join(', ')}`);
  }
  const { providers } = request;
  const allowed = limited.filter(({ provider }) => providers.length === 0 || providers.includes(provider));
  if (allowed.length === 0) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `none of ${limited.map(({ id, provider }) => `${id} (${provider})`).join(', ')} has one of the providers ${providers.join(', ')}`,
    );
  }
  return allowed;
}

interface Named {
  readonly kind: string;
  readonly rest: string;
}

/** `cpu`, `cpu:1`, `emulated:nvidia-l4`, with `*N` for several. */
function namedDevice(text: string): readonly Named[] {
  const match = /^([a-z]+)(?::([A-Za-z0-9._-]+))?(?:\*(\d+))?$/.exec(text.trim());
  const [, kind = '', rest = '', times = '1'] = match ?? [];
  const count = Number(times);
  if (match === null || count < 1 || count > devicesMax || (kind === 'emulated' && rest === '')) {
    throw intarsiaError('INVALID_ARGUMENT', `device '${text}' is none: cpu, wasm:0, emulated:nvidia-l4, cpu*2 are`);
  }
  return Array.from({ length: count }, (_, index) => ({
    kind,
    rest: kind === 'emulated' ? rest : count > 1 ? String(Number(rest === '' ? 0 : rest) + index) : rest,
  }));
}

function emulatedDevice(key: string, count: number, profiles: ProfileBook): PlanDevice {
  if (!profiles.has(key)) {
    throw intarsiaError('INVALID_ARGUMENT', `no hardware profile is called '${key}'; docs/hardware.md lists them`);
  }
  const device = emulatedPlanDevice(key, `emulated:${key}${count === 0 ? '' : `:${count}`}`, profiles);
  if (device === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `hardware profile '${key}' has no memory bandwidth or no TFLOPS, so nothing can be estimated for it`,
    );
  }
  return device;
}

/** Undefined where there is no such profile, or nothing can be estimated by it. */
export function emulatedPlanDevice(key: string, id: string, profiles: ProfileBook): PlanDevice | undefined {
  const profile = profiles.get(key);
  if (profile === undefined) return undefined;
  const { bandwidthGBs, fp16Tflops, memoryGiB, tdpWatts } = profile.figures;
  if (bandwidthGBs === undefined || fp16Tflops === undefined) return undefined;
  return {
    id,
    type: `emulated:${key}`,
    ...{ kind: `emulated:${key}`, isHere: false },
    name: `${profile.name} (emulated)`,
    provider: 'none',
    emulated: true,
    threads: 0,
    memoryBytes: (memoryGiB?.value ?? 16) * GiB,
    usdPerHour: profilePrice(profile)?.usdPerHour ?? 0,
    busyWatts: tdpWatts?.value ?? 0,
    silicon: profiledSilicon(bandwidthGBs.value, fp16Tflops.value),
    constraints: { devices: [id] },
    descriptor: undefined,
  };
}

function profiledSilicon(bandwidthGBs: number, fp16Tflops: number): Silicon {
  return {
    flopsPerSecond: fp16Tflops * 1e12,
    bytesPerSecond: bandwidthGBs * 1e9,
    operatorMs: 0.003,
    deviation: profileDeviation,
  };
}

/** What is known of silicon before anything was measured: its profile, or a guess from its kind. */
export function siliconOf(
  {
    provider,
    threads,
    profile,
  }: { readonly provider: ExecutionProvider; readonly threads: number; readonly profile: string },
  profiles: ProfileBook,
): Silicon {
  const { bandwidthGBs, fp16Tflops } = profiles.get(profile)?.figures ?? {};
  const isProcessor = provider === 'cpu' || provider === 'wasm';
  if (!isProcessor && bandwidthGBs !== undefined && fp16Tflops !== undefined) {
    return profiledSilicon(bandwidthGBs.value, fp16Tflops.value);
  }
  return {
    flopsPerSecond: (threadFlopsPerSecond[provider] ?? 60e9) * Math.max(1, threads),
    bytesPerSecond: threadBytesPerSecond * Math.max(1, threads),
    operatorMs: 0.002,
    deviation: guessDeviation,
  };
}

function realDevice(
  { kind, rest }: Named & { readonly count: number },
  { devices, host }: DiscoveryReport,
  { profiles, processors }: { readonly profiles: ProfileBook; readonly processors: readonly Named[] },
): PlanDevice {
  const id = `${kind}:${rest === '' ? '0' : rest}`;
  const exact = devices.find((device) => device.id === id);
  // A machine has one processor; further devices of its kind share its cores.
  const found =
    exact ?? (kind === 'cpu' || kind === 'wasm' ? devices.find(({ provider }) => provider === kind) : undefined);
  if (found === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `this machine has no device ${id}; it has ${devices.map((d) => d.id).join(', ')}`,
    );
  }
  const { provider } = found;
  const isProcessor = kind === 'cpu' || kind === 'wasm';
  const wasms = processors.filter((other) => other.kind === 'wasm').length;
  const cpus = Math.max(1, processors.length - wasms);
  const threads = kind === 'cpu' ? Math.max(1, Math.floor((found.threads - wasms) / cpus)) : found.threads;
  const share = isProcessor ? Math.max(1, threads) / Math.max(1, host.usableCores) : 1;
  const watts = found.busyWatts?.watts ?? 0;
  const price = found.price?.usdPerHour ?? 0;
  // Price and power of wasm are those of one core already.
  const part = kind === 'cpu' ? share : 1;
  const silicon = siliconOf({ provider, threads, profile: found.profile ?? '' }, profiles);
  const device: PlanDevice = {
    id,
    type: `${provider} ${threads}`,
    ...{ kind: `${provider} ${threads}`, isHere: true },
    name: found.name,
    provider,
    emulated: false,
    threads,
    memoryBytes: isProcessor ? Math.floor(found.memoryBytes / Math.max(1, processors.length)) : found.memoryBytes,
    usdPerHour: price * part,
    busyWatts: watts * part,
    silicon,
    constraints: exact === undefined ? { providers: [provider] } : { devices: [id] },
    descriptor: found,
  };
  if (kind !== 'cpu' || threads >= found.threads) return device;
  const alone: PlanDevice = {
    ...device,
    type: `${provider} ${found.threads}`,
    kind: `${provider} ${found.threads}`,
    threads: found.threads,
    memoryBytes: found.memoryBytes,
    usdPerHour: price,
    busyWatts: watts,
    silicon: {
      ...silicon,
      flopsPerSecond: (threadFlopsPerSecond[provider] ?? 60e9) * found.threads,
      bytesPerSecond: threadBytesPerSecond * found.threads,
    },
  };
  return { ...device, alone };
}
