/** What the command line is handed: hosts, discovery, clients, load, pictures. Heavy parts are loaded when a command needs them. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { NodeClock } from '#adapters/node/clock.js';
import { readYamlFile } from '#adapters/yaml/read-yaml.js';
import { connect } from '#client/index.js';
import type { Program } from '#cli/program.js';
import { completeConfig } from '#config.js';
import { packageRoot } from './package-root.js';
import { version } from './version.js';

const exampleModel = 'digits';

export function createProgram(): Program {
  return {
    versions: { intarsia: version, parts: partVersions() },
    clock: new NodeClock(),
    example: {
      path: join(packageRoot, 'examples/models'),
      model: exampleModel,
      input: 'image=examples/pictures/seven.png',
      placements: [{ model: exampleModel, devices: ['cpu', 'wasm'] }],
    },
    startHost: async (options) => {
      const { startRunningHost } = await import('./running-host.js');
      return startRunningHost(completeConfig(options), exampleModel);
    },
    startLocalGrid: async (options) => (await import('./local-grid.js')).startLocalGrid(options, new NodeClock()),
    startStore: async (options) => (await import('./store.js')).startStore(options),
    certificates: {
      init: async (request) =>
        (await import('#adapters/certificates/certificate-files.js')).initAuthority({ ...request, wallMs: Date.now() }),
      issue: async (request) =>
        (await import('#adapters/certificates/certificate-files.js')).issueFromFolder({
          ...request,
          wallMs: Date.now(),
        }),
    },
    discoverDevices: async ({ profilesPath }) =>
      (await (await import('./discover-here.js')).discoverHere(profilesPath)).report,
    verifySplit: async (request, progress) => {
      const [{ verifySplit }, { startProcessExecutor }] = await Promise.all([
        import('./split/verify-split.js'),
        import('#adapters/process/process-executor.js'),
      ]);
      return verifySplit(request, (provider) => startProcessExecutor({ provider, lanes: 1 }), progress);
    },
    optimizeModel: async (request, progress) => {
      const [{ optimizeModel }, { startProcessExecutor }] = await Promise.all([
        import('./variants/optimize-model.js'),
        import('#adapters/process/process-executor.js'),
      ]);
      return optimizeModel(request, (provider) => startProcessExecutor({ provider, lanes: 1 }), progress);
    },
    planModel: async (request, progress) => {
      const [{ planModel }, { startProcessExecutor }, { discoverHere }, { deviceEnvironment }, { processorTimes }] =
        await Promise.all([
          import('./split/plan-model.js'),
          import('#adapters/process/process-executor.js'),
          import('./discover-here.js'),
          import('#core/device-discovery.js'),
          import('#adapters/hardware/processor-times.js'),
        ]);
      const { report, profiles } = await discoverHere(request.profilesPath);
      const { withStore } = await import('./profile/profile-here.js');
      return await withStore(async (store) =>
        planModel(request, {
          startExecutor: ({ provider, descriptor }) =>
            startProcessExecutor({
              ...{ provider, lanes: 1 },
              ...(descriptor === undefined ? {} : { env: deviceEnvironment(descriptor) }),
            }),
          ...{ discovery: report, profiles, clock: new NodeClock(), processorTimes, progress },
          records: (await store.read()).records,
          keep: (records) => store.append(records),
          askGrid: async (options, digest) => (await import('./split/plan-grid.js')).askGrid(options, digest),
        }),
      );
    },
    profileModel: async (request, progress) =>
      (await import('./profile/profile-here.js')).profileHere(request, progress),
    simulateFleet: async (request, progress) =>
      (await import('./simulate-fleet.js')).simulateFleet(request, progress, new NodeClock()),
    simulateGrids: async (request, onReport) => (await import('./simulate-grids.js')).simulateGrids(request, onReport),
    trainFromLog: async (request, onEpoch) =>
      (await import('./learning/train-from-log.js')).trainFromLog(request, onEpoch),
    train: async (request, watch) =>
      (await import('./learning/train-fleets.js')).trainFleets(request, watch, new NodeClock()),
    evaluate: async (request, watch) =>
      (await import('./learning/evaluate-policies.js')).evaluatePolicies(request, watch),
    estimatePolicies: async (request) => (await import('./learning/judge-log.js')).estimatePolicies(request),
    calibrateWithLog: async (request) => (await import('./learning/judge-log.js')).calibrateWithLog(request),
    queryLog: async (request) => (await import('./decision-log/query-log.js')).queryLog(request),
    explainRequest: async (request) => (await import('./decision-log/explain.js')).explainRequest(request),
    connect,
    openLoadTransport: async (target) => (await import('../load-main.js')).openLoadTransport(target),
    cpuUs: () => {
      const { user, system } = process.cpuUsage();
      return user + system;
    },
    readYamlFile,
    decodePicture: async (path, request) =>
      (await import('#adapters/pictures/sharp-pictures.js')).decodePicture(path, request),
    untilInterrupted,
  };
}

function untilInterrupted(): Promise<string> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(signal));
    // Started by `intarsia up`, which has gone.
    if (!process.connected) return;
    process.once('disconnect', () => resolve('disconnect'));
    // Listening for its end must not keep the process up.
    process.channel?.unref();
  });
}

/** Versions of the parts that decide what runs, as they are installed. */
function partVersions(): Readonly<Record<string, string>> {
  const require = createRequire(import.meta.url);
  const parts: Record<string, string> = { node: process.versions.node };
  for (const name of ['onnxruntime-node', 'onnxruntime-web', '@grpc/grpc-js']) {
    const { version: installed } = require(join(packageRoot, 'node_modules', name, 'package.json')) as {
      readonly version: string;
    };
    parts[name] = installed;
  }
  return parts;
}
