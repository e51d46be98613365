/** A host as the command line sees it: plain data, a check of itself, a way to stop. */
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { connect } from '#client/index.js';
import type { HostModel, RunningHost, SelfCheck } from '#cli/program.js';
import type { Catalog } from '#core/catalog.js';
import type { HostConfig } from '#config.js';
import { startHost, type Host } from './host.js';
import { selfCheck } from './self-check.js';

/** The model that the check of the host uses. */
export async function startRunningHost(config: HostConfig, checkedModel: string): Promise<RunningHost> {
  const host = await startHost(config);
  const { ports, report, warnings } = host;
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
    models: modelsOf(host.catalog),
    warnings,
    selfCheck: () => checkHost(host, checkedModel),
    stop: () => host.stop(),
  };
}

async function checkHost(host: Host, model: string): Promise<SelfCheck> {
  const { config, ports, catalog, ownToken } = host;
  const served = [...catalog.models.values()].find(({ name }) => name === model);
  const version = served?.defaultVersion;
  const on = version === undefined ? [] : (served?.served.get(version)?.devices ?? []);
  const descriptors = (await host.deviceStatus()).map(({ device }) => device);
  const client = connect({
    endpoints: `${config.bindAddress}:${ports.grpc}`,
    ...(ownToken === '' ? {} : { token: ownToken }),
    ...(config.tls === undefined ? {} : { tls: { authorityPath: config.tls.certificatePath } }),
  });
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
  return [...catalog.models.values()].flatMap(({ name, versions, served, reason }): HostModel[] =>
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
