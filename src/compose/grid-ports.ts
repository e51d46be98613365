/**
 * The doors through which a host of a grid reaches the store and the other hosts: the store's client (and, where this host
 * was told to run it, the embedded store in a process of its own), the links, and the files of models.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EtcdStore } from '#adapters/etcd/etcd-store.js';
import { openArtifactCache } from '#adapters/files/artifact-cache.js';
import { CachedArtifacts } from '#adapters/files/cached-artifacts.js';
import { gridModelFiles } from '#adapters/files/grid-model-files.js';
import { LocalManifests } from '#adapters/files/local-manifests.js';
import { shardModelFiles } from '#adapters/files/shard-model-files.js';
import { makeProcessFolder, removeLeftovers } from '#adapters/files/process-folder.js';
import { openRepository } from '#adapters/files/repository.js';
import { artifactTransfer } from '#adapters/grpc/artifact-client.js';
import { artifactService } from '#adapters/grpc/artifact-server.js';
import { openLinkSecurity, type LinkSecurity } from '#adapters/grpc/link-security.js';
import { startLinkServer } from '#adapters/grpc/link-server.js';
import { exportLinkMetrics } from '#adapters/grpc/link-metrics.js';
import { GrpcLinks } from '#adapters/grpc/links.js';
import { SupervisedProcess } from '#adapters/process/supervised-process.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import { gridKeys, type GridKeys } from '#core/grid/keys.js';
import { PublishedManifests } from '#core/grid/published-manifests.js';
import type { HostId, ModelName } from '#core/ids.js';
import type { SplitSpec } from '#core/split/split-spec.js';
import type { ArtifactPeers } from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Metrics } from '#ports/metrics.js';
import type { ModelFiles } from '#ports/model-files.js';
import type { Random } from '#ports/random.js';
import type { Store } from '#ports/store.js';
import type { GridConfig, HostConfig } from '#config.js';
import { packageRoot } from './package-root.js';
import { makeShard } from './split/make-shard.js';
import { version } from './version.js';

export interface GridPorts {
  readonly config: GridConfig;
  readonly keys: GridKeys;
  readonly store: Store;
  /** `etcd` or `embedded`, with where it is. */
  readonly storeKind: string;
  /** `host:port` of the store for others, where this host runs it. */
  readonly storeAddress: string;
  readonly links: GrpcLinks;
  /** Random text of this process in the grid. */
  readonly process: string;
  readonly published: PublishedManifests;
  readonly artifacts: CachedArtifacts;
  readonly files: ModelFiles;
  readonly warnings: readonly string[];
  /** Models whose own files are not served, because deployments rule them; and the splits that shards are wanted of. */
  rule(models: ReadonlySet<ModelName>, splits: ReadonlyMap<string, SplitSpec>): void;
  /** Opens the port of the links; to be called once actors can take what arrives. Port of the links. */
  listen(): Promise<number>;
  close(): Promise<void>;
}

export interface GridPortsOptions {
  readonly config: HostConfig;
  readonly grid: GridConfig;
  readonly host: HostId;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Hosts that may hold files. */
  readonly peers: ArtifactPeers;
  /** This host's incarnation in the grid; 0 before it has joined. */
  readonly generation: () => number;
}

const cachePrefix = 'intarsia-grid-';
const storeStopMs = 10_000;
const storeUser = 'grid';

