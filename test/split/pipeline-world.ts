/** Hosts of a grid on virtual time, each with one device that has shards of a model in three pieces. */
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage, LoadOutcome, Placement } from '#actors/device/protocol.js';
import { ingressActor } from '#actors/ingress/actor.js';
import { ingressPath } from '#actors/ingress/protocol.js';
import { peerActor } from '#actors/peer/actor.js';
import { PeerDesk } from '#actors/peer/peer-desk.js';
import type { Catalog, ServedModel } from '#core/catalog.js';
import { GridTable } from '#core/grid/grid-table.js';
import type { HostActual, ViewHost } from '#core/grid/records.js';
import { publishedFacts, type ServedFacts } from '#core/grid/served-facts.js';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, type HostId } from '#core/ids.js';
import type { IntarsiaError } from '#core/errors.js';
import {
  noParameters,
  type InferParameter,
  type InferParameters,
  type InferRequestMessage,
  type InferResponseMessage,
} from '#core/inference-message.js';
import { clientInputs, clientOutputs } from '#core/model-config-specs.js';
import type { ModelConfig } from '#core/model-config.js';
import type { ModelFacts } from '#core/onnx/model-facts.js';
import { shardConfig, splitRoute } from '#core/split/shard-config.js';
import type { SplitRoute } from '#core/split/stage-route.js';
import { shardModelName, type SplitSpec } from '#core/split/split-spec.js';
import type { Tensor } from '#core/tensor.js';
import { gridPicker } from '#policies/placement/placement-grid.js';
import type { InferTicket } from '#ports/inference-gateway.js';
import type { ActorRef } from '#runtime/actor.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { StageCounts } from '#server/stage-counts.js';
import { StageDesk, type StageDeskOptions } from '#server/stage-desk.js';
import { PretendExecutors, type PretendModel } from '#sim/pretend-executor.js';
import { entranceOf, PretendNetwork, seededRandom, Simulation } from '#testing.js';
import { cpu, digestOf, int32, modelConfig, numbers } from '../actors/device-world.js';

export const whole = modelName('sum');
const version = modelVersion('1');
const splitId = '0123456789';
const device = deviceId('cpu:0');
/** Milliseconds of one run of each stage. */
export const stageMs = 10;

interface PretendStage {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly run: (values: ReadonlyMap<string, number>) => Record<string, number>;
}

/** a = x + 1 (also an output); b = a × 2; y = b + x, with x carried past the middle. */
const plain: readonly PretendStage[] = [
  { inputs: ['x'], outputs: ['a'], run: (of) => ({ a: (of.get('x') ?? NaN) + 1 }) },
  { inputs: ['a'], outputs: ['b'], run: (of) => ({ b: (of.get('a') ?? NaN) * 2 }) },
  { inputs: ['b', 'x'], outputs: ['y'], run: (of) => ({ y: (of.get('b') ?? NaN) + (of.get('x') ?? NaN) }) },
];
export const expectedY = (x: number): number => (x + 1) * 2 + x;

/** The same, but the middle adds up: b = a × 2 + what it gave before in the sequence. */
const keeping: readonly PretendStage[] = [
  ...plain.slice(0, 1),
  {
    inputs: ['a', 'sum'],
    outputs: ['b', 'next_sum'],
    run: (of) => {
      const b = (of.get('a') ?? NaN) * 2 + (of.get('sum') ?? NaN);
      return { b, next_sum: b };
    },
  },
  ...plain.slice(2),
];

const sequenceBatching: NonNullable<ModelConfig['sequenceBatching']> = {
  idleUsMax: 60_000_000,
  controls: [],
  states: [{ inputName: 'sum', outputName: 'next_sum', datatype: 'INT32', dims: [1] }],
  strategy: {
    ...{ kind: 'oldest', candidateSequencesMax: 16, preferredBatchSizes: [], queueDelayUsMax: 0 },
    preserveOrdering: false,
  },
};

