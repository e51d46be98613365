/**
 * Several gateway processes on one machine that share its ports, by Node's cluster module: the front end grows with the
 * cores, while batches still form at the device, which belongs to this process.
 *
 * What is balanced is connections, not requests: each new connection goes to the next process in turn and stays there. A
 * client with one connection uses one process; clients that should use all open several.
 *
 * Each process is a member of the grid of its own, with role `gateway` and a name of its own (`host-g1`, `host-g2`, …): it
 * has its own links to every host, this machine's included, its own view and its own experience of who fails. Nothing is
 * shared but the listening sockets, so that a process that dies costs its own connections and nothing else: those it had not
 * taken yet go to the next one (handed-connections.ts), and it is started again. The process that starts them keeps the devices and opens no ports for clients. Links and metrics have ports of
 * their own in each process: those of the host plus 100 for the first, plus 200 for the second, and so on.
 */
import cluster, { type Worker } from 'node:cluster';
import { createServer } from 'node:net';
import { intarsiaError } from '#core/errors.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { HostConfig } from '#config.js';
import { rescueConnections } from './handed-connections.js';

/** What a gateway process is told, and tells. It speaks first: what it is sent before it listens would be lost. */
export type GatewayOrder = { readonly type: 'start'; readonly config: HostConfig } | { readonly type: 'stop' };
export type GatewayNews =
  /** It listens for orders now. */
  | { readonly type: 'awake' }
  | { readonly type: 'ready'; readonly ports: GatewayPorts }
  | { readonly type: 'failed'; readonly reason: string };

export interface GatewayPorts {
  readonly grpc: number;
  readonly http: number;
}

export interface GatewaysOptions {
  /** File that a gateway process runs; see `serveAsGateway`. */
  readonly entry: string;
  /** 1 to 256. */
  readonly count: number;
  /** Configuration of process number `index`, from 1. */
  readonly configOf: (index: number) => Promise<HostConfig>;
  readonly clock: Clock;
  readonly log: Log;
  /** Milliseconds a process may take to be ready, default 60,000. */
  readonly startMsMax?: number;
  /** Milliseconds a process may take to stop before it is killed. */
  readonly stopMsMax: number;
}

export interface Gateways {
  readonly ports: GatewayPorts;
  /** Process ids of those that run. */
  readonly processes: readonly number[];
  /** Times a process was started again. */
  readonly restarts: number;
  stop(): Promise<void>;
}

const restartMsMin = 100;
const restartMsMax = 10_000;
/** A process that has run for this long, ms, is started again at once. */
const steadyMs = 60_000;
const startMsMaxDefault = 60_000;
/** From a port of the host to that of its first gateway process, and on to the next. */
const portStep = 100;

/** Starts the processes. @throws FAILED_PRECONDITION when one cannot start; those that did are stopped then. */
export async function startGateways(options: GatewaysOptions): Promise<Gateways> {
  if (!cluster.isPrimary) throw intarsiaError('INTERNAL', 'a gateway process cannot start gateway processes');
  cluster.schedulingPolicy = cluster.SCHED_RR;
  cluster.setupPrimary({ exec: options.entry, args: [], serialization: 'advanced' });
  const seats = Array.from({ length: options.count }, (_, index) => new Seat(index + 1, options));
  try {
    const ports = await Promise.all(seats.map((seat) => seat.start()));
    const [first] = ports;
    if (first === undefined)
      throw intarsiaError('INVALID_ARGUMENT', 'at least one gateway process is needed; 0 were asked for');
    return {
      ports: first,
      get processes() {
        return seats.flatMap(({ pid }) => pid ?? []);
      },
      get restarts() {
        return seats.reduce((sum, { restarts }) => sum + restarts, 0);
      },
      stop: async () => {
        await Promise.all(seats.map((seat) => seat.stop()));
      },
    };
  } catch (error) {
    await Promise.all(seats.map((seat) => seat.stop()));
    throw error;
  }
}

/** One of the processes, and whoever follows it. */
class Seat {
  readonly #index: number;
  readonly #options: GatewaysOptions;
  #worker: Worker | undefined;
  #startedMs = 0;
  #failuresInRow = 0;
  #restart: Timer | undefined;
  #stopping = false;
  #isAwake = false;
  restarts = 0;

  constructor(index: number, options: GatewaysOptions) {
    this.#index = index;
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#worker?.process.pid;
  }

