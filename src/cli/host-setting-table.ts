/**
 * Every option of a host: its flag, its environment variable, its key in the configuration file, and what it is for.
 * docs/cli.md is the reader's copy of this table and a test keeps the two equal.
 */
import { apiGroups, type ApiGroup } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';

export type SettingForm =
  'text' | 'number' | 'bytes' | 'switch' | 'off-switch' | 'list' | { readonly choices: readonly string[] };

export interface HostSetting {
  /** Flag without its dashes. */
  readonly flag: string;
  /** What stands for the value in the help; empty for switches. */
  readonly value: string;
  readonly about: string;
  readonly form: SettingForm;
  /** Where the value goes in the options: one or two keys. */
  readonly path: readonly [string] | readonly [string, string];
  /** Makes an entry of the option's list out of one value of the flag. */
  readonly entry?: (flag: string, text: string) => unknown;
}

export const hostSettings: readonly HostSetting[] = [
  {
    flag: 'repository',
    value: 'dir',
    about: "folder of models in Triton's layout; repeat it for several",
    form: 'list',
    path: ['repositories'],
  },
  { flag: 'name', value: 'name', about: 'name of the host', form: 'text', path: ['name'] },
  {
    flag: 'model-control-mode',
    value: 'mode',
    about: 'when models come and go',
    form: { choices: ['none', 'poll', 'explicit'] },
    path: ['modelControl'],
  },
  {
    flag: 'poll-seconds',
    value: 's',
    about: 'seconds between two looks at the repository in mode poll',
    form: 'number',
    path: ['pollSeconds'],
  },
  {
    flag: 'load-model',
    value: 'name',
    about: 'model to load at start in mode explicit; repeat it; * for all',
    form: 'list',
    path: ['startupModels'],
  },
  {
    flag: 'bind',
    value: 'address',
    about: 'address to listen on; beyond loopback it needs TLS or --allow-plaintext',
    form: 'text',
    path: ['bindAddress'],
  },
  { flag: 'http-port', value: 'port', about: 'port of REST; 0 for any', form: 'number', path: ['httpPort'] },
  { flag: 'grpc-port', value: 'port', about: 'port of gRPC; 0 for any', form: 'number', path: ['grpcPort'] },
  { flag: 'metrics-port', value: 'port', about: 'port of /metrics; 0 for any', form: 'number', path: ['metricsPort'] },
  {
    flag: 'allow-plaintext',
    value: '',
    about: 'serve without TLS beyond loopback',
    form: 'switch',
    path: ['allowPlaintext'],
  },
  {
    flag: 'tls-certificate',
    value: 'file',
    about: "PEM file of the host's certificate",
    form: 'text',
    path: ['tls', 'certificatePath'],
  },
  { flag: 'tls-key', value: 'file', about: 'PEM file of its key', form: 'text', path: ['tls', 'keyPath'] },
  {
    flag: 'tls-client-authority',
    value: 'file',
    about: 'PEM file of the authority of clients; set: clients must show a certificate',
    form: 'text',
    path: ['tls', 'clientAuthorityPath'],
  },
  {
    flag: 'tenant-token',
    value: 'tenant=sha256',
    about: 'SHA-256 of a token and whose it is; repeat it',
    form: 'list',
    path: ['tokens'],
    entry: tokenEntry,
  },
  {
    flag: 'restrict',
    value: 'group:header=value',
    about: 'header that a group of the API demands; repeat it',
    form: 'list',
    path: ['restricted'],
    entry: restrictedEntry,
  },
  {
    flag: 'device',
    value: 'id',
    about: 'device to use, such as cpu:0 or webgpu; repeat it (default: all usable)',
    form: 'list',
    path: ['devices'],
  },
  {
    flag: 'remote-device',
    value: 'id=host:port',
    about: 'another inference server as a device; repeat it',
    form: 'list',
    path: ['remoteDevices'],
    entry: remoteEntry,
  },
  {
    flag: 'emulate',
    value: 'id=profile[,key=value]',
    about: 'a pretended device with the figures of a hardware profile; keys: provider, timeScale; repeat it',
    form: 'list',
    path: ['emulatedDevices'],
    entry: emulatedEntry,
  },
  {
    flag: 'place',
    value: 'model=device[,device]',
    about: 'devices of a model, instead of what its configuration says; repeat it',
    form: 'list',
    path: ['placements'],
    entry: placementEntry,
  },
  {
    flag: 'policy',
    value: 'name',
    about: 'how requests with a time are dispatched: cheapest-feasible, sed, least-work, …, or an .onnx file',
    form: 'text',
    path: ['policy'],
  },
  {
    flag: 'batching',
    value: 'name',
    about:
      'how devices form batches: deadline-cap, triton, delay:MS, aimd, proteus, smdp, each also with +shed, or an .onnx file',
    form: 'text',
    path: ['batching'],
  },
  {
    flag: 'isolation',
    value: 'where',
    about: 'where executors live',
    form: { choices: ['process', 'thread'] },
    path: ['isolation'],
  },
  {
    flag: 'cpu-threads',
    value: 'n',
    about: 'threads of one run on the CPU; 0 for all cores',
    form: 'number',
    path: ['cpuThreads'],
  },
  {
    flag: 'memory-share',
    value: 'share',
    about: "share of a device's memory that models may take, 0.1 to 1",
    form: 'number',
    path: ['memoryShare'],
  },
  {
    flag: 'profiles',
    value: 'file',
    about: 'YAML file with more hardware profiles and prices',
    form: 'text',
    path: ['profilesPath'],
  },
  {
    flag: 'profile-store',
    value: 'dir',
    about: 'folder of the profile database that times of served models are recorded into',
    form: 'text',
    path: ['profileStorePath'],
  },
  {
    flag: 'drain-ms-max',
    value: 'ms',
    about: 'how long a stop waits for what is in flight',
    form: 'number',
    path: ['drainMsMax'],
  },
  {
    flag: 'message-bytes-max',
    value: 'bytes',
    about: 'largest request or answer',
    form: 'bytes',
    path: ['limits', 'messageBytesMax'],
  },
  {
    flag: 'queue-requests-max',
    value: 'n',
    about: "requests in a model's queue",
    form: 'number',
    path: ['limits', 'queueRequestsMax'],
  },
  {
    flag: 'queue-bytes-max',
    value: 'bytes',
    about: "bytes in a model's queue",
    form: 'bytes',
    path: ['limits', 'queueBytesMax'],
  },
  {
    flag: 'bytes-in-flight-max',
    value: 'bytes',
    about: 'bytes of all requests the host holds',
    form: 'bytes',
    path: ['limits', 'bytesInFlightMax'],
  },
  {
    flag: 'sequences-max',
    value: 'n',
    about: 'sequences a model keeps state for',
    form: 'number',
    path: ['limits', 'sequencesMax'],
  },
  {
    flag: 'connections-max',
    value: 'n',
    about: 'connections per port',
    form: 'number',
    path: ['limits', 'connectionsMax'],
  },
  {
    flag: 'header-bytes-max',
    value: 'bytes',
    about: 'bytes of request headers',
    form: 'bytes',
    path: ['limits', 'headerBytesMax'],
  },
  {
    flag: 'receive-ms-max',
    value: 'ms',
    about: 'time a client may take to send its headers and each 64 KiB',
    form: 'number',
    path: ['limits', 'receiveMsMax'],
  },
  {
    flag: 'run-ms-max',
    value: 'ms',
    about: 'time one run of a model may take before its executor counts as hung',
    form: 'number',
    path: ['limits', 'runMsMax'],
  },
  { flag: 'grid', value: 'name', about: 'name of the grid', form: 'text', path: ['grid', 'name'] },
  {
    flag: 'etcd',
    value: 'host:port',
    about: 'an etcd member that holds the state of the grid; repeat it',
    form: 'list',
    path: ['grid', 'etcd'],
  },
  {
    flag: 'join',
    value: 'host:port',
    about: 'embedded store of the host that began the grid, instead of etcd',
    form: 'text',
    path: ['grid', 'join'],
  },
  {
    flag: 'store-port',
    value: 'port',
    about: 'begin a grid: run the embedded store on this port, in a process of its own; 0 for any',
    form: 'number',
    path: ['grid', 'storePort'],
  },
  {
    flag: 'data-dir',
    value: 'dir',
    about: "folder of what outlives a restart: the embedded store's files, the cache of weights",
    form: 'text',
    path: ['grid', 'dataPath'],
  },
  {
    flag: 'link-port',
    value: 'port',
    about: 'port of the links between hosts; 0 for any',
    form: 'number',
    path: ['grid', 'linkPort'],
  },
  {
    flag: 'advertise',
    value: 'address',
    about: 'address that other hosts and clients reach this one at (default: --bind)',
    form: 'text',
    path: ['grid', 'advertiseAddress'],
  },
  {
    flag: 'role',
    value: 'role',
    about: 'gateway: no devices of its own, only routes',
    form: { choices: ['host', 'gateway'] },
    path: ['grid', 'role'],
  },
  {
    flag: 'tier',
    value: 'tier',
    about: 'where the host stands',
    form: { choices: ['edge', 'regional', 'core'] },
    path: ['grid', 'tier'],
  },
  {
    flag: 'zone',
    value: 'name',
    about: 'failure domain, such as a rack; replicas are spread over zones',
    form: 'text',
    path: ['grid', 'zone'],
  },
  {
    flag: 'label',
    value: 'key=value',
    about: 'label that deployments can ask for; repeat it',
    form: 'list',
    path: ['grid', 'labels'],
    entry: labelEntry,
  },
  {
    flag: 'spot',
    value: '',
    about: 'this host may be taken away at any time',
    form: 'switch',
    path: ['grid', 'spot'],
  },
  {
    flag: 'join-token-file',
    value: 'file',
    about: 'file with the secret that the hosts of the grid share',
    form: 'text',
    path: ['grid', 'joinTokenPath'],
  },
  {
    flag: 'grid-certificate',
    value: 'file',
    about: "PEM file of this host's certificate for the links between hosts (intarsia certs issue)",
    form: 'text',
    path: ['grid', 'certificatePath'],
  },
  {
    flag: 'grid-key',
    value: 'file',
    about: 'PEM file of its key',
    form: 'text',
    path: ['grid', 'keyPath'],
  },
  {
    flag: 'grid-authority',
    value: 'file',
    about: "PEM file of the authority that signed all hosts' certificates (intarsia certs init)",
    form: 'text',
    path: ['grid', 'authorityPath'],
  },
  {
    flag: 'lease-ms',
    value: 'ms',
    about: 'time after which the store forgets a host that is silent',
    form: 'number',
    path: ['grid', 'leaseMs'],
  },
  {
    flag: 'cache-bytes-max',
    value: 'bytes',
    about: 'bytes of weights kept on disk',
    form: 'bytes',
    path: ['grid', 'cacheBytesMax'],
  },
  {
    flag: 'hedge-share',
    value: 'share',
    about: 'share of requests that may try a second replica before the first has answered, 0 to 1',
    form: 'number',
    path: ['grid', 'hedgeShare'],
  },
  {
    flag: 'check-share',
    value: 'share',
    about: 'share of requests that another holder runs again, to find devices that answer wrongly, 0 to 1',
    form: 'number',
    path: ['grid', 'checkShare'],
  },
  {
    flag: 'residency-seconds',
    value: 's',
    about: 'between two plans of which models live where, for deployments with residency; 5 to 60; 0: no plans',
    form: 'number',
    path: ['grid', 'residencySeconds'],
  },
  {
    flag: 'gateways',
    value: 'n',
    about: 'processes that share the ports for clients; connections, not requests, are balanced over them',
    form: 'number',
    path: ['grid', 'gateways'],
  },
  {
    flag: 'log-level',
    value: 'level',
    about: 'least level that is logged',
    form: { choices: ['debug', 'info', 'warn', 'error'] },
    path: ['telemetry', 'logLevel'],
  },
  {
    flag: 'log-format',
    value: 'format',
    about: 'form of the log',
    form: { choices: ['json', 'pretty'] },
    path: ['telemetry', 'logFormat'],
  },
  {
    flag: 'otlp-endpoint',
    value: 'url',
    about: 'OTLP/HTTP endpoint for traces, such as http://127.0.0.1:4318',
    form: 'text',
    path: ['telemetry', 'otlpEndpoint'],
  },
  {
    flag: 'trace-share',
    value: 'share',
    about: 'share of requests that are traced, 0 to 1',
    form: 'number',
    path: ['telemetry', 'traceShare'],
  },
  {
    flag: 'no-receipts',
    value: '',
    about: 'answers without intarsia_* parameters',
    form: 'off-switch',
    path: ['telemetry', 'receipts'],
  },
  {
    flag: 'decision-log',
    value: 'dir',
    about: 'folder that decisions of dispatch and what came of them are written to, as Parquet files',
    form: 'text',
    path: ['telemetry', 'decisionLogPath'],
  },
  {
    flag: 'decision-log-bytes',
    value: 'bytes',
    about: 'bytes of that folder; the oldest files are removed',
    form: 'bytes',
    path: ['telemetry', 'decisionLogBytesMax'],
  },
  {
    flag: 'decision-log-share',
    value: 'share',
    about: 'share of requests that are written, 0 to 1',
    form: 'number',
    path: ['telemetry', 'decisionLogShare'],
  },
];