/** A model in three pieces as hosts know it, with a state in the middle or without. */
class Pieces {
  readonly stages: readonly PretendStage[];
  readonly config: ModelConfig;
  readonly route: SplitRoute;

  constructor(isStateful: boolean) {
    this.stages = isStateful ? keeping : plain;
    this.config = isStateful ? { ...wholeConfig, sequenceBatching } : wholeConfig;
    const split = { id: splitId, compression: 'none' } as SplitSpec;
    this.route = splitRoute({ ...this.config, name: whole }, split, this.stages);
  }

  facts(shard: number): ServedFacts {
    const { inputs, outputs } = this.stages[shard]!;
    const name = shardModelName(whole, splitId, shard);
    const value = (each: string) => ({ name: each, datatype: 'INT32' as const, shape: [{ size: 1, symbol: '' }] });
    const file = { inputs: inputs.map(value), outputs: outputs.map(value) } as unknown as ModelFacts;
    const config = shardConfig(this.config, file, { name, batches: false });
    return {
      ...{ name, version, config, inputs: clientInputs(config), outputs: clientOutputs(config) },
      ...{ optionalInputs: new Set(), digest: digestOf(`shard ${shard}`), labels: new Map() },
      part: { shard, route: this.route, whole: { ...wholeFacts, config: this.config } },
    };
  }
}

function tensorOf(name: string, value: number): Tensor {
  return { name, datatype: 'INT32', shape: [1], data: int32(value) };
}

function pretend({ inputs, outputs, run }: PretendStage): PretendModel {
  const spec = (name: string) => ({ name, datatype: 'INT32', shape: [1] }) as const;
  return {
    inputs: inputs.map(spec),
    outputs: outputs.map(spec),
    loadMs: 1,
    memoryBytes: 1000,
    runMs: () => stageMs,
    compute: (given) => {
      const values = new Map(given.map((tensor) => [tensor.name, numbers(tensor)[0]!]));
      return Object.entries(run(values)).map(([name, value]) => tensorOf(name, value));
    },
  };
}

const input = (name: string) => ({ name, datatype: 'INT32', dims: [1], format: 'NONE', optional: false }) as const;
const output = (name: string) => ({ name, datatype: 'INT32', dims: [1], labelFilename: '' }) as const;
const wholeConfig = modelConfig(whole, { maxBatchSize: 0, inputs: [input('x')], outputs: [output('y'), output('a')] });
const wholeFacts = {
  name: whole,
  version,
  config: wholeConfig,
  inputs: [{ name: 'x', datatype: 'INT32', shape: [1] }],
  outputs: ['y', 'a'].map((name) => ({ name, datatype: 'INT32' as const, shape: [1] })),
  optionalInputs: new Set<string>(),
  digest: digestOf('whole'),
  labels: new Map(),
} as const;

export interface PipelineHost {
  readonly name: HostId;
  readonly shards: readonly number[];
  readonly gateway: Gateway;
  readonly table: GridTable;
  readonly router: PublishedRouter;
  readonly stageDesk: StageDesk;
  readonly counts: StageCounts;
  readonly executors: PretendExecutors;
  readonly end: () => void;
}

export interface Answered {
  readonly x: number;
  ticket: InferTicket | undefined;
  answer?: InferResponseMessage;
  error?: IntarsiaError;
  atMs?: number;
}

export class PipelineWorld {
  readonly simulation = new Simulation();
  readonly network: PretendNetwork;
  readonly hosts = new Map<string, PipelineHost>();
  readonly #placed: Readonly<Record<string, readonly number[]>>;
  readonly #options: Partial<StageDeskOptions>;
  readonly #pieces: Pieces;
  #readyMs = 0;

  /** @param placed Shards by host. */
  static async start(
    placed: Readonly<Record<string, readonly number[]>>,
    { isStateful = false, ...options }: Partial<StageDeskOptions> & { readonly isStateful?: boolean } = {},
  ): Promise<PipelineWorld> {
    const world = new PipelineWorld(placed, options, new Pieces(isStateful));
    for (const name of Object.keys(placed)) await world.#join(name);
    await world.pass(100);
    world.#readyMs = world.nowMs;
    return world;
  }

