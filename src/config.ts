/**
 * Options of a host: what may be given (`HostOptions`), and the complete, validated result (`HostConfig`).
 *
 * Options come from the command line, a YAML file and the environment; whoever reads those hands plain objects to
 * `completeConfig`, once, at the door. From there on every field is present. Each option says its unit, default, range
 * and what rises and falls with it.
 */
import { apiGroups, type ApiGroup } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';
import type { Tier } from '#core/grid/records.js';
import { isSloClass, sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import { GiB, KiB, MiB } from '#core/units.js';
import type { Isolation } from '#core/executor-isolation.js';

/** How models come and go: as Triton's --model-control-mode. */
export type ModelControlMode = 'none' | 'poll' | 'explicit';

/** A bearer token and what it may do. */
export interface TokenConfig {
  /** SHA-256 of the token in hexadecimal; the token itself is never kept. */
  readonly sha256: string;
  readonly tenant: string;
  /** Groups it may use. Default: all. */
  readonly groups: readonly ApiGroup[];
  /** Models it may use, exact names or prefixes ending in `*`. Default: all. */
  readonly models: readonly string[];
  /** What the tenant's requests aim at where they say nothing: `interactive`, `standard` or `batch`, and milliseconds. Default: what the model says. */
  readonly sloClass?: SloClass;
  readonly sloMs?: number;
}

export interface TlsConfig {
  /** PEM files. */
  readonly certificatePath: string;
  readonly keyPath: string;
  /** PEM file of the authority that signs clients' certificates; set: clients must show one (mutual TLS). Empty: not asked for. */
  readonly clientAuthorityPath: string;
}

/** A device that is another inference server. */
export interface RemoteDeviceConfig {
  readonly id: string;
  /** `host:port` of its gRPC endpoint. */
  readonly endpoint: string;
  /** Bearer token, empty for none. Secret. */
  readonly token: string;
  readonly tls: boolean;
  /** With `tls`: PEM file of the authority that signed its certificate. Absent: the system's own list. */
  readonly authorityPath?: string;
  /** With `tls`: PEM files of the certificate and key that this host shows, where the server asks for one. Both or none. */
  readonly certificatePath?: string;
  readonly keyPath?: string;
}

/** A device that pretends: takes time, memory, power and price of a hardware profile. Labelled wherever it shows. */
export interface EmulatedDeviceConfig {
  readonly id: string;
  /** Key of the hardware profile, such as `nvidia-l4`. */
  readonly profile: string;
  /** Engine that computes the true results: `cpu`, `wasm`, or `none` for zeros. Default `cpu`. */
  readonly provider: 'cpu' | 'wasm' | 'none';
  /** Emulated time × timeScale = real time. 1 is real; larger is slower and steadier on a busy machine. 0.01 to 1,000, default 1. */
  readonly timeScale: number;
}

/** How a host is part of a grid. Absent from the configuration: it serves alone. */
export interface GridConfig {
  /** Name of the grid: the prefix of its keys in the store. Hosts of another grid are refused. Default `default`. */
  readonly name: string;
  /** `host:port` of etcd's members. Exactly one of `etcd`, `join` and `storePort` says where the store is. */
  readonly etcd: readonly string[];
  /** `host:port` of the embedded store that another host runs; empty for none. */
  readonly join: string;
  /** Port of an embedded store that this host runs in a process of its own; -1 for none. */
  readonly storePort: number;
  /** Folder of what outlives a restart: the embedded store's files, the cache of weights. Empty: a temporary one. */
  readonly dataPath: string;
  /** Port of the links between hosts; 0 for any. Default 8003. */
  readonly linkPort: number;
  /** Address that other hosts reach this one at; empty for `bindAddress`. */
  readonly advertiseAddress: string;
  /** `gateway`: no devices of its own, only routes. Default `host`. */
  readonly role: 'host' | 'gateway';
  readonly tier: Tier;
  /** Failure domain, such as a rack; empty for none. */
  readonly zone: string;
  /** What deployments can ask for. */
  readonly labels: readonly { readonly name: string; readonly value: string }[];
  /** May be taken away at any time. Default false. */
  readonly spot: boolean;
  /** File with the secret that hosts of the grid share; empty for none. Its content never leaves memory, logs included. */
  readonly joinTokenPath: string;
  /** PEM files of the links: this host's certificate and key, and the authority that signed all hosts'. All empty: plain text, on loopback only unless `allowPlaintext`. */
  readonly certificatePath: string;
  readonly keyPath: string;
  readonly authorityPath: string;
  /** Milliseconds until the store forgets a host that does not renew its lease. 2,000 to 600,000, default 10,000. Lower: a dead host leaves the view sooner; a store that is slow for longer costs the host its generation. */
  readonly leaseMs: number;
  /** Bytes of weights kept on disk. Default 64 GiB. At the bound: what nobody holds goes, then STORAGE_FULL. */
  readonly cacheBytesMax: number;
  /** Share of requests that may be sent to a second replica before the first has answered, 0 to 1, default 0 (off). Higher: lower tail latency, more work. */
  readonly hedgeShare: number;
  /** Share of the requests to this host's devices that another holder of the same files runs again, to compare: 0 to 1, default 0.001. Higher: a device that gives wrong answers is found sooner, more work for the others. */
  readonly checkShare: number;
  /** Seconds between two plans of which models live where, for deployments with `residency`: 5 to 60, default 0: none are made. Lower: follows demand sooner, from fewer requests. */
  readonly residencySeconds: number;
  /** Processes that take requests on this host's ports beside the one with the devices. 0 to 256, default 0: that one takes them. Connections, not requests, are balanced over them. */
  readonly gateways: number;
}

/** Which devices a model goes on, whatever its own configuration says: on every one named, as with `intarsia_devices`. */
export interface PlacementConfig {
  readonly model: string;
  /** Device ids or execution providers. */
  readonly devices: readonly string[];
}

export interface HostConfig {
  readonly name: string;
  /** Folders of models, Triton's layout. At least one unless models come from elsewhere. */
  readonly repositories: readonly string[];
  readonly modelControl: ModelControlMode;
  /** Seconds between two looks at the repository in mode `poll`. 1 to 86,400, default 15. Lower: changes show sooner, more disk reads. */
  readonly pollSeconds: number;
  /** Models loaded at start in mode `explicit`; `*` for all. */
  readonly startupModels: readonly string[];
  /** Address to listen on. Default 127.0.0.1: plain text only on loopback unless `allowPlaintext`. */
  readonly bindAddress: string;
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly metricsPort: number;
  /** Serve without TLS on an address that is not loopback. Default false; said loudly when true. */
  readonly allowPlaintext: boolean;
  readonly tls?: TlsConfig;
  /** Empty: everybody may do everything. */
  readonly tokens: readonly TokenConfig[];
  /** Triton's restricted groups: group → header name and value the client must send. */
  readonly restricted: readonly { readonly group: ApiGroup; readonly header: string; readonly value: string }[];
  /** Ids of discovered devices to use; empty for all usable ones. */
  readonly devices: readonly string[];
  readonly remoteDevices: readonly RemoteDeviceConfig[];
  readonly emulatedDevices: readonly EmulatedDeviceConfig[];
  /** Devices of a model, instead of what its configuration says. */
  readonly placements: readonly PlacementConfig[];
  /** How requests that name a time are dispatched: a rule such as `cheapest-feasible:0.6`, `least-work`, or the file of a learned policy. Default `cheapest-feasible`. */
  readonly policy: string;
  /** How devices form batches: `triton`, `deadline-cap`, `delay:MS`, `aimd`, `proteus`, `smdp:WEIGHT`, each also with `+shed`, or the file of a learned policy. Default `triton`. */
  readonly batching: string;
  /** Where executors live. See docs/performance.md for what each costs. */
  readonly isolation: Isolation;
  /** Threads of one run on the CPU device. 0: all cores. 0 to 1,024, default 0. */
  readonly cpuThreads: number;
  /** Share of a device's memory that models may take, 0.1 to 1, default 0.9. */
  readonly memoryShare: number;
  /** YAML file with hardware profiles and prices added to the built-in ones; empty for none. */
  readonly profilesPath: string;
  /**
   * Folder of the profile database that times of served models are recorded into. Empty: `profiles` in the grid's data
   * folder where that is named, otherwise nothing is recorded.
   */
  readonly profileStorePath: string;
  readonly limits: HostLimits;
  readonly telemetry: TelemetryConfig;
  /** Milliseconds a stop waits for what is in flight. 0 to 3,600,000, default 30,000. */
  readonly drainMsMax: number;
  /** Absent: the host serves alone. */
  readonly grid?: GridConfig;
}

export interface HostLimits {
  /** Bytes of one request or answer. Default 2 GiB − 1, gRPC's own limit; 1 KiB and up. At the bound: REQUEST_TOO_LARGE. */
  readonly messageBytesMax: number;
  /** Requests a model's queue holds. 1 to 1,000,000, default 10,000. At the bound: QUEUE_FULL. */
  readonly queueRequestsMax: number;
  /** Bytes a model's queue holds. Default 1 GiB. At the bound: QUEUE_FULL. */
  readonly queueBytesMax: number;
  /** Bytes of all requests a host holds at once, in every queue and connection. Default 4 GiB. At the bound: RESOURCE_EXHAUSTED. */
  readonly bytesInFlightMax: number;
  /** Sequences a model keeps state for. Default 10,000. At the bound: RESOURCE_EXHAUSTED. */
  readonly sequencesMax: number;
  /** Connections per port. Default 10,000. */
  readonly connectionsMax: number;
  /** Bytes of request headers. Default 16 KiB. */
  readonly headerBytesMax: number;
  /** Milliseconds a client may take to send its headers and, per 64 KiB, its body. Default 30,000. */
  readonly receiveMsMax: number;
  /**
   * Milliseconds one run of a model may take. 100 to 86,400,000, default 600,000. At the bound the executor counts as hung:
   * its process is killed and started again, what was in flight fails as retryable. Lower: a run without end holds a device
   * for less time; a large batch on slow silicon must fit.
   */
  readonly runMsMax: number;
}

export interface TelemetryConfig {
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly logFormat: 'json' | 'pretty';
  /** OTLP/HTTP endpoint such as http://127.0.0.1:4318; empty for none. */
  readonly otlpEndpoint: string;
  /** Share of requests that are traced, 0 to 1, default 0.01. */
  readonly traceShare: number;
  /** Whether answers carry a receipt in `intarsia_*` parameters. Default true. */
  readonly receipts: boolean;
  /** Folder of the decision log; empty for none. Gateways of one machine may share it. */
  readonly decisionLogPath: string;
  /** Bytes of that folder. 1 MiB to 1 PiB, default 1 GiB. At the bound: the oldest files are removed and counted. */
  readonly decisionLogBytesMax: number;
  /** Share of requests that the decision log keeps, 0 to 1, default 1. */
  readonly decisionLogShare: number;
}

/** Everything a user may give; what is missing gets its default. */
export type HostOptions = Partial<
  Omit<HostConfig, 'limits' | 'telemetry' | 'tokens' | 'emulatedDevices' | 'remoteDevices' | 'grid'>
> & {
  readonly grid?: Partial<GridConfig>;
  readonly limits?: Partial<HostLimits>;
  readonly telemetry?: Partial<TelemetryConfig>;
  readonly tokens?: readonly (Pick<TokenConfig, 'sha256' | 'tenant'> & Partial<TokenConfig>)[];
  readonly emulatedDevices?: readonly (Pick<EmulatedDeviceConfig, 'id' | 'profile'> & Partial<EmulatedDeviceConfig>)[];
  readonly remoteDevices?: readonly (Pick<RemoteDeviceConfig, 'id' | 'endpoint'> & Partial<RemoteDeviceConfig>)[];
};

const int32Max = 2 ** 31 - 1;

export const defaultLimits: HostLimits = {
  messageBytesMax: int32Max,
  queueRequestsMax: 10_000,
  queueBytesMax: 1 * GiB,
  bytesInFlightMax: 4 * GiB,
  sequencesMax: 10_000,
  connectionsMax: 10_000,
  headerBytesMax: 16 * KiB,
  receiveMsMax: 30_000,
  runMsMax: 600_000,
};

export const defaultTelemetry: TelemetryConfig = {
  logLevel: 'info',
  logFormat: 'json',
  otlpEndpoint: '',
  traceShare: 0.01,
  receipts: true,
  decisionLogPath: '',
  decisionLogBytesMax: 1 * GiB,
  decisionLogShare: 1,
};

export const defaultGrid: GridConfig = {
  name: 'default',
  etcd: [],
  join: '',
  storePort: -1,
  dataPath: '',
  linkPort: 8003,
  advertiseAddress: '',
  role: 'host',
  tier: 'regional',
  zone: '',
  labels: [],
  spot: false,
  joinTokenPath: '',
  certificatePath: '',
  keyPath: '',
  authorityPath: '',
  leaseMs: 10_000,
  cacheBytesMax: 64 * GiB,
  hedgeShare: 0,
  checkShare: 0.001,
  residencySeconds: 0,
  gateways: 0,
};

const loopbackAddresses = new Set(['127.0.0.1', '::1', 'localhost']);

/** Whether what listens there is reached from this machine only. */
export function isLoopback(address: string): boolean {
  return loopbackAddresses.has(address);
}

/**
 * Fills in defaults and checks every value.
 * @throws CONFIG_INVALID naming the option, its range and the value.
 */
export function completeConfig(options: HostOptions): HostConfig {
  const config: HostConfig = {
    name: options.name ?? 'intarsia',
    repositories: options.repositories ?? [],
    modelControl: options.modelControl ?? 'none',
    pollSeconds: options.pollSeconds ?? 15,
    startupModels: options.startupModels ?? [],
    bindAddress: options.bindAddress ?? '127.0.0.1',
    httpPort: options.httpPort ?? 8000,
    grpcPort: options.grpcPort ?? 8001,
    metricsPort: options.metricsPort ?? 8002,
    allowPlaintext: options.allowPlaintext ?? false,
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    tokens: (options.tokens ?? []).map((token) => ({ groups: apiGroups, models: ['*'], ...token })),
    restricted: options.restricted ?? [],
    devices: options.devices ?? [],
    remoteDevices: (options.remoteDevices ?? []).map((device) => ({ token: '', tls: false, ...device })),
    emulatedDevices: (options.emulatedDevices ?? []).map((device) => ({ provider: 'cpu', timeScale: 1, ...device })),
    placements: options.placements ?? [],
    policy: options.policy ?? 'cheapest-feasible',
    batching: options.batching ?? 'triton',
    isolation: options.isolation ?? 'process',
    cpuThreads: options.cpuThreads ?? 0,
    memoryShare: options.memoryShare ?? 0.9,
    profilesPath: options.profilesPath ?? '',
    profileStorePath: options.profileStorePath ?? '',
    limits: { ...defaultLimits, ...options.limits },
    telemetry: { ...defaultTelemetry, ...options.telemetry },
    drainMsMax: options.drainMsMax ?? 30_000,
    ...(options.grid === undefined ? {} : { grid: { ...defaultGrid, ...options.grid } }),
  };
  checkRange('pollSeconds', config.pollSeconds, { min: 1, max: 86_400 });
  for (const port of ['httpPort', 'grpcPort', 'metricsPort'] as const) {
    checkRange(port, config[port], { min: 0, max: 65_535, whole: true });
  }
  checkRange('cpuThreads', config.cpuThreads, { min: 0, max: 1024, whole: true });
  checkRange('memoryShare', config.memoryShare, { min: 0.1, max: 1 });
  checkRange('drainMsMax', config.drainMsMax, { min: 0, max: 3_600_000 });
  checkRange('telemetry.traceShare', config.telemetry.traceShare, { min: 0, max: 1 });
  checkRange('telemetry.decisionLogBytesMax', config.telemetry.decisionLogBytesMax, { min: MiB, max: 2 ** 50 });
  checkRange('telemetry.decisionLogShare', config.telemetry.decisionLogShare, { min: 0, max: 1 });
  checkRange('limits.messageBytesMax', config.limits.messageBytesMax, { min: KiB, max: int32Max, whole: true });
  checkRange('limits.queueRequestsMax', config.limits.queueRequestsMax, { min: 1, max: 1_000_000, whole: true });
  checkRange('limits.queueBytesMax', config.limits.queueBytesMax, { min: MiB, max: 1024 * GiB });
  checkRange('limits.bytesInFlightMax', config.limits.bytesInFlightMax, { min: MiB, max: 1024 * GiB });
  checkRange('limits.sequencesMax', config.limits.sequencesMax, { min: 1, max: 10_000_000, whole: true });
  checkRange('limits.connectionsMax', config.limits.connectionsMax, { min: 1, max: 1_000_000, whole: true });
  checkRange('limits.headerBytesMax', config.limits.headerBytesMax, { min: KiB, max: MiB, whole: true });
  checkRange('limits.receiveMsMax', config.limits.receiveMsMax, { min: 100, max: 3_600_000 });
  checkRange('limits.runMsMax', config.limits.runMsMax, { min: 100, max: 86_400_000 });
  for (const device of config.emulatedDevices) {
    checkRange(`emulatedDevices.${device.id}.timeScale`, device.timeScale, { min: 0.01, max: 1000 });
  }
  if (config.grid !== undefined) checkGrid(config.grid);
  for (const { id, tls, authorityPath, certificatePath, keyPath } of config.remoteDevices) {
    const given = [authorityPath, certificatePath, keyPath].some((path) => path !== undefined);
    const together = (certificatePath === undefined) === (keyPath === undefined);
    if ((given && !tls) || !together) {
      throw configInvalid(
        `remoteDevices.${id}`,
        'with tls: true where it names certificates, and with certificatePath and keyPath together',
        `tls: ${String(tls)}`,
      );
    }
  }
  for (const token of config.tokens) {
    if (!/^[0-9a-f]{64}$/.test(token.sha256)) {
      throw configInvalid(
        'tokens.sha256',
        'the SHA-256 of the token as 64 lower-case hexadecimal digits',
        'another text',
      );
    }
    if (token.sloMs !== undefined) checkRange(`tokens.${token.tenant}.sloMs`, token.sloMs, { min: 0.001, max: 1e9 });
    if (token.sloClass !== undefined && !isSloClass(token.sloClass)) {
      throw configInvalid(`tokens.${token.tenant}.sloClass`, `one of ${sloClasses.join(', ')}`, String(token.sloClass));
    }
  }
  if (config.tls === undefined && !config.allowPlaintext && !isLoopback(config.bindAddress)) {
    throw configInvalid(
      'bindAddress',
      'a loopback address unless TLS is configured (tls) or plain text is allowed (--allow-plaintext)',
      config.bindAddress,
    );
  }
  return config;
}

function checkGrid(grid: GridConfig): void {
  const stores = [grid.etcd.length > 0, grid.join !== '', grid.storePort >= 0].filter(Boolean).length;
  if (stores !== 1) {
    throw configInvalid(
      'grid',
      'told where its store is, by exactly one of etcd (--etcd), join (--join) and storePort (--store-port)',
      stores === 0 ? 'told none of them' : `told ${stores} of them`,
    );
  }
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$/.test(grid.name)) {
    throw configInvalid('grid.name', '1 to 63 letters, digits and _ . -, not starting with punctuation', grid.name);
  }
  const pems = [grid.certificatePath, grid.keyPath, grid.authorityPath].filter((path) => path !== '').length;
  if (pems !== 0 && pems !== 3) {
    throw configInvalid(
      'grid',
      'given certificatePath, keyPath and authorityPath together or none of them',
      `given ${pems} of them`,
    );
  }
  checkRange('grid.storePort', grid.storePort, { min: -1, max: 65_535, whole: true });
  checkRange('grid.linkPort', grid.linkPort, { min: 0, max: 65_535, whole: true });
  checkRange('grid.leaseMs', grid.leaseMs, { min: 2000, max: 600_000 });
  checkRange('grid.cacheBytesMax', grid.cacheBytesMax, { min: MiB, max: 1024 * 1024 * GiB });
  checkRange('grid.hedgeShare', grid.hedgeShare, { min: 0, max: 1 });
  checkRange('grid.checkShare', grid.checkShare, { min: 0, max: 1 });
  if (grid.residencySeconds !== 0) checkRange('grid.residencySeconds', grid.residencySeconds, { min: 5, max: 60 });
  checkRange('grid.gateways', grid.gateways, { min: 0, max: 256, whole: true });
}

function checkRange(
  option: string,
  value: number,
  range: { readonly min: number; readonly max: number; readonly whole?: boolean },
): void {
  const whole = range.whole === true;
  if (!(value >= range.min && value <= range.max) || (whole && !Number.isInteger(value))) {
    throw configInvalid(
      option,
      `${whole ? 'a whole number' : 'a number'} from ${range.min} to ${range.max}`,
      String(value),
    );
  }
}

function configInvalid(option: string, wanted: string, value: string): Error {
  return intarsiaError('CONFIG_INVALID', `option ${option} must be ${wanted}; it is ${value}`, { option, value });
}
