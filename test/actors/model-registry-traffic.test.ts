import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { deviceActor } from '#actors/device/actor.js';
import { modelRegistryActor } from '#actors/model-registry/actor.js';
import type { RegistryOutcome } from '#actors/model-registry/protocol.js';
import { emptyCatalog, type Catalog } from '#core/catalog.js';
import { anonymousTenant, modelName, type RequestId } from '#core/ids.js';
import type { InferenceOutcome } from '#core/inference.js';
import { firstFit } from '#policies/residency/residency-first-fit.js';
import { PretendExecutors, type PretendModel } from '#sim/pretend-executor.js';
import { Simulation } from '#sim/simulation.js';
import { modelBytes, node, tensorType, value } from '../core/onnx-bytes.js';
import { descriptor, MemoryRepository } from './model-registry-world.js';

/** An identity model whose file differs by its producer. */
function artefact(producer: string): Uint8Array {
  const type = tensorType(1, ['n', 4]);
  return modelBytes({
    nodes: [node('Identity', ['x'], ['y'])],
    inputs: [value('x', type)],
    outputs: [value('y', type)],
    modelRest: (writer) => writer.string(2, producer),
  });
}

function pathOf(bytes: Uint8Array): string {
  return `/held/${createHash('sha256').update(bytes).digest('hex')}/model.onnx`;
}

/** Answers with its number; takes 40 ms to load and 3 ms to run. */
function answering(number: number, changes: Partial<PretendModel> = {}): PretendModel {
  return {
    inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 4] }],
    loadMs: 40,
    memoryBytes: 1000,
    runMs: () => 3,
    compute: ([x]) => {
      const shape = x?.shape ?? [0, 4];
      const data = new Uint8Array(new Float32Array((shape[0] ?? 0) * 4).fill(number).buffer);
      return [{ name: 'y', datatype: 'FP32', shape, data }];
    },
    ...changes,
  };
}

/** A registry over a real device actor, and a client that sends a request every millisecond to what the catalogue names. */
class Traffic {
  readonly simulation = new Simulation();
  readonly repository = new MemoryRepository();
  readonly outcomes: InferenceOutcome[] = [];
  sent = 0;
  catalog: Catalog = emptyCatalog;
  readonly #registry;
  readonly #device;

  constructor(models: readonly (readonly [bytes: Uint8Array, model: PretendModel])[]) {
    const { clock, metrics } = this.simulation;
    const system = this.simulation.system();
    const executors = new PretendExecutors({
      clock,
      models: new Map(models.map(([bytes, model]) => [pathOf(bytes), model])),
    });
    const cpu = descriptor('cpu:0');
    this.#device = system.spawn(
      'device',
      deviceActor({ descriptor: cpu, startExecutor: executors.start, metrics, canaryMs: 0, usageMs: 0 }),
    );
    this.#registry = system.spawn(
      'models',
      modelRegistryActor({
        files: this.repository,
        mode: 'explicit',
        pollMs: 1000,
        startupModels: [],
        devices: [{ descriptor: cpu, ref: this.#device }],
        residency: firstFit,
        publish: (catalog) => {
          this.catalog = catalog;
        },
      }),
    );
  }

  /** Loads, with a request every millisecond from the moment there is something to ask. */
  async load(): Promise<RegistryOutcome> {
    const { clock } = this.simulation;
    let outcome: RegistryOutcome | undefined;
    void this.#registry
      .ask<RegistryOutcome>((replyTo) => ({ type: 'load', model: 'm', overrides: { files: new Map() }, replyTo }), {
        deadlineMs: Infinity,
      })
      .then((answer) => (outcome = answer));
    for (let ms = 0; ms < 200; ms += 1) {
      this.#send();
      await clock.settleUntil(clock.nowMs() + 1);
    }
    if (outcome === undefined) throw new Error('the load was not answered within 200 ms');
    return outcome;
  }

  /** The numbers that answered, in order, each once for a run of equal ones. */
  answers(): readonly (number | string)[] {
    const answers: (number | string)[] = [];
    for (const outcome of this.outcomes) {
      const data = outcome.ok ? outcome.outputs[0]?.data : undefined;
      const shown = outcome.ok
        ? (new Float32Array(data?.slice().buffer ?? new ArrayBuffer(4))[0] ?? 0)
        : outcome.error.message;
      if (answers.at(-1) !== shown) answers.push(shown);
    }
    return answers;
  }

  #send(): void {
    const entry = this.catalog.models.get(modelName('m'));
    const version = entry?.defaultVersion;
    const served = version === undefined ? undefined : entry?.served.get(version);
    if (served === undefined) return;
    this.sent += 1;
    const data = new Uint8Array(16);
    this.#device.tell({
      type: 'infer',
      request: {
        id: this.sent as RequestId,
        model: served.name,
        version: served.version,
        inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data }],
        outputs: [],
        items: 1,
        batchKey: 'x[4]',
        bytes: data.byteLength,
        priority: 0,
        queueTimeoutUs: 0,
        deadlineMs: Infinity,
        billing: { tenant: anonymousTenant, project: '', user: '' },
        arrivedMs: this.simulation.clock.nowMs(),
      },
      replyTo: {
        tell: (outcome) => {
          this.outcomes.push(outcome);
          return 'accepted';
        },
      },
    });
  }
}

describe('reloading under traffic', () => {
  const [first, second] = [artefact('first'), artefact('second')];

  it.each([
    ['a changed artefact of the same version', 'm/1/model.onnx'],
    ['a new version', 'm/2/model.onnx'],
  ])('fails no request while it moves to %s', async (_name, path) => {
    const traffic = new Traffic([
      [first, answering(1)],
      [second, answering(2)],
    ]);
    traffic.repository.write('m/1/model.onnx', first);
    expect(await traffic.load()).toEqual({ ok: true });
    traffic.repository.write(path, second);
    expect(await traffic.load()).toEqual({ ok: true });
    expect(traffic.answers()).toEqual([1, 2]);
    expect(traffic.sent).toBeGreaterThan(300);
    // The last one or two are still running.
    expect(traffic.sent - traffic.outcomes.length).toBeLessThan(10);
  });

  it('fails no request when the new artefact cannot be loaded: the old one goes on', async () => {
    const traffic = new Traffic([
      [first, answering(1)],
      [
        second,
        answering(2, {
          compute: () => {
            throw new Error('the new one computes nothing');
          },
        }),
      ],
    ]);
    traffic.repository.write('m/1/model.onnx', first);
    await traffic.load();
    traffic.repository.write('m/1/model.onnx', second);
    const outcome = await traffic.load();
    expect(outcome.ok).toBe(false);
    expect(traffic.answers()).toEqual([1]);
    expect(traffic.sent - traffic.outcomes.length).toBeLessThan(10);
    expect(traffic.catalog.models.get(modelName('m'))?.versions[0]?.reason).toContain('serves as it was loaded before');
  });
});