  private constructor(
    placed: Readonly<Record<string, readonly number[]>>,
    options: Partial<StageDeskOptions>,
    pieces: Pieces,
  ) {
    this.#pieces = pieces;
    this.#placed = placed;
    this.#options = options;
    const { clock, random, log } = this.simulation;
    this.network = new PretendNetwork({ clock, random: random.stream('network'), log });
  }

  host(name: string): PipelineHost {
    return this.hosts.get(name)!;
  }

  async pass(ms: number): Promise<void> {
    await this.simulation.clock.settleUntil(this.simulation.clock.nowMs() + ms);
  }

  get nowMs(): number {
    return this.simulation.clock.nowMs();
  }

  /** Runs of a shard on a host, without those of its load. */
  runs(host: string, shard: number): number {
    return this.host(host).executors.runs.filter(
      ({ artifact, startedMs }) => artifact === `shard ${shard}` && startedMs >= this.#readyMs,
    ).length;
  }

  infer(
    host: string,
    x: number,
    options: {
      readonly deadlineMs?: number;
      readonly outputs?: readonly string[];
      readonly sequence?: { readonly id: number; readonly start?: boolean; readonly end?: boolean };
    } = {},
  ): Answered {
    const answered: Answered = { x, ticket: undefined };
    const message: InferRequestMessage = {
      modelName: whole,
      modelVersion: '',
      id: '',
      parameters: options.sequence === undefined ? noParameters : sequenceParameters(options.sequence),
      inputs: [{ name: 'x', datatype: 'INT32', shape: [1], parameters: noParameters, data: int32(x) }],
      outputs: (options.outputs ?? []).map((name) => ({ name, parameters: noParameters })),
      rawContents: true,
    };
    answered.ticket = this.host(host).gateway.infer(
      message,
      {
        caller: { tenant: anonymousTenant, namesTenant: true, mayUse: () => true },
        deadlineMs: options.deadlineMs === undefined ? Infinity : this.nowMs + options.deadlineMs,
        messageBytes: 4,
        sloMs: 0,
        traceparent: undefined,
        reservedParameters: new Set(),
      },
      {
        succeed: (answer) => {
          answered.answer = answer;
          answered.atMs = this.nowMs;
        },
        fail: (error) => {
          answered.error = error;
          answered.atMs = this.nowMs;
        },
      },
    );
    return answered;
  }

  /** The host is gone without a word. */
  kill(name: string): void {
    this.network.crash(name);
    this.host(name).end();
  }

