/** One host with real executor processes: a model in two stages, the first on one device, the second on two others. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NodeClock } from '#adapters/node/clock.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { deviceActor } from '#actors/device/actor.js';
import type { DeviceMessage, LoadOutcome, Placement } from '#actors/device/protocol.js';
import type { CatalogEntry, ServedModel } from '#core/catalog.js';
import type { IntarsiaError } from '#core/errors.js';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, type ReplicaId } from '#core/ids.js';
import { noParameters, type InferResponseMessage } from '#core/inference-message.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { shardModelName } from '#core/split/split-spec.js';
import type { SplitRoute } from '#core/split/stage-route.js';
import type { Tensor } from '#core/tensor.js';
import { leastWorkPicker } from '#policies/placement/placement-least-work.js';
import type { InferTicket } from '#ports/inference-gateway.js';
import type { Executor } from '#ports/executor.js';
import type { ActorRef } from '#runtime/actor.js';
import { createGateway, type Gateway } from '#server/gateway.js';
import { PublishedRouter } from '#server/router.js';
import { StageCounts } from '#server/stage-counts.js';
import { StageDesk } from '#server/stage-desk.js';
import { Simulation } from '#testing.js';
import { cpu, digestOf, modelConfig } from '../actors/device-world.js';

/** 256 KiB: a value that takes a slot of the shared area. */
const size = 65_536;
const host = hostId('h');
const version = modelVersion('1');
const whole = modelName('held');
/** a = x + 1; y = 2a. */
const stages = [
  { inputs: ['x'], outputs: ['a'], operator: 'Add', operand: 1 },
  { inputs: ['a'], outputs: ['y'], operator: 'Mul', operand: 2 },
] as const;
const route: SplitRoute = {
  ...{ id: '0123456789', compression: 'none', batches: false },
  stages: stages.map(({ inputs, outputs }, shard) => ({
    ...{ inputs, outputs, model: shardModelName(whole, '0123456789', shard) },
  })),
};

type DeviceName = 'first' | 'second' | 'standby';
const shardOf = { first: 0, second: 1, standby: 1 } as const;

interface WorldDevice {
  readonly ref: ActorRef<DeviceMessage>;
  executor: Executor | undefined;
  readonly load: { itemsInFlight: number; msPerItem: number; ready: boolean };
}

export interface Asked {
  readonly answer: Promise<InferResponseMessage>;
  readonly ticket: InferTicket;
}

export class HeldWorld {
  readonly counts = new StageCounts();
  readonly stageDesk: StageDesk;
  /** Told when a device begins a run of a request. */
  readonly onLaunch = new Map<DeviceName, () => void>();
  /** Requests that each device has begun to run. */
  readonly launches: Record<DeviceName, number> = { first: 0, second: 0, standby: 0 };
  readonly #folder = mkdtempSync(join(tmpdir(), 'intarsia-held-world-'));
  readonly #clock = new NodeClock();
  readonly #router = new PublishedRouter();
  readonly #gateway: Gateway;
  readonly #devices = new Map<DeviceName, WorldDevice>();
  readonly #executors: Executor[] = [];
  readonly #end: () => void;
  #revision = 0;

