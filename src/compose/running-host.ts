/** A host as the command line sees it: plain data, a check of itself, a way to stop. */
import { join } from 'node:path';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { openPinoLog } from '#adapters/pino/pino-log.js';
import { connect, type InferenceClient } from '#client/index.js';
import type { HostModel, RunningHost, SelfCheck } from '#cli/program.js';
import type { Catalog } from '#core/catalog.js';
import { readShardName } from '#core/split/split-spec.js';
import type { HostConfig } from '#config.js';
import { gatewayConfig, startGateways, type Gateways } from './gateways.js';
import { startHost, type Host } from './host.js';
import { packageRoot } from './package-root.js';
import { selfCheck } from './self-check.js';

/** Beside the time that requests in flight have, ms, for a gateway process to say goodbye to the grid. */
const gatewayStopMs = 20_000;

/** The model that the check of the host uses. */
export async function startRunningHost(config: HostConfig, checkedModel: string): Promise<RunningHost> {
  const { host, ports, stop } =
    (config.grid?.gateways ?? 0) > 0 ? await startWithGateways(config) : await startAlone(config);
  const { report, warnings } = host;
  const address = config.bindAddress.includes(':') ? `[${config.bindAddress}]` : config.bindAddress;
  const scheme = config.tls === undefined ? 'http' : 'https';
  const devices = await host.deviceStatus();
  return {
    name: config.name,
    endpoints: {
      grpc: `${address}:${ports.grpc}`,
      http: `${scheme}://${address}:${ports.http}`,
      metrics: `${scheme}://${address}:${ports.metrics}/metrics`,
    },
    devices: devices.map(({ device, health, reason }) => ({ device, health, reason })),
    unusable: report.unusable,
    get models() {
      return modelsOf(host.catalog);
    },
    warnings,
    selfCheck: () => checkHost(host, ports.grpc, checkedModel),
    connect: () => ownClient(host, ports.grpc),
    departed: host.departed,
    stop,
  };
}

/** A client of the host's own port. */
function ownClient({ config, ownToken }: Host, grpcPort: number): InferenceClient {
  return connect({
    endpoints: `${config.bindAddress}:${grpcPort}`,
    ...(ownToken === '' ? {} : { token: ownToken }),
    ...(config.tls === undefined ? {} : { tls: { authorityPath: config.tls.certificatePath } }),
  });
}

interface Started {
  readonly host: Host;
  /** Where clients call. */
  readonly ports: Host['ports'];
  readonly stop: () => Promise<void>;
}

async function startAlone(config: HostConfig): Promise<Started> {
  const host = await startHost(config);
  return { host, ports: host.ports, stop: () => host.stop() };
}

/** The host keeps the devices; gateway processes share the ports for clients. */
async function startWithGateways(config: HostConfig): Promise<Started> {
  const clock = new NodeClock();
  const { telemetry } = config;
  const logHandle = openPinoLog({
    level: telemetry.logLevel,
    format: telemetry.logFormat,
    fields: { host: config.name },
  });
  const host = await startHost(config, { takesClients: false });
  let gateways: Gateways;
  try {
    gateways = await startGateways({
      entry: join(packageRoot, 'dist/src/gateway-main.js'),
      count: config.grid?.gateways ?? 0,
      configOf: (index) => gatewayConfig(config, index, host.storeAddress),
      clock,
      log: logHandle.log,
      stopMsMax: config.drainMsMax + gatewayStopMs,
    });
  } catch (error) {
    await host.stop();
    throw error;
  }
  return {
    host,
    ports: { ...gateways.ports, metrics: host.ports.metrics },
    stop: async () => {
      await gateways.stop();
      await host.stop();
      logHandle.flush();
    },
  };
}

async function checkHost(host: Host, grpcPort: number, model: string): Promise<SelfCheck> {
  const { catalog } = host;
  const served = [...catalog.models.values()].find(({ name }) => name === model);
  const version = served?.defaultVersion;
  const on = version === undefined ? [] : (served?.served.get(version)?.devices ?? []);
  const descriptors = (await host.deviceStatus()).map(({ device }) => device);
  const client = ownClient(host, grpcPort);
  try {
    return await selfCheck({
      client,
      model,
      devices: descriptors.filter(({ id }) => on.includes(id)),
      clock: new NodeClock(),
      random: new SeededRandom('self-check'),
    });
  } finally {
    client.close();
  }
}

function modelsOf(catalog: Catalog): readonly HostModel[] {
  // Pieces of split models have no names that anybody could use.
  const known = [...catalog.models.values()].filter(({ name }) => readShardName(name) === undefined);
  return known.flatMap(({ name, versions, served, reason }): HostModel[] =>
    versions.length === 0
      ? [{ name, version: '', state: 'UNAVAILABLE', reason, devices: [] }]
      : versions.map((status) => ({
          name,
          version: status.version,
          state: status.state,
          reason: status.reason || reason,
          devices: served.get(status.version)?.devices ?? [],
        })),
  );
}
