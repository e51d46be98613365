/**
 * A host: its ports, devices, models and servers, started in the order in which they need each other and stopped in the
 * reverse one. Everything that exists once per host is made here and handed to whoever needs it.
 */
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { SeededRandom } from '#adapters/node/random.js';
import { NodeClock } from '#adapters/node/clock.js';
import { nodeDiagnostics } from '#adapters/node/diagnostics.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { openPinoLog, type LogHandle } from '#adapters/pino/pino-log.js';
import { PrometheusMetrics } from '#adapters/prometheus/prometheus-metrics.js';
import { openOtlpTracing } from '#adapters/opentelemetry/otlp-tracing.js';
import { openDecisionLog } from '#adapters/parquet/decision-log.js';
import { openRepository } from '#adapters/files/repository.js';
import { startGrpcServer } from '#adapters/grpc/server.js';
import { startHttpServer } from '#adapters/http/server.js';
import { startMetricsServer } from '#adapters/http/metrics-server.js';
import { DeviceReadingsLoop } from '#adapters/hardware/device-readings.js';
import { discoverDevices } from '#adapters/hardware/discover.js';
import { exportHostMetrics } from '#adapters/hardware/host-metrics.js';
import { HostVitalsSampler } from '#adapters/hardware/host-vitals.js';
import { thisMachine } from '#adapters/hardware/system-reader.js';
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceHealth, DeviceMessage, DeviceStatus } from '#actors/device/protocol.js';
import { modelRegistryActor } from '#actors/model-registry/actor.js';
import type { RegistryOutcome } from '#actors/model-registry/protocol.js';
import { apiGroups } from '#core/api-group.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import type { DiscoveryReport } from '#core/device-discovery.js';
import type { DeviceDescriptor } from '#core/device.js';
import { messageOf } from '#core/errors.js';
import { hostId, type DeviceId } from '#core/ids.js';
import { makeRequestRecord } from '#core/request-record.js';
import { RequestRecordRing } from '#core/request-record-ring.js';
import { deviceKey, ReplicaLoads } from '#core/routing-table.js';
import { readShardName } from '#core/split/split-spec.js';
import { leastWorkPicker } from '#policies/placement/placement-least-work.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import { ActorSystem } from '#runtime/system.js';
import { exportAttemptMetrics } from '#server/attempt-metrics.js';
import { createAccess } from '#server/access.js';
import { createGateway } from '#server/gateway.js';
import { exportDecisionLogMetrics } from '#server/decision-log-metrics.js';
import { createHealth } from '#server/health.js';
import { PublishedRouter } from '#server/router.js';
import { createServices } from '#server/services.js';
import { exportStageMetrics, StageCounts } from '#server/stage-counts.js';
import type { HostConfig } from '#config.js';
import { hostDevices } from './devices.js';
import { hostBatching } from './batching.js';
import { hostDispatch } from './dispatch.js';
import { executorsOf } from './executors.js';
import { GridHost, reachedAt } from './grid.js';
import { openGridPorts, type GridPorts } from './grid-ports.js';
import { probeDevice } from './probe.js';
import { VariantExams } from './variants/variant-exams.js';
import { readProfiles } from './profiles.js';
import { startServedRecorder } from './profile/served-recorder.js';
import { hostStatistics, type StartedDevice } from './statistics.js';
import { nativeEngine } from './variants/native-engine.js';
import { version } from './version.js';

/** A host that serves, as the rest of the program sees it. */
export interface Host {
  readonly config: HostConfig;
  readonly report: DiscoveryReport;
  readonly ports: { readonly grpc: number; readonly http: number; readonly metrics: number };
  readonly catalog: Catalog;
  readonly warnings: readonly string[];
  /** `host:port` of the embedded store for others, where this host runs it; else empty. */
  readonly storeAddress: string;
  /** Lets this process ask its own ports where tokens are required; empty where none are. Never leaves the process. */
  readonly ownToken: string;
  /** Resolves when the host has left the grid because its time to drain was over: a stop waits for nothing then. */
  readonly departed: Promise<void>;
  deviceStatus(): Promise<readonly DeviceStatus[]>;
  /** Refuses new requests, finishes what is in flight within the configured time, ends. Further calls wait for the first. */
  stop(): Promise<void>;
}