/** @throws CONFIG_INVALID (certificates, token), UNAVAILABLE (the embedded store does not start), NOT_FOUND (a repository) */
export async function openGridPorts(options: GridPortsOptions): Promise<GridPorts> {
  const { config, grid, host, clock, log } = options;
  const undo: (() => Promise<void> | void)[] = [];
  try {
    return await open();
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }

  async function open(): Promise<GridPorts> {
    const security = openLinkSecurity({
      grid: grid.name,
      host,
      certificatePath: grid.certificatePath,
      keyPath: grid.keyPath,
      authorityPath: grid.authorityPath,
      joinTokenPath: grid.joinTokenPath,
      addresses: [config.bindAddress, grid.advertiseAddress].filter((address) => address !== ''),
      allowPlaintext: config.allowPlaintext,
      wallMs: clock.wallMs(),
    });
    const dataPath = await dataFolder(grid, undo);
    const storeAddress = grid.storePort < 0 ? '' : await startStoreProcess(options, dataPath, undo);
    const store = await openStore(grid, storeAddress, clock, security);
    undo.push(() => store.close());

    const process = randomBytes(12).toString('hex');
    const links = new GrpcLinks({
      grid: grid.name,
      host,
      process,
      generation: options.generation,
      softwareVersion: version,
      security,
      clock,
      log,
    });
    exportLinkMetrics(options.metrics, links);
    const published = new PublishedManifests();
    const cache = await openArtifactCache({ folder: join(dataPath, 'weights'), bytesMax: grid.cacheBytesMax });
    const artifacts = new CachedArtifacts({
      cache,
      local: new LocalManifests({ roots: config.repositories }),
      published,
      transfer: artifactTransfer({ security }),
      peers: options.peers,
      zone: grid.zone,
      clock,
      random: options.random.stream('artifacts'),
      log,
    });
    undo.push(() => artifacts.close());
    let ruled: ReadonlySet<ModelName> = new Set();
    let wantedSplits: ReadonlyMap<string, SplitSpec> = new Map();
    const whole = gridModelFiles({
      local: await openRepository({ roots: config.repositories }),
      held: () => artifacts.held(),
      isDeployed: (name) => ruled.has(name),
      onDamaged: (sha256) => artifacts.distrust(sha256),
    });
    const files = shardModelFiles({
      whole,
      splitOf: (id) => wantedSplits.get(id),
      makeShard,
      folder: join(dataPath, 'shards'),
      bytesMax: grid.cacheBytesMax,
    });
    undo.push(() => files.close());
    return {
      config: grid,
      keys: gridKeys(grid.name),
      store,
      storeKind: grid.etcd.length > 0 ? `etcd at ${grid.etcd.join(', ')}` : `embedded at ${grid.join || storeAddress}`,
      storeAddress,
      links,
      process,
      published,
      artifacts,
      files,
      warnings: security.warnings,
      rule: (models, splits) => {
        ruled = models;
        wantedSplits = splits;
      },
      listen: async () => {
        const server = await startLinkServer({
          links,
          bindAddress: config.bindAddress,
          port: grid.linkPort,
          services: [artifactService({ shelf: artifacts, log, admit: (call) => void security.admit(call) })],
        });
        undo.push(() => server.stop());
        return server.port;
      },
      close: async () => {
        for (const step of undo.reverse()) await step();
      },
    };
  }
}

async function dataFolder(grid: GridConfig, undo: (() => Promise<void> | void)[]): Promise<string> {
  if (grid.dataPath !== '') {
    await mkdir(grid.dataPath, { recursive: true });
    return grid.dataPath;
  }
  await removeLeftovers(tmpdir(), cachePrefix);
  const folder = await makeProcessFolder(tmpdir(), cachePrefix);
  undo.push(() => folder.remove());
  return folder.path;
}

/** The embedded store in a process of its own, started again when it dies; `host:port` that others reach it at. */
async function startStoreProcess(
  { config, grid, clock, log }: GridPortsOptions,
  dataPath: string,
  undo: (() => Promise<void> | void)[],
): Promise<string> {
  const bind = config.bindAddress.includes(':') ? `[${config.bindAddress}]` : config.bindAddress;
  const flags = {
    '--data-dir': join(dataPath, 'store'),
    '--certificate': grid.certificatePath,
    '--key': grid.keyPath,
    '--authority': grid.authorityPath,
    '--token-file': grid.joinTokenPath,
  };
  const given = Object.entries(flags).flatMap(([flag, value]) => (value === '' ? [] : [flag, value]));
  let port = grid.storePort;
  const supervised = new SupervisedProcess({
    name: 'store',
    args: () => [
      join(packageRoot, 'bin/intarsia.mjs'),
      'store',
      '--json',
      ...['--listen', `${bind}:${port}`],
      ...given,
      ...(config.allowPlaintext ? ['--allow-plaintext'] : []),
    ],
    env: process.env,
    clock,
    restarts: true,
    onLine: (line) => log.warn('the embedded store says', { line }),
    onReady: () => log.info('the embedded store serves'),
    onEnd: (how, again) => log.warn('the embedded store ended', { how, again: again ?? 'never' }),
  });
  undo.push(() => supervised.stop(storeStopMs));
  const document = (await supervised.start()) as { readonly address: string };
  port = Number(document.address.slice(document.address.lastIndexOf(':') + 1));
  return `${grid.advertiseAddress === '' ? bind : grid.advertiseAddress}:${port}`;
}

async function openStore(grid: GridConfig, own: string, clock: Clock, security: LinkSecurity): Promise<EtcdStore> {
  const isEtcd = grid.etcd.length > 0;
  const scheme = security.isEncrypted && !isEtcd ? 'https://' : '';
  const endpoints = isEtcd ? grid.etcd : [`${scheme}${grid.join === '' ? own : grid.join}`];
  const wantsTls = endpoints.some((endpoint) => endpoint.startsWith('https://'));
  return new EtcdStore({
    endpoints,
    clock,
    ...(wantsTls
      ? {
          tls: {
            authority: await pem('authorityPath', grid.authorityPath),
            certificate: await pem('certificatePath', grid.certificatePath),
            key: await pem('keyPath', grid.keyPath),
          },
        }
      : {}),
    ...(isEtcd || grid.joinTokenPath === ''
      ? {}
      : { auth: { username: storeUser, password: (await pem('joinTokenPath', grid.joinTokenPath)).trim() } }),
  });
}

async function pem(option: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw intarsiaError('CONFIG_INVALID', `option grid.${option}: ${path} cannot be read: ${messageOf(error)}`, {
      option: `grid.${option}`,
      path,
    });
  }
}