  async #join(name: string): Promise<void> {
    const { simulation, network } = this;
    const { clock } = simulation;
    const host = hostId(name);
    const shards = this.#placed[name] ?? [];
    const links = network.host(name);
    const system = simulation.system({ host: name, remote: links, incarnationMin: links.incarnationMin });
    links.attach(entranceOf(system));
    const router = new PublishedRouter();
    const counts = new StageCounts();
    const stageDesk = new StageDesk({ host, process: `process of ${name}`, router, clock, counts, ...this.#options });
    const models = new Map(this.#pieces.stages.map((stage, shard) => [`shard ${shard}`, pretend(stage)]));
    const executors = new PretendExecutors({ clock, models });
    const ref: ActorRef<DeviceMessage> = system.spawn(
      'device',
      deviceActor({
        descriptor: cpu,
        startExecutor: executors.start,
        metrics: simulation.metrics,
        canaryMs: 0,
        usageMs: 0,
        hooks: { onHealth: () => undefined },
      }),
    );
    const staged = stageDesk.device(ref);
    router.setDevice(host, device, staged);
    system.spawn(ingressPath, ingressActor({ deviceOf: (id) => (id === device ? staged : undefined) }));
    const desks = new Map(
      Object.keys(this.#placed)
        .filter((other) => other !== name)
        .map((other) => [other, new PeerDesk({ host: hostId(other), clock, links })]),
    );
    for (const [other, desk] of desks) system.spawn(`peer-${other}`, peerActor(desk));
    router.setRemote((other, id) => desks.get(other)?.device(id));
    const table = this.#table(name);
    router.publish(table.table());
    const gateway = createGateway({ router, clock, bytesInFlightMax: 1e9, receipts: true });
    const loaded = shards.map((shard) => this.#load(ref, shard));
    await this.pass(100);
    for (const outcome of await Promise.all(loaded)) if (!outcome.ok) throw outcome.error;
    const end = (): void => system.terminate();
    this.hosts.set(name, { name: host, shards, gateway, table, router, stageDesk, counts, executors, end });
  }

  #load(ref: ActorRef<DeviceMessage>, shard: number): Promise<LoadOutcome> {
    const { name, config, digest } = this.#pieces.facts(shard);
    const spec = (each: string) => ({ name: each, datatype: 'INT32' as const, shape: [1] });
    const { inputs, outputs } = this.#pieces.stages[shard]!;
    const placement: Placement = {
      model: name,
      version,
      config,
      artifact: { digest, path: `shard ${shard}` },
      weightBytes: 100,
      inputs: inputs.map(spec),
      outputs: outputs.map(spec),
      optimization: 'all',
      warmups: [],
    };
    return ref.ask<LoadOutcome>((replyTo) => ({ type: 'load', placement, replyTo }), { deadlineMs: Infinity });
  }

  #table(own: string): GridTable {
    const table = new GridTable({ host: hostId(own), picker: gridPicker(seededRandom(5)) });
    const names = Object.keys(this.#placed);
    const up = names.map((name): [HostId, ViewHost] => [
      hostId(name),
      { record: { devices: [] }, generation: 1, state: 'up', cordoned: false } as unknown as ViewHost,
    ]);
    table.setView({ revision: 1, hosts: new Map(up) });
    const prints = this.#pieces.stages.map((_, shard) => {
      const facts = this.#pieces.facts(shard);
      const { fingerprint } = publishedFacts({ ...facts, devices: [] });
      table.setFacts(fingerprint, facts);
      return fingerprint;
    });
    for (const name of names) {
      const shards = this.#placed[name] ?? [];
      if (name === own) table.setOwn(catalogOf(shards.map((shard) => this.#pieces.facts(shard))));
      else table.setActual(hostId(name), actualOf(name, shards, prints));
    }
    return table;
  }
}

function sequenceParameters(sequence: {
  readonly id: number;
  readonly start?: boolean;
  readonly end?: boolean;
}): InferParameters {
  return new Map<string, InferParameter>([
    ['sequence_id', { kind: 'int64', value: BigInt(sequence.id) }],
    ['sequence_start', { kind: 'bool', value: sequence.start === true }],
    ['sequence_end', { kind: 'bool', value: sequence.end === true }],
  ]);
}

function catalogOf(shards: readonly ServedFacts[]): Catalog {
  const models = shards.map((facts) => {
    const served: ServedModel = { ...facts, devices: [device] };
    const versions = [{ version, state: 'READY', reason: '', isQuarantined: false } as const];
    return [served.name, { name: served.name, versions, served: new Map([[version, served]]), reason: '' }] as const;
  });
  return { revision: 1, models: new Map(models) };
}

function actualOf(name: string, shards: readonly number[], prints: readonly string[]): HostActual {
  return {
    format: 1,
    host: hostId(name),
    assignmentRevision: 1,
    degraded: {},
    replicas: shards.map((shard) => ({
      model: whole,
      version,
      device,
      state: 'ready',
      reason: '',
      digest: digestOf(`shard ${shard}`),
      memoryBytes: 0,
      facts: prints[shard] ?? '',
      deployment: 'd',
      split: splitId,
      shard,
    })),
  };
}

/** What a client got under a name. */
export function valueOf({ answer }: Answered, name: string): number | undefined {
  const found = answer?.outputs.find((tensor) => tensor.name === name);
  return found === undefined ? undefined : numbers({ ...found, datatype: 'INT32' })[0];
}