const askMsMax = 10_000;
/** Longest time the models of the start may take to load, ms. */
const startLoadMsMax = 30 * 60_000;
/** Part of the drain time that the servers may take; the rest is for devices and executors. */
const serverDrainShare = 0.7;
/** Longest time, ms, that an executor with work in its hands gets to finish it once its device is given up. */
const executorCloseMsMax = 10_000;
/** Incarnations that one process may use, and how many such ranges there are: together below 2^53. */
const incarnationRange = 2 ** 32;
const incarnationRangesMax = 2 ** 20;
/** Least time, ms, that devices get to close their executors, however long the servers took. */
const closeMsMin = 5_000;
const noServer = { port: 0, stop: () => Promise.resolve() };

/**
 * `takesClients: false`: gateway processes open the ports for clients (compose/gateways.ts); `ports` has zeros for these.
 * @throws CONFIG_INVALID, FAILED_PRECONDITION (a port is taken), UNAVAILABLE or NOT_FOUND (a repository), …
 */
export async function startHost(
  config: HostConfig,
  { takesClients = true }: { readonly takesClients?: boolean } = {},
): Promise<Host> {
  const { telemetry, limits } = config;
  const logHandle = openPinoLog({
    level: telemetry.logLevel,
    format: telemetry.logFormat,
    fields: { host: config.name },
  });
  const undo: (() => Promise<void> | void)[] = [() => logHandle.flush()];
  try {
    return await build();
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }

  async function build(): Promise<Host> {
    const { log } = logHandle;
    const host = hostId(config.name);
    const clock = new NodeClock();
    const random = new SeededRandom(`${config.name}/${clock.wallMs()}`);
    const metrics = new PrometheusMetrics({ processMetrics: true });
    const tracing = await openOtlpTracing({
      endpoint: telemetry.otlpEndpoint,
      share: telemetry.traceShare,
      random: random.stream('tracing'),
      log,
      host: { name: config.name, version },
    });
    undo.push(() => tracing.close());

    const profiles = await readProfiles(config.profilesPath);
    const reader = thisMachine();
    const { memoryShare, cpuThreads } = config;
    const report = await discoverDevices({ reader, profiles, memoryShare, cpuThreads, probe: probeDevice });
    // A gateway only routes: the machine's devices are other processes' business.
    const descriptors = config.grid?.role === 'gateway' ? [] : hostDevices(config, report, profiles);
    const readings = new DeviceReadingsLoop({ reader, report, clock });
    undo.push(() => readings.close());
    await readings.start();
    const records = new RequestRecordRing();
    const vitals = new HostVitalsSampler({ clock, host: report.host });
    undo.push(() => vitals.close());
    exportHostMetrics({
      metrics,
      readings,
      report,
      vitals,
      droppedLogLines: () => logHandle.droppedLines(),
      recordedRows: () => records.recorded,
    });

    const ports: GridPorts | undefined =
      config.grid === undefined
        ? undefined
        : await openGridPorts({
            config,
            grid: config.grid,
            host,
            clock,
            random: random.stream('grid'),
            log,
            metrics,
            peers: (manifest) => grid?.holders(manifest) ?? [],
            generation: () => grid?.generation ?? 0,
          });
    undo.push(() => ports?.close());

    const system = new ActorSystem({
      host,
      clock,
      random: random.stream('actors'),
      log,
      metrics,
      diagnostics: nodeDiagnostics,
      // No two processes of a host share incarnations: what was meant for the one before finds nobody.
      ...(ports === undefined
        ? {}
        : { remote: ports.links, incarnationMin: (1 + randomInt(incarnationRangesMax)) * incarnationRange }),
    });
    undo.push(() => system.terminate());
    const router = new PublishedRouter();
    let ownCatalog: Catalog = emptyCatalog;
    const loads = new ReplicaLoads();
    const decisionLog =
      telemetry.decisionLogPath === ''
        ? undefined
        : await openDecisionLog({
            folder: telemetry.decisionLogPath,
            bytesMax: telemetry.decisionLogBytesMax,
            share: telemetry.decisionLogShare,
            ...{ host, clock, log },
          });
    undo.push(() => decisionLog?.close());
    if (decisionLog !== undefined) exportDecisionLogMetrics(metrics, decisionLog);
    const batching = await hostBatching(config.batching, log);
    const dispatch = await hostDispatch({
      decisionLog,
      config,
      host,
      descriptors,
      spotZone: config.grid?.spot === true ? config.grid.zone : undefined,
      router,
      clock,
      random: random.stream('dispatch'),
      log,
      metrics,
      batching,
    });
    const picker = dispatch.pickerOver(leastWorkPicker());
    const healths = new Map<DeviceId, { readonly health: DeviceHealth; readonly reason: string }>();
    const started: StartedDevice[] = descriptors.map((descriptor) => {
      const key = deviceKey(host, descriptor.id);
      const { startExecutor, fallbacks } = executorsOf(descriptor, { config, clock, profiles });
      const ref = system.spawn<DeviceMessage>(
        `device-${descriptor.id.replaceAll(/[^A-Za-z0-9]/g, '-')}`,
        deviceActor({
          descriptor,
          startExecutor,
          fallbacks,
          metrics,
          limits,
          batchingPolicy: batching.make(),
          profileOf: (placement) => dispatch.profileOf(descriptor.id, placement),
          closeMsMax: Math.min(executorCloseMsMax, config.drainMsMax),
          hooks: {
            onHealth: (health, reason) => {
              loads.setReady(key, health === 'ready' || health === 'degraded');
              healths.set(descriptor.id, { health, reason });
              grid?.actors?.onHealth(descriptor.id, health, reason);
            },
            onVersionOut: (out) => registry.tell({ type: 'version-out', device: descriptor.id, ...out }),
          },
          readSilicon: () => readings.latest(descriptor.id) ?? {},
        }),
        { mailbox: { messagesMax: limits.queueRequestsMax * 2 } },
      );
      router.setDevice(host, descriptor.id, ref);
      return { descriptor, ref };
    });

    const deviceStatus = (): Promise<readonly DeviceStatus[]> => {
      const deadlineMs = clock.nowMs() + askMsMax;
      return Promise.all(
        started.map(({ ref }) => ref.ask<DeviceStatus>((replyTo) => ({ type: 'status', replyTo }), { deadlineMs })),
      );
    };

    const files = ports?.files ?? (await openRepository({ roots: config.repositories }));
    undo.push(() => files.close());
    const exams = new VariantExams({
      startCpu: () => startProcessExecutor({ provider: 'cpu', lanes: 1 }),
      ...{ clock, memoryBytes: report.host.usableMemoryBytes },
    });
    undo.push(() => exams.end());
    const registry = system.spawn(
      'model-registry',
      modelRegistryActor({
        files,
        mode: config.modelControl,
        pollMs: config.pollSeconds * 1000,
        startupModels: config.startupModels,
        devices: started,
        residency: residencyOf(config),
        engine: nativeEngine(),
        examOf: (exact, record) => exams.examOf(exact, record),
        publish: (catalog) => {
          ownCatalog = catalog;
          // In a grid the table is made of what all hosts serve; until it has joined, of what this one does.
          if (grid?.actors === undefined) router.publish(loads.table({ catalog, host, picker }));
          else grid.actors.onCatalog(catalog);
        },
      }),
    );
    let hasDeparted = false;
    let depart: () => void = () => undefined;
    const departed = new Promise<void>((resolve) => (depart = resolve));
    const stageCounts = new StageCounts();
    exportStageMetrics(metrics, stageCounts);
    const grid: GridHost | undefined =
      ports === undefined
        ? undefined
        : new GridHost({
            ports,
            config,
            host,
            system,
            router,
            clock,
            random: random.stream('grid-host'),
            log,
            profiles,
            devices: started,
            cpu: report.devices.find(({ provider, emulated }) => provider === 'cpu' && !emulated),
            registry,
            stageCounts,
            metrics,
            dispatch,
            onDeparture: () => {
              hasDeparted = true;
              depart();
            },
          });

    const recorder = await startServedRecorder(config, {
      ...{ host, devices: started, catalog: () => ownCatalog, clock, log },
      onRecorded: (profiles) => dispatch.learnProfiles(profiles),
      ...(ports === undefined
        ? {}
        : { exchange: { store: ports.store, keys: ports.keys }, peers: () => ports.links.peers() }),
    });
    undo.push(() => recorder.stop());
    // Devices ask when a model is loaded.
    if (recorder.profiles !== undefined) await dispatch.learnProfiles(recorder.profiles);
    const deviceWatch = dispatch.watch(started);
    undo.push(() => deviceWatch.stop());

    let phase: 'starting' | 'serving' | 'stopping' = 'starting';
    const gateway = createGateway({
      router,
      clock,
      bytesInFlightMax: limits.bytesInFlightMax,
      receipts: telemetry.receipts,
      isOpen: () => phase !== 'starting',
      sequencesMax: limits.sequencesMax,
      tracing,
      ...(config.grid === undefined ? {} : { attempts: { hedgeShare: config.grid.hedgeShare } }),
      attemptObserver: dispatch.observer,
      onFinished: (finished) => {
        dispatch.finished(finished);
        records.record(makeRequestRecord({ ...finished, finishedWallMs: clock.wallMs() }));
      },
    });
    const live = (): boolean => phase !== 'stopping';
    const ready = (): boolean => phase === 'serving';
    const services = createServices({
      name: 'intarsia',
      version,
      router,
      registry,
      clock,
      live,
      ready,
      statistics: () => hostStatistics(started, clock),
      log: levelControl(logHandle),
    });
    const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
    const ownToken = config.tokens.length === 0 ? '' : randomBytes(32).toString('hex');
    const ownGrant = { sha256: sha256(ownToken), tenant: 'intarsia', groups: apiGroups, models: ['*'] };
    const access = createAccess({
      tokens: ownToken === '' ? [] : [...config.tokens, ownGrant],
      restricted: config.restricted,
      sha256,
    });
    const health = createHealth({
      clock,
      live,
      ready,
      model: (name) => ({
        known: [...router.current.catalog.models.keys()].some((known) => known === name),
        ready: services.isModelReady(name, ''),
      }),
    });
    const listener = {
      gateway,
      access,
      services,
      health,
      log,
      wallMs: () => clock.wallMs(),
      bindAddress: config.bindAddress,
      ...(config.tls === undefined ? {} : { tls: config.tls }),
      messageBytesMax: limits.messageBytesMax,
      connectionsMax: limits.connectionsMax,
      headerBytesMax: limits.headerBytesMax,
      receiveMsMax: limits.receiveMsMax,
    };
    exportAttemptMetrics(metrics, gateway.attemptCounts);
    const gridDesk = grid === undefined ? {} : { grid: grid.desk };
    const grpc = takesClients ? await startGrpcServer({ ...listener, port: config.grpcPort, ...gridDesk }) : noServer;
    undo.push(() => grpc.stop(0));
    const http = takesClients ? await startHttpServer({ ...listener, port: config.httpPort }) : noServer;
    undo.push(() => http.stop(0));
    const scrape = await startMetricsServer({
      ...listener,
      port: config.metricsPort,
      metrics: () => metrics.exposition(),
    });
    undo.push(() => scrape.stop(0));

    if (grid !== undefined) {
      const address = reachedAt(config);
      const scheme = config.tls === undefined ? 'http' : 'https';
      await grid.join(
        takesClients
          ? { grpc: `${address}:${grpc.port}`, http: `${scheme}://${address}:${http.port}` }
          : { grpc: '', http: '' },
      );
      for (const [device, { health: known, reason }] of healths) grid.actors?.onHealth(device, known, reason);
    }
    const scanned = await registry.ask<RegistryOutcome>((replyTo) => ({ type: 'scan', replyTo }), {
      deadlineMs: clock.nowMs() + startLoadMsMax,
    });
    if (!scanned.ok) throw scanned.error;
    await grid?.untilRouted();
    phase = 'serving';
    const clientPorts = takesClients ? { grpc: grpc.port, http: http.port } : {};
    log.info('serving', { ...clientPorts, metrics: scrape.port });

    /** A step that the rest of the stop must not depend on. */
    const attempt = async (what: string, step: () => Promise<void> | undefined): Promise<void> => {
      try {
        await step();
      } catch (error) {
        log.warn(`${what} failed`, { error: messageOf(error) });
      }
    };
    let stopping: Promise<void> | undefined;
    const stop = async (): Promise<void> => {
      phase = 'stopping';
      const drainMsMax = hasDeparted ? 0 : config.drainMsMax;
      const deadlineMs = clock.nowMs() + drainMsMax;
      log.info('stopping', { inFlight: gateway.requestsInFlight });
      const graceMs = drainMsMax * serverDrainShare;
      if (!hasDeparted) await attempt('announcing the departure', () => grid?.announceDeparture());
      await Promise.all([grpc.stop(graceMs), http.stop(graceMs)]);
      gateway.stopAccepting();
      if (!hasDeparted) await attempt('leaving the grid', () => grid?.leave());
      deviceWatch.stop();
      await attempt('ending the checks of answers', () => grid?.endChecks());
      await attempt('ending the comparisons of variants', () => exams.end());
      await attempt('recording what was served', () => recorder.stop());
      const drained = await system.drain({ deadlineMs: Math.max(deadlineMs, clock.nowMs() + closeMsMin) });
      if (drained.abandoned.length > 0) log.warn('stopped without', { actors: drained.abandoned.join(', ') });
      await attempt('closing the decision log', () => decisionLog?.close());
      readings.close();
      vitals.close();
      await Promise.all([files.close(), tracing.close(), scrape.stop(0)]);
      await ports?.close();
      log.info('stopped');
      logHandle.flush();
    };
    return {
      config,
      report,
      ports: { grpc: grpc.port, http: http.port, metrics: scrape.port },
      get catalog() {
        // A host without models of its own, or with pieces of some, tells what the grid serves.
        const own = [...ownCatalog.models.keys()];
        const isWhole = own.length > 0 && own.every((name) => readShardName(name) === undefined);
        return isWhole ? ownCatalog : router.current.catalog;
      },
      warnings: [...warningsOf(config, descriptors), ...(ports?.warnings ?? [])],
      storeAddress: ports?.storeAddress ?? '',
      ownToken,
      departed,
      deviceStatus,
      stop: () => (stopping ??= stop()),
    };
  }
}