/** `INTARSIA_GRPC_PORT` for `grpc-port`. */
export function environmentName(setting: HostSetting): string {
  return `INTARSIA_${setting.flag.replaceAll('-', '_').toUpperCase()}`;
}

function tokenEntry(flag: string, text: string): unknown {
  const { name, value } = pair(flag, text, 'tenant=sha256');
  return { tenant: name, sha256: value };
}

function restrictedEntry(flag: string, text: string): unknown {
  const parts = /^([a-z-]+):([^=]+)=(.+)$/.exec(text);
  if (parts === null || !isApiGroup(parts[1])) {
    throw wrongForm(flag, `written group:header=value, with a group of ${apiGroups.join(', ')}`, text);
  }
  return { group: parts[1], header: parts[2], value: parts[3] };
}

function labelEntry(flag: string, text: string): unknown {
  return pair(flag, text, 'key=value');
}

function placementEntry(flag: string, text: string): unknown {
  const { name, value } = pair(flag, text, 'model=device[,device]');
  return { model: name, devices: value.split(',') };
}

function isApiGroup(text: string | undefined): text is ApiGroup {
  return (apiGroups as readonly (string | undefined)[]).includes(text);
}

function remoteEntry(flag: string, text: string): unknown {
  const { name, value } = pair(flag, text, 'id=host:port');
  return { id: name, endpoint: value };
}

function emulatedEntry(flag: string, text: string): unknown {
  const { name, value } = pair(flag, text, 'id=profile');
  const [profile, ...extras] = value.split(',');
  const entry: Record<string, unknown> = { id: name, profile };
  for (const extra of extras) {
    const { name: key, value: given } = pair(flag, extra, 'key=value');
    if (key !== 'provider' && key !== 'timeScale')
      throw wrongForm(flag, 'provider or timeScale after the profile', key);
    entry[key] = key === 'timeScale' ? Number(given) : given;
  }
  return entry;
}

function pair(flag: string, text: string, wanted: string): { readonly name: string; readonly value: string } {
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1) throw wrongForm(flag, `written ${wanted}`, text);
  return { name: text.slice(0, at), value: text.slice(at + 1) };
}

export function wrongForm(name: string, wanted: string, actual: string): Error {
  return intarsiaError('CONFIG_INVALID', `${name} must be ${wanted}; it is ${actual}`, { option: name });
}
