/**
 * What the command line needs from the rest of the program. `main.ts` fills it in; tests hand over a pretended one.
 * Plain data both ways, so that a command prints what it was given and knows nothing of actors or adapters.
 */
import type { DeviceDescriptor } from '#core/device.js';
import type { DiscoveryReport, UnusableThing } from '#core/device-discovery.js';
import type { Clock } from '#ports/clock.js';
import type { LoadTarget, LoadTransport } from '#ports/load-transport.js';
import type { ClientOptions, InferenceClient } from '#client/index.js';
import type { HostConfig, HostOptions } from '#config.js';
import type { EvaluationReport, EvaluationRequest, EvaluationWatch } from './evaluation-report.js';
import type { FleetSimulationReport, FleetSimulationRequest } from './fleet-simulation-report.js';
import type { ExplainReport, ExplainRequest, LogQueryReport, LogQueryRequest } from './decision-log-report.js';
import type {
  CalibrationReport,
  CalibrationRequest,
  LogEstimateReport,
  LogEstimateRequest,
} from './log-evaluation-report.js';
import type { GridSimulationReport, GridSimulationRequest } from './simulation-report.js';
import type { PlanReport, PlanRequest } from './plan-report.js';
import type { ProfileReport, ProfileRequest } from './profile-report.js';
import type { SplitReport, SplitRequest } from './split-report.js';
import type { OptimizeReport, OptimizeRequest } from './variant-report.js';
import type { LogTrainReport, LogTrainRequest, TrainReport, TrainRequest, TrainWatch } from './train-report.js';

