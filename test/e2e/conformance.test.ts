import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type InferenceClient, type InferInputs } from '#client/index.js';
import { messageOf } from '#core/errors.js';
import { runCase, type ConformanceCase, type Infer } from '../conformance/cases.js';
import { prepareRepository } from '../conformance/repository.js';
import { listSharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
const all = missing === '' ? listSharedModels() : [];
const cases = all.filter((entry): entry is ConformanceCase => entry.kind !== 'impossible');
/** Cases under way at the same time: the host has something to do while a client compares. */
const atOnce = 4;

/** JSON of protobuf leaves out empty lists: a reshape of `{}` is one to no dimensions. */
interface ConfiguredTensor {
  readonly name: string;
  readonly reshape?: { readonly shape?: readonly string[] };
}

interface ConfiguredModel {
  readonly input?: readonly ConfiguredTensor[];
  readonly output?: readonly ConfiguredTensor[];
}

describe.skipIf(missing !== '')(`shared models served by a host${missing}`, () => {
  const folder = temporaryFolder();
  let host: HostProcess;
  let client: InferenceClient;

  beforeAll(async () => {
    await prepareRepository(cases, folder);
    host = await startHostProcess(['--repository', folder, '--device', 'cpu:0', '--log-level', 'error']);
    client = connect({ endpoints: host.grpc, timeoutMs: 60_000 });
  }, 240_000);
  afterAll(async () => {
    client.close();
    await host.stop();
  });

  it('every model that ONNX Runtime can run is served without any configuration', () => {
    const models = new Set(cases.map(({ model }) => model));
    expect(models.size).toBeGreaterThan(300);
    const ready = new Set(host.facts.models.filter(({ state }) => state === 'READY').map(({ name }) => name));
    const absent = host.facts.models.filter(({ state }) => state !== 'READY');
    expect(absent.map(({ name, state, reason }) => `${name} ${state}: ${reason}`)).toEqual([]);
    expect([...models].filter((model) => !ready.has(model))).toEqual([]);
  });

  /** Tensors of a model that Triton's protocol shows with size 1 because it has no scalars; the configuration says so. */
  const scalarsOf = async (model: string): Promise<ReadonlySet<string>> => {
    const config = (await client.modelConfig(model)) as unknown as ConfiguredModel;
    const reshaped = [...(config.input ?? []), ...(config.output ?? [])].filter(
      ({ reshape }) => reshape?.shape === undefined && reshape !== undefined,
    );
    return new Set(reshaped.map(({ name }) => name));
  };

  it(
    'every test vector, stream and generated text comes out through gRPC as stored',
    { timeout: 240_000 },
    async () => {
      const infer: Infer = async (model, inputs) => {
        const scalars = await scalarsOf(model);
        const named = inputs.map((tensor) => [
          tensor.name,
          scalars.has(tensor.name) ? { ...tensor, shape: [1] } : tensor,
        ]);
        const { outputs } = await client.infer(model, Object.fromEntries(named) as InferInputs);
        return outputs.map(({ name, datatype, shape, data }) => {
          if (!scalars.has(name)) return { name, datatype, shape, data };
          expect(shape, `${model}: ${name}`).toEqual([1]);
          return { name, datatype, shape: [], data };
        });
      };
      const waiting = [...cases];
      const problems: string[] = [];
      let judged = 0;
      const work = async (): Promise<void> => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          try {
            const { pass, problem } = await runCase(next, infer);
            if (!pass) problems.push(`${next.name}: ${problem}`);
          } catch (error) {
            problems.push(`${next.name}: ${messageOf(error)}`);
          }
          judged += 1;
        }
      };
      await Promise.all(Array.from({ length: atOnce }, work));
      expect(problems.sort()).toEqual([]);
      expect(judged).toBe(cases.length);
      expect(judged).toBeGreaterThanOrEqual(320);
    },
  );
});