  async start(): Promise<GatewayPorts> {
    const { clock, startMsMax = startMsMaxDefault } = this.#options;
    const config = await this.#options.configOf(this.#index);
    const worker = cluster.fork();
    rescueConnections(worker);
    // Such as a connection that can no longer be handed over; its end is told by `exit`.
    worker.on('error', (error: Error) => {
      this.#options.log.debug('a gateway process cannot be told', { gateway: this.#index, reason: error.message });
    });
    this.#worker = worker;
    this.#isAwake = false;
    this.#startedMs = clock.nowMs();
    worker.once('exit', (code, signal) => this.#ended(worker, `it ended with code ${code}, signal ${signal}`));
    return new Promise((resolve, reject) => {
      const fail = (reason: string): void => {
        timer.cancel();
        reject(intarsiaError('FAILED_PRECONDITION', `gateway process ${this.#index} did not start: ${reason}`));
      };
      const timer = clock.schedule(startMsMax, () => {
        worker.process.kill('SIGKILL');
        fail(`it was not ready after ${startMsMax} ms`);
      });
      worker.on('message', (news: GatewayNews) => {
        if (news.type === 'awake') {
          this.#isAwake = true;
          worker.send({ type: 'start', config } satisfies GatewayOrder);
        } else if (news.type === 'failed') fail(news.reason);
        else {
          timer.cancel();
          resolve(news.ports);
        }
      });
      worker.once('exit', () => fail('it ended before it was ready'));
    });
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#restart?.cancel();
    const worker = this.#worker;
    if (worker === undefined || worker.isDead()) return;
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    const timer = this.#options.clock.schedule(this.#options.stopMsMax, () => worker.process.kill('SIGKILL'));
    if (this.#isAwake && worker.isConnected()) worker.send({ type: 'stop' } satisfies GatewayOrder);
    else worker.process.kill('SIGTERM');
    await ended;
    timer.cancel();
  }

  #ended(worker: Worker, how: string): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    if (this.#stopping) return;
    const { clock, log } = this.#options;
    this.#failuresInRow = clock.nowMs() - this.#startedMs >= steadyMs ? 0 : this.#failuresInRow + 1;
    const waitMs =
      this.#failuresInRow === 0 ? 0 : Math.min(restartMsMax, restartMsMin * 2 ** Math.min(20, this.#failuresInRow - 1));
    log.warn('a gateway process is started again', { gateway: this.#index, reason: how, waitMs });
    this.#restart = clock.schedule(waitMs, () => {
      this.restarts += 1;
      this.start().catch((error: unknown) => log.warn('a gateway process did not start', { error: String(error) }));
    });
  }
}

/** What a gateway process needs to run: how to serve, and how to end. */
export interface GatewayProgram {
  readonly serve: (config: HostConfig) => Promise<{ readonly ports: GatewayPorts; stop(): Promise<void> }>;
}

/**
 * The life of a gateway process: serves when told to, stops when told to, on SIGTERM, and when whoever started it is gone.
 * Call it once, first thing, in the entry file.
 */
export function serveAsGateway({ serve }: GatewayProgram): void {
  let serving: Promise<{ readonly ports: GatewayPorts; stop(): Promise<void> }> | undefined;
  let ending = false;
  const tell = (news: GatewayNews): void => void process.send?.(news);
  const end = (): void => {
    if (ending) return;
    ending = true;
    void (async () => {
      try {
        await (await serving)?.stop();
      } finally {
        process.exit();
      }
    })();
  };
  process.on('message', (order: GatewayOrder) => {
    if (order.type === 'stop') end();
    else if (serving === undefined) {
      serving = serve(order.config);
      serving.then(
        ({ ports }) => tell({ type: 'ready', ports }),
        (error: unknown) => {
          tell({ type: 'failed', reason: error instanceof Error ? error.message : String(error) });
          process.exitCode = 1;
          process.disconnect();
        },
      );
    }
  });
  // Ctrl-C reaches the whole group; the order to stop comes from the process that started this one.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', end);
  process.on('disconnect', end);
  tell({ type: 'awake' });
}

/**
 * The configuration of gateway process number `index` of a host: same ports for clients, and ports of its own for links and
 * metrics, since the cluster module would share those as well. No devices, no models.
 */
export async function gatewayConfig(config: HostConfig, index: number, storeAddress: string): Promise<HostConfig> {
  const { grid } = config;
  if (grid === undefined)
    throw intarsiaError('CONFIG_INVALID', 'option gateways needs a grid: give --etcd, --join or --store-port');
  const own = async (what: string, port: number): Promise<number> => {
    if (port === 0) return freePort(config.bindAddress);
    const next = port + index * portStep;
    if (next <= 65_535) return next;
    throw intarsiaError('CONFIG_INVALID', `${what} of gateway process ${index} would be port ${next}, above 65,535`);
  };
  const begins = grid.storePort >= 0;
  return {
    ...config,
    name: `${config.name}-g${index}`,
    repositories: [],
    startupModels: [],
    emulatedDevices: [],
    remoteDevices: [],
    placements: [],
    metricsPort: await own('metrics', config.metricsPort),
    grid: {
      ...grid,
      role: 'gateway',
      gateways: 0,
      linkPort: await own('links', grid.linkPort),
      ...(begins ? { storePort: -1, join: storeAddress } : {}),
    },
  };
}

/** A port that nobody listens on now. Somebody else may take it before it is used: the process is then started again. */
function freePort(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ port: 0, host: address, exclusive: true }, () => {
      const bound = server.address();
      const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
      server.close(() => resolve(port));
    });
  });
}
