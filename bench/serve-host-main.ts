/**
 * A host for benchmarks: the product as `intarsia serve` starts it, on free ports, in a process of its own.
 * Prints `{"grpc":N,"http":N}` when it serves.
 */
import { parseArgs } from 'node:util';
import { completeConfig } from '#config.js';
import { startHost } from '#compose/host.js';

const { values } = parseArgs({
  options: {
    repository: { type: 'string', multiple: true, default: [] },
    models: { type: 'string', multiple: true, default: ['*'] },
    isolation: { type: 'string', default: 'process' },
    threads: { type: 'string', default: '0' },
    device: { type: 'string', multiple: true, default: ['cpu:0'] },
    'decision-log': { type: 'string', default: '' },
  },
});
const host = await startHost(
  completeConfig({
    repositories: values.repository,
    modelControl: 'explicit',
    startupModels: values.models,
    devices: values.device,
    placements: values.device.length > 1 ? [{ model: 'digits', devices: values.device }] : [],
    httpPort: 0,
    grpcPort: 0,
    metricsPort: 0,
    cpuThreads: Number(values.threads),
    isolation: values.isolation === 'thread' ? 'thread' : 'process',
    telemetry: { logLevel: 'error', decisionLogPath: values['decision-log'] },
  }),
);
process.stdout.write(`${JSON.stringify({ grpc: host.ports.grpc, http: host.ports.http })}\n`);
process.once('SIGTERM', () => {
  void host.stop();
});
