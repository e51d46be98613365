/**
 * A host for the live comparison of policies: CPU, WebAssembly and emulated devices, a decision log and a profile database.
 * Prints its port and its devices when it serves.
 */
import { parseArgs } from 'node:util';
import { completeConfig } from '#config.js';
import { startHost } from '#compose/host.js';

const { values } = parseArgs({
  options: {
    repository: { type: 'string', default: '' },
    model: { type: 'string', default: '' },
    policy: { type: 'string', default: 'cheapest-feasible' },
    batching: { type: 'string', default: 'deadline-cap+shed' },
    log: { type: 'string', default: '' },
    profiles: { type: 'string', default: '' },
    emulated: { type: 'string', default: '[]' },
  },
});
const emulated = JSON.parse(values.emulated) as {
  readonly id: string;
  readonly profile: string;
  readonly timeScale: number;
}[];
const devices = ['cpu:0', 'wasm:0'];
const host = await startHost(
  completeConfig({
    repositories: [values.repository],
    modelControl: 'explicit',
    startupModels: [values.model],
    devices,
    emulatedDevices: emulated.map((device) => ({ provider: 'none', ...device })),
    placements: [{ model: values.model, devices: [...devices, ...emulated.map(({ id }) => id)] }],
    httpPort: 0,
    grpcPort: 0,
    metricsPort: 0,
    cpuThreads: 1,
    policy: values.policy,
    batching: values.batching,
    profileStorePath: values.profiles,
    telemetry: { logLevel: 'error', decisionLogPath: values.log },
  }),
);
const status = await host.deviceStatus();
const described = status.map(({ device: { id, emulated: isEmulated, permits, price, busyWatts, memoryBytes } }) => ({
  ...{ id, isEmulated, permits, memoryBytes },
  usdPerHour: price?.usdPerHour ?? 0,
  watts: busyWatts?.watts ?? 0,
}));
process.stdout.write(`${JSON.stringify({ grpc: host.ports.grpc, devices: described })}\n`);
process.once('SIGTERM', () => {
  void host.stop();
});
