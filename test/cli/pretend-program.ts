/** A program that does nothing real, and a terminal that remembers: what the command line's tests hand over. */
import { deviceId } from '#core/ids.js';
import { GiB } from '#core/units.js';
import type { DeviceDescriptor } from '#core/device.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import { runCommandLine } from '#cli/command-line.js';
import type { Program, RunningHost, SelfCheck } from '#cli/program.js';
import { connect } from '#client/index.js';
import { intarsiaError } from '#core/errors.js';
import type { HostOptions } from '#config.js';
import { NodeClock } from '#adapters/node/clock.js';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { openRestLoad } from '#adapters/http/load-rest.js';

export function device(id: string, more: Partial<DeviceDescriptor> = {}): DeviceDescriptor {
  return {
    id: deviceId(id),
    kind: 'cpu',
    name: 'Pretended CPU',
    vendor: 'none',
    provider: 'cpu',
    fallbackProviders: [],
    emulated: false,
    memoryBytes: 8 * GiB,
    threads: 4,
    permits: 2,
    facts: {},
    ...more,
  };
}

export const passedCheck: SelfCheck = {
  passed: true,
  reason: '',
  model: 'digits',
  requests: 16,
  providers: [
    { provider: 'cpu', device: 'cpu:0', emulated: false, latencyMsP50: 0.42 },
    { provider: 'wasm', device: 'wasm:0', emulated: false, latencyMsP50: 1.7 },
  ],
  differenceAbsolute: 2.4e-7,
  differenceRelative: 3.1e-6,
  toleranceRelative: 1e-4,
};

export interface PretendHost {
  readonly started: HostOptions[];
  stops: number;
}

export interface PretendProgram {
  readonly program: Program;
  readonly host: PretendHost;
  interrupt(): void;
}

export function pretendProgram(change: Partial<Program> & { readonly check?: SelfCheck } = {}): PretendProgram {
  const host: PretendHost = { started: [], stops: 0 };
  let interrupt: (signal: string) => void = () => {};
  const interrupted = new Promise<string>((resolve) => (interrupt = resolve));
  const { check = passedCheck, ...rest } = change;
  const running: RunningHost = {
    name: 'intarsia',
    endpoints: { grpc: '127.0.0.1:8001', http: 'http://127.0.0.1:8000', metrics: 'http://127.0.0.1:8002/metrics' },
    devices: [
      { device: device('cpu:0'), health: 'ready', reason: '' },
      {
        device: device('wasm:0', { kind: 'wasm', provider: 'wasm', name: 'WebAssembly' }),
        health: 'degraded',
        reason: 'slow',
      },
    ],
    unusable: [{ name: 'cuda', reason: 'no NVIDIA driver', remedy: 'install one' }],
    models: [
      { name: 'digits', version: '1', state: 'READY', reason: '', devices: ['cpu:0', 'wasm:0'] },
      { name: 'broken', version: '2', state: 'UNAVAILABLE', reason: 'corrupt model', devices: [] },
    ],
    warnings: ['plain text on a public address'],
    selfCheck: () => Promise.resolve(check),
    connect: () => connect({ endpoints: '127.0.0.1:8001' }),
    departed: new Promise(() => undefined),
    stop: () => {
      host.stops += 1;
      return Promise.resolve();
    },
  };
  const program: Program = {
    versions: { intarsia: '0.1.0', parts: { node: '20.0.0' } },
    clock: new NodeClock(),
    example: {
      path: 'examples/models',
      model: 'digits',
      input: 'image=examples/pictures/seven.png',
      placements: [{ model: 'digits', devices: ['cpu', 'wasm'] }],
    },
    startHost: (options) => {
      host.started.push(options);
      return Promise.resolve(running);
    },
    discoverDevices: () => Promise.resolve(discovery),
    verifySplit: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no executors here')),
    optimizeModel: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no executors here')),
    planModel: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no executors here')),
    profileModel: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no executors here')),
    simulateFleet: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no simulation here')),
    simulateGrids: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no simulation here')),
    trainFromLog: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no training here')),
    train: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no training here')),
    evaluate: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no simulation here')),
    estimatePolicies: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no log here')),
    calibrateWithLog: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no log here')),
    queryLog: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no log here')),
    explainRequest: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no log here')),
    connect,
    openLoadTransport: (target) =>
      Promise.resolve(target.protocol.startsWith('grpc') ? openGrpcLoad(target) : openRestLoad(target)),
    cpuUs: () => 0,
    readYamlFile: () => Promise.resolve(null),
    decodePicture: () => Promise.reject(new Error('no pictures here')),
    startLocalGrid: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no processes here')),
    certificates: {
      init: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no certificates here')),
      issue: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no certificates here')),
    },
    startStore: () => Promise.reject(intarsiaError('UNIMPLEMENTED', 'no store here')),
    untilInterrupted: () => interrupted,
    ...rest,
  };
  return { program, host, interrupt: () => interrupt('SIGINT') };
}

const discovery: DiscoveryReport = {
  host: {} as DiscoveryReport['host'],
  devices: [device('cpu:0')],
  unusable: [{ name: 'webgpu', reason: 'no adapter', remedy: 'install a Vulkan driver' }],
  accelerators: [],
};

export interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line to its end. */
export async function run(
  args: readonly string[],
  program: Program = pretendProgram().program,
  terminal: { readonly env?: Readonly<Record<string, string>>; readonly tty?: boolean } = {},
): Promise<Said> {
  let out = '';
  let err = '';
  const code = await runCommandLine(args, program, {
    out: (text) => (out += text),
    err: (text) => (err += text),
    outIsTty: terminal.tty ?? false,
    errIsTty: false,
    env: terminal.env ?? {},
  });
  return { code, out, err };
}