/** The residency policy, with the operator's word before the model's own configuration. */
function residencyOf(config: HostConfig): typeof firstFit {
  const wanted = new Map(config.placements.map(({ model, devices }) => [model, devices.join(',')]));
  return (request, devices) => {
    const named = wanted.get(request.config.name);
    if (named === undefined) return firstFit(request, devices);
    const parameters = new Map(request.config.parameters).set('intarsia_devices', named);
    return firstFit({ ...request, config: { ...request.config, parameters } }, devices);
  };
}

function levelControl(handle: LogHandle): Parameters<typeof createServices>[0]['log'] {
  return {
    level: () => {
      const level = handle.level();
      return level === 'silent' ? 'error' : level;
    },
    setLevel: (level) => handle.setLevel(level),
  };
}

function warningsOf(config: HostConfig, devices: readonly DeviceDescriptor[]): readonly string[] {
  const warnings: string[] = [];
  if (config.tls === undefined && config.allowPlaintext) {
    warnings.push(
      `requests and answers cross the network in plain text on ${config.bindAddress}: --allow-plaintext is set`,
    );
  }
  const emulated = devices.filter((device) => device.emulated).map(({ id }) => id);
  if (emulated.length > 0)
    warnings.push(`emulated devices, whose times and costs are not this machine's: ${emulated.join(', ')}`);
  if (config.isolation === 'thread')
    warnings.push('executors live in threads of the host: a driver or model that crashes ends it');
  return warnings;
}