export interface Program {
  /** Version of the product, such as `0.1.0`, and of what it stands on, by name. */
  readonly versions: { readonly intarsia: string; readonly parts: Readonly<Record<string, string>> };
  readonly clock: Clock;
  /** What a newcomer starts with. */
  readonly example: ExampleRepository;
  /**
   * Starts a host; resolves when it serves.
   * @throws CONFIG_INVALID, ALREADY_EXISTS (a port is taken), DEVICE_UNAVAILABLE (no usable device) …
   */
  startHost(options: HostOptions): Promise<RunningHost>;
  /** Starts an embedded store and hosts as processes of this machine. @throws UNAVAILABLE (one ends before it is ready). */
  startLocalGrid(options: LocalGridOptions): Promise<LocalGrid>;
  /** Runs the embedded store in this process. @throws STORAGE_FULL, FAILED_PRECONDITION (port taken, folder in use) */
  startStore(options: StoreOptions): Promise<RunningStore>;
  /** Makes authorities and certificates for grids. */
  readonly certificates: CertificateMaker;
  /** Looks at the machine without starting anything. */
  discoverDevices(options: DiscoveryOptions): Promise<DiscoveryReport>;
  /**
   * Cuts a model in pieces, runs them and compares. `progress` is told the share done.
   * @throws MODEL_INVALID, NOT_FOUND, DEVICE_UNAVAILABLE, EXECUTION_FAILED (the whole model does not run).
   */
  verifySplit(request: SplitRequest, progress: (share: number, words: string) => void): Promise<SplitReport>;
  /**
   * Makes variants of a model, compares and times each, and writes those that pass.
   * @throws MODEL_INVALID, NOT_FOUND, DEVICE_UNAVAILABLE, EXECUTION_FAILED (the model does not run), FAILED_PRECONDITION (it
   * does not answer the same twice), STORAGE_FULL.
   */
  optimizeModel(request: OptimizeRequest, progress: (share: number, words: string) => void): Promise<OptimizeReport>;
  /**
   * Finds where a model should be cut and what runs where; measures on real devices within the time the request allows.
   * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (a device that is none), DEVICE_UNAVAILABLE, EXECUTION_FAILED.
   */
  planModel(request: PlanRequest, progress: (share: number, words: string) => void): Promise<PlanReport>;
  /**
   * Measures a model and pieces of it on devices; every measurement is kept at once.
   * @throws MODEL_INVALID, NOT_FOUND, INVALID_ARGUMENT (a device that is none), DEVICE_UNAVAILABLE, EXECUTION_FAILED,
   * STORAGE_FULL.
   */
  profileModel(request: ProfileRequest, progress: (share: number, words: string) => void): Promise<ProfileReport>;
  /**
   * Runs a fleet on virtual time under each policy. @throws CONFIG_INVALID (fleet), NOT_FOUND (file), INVALID_ARGUMENT (trace,
   * stream, policy), FAILED_PRECONDITION (nothing can serve the load in time).
   */
  simulateFleet(
    request: FleetSimulationRequest,
    progress: (share: number, words: string) => void,
  ): Promise<FleetSimulationReport>;
  /** Runs grids on virtual time; each is reported as it ends. @throws INVALID_ARGUMENT (an unknown fault, a bad scenario) */
  simulateGrids(request: GridSimulationRequest, onReport: (report: GridSimulationReport) => void): Promise<void>;
  /**
   * Trains a dispatch policy. @throws CONFIG_INVALID (plan, fleet), INVALID_ARGUMENT (trace), ALREADY_EXISTS (folder), NOT_FOUND
   * (run to continue), FAILED_PRECONDITION (its data changed).
   */
  train(request: TrainRequest, watch: TrainWatch): Promise<TrainReport>;
  trainFromLog(
    request: LogTrainRequest,
    onEpoch: (epoch: number, epochs: number, loss: number) => void,
  ): Promise<LogTrainReport>;
  /**
   * Plays policies and rules on the same requests and compares them. @throws CONFIG_INVALID (fleet, rule), INVALID_ARGUMENT
   * (trace, stream, batching, module), NOT_FOUND (file), MODEL_INVALID (policy file), FAILED_PRECONDITION (a fleet that cannot
   * serve the load).
   */
  evaluate(request: EvaluationRequest, watch: EvaluationWatch): Promise<EvaluationReport>;
  /** Estimates policies from a decision log. @throws NOT_FOUND, INVALID_ARGUMENT, FAILED_PRECONDITION (it says too little). */
  estimatePolicies(request: LogEstimateRequest): Promise<LogEstimateReport>;
  /** Holds the simulator against a decision log. @throws NOT_FOUND, CONFIG_INVALID, INVALID_ARGUMENT, FAILED_PRECONDITION. */
  calibrateWithLog(request: CalibrationRequest): Promise<CalibrationReport>;
  /** Asks a decision log by SQL. @throws NOT_FOUND (no log), UNIMPLEMENTED (DuckDB is absent), INVALID_ARGUMENT, DEADLINE_EXCEEDED. */
  queryLog(request: LogQueryRequest): Promise<LogQueryReport>;
  /** Why a request went where it went. @throws NOT_FOUND (no log, no such request), INVALID_ARGUMENT. */
  explainRequest(request: ExplainRequest): Promise<ExplainReport>;
  connect(options: ClientOptions): InferenceClient;
  openLoadTransport(target: LoadTarget): Promise<LoadTransport>;
  /** Microseconds of processor time this process has used. */
  cpuUs(): number;
  /** @throws CONFIG_INVALID with line and column. */
  readYamlFile(path: string): Promise<unknown>;
  /** @throws UNIMPLEMENTED when no decoder is installed, INVALID_ARGUMENT when the file is no picture. */
  decodePicture(path: string, request: PictureRequest): Promise<Picture>;
  /** Resolves at the first SIGINT or SIGTERM with its name. Asked for only by commands that run until told to stop. */
  untilInterrupted(): Promise<string>;
}

export interface ExampleRepository {
  /** Folder of models in Triton's layout. */
  readonly path: string;
  readonly model: string;
  /** Value of `--input` that shows the model at work, such as `image=examples/pictures/seven.png`. */
  readonly input: string;
  /** Where the model goes, so that two execution providers can be compared on it. */
  readonly placements: HostConfig['placements'];
}

export interface LocalGridOptions {
  readonly hosts: number;
  readonly repositories: readonly string[];
  readonly placements: HostConfig['placements'];
  /** REST of the first host; gRPC, metrics, links and the store follow. */
  readonly basePort: number;
  /** How much higher the ports of each further host are. */
  readonly portStep: number;
  /** Folder of what outlives a restart; empty: a temporary one, removed at the end. */
  readonly dataPath: string;
  /** Whether a process that ends by itself is started again. */
  readonly restarts: boolean;
  readonly logLevel: string;
  /** `pretty` where a person reads along. */
  readonly logFormat: 'json' | 'pretty';
  /** Further arguments of every host. */
  readonly hostArgs: readonly string[];
  /** A line that a process logged. */
  readonly onLine: (process: string, line: string) => void;
  readonly onReady: (process: string) => void;
  /** A process ended by itself; `again`: ms until it is started again, undefined for never. */
  readonly onEnd: (process: string, how: string, again: number | undefined) => void;
}

export interface LocalGrid {
  readonly store: { readonly address: string; readonly pid: () => number | undefined };
  readonly hosts: readonly LocalHost[];
  /** Drains the hosts, then stops the store. */
  stop(): Promise<void>;
}