  static async start(): Promise<HeldWorld> {
    const world = new HeldWorld();
    await Promise.all(Object.entries(shardOf).map(([name, shard]) => world.#place(name as DeviceName, shard)));
    world.holders(['second']);
    return world;
  }

  private constructor() {
    const [clock, router] = [this.#clock, this.#router];
    const simulation = new Simulation();
    const { metrics } = simulation;
    const system = simulation.system({ host, clock });
    this.#end = () => system.terminate();
    this.stageDesk = new StageDesk({ host, process: 'p', router, clock, counts: this.counts });
    for (const name of Object.keys(shardOf) as DeviceName[]) {
      const ref: ActorRef<DeviceMessage> = system.spawn(
        name,
        deviceActor({
          descriptor: { ...cpu, id: deviceId(name), emulated: false, memoryBytes: 2 ** 34, permits: 2 },
          startExecutor: async () => {
            const executor = await startProcessExecutor({ provider: 'cpu', lanes: 1 });
            this.#executors.push(executor);
            this.#devices.get(name)!.executor = executor;
            return executor;
          },
          ...{ metrics, canaryMs: 0, usageMs: 0 },
          hooks: {
            onLaunch: ({ length }) => {
              this.launches[name] += length;
              this.onLaunch.get(name)?.();
            },
          },
        }),
      );
      this.#devices.set(name, { ref, executor: undefined, load: { itemsInFlight: 0, msPerItem: 0, ready: true } });
      router.setDevice(host, deviceId(name), this.stageDesk.device(ref));
    }
    this.#gateway = createGateway({ router, clock, bytesInFlightMax: 1e9, receipts: false });
  }

  /** Says which devices have the second stage, as a grid does when it moves: from now on requests go there. */
  holders(names: readonly DeviceName[]): void {
    this.#revision += 1;
    const served: ServedModel = { ...servedFacts(whole, undefined), devices: [], split: route };
    const entry: CatalogEntry = {
      ...{ name: whole, served: new Map([[version, served]]), defaultVersion: version, reason: '' },
      versions: [{ version, state: 'READY', reason: '', isQuarantined: false }],
    };
    const at = (shard: number, on: readonly DeviceName[]) => {
      const model = route.stages[shard]!.model;
      const candidates = on.map((name) => ({
        replica: {
          ...{ id: `${model}@${name}` as ReplicaId, model, version },
          stages: [{ digest: digestOf(`shard ${shard}`), host, device: deviceId(name) }],
        },
        load: this.#devices.get(name)!.load,
      }));
      return [model, new Map([[version, candidates]])] as const;
    };
    this.#router.publish({
      catalog: { revision: this.#revision, models: new Map([[whole, entry]]) },
      candidates: new Map([at(0, ['first']), at(1, names)]),
      picker: leastWorkPicker(),
    });
  }

  /** Asks for 2 (value + 1), 65,536 times. */
  infer(value: number, { deadlineMs = 60_000 }: { readonly deadlineMs?: number } = {}): Asked {
    const data = new Uint8Array(new Float32Array(size).fill(value).buffer);
    let ticket: InferTicket | undefined;
    const answer = new Promise<InferResponseMessage>((succeed, fail: (error: IntarsiaError) => void) => {
      ticket = this.#gateway.infer(
        {
          ...{ modelName: whole, modelVersion: '', id: '', parameters: noParameters, outputs: [], rawContents: true },
          inputs: [{ name: 'x', datatype: 'FP32', shape: [size], parameters: noParameters, data }],
        },
        {
          caller: { tenant: anonymousTenant, namesTenant: true, mayUse: () => true },
          ...{ deadlineMs: this.#clock.nowMs() + deadlineMs, messageBytes: data.byteLength, sloMs: 0 },
          ...{ traceparent: undefined, reservedParameters: new Set() },
        },
        { succeed, fail },
      );
    });
    answer.catch(() => {});
    return { answer, ticket: ticket! };
  }

  pid(name: DeviceName): number {
    return this.#devices.get(name)!.executor!.description.pid!;
  }

  /** The second stage leaves a device; resolves when nothing of it is there any more. */
  async unload(name: DeviceName): Promise<void> {
    const { model } = route.stages[shardOf[name]]!;
    await this.#devices.get(name)!.ref.ask((replyTo) => ({ type: 'unload', model, version, replyTo }), {
      deadlineMs: this.#clock.nowMs() + 60_000,
    });
  }

  async close(): Promise<void> {
    this.#end();
    await Promise.all(this.#executors.map((executor) => executor.close({ graceMs: 5_000 })));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #place(name: DeviceName, shard: number): Promise<void> {
    const { inputs, outputs, operator, operand } = stages[shard]!;
    const graph = new GraphBuilder(`stage ${shard}`);
    const x = graph.input(inputs[0], 'FP32', [size]);
    const made = graph.node(operator, [x, graph.constant('operand', [1], Float32Array.of(operand))]);
    graph.output(made, 'FP32', [size], outputs[0]);
    const path = join(this.#folder, `${name}.onnx`);
    writeFileSync(path, encodeModelBytes(graph.model({ opset: 17 })));
    const { model } = route.stages[shard]!;
    const facts = servedFacts(model, shard);
    const placement: Placement = {
      ...{ model, version, config: facts.config, artifact: { digest: digestOf(`shard ${shard}`), path } },
      ...{ weightBytes: 4, inputs: facts.inputs, outputs: facts.outputs, optimization: 'all', warmups: [] },
    };
    const loaded = await this.#devices
      .get(name)!
      .ref.ask<LoadOutcome>((replyTo) => ({ type: 'load', placement, replyTo }), {
        deadlineMs: this.#clock.nowMs() + 60_000,
      });
    if (!loaded.ok) throw loaded.error;
  }
}

/** What an answer says of each of its values; undefined when they differ. */
export function valueOf(answer: InferResponseMessage): number | undefined {
  const { data } = answer.outputs[0] as unknown as Tensor;
  const values = new Float32Array(data.slice().buffer);
  return values.length === size && values.every((value) => value === values[0]) ? values[0] : undefined;
}

/** @param shard Undefined for the whole model. */
function servedFacts(name: ServedModel['name'], shard: number | undefined): Omit<ServedModel, 'devices'> {
  const [inputs, outputs] = shard === undefined ? [['x'], ['y']] : [stages[shard]!.inputs, stages[shard]!.outputs];
  const tensor = (each: string) => ({ name: each, datatype: 'FP32' as const, dims: [size] });
  const spec = (each: string) => ({ name: each, datatype: 'FP32' as const, shape: [size] });
  const config = modelConfig(name, {
    maxBatchSize: 0,
    inputs: inputs.map((each) => ({ ...tensor(each), format: 'NONE', optional: false })),
    outputs: outputs.map((each) => ({ ...tensor(each), labelFilename: '' })),
  });
  return {
    ...{ name, version, config, inputs: inputs.map(spec), outputs: outputs.map(spec) },
    ...{ optionalInputs: new Set(), digest: digestOf(`shard ${shard ?? 'whole'}`), labels: new Map() },
  };
}