export interface LocalHost {
  readonly name: string;
  /** `host:port`. */
  readonly grpc: string;
  readonly http: string;
  readonly metrics: string;
  /** Process id; another one after a restart, undefined while there is none. */
  readonly pid: () => number | undefined;
}

export interface StoreOptions {
  /** `address:port`; port 0 for any. */
  readonly listen: string;
  readonly dataPath: string;
  /** PEM files; all empty for plain text. */
  readonly certificatePath: string;
  readonly keyPath: string;
  readonly authorityPath: string;
  /** File with the secret that clients must know; empty for none. */
  readonly tokenPath: string;
  readonly allowPlaintext: boolean;
}

export interface RunningStore {
  /** `address:port`. */
  readonly address: string;
  /** Rejects when its disk fails: it has ended then. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

export interface DiscoveryOptions {
  /** YAML file with more hardware profiles; empty for none. */
  readonly profilesPath: string;
}

/** A host that serves. */
export interface RunningHost {
  readonly name: string;
  /** `grpc` as `host:port`; `http` and `metrics` as URLs. */
  readonly endpoints: { readonly grpc: string; readonly http: string; readonly metrics: string };
  readonly devices: readonly HostDevice[];
  readonly unusable: readonly UnusableThing[];
  readonly models: readonly HostModel[];
  /** What the operator should know, such as plain text on a public address. */
  readonly warnings: readonly string[];
  /** Sends requests through the host's own gRPC port and compares execution providers. */
  selfCheck(): Promise<SelfCheck>;
  /** A client of the host's own port that may do everything there; close it. */
  connect(): InferenceClient;
  /** Resolves when the host has left its grid because its time to drain was over: it is to be stopped. */
  readonly departed: Promise<void>;
  /** Refuses new requests, finishes what is in flight, ends. */
  stop(): Promise<void>;
}

export interface HostDevice {
  readonly device: DeviceDescriptor;
  /** `ready`, or what else it is. */
  readonly health: string;
  /** Why it is not ready; empty otherwise. */
  readonly reason: string;
}

export interface HostModel {
  readonly name: string;
  readonly version: string;
  readonly state: string;
  /** Why it is not ready; empty otherwise. */
  readonly reason: string;
  /** Devices it is loaded on. */
  readonly devices: readonly string[];
}

export interface SelfCheck {
  readonly passed: boolean;
  /** Why it did not pass; empty otherwise. */
  readonly reason: string;
  readonly model: string;
  /** Requests that each provider answered. */
  readonly requests: number;
  readonly providers: readonly SelfCheckProvider[];
  /** Largest difference between any two providers' outputs, over all requests. */
  readonly differenceAbsolute: number;
  readonly differenceRelative: number;
  /** Largest relative difference that passes. */
  readonly toleranceRelative: number;
}

export interface SelfCheckProvider {
  readonly provider: string;
  readonly device: string;
  readonly emulated: boolean;
  /** Median time of one request through the port, ms. */
  readonly latencyMsP50: number;
}

export interface PictureRequest {
  /** Size wanted; absent: the picture's own. */
  readonly size?: { readonly width: number; readonly height: number };
  /** 1 grey, 3 red green blue, 4 with alpha. */
  readonly channels: 1 | 3 | 4;
  /** How a picture of another shape becomes the size: `fill` stretches, `cover` crops, `contain` pads with black. */
  readonly fit: PictureFit;
}

export const pictureFits = ['fill', 'cover', 'contain'] as const;
export type PictureFit = (typeof pictureFits)[number];

export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  /** Row by row, channels side by side, 0 to 255. */
  readonly pixels: Uint8Array;
}

/** What makes certificates; handed in. */
export interface CertificateMaker {
  /** @throws ALREADY_EXISTS, INVALID_ARGUMENT, STORAGE_FULL. */
  init(request: { readonly folder: string; readonly name: string; readonly days: number }): Promise<MadeCertificate>;
  /** @throws NOT_FOUND (no authority), ALREADY_EXISTS, INVALID_ARGUMENT, FAILED_PRECONDITION, STORAGE_FULL. */
  issue(request: {
    readonly folder: string;
    readonly name: string;
    readonly addresses: readonly string[];
    readonly kind: 'host' | 'client';
    readonly days: number;
  }): Promise<MadeCertificate>;
}

export interface MadeCertificate {
  readonly certificatePath: string;
  readonly keyPath: string;
  readonly authorityPath: string;
  /** When it ends, ISO 8601. */
  readonly validTo: string;
}
