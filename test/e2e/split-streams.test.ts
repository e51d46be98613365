/** State, compression and plans through a pipeline that is served as users serve it: one command and stock requests. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import type { Tensor } from '#core/tensor.js';
import type { StreamCase } from '../conformance/cases.js';
import { listSharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { perceptron } from '../split/perceptron.js';
import { runProgram, startHostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;

function written(path: string, data: string | Uint8Array): string {
  const full = join(folder, path);
  mkdirSync(join(full, '..'), { recursive: true });
  writeFileSync(full, data);
  return full;
}

async function served<Result>(
  repository: string,
  deployments: readonly object[],
  work: (client: InferenceClient, host: Awaited<ReturnType<typeof startHostProcess>>) => Promise<Result>,
): Promise<Result> {
  const wanted = deployments.map((deployment) => ({
    // Other engines round otherwise; the whole models are on the processor, too.
    ...{ version: 1, replicas: 1, constraints: { providers: ['cpu'] } },
    ...deployment,
  }));
  const file = written(`${repository}.json`, JSON.stringify({ deployments: wanted }));
  const host = await startHostProcess([
    ...['--device', 'cpu', '--device', 'wasm', '--repository', join(folder, repository), '--deploy', file],
  ]);
  const client = connect({ endpoints: host.grpc, discovery: false, timeoutMs: 60_000 });
  try {
    return await work(client, host);
  } finally {
    client.close();
    await host.stop();
  }
}

async function answer(
  client: InferenceClient,
  model: string,
  inputs: readonly Tensor[],
): Promise<ReadonlyMap<string, Tensor>> {
  const given = Object.fromEntries(inputs.map(({ name, ...tensor }) => [name, tensor]));
  const { outputs } = await client.infer(model, given);
  return new Map(
    outputs.map(({ name, datatype, shape, data }): [string, Tensor] => [name, { name, datatype, shape, data }]),
  );
}

/** Three stages, each of which adds up what it was given since the sequence began. */
function sums(): Uint8Array {
  const graph = new GraphBuilder('sums');
  let value = graph.input('x', 'FP32', ['batch', 2]);
  const made: string[] = [];
  for (let stage = 0; stage < 3; stage += 1) {
    const state = graph.input(`s${stage}`, 'FP32', ['batch', 2]);
    const sum = graph.node('Add', [value, state], { output: `s${stage}_next` });
    made.push(sum);
    value = graph.node('Neg', [sum], stage === 2 ? { output: 'y' } : {});
  }
  graph.output(value, 'FP32', ['batch', 2]);
  for (const sum of made) graph.output(sum, 'FP32', ['batch', 2]);
  return encodeModelBytes(graph.model({ opset: 17 }));
}

const states = [0, 1, 2].map(
  (stage) =>
    `state [{ input_name: "s${stage}" output_name: "s${stage}_next" data_type: TYPE_FP32 dims: [2] initial_state: { name: "zero" data_type: TYPE_FP32 dims: [2] zero_data: true } }]`,
);
const sumsConfig = `max_batch_size: 4
input [{ name: "x" data_type: TYPE_FP32 dims: [2] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [2] }]
sequence_batching { max_sequence_idle_microseconds: 60000000 oldest { max_candidate_sequences: 8 } ${states.join('\n')} }
`;

/** Six times y = tanh(0.9 x): errors on the way stay as small as they are made. */
function mild(): Uint8Array {
  const graph = new GraphBuilder('mild');
  let value = graph.input('x', 'FP32', ['batch', 64]);
  for (let step = 0; step < 6; step += 1) {
    const less = graph.node('Mul', [value, graph.constant(`factor${step}`, [1], Float32Array.of(0.9))]);
    value = graph.node('Tanh', [less]);
  }
  graph.output(value, 'FP32', ['batch', 64], 'y');
  return encodeModelBytes(graph.model({ opset: 17 }));
}

describe.skipIf(missing !== '')(`a stream through a model that is served in pieces${missing}`, () => {
  it(
    'gtcrn enhances its whole stream through three served stages, each frame bit by bit as the whole model does',
    { timeout: 300_000 },
    async () => {
      const stream = listSharedModels().find((entry): entry is StreamCase => entry.name === 'gtcrn-stream')!;
      const config = 'optimization { graph { level: 2 } }\n';
      for (const name of ['pieces', 'whole']) {
        written(`gtcrn-models/${name}/config.pbtxt`, config);
        mkdirSync(join(folder, `gtcrn-models/${name}/1`));
        cpSync(stream.modelPath, join(folder, `gtcrn-models/${name}/1/model.onnx`));
      }
      await served(
        'gtcrn-models',
        [{ name: 'pieces', model: 'pieces', split: { stages: 3 } }],
        async (client, host) => {
          let before: ReadonlyMap<string, Tensor> = new Map();
          for (let step = 0; step < stream.steps; step += 1) {
            const inputs = stream.inputs(step, before);
            const [pieces, whole] = [await answer(client, 'pieces', inputs), await answer(client, 'whole', inputs)];
            expect([...pieces.keys()].sort()).toEqual([...whole.keys()].sort());
            for (const [name, { data }] of pieces) {
              expect(Buffer.compare(data, whole.get(name)!.data), `step ${step}, output ${name}`).toBe(0);
            }
            before = pieces;
          }
          expect(stream.steps).toBeGreaterThan(10);
          const runs = /^intarsia_stage_runs_total (\d+)/m.exec(await (await fetch(host.metrics)).text());
          expect(Number(runs?.[1])).toBe(3 * stream.steps);
        },
      );
    },
  );
});

describe('sequences through a model that is served in pieces', () => {
  it(
    'sequences whose three stages each keep a state are answered as by the whole model',
    { timeout: 240_000 },
    async () => {
      for (const name of ['pieces', 'whole']) {
        written(`sums-models/${name}/config.pbtxt`, sumsConfig);
        written(`sums-models/${name}/1/model.onnx`, sums());
      }
      await served('sums-models', [{ name: 'pieces', model: 'pieces', split: { stages: 3 } }], async (client) => {
        for (let step = 0; step < 6; step += 1) {
          for (const id of [3, 'text', 4n]) {
            const x = [[step + 1, Number(id) || 7]];
            const sequence = { id, start: step === 0, end: step === 5 };
            const [pieces, whole] = [
              await client.infer('pieces', { x }, { sequence }),
              await client.infer('whole', { x }, { sequence }),
            ];
            expect(pieces.output('y').toArray()).toEqual(whole.output('y').toArray());
            expect(pieces.outputs.map(({ name }) => name)).toEqual(['y']);
          }
        }
        const again = client.infer('pieces', { x: [[1, 1]] }, { sequence: { id: 3 } });
        await expect(again).rejects.toThrow();
        expect(client).toBeDefined();
      });
    },
  );
});

describe('compressed activations through a model that is served in pieces', () => {
  it(
    'are as near as they were measured to be: exact without, near with half precision, nearer than with eight bits',
    { timeout: 240_000 },
    async () => {
      const names = ['whole', 'none', 'fp16', 'int8'] as const;
      for (const name of names) {
        written(`packed-models/${name}/config.pbtxt`, 'optimization { graph { level: 2 } }\n');
        written(`packed-models/${name}/1/model.onnx`, mild());
      }
      const deployments = names.slice(1).map((name) => ({
        ...{ name, model: name },
        split: { stages: 3, compression: name, ...(name === 'int8' ? { tolerance: 0.9 } : {}) },
      }));
      await served('packed-models', deployments, async (client, host) => {
        const x = { data: Float32Array.from({ length: 64 }, (_, at) => Math.sin(at)), shape: [1, 64] };
        const values = async (model: string): Promise<readonly number[]> =>
          (await client.infer(model, { x })).output('y').toArray() as number[];
        const reference = await values('whole');
        const error = new Map<string, number>();
        for (const name of names.slice(1)) {
          const got = await values(name);
          error.set(name, Math.max(...got.map((value, at) => Math.abs(value - reference[at]!))));
        }
        expect(error.get('none')).toBe(0);
        expect(error.get('fp16')).toBeGreaterThan(0);
        expect(error.get('fp16')).toBeLessThan(1e-3);
        expect(error.get('int8')).toBeGreaterThan(error.get('fp16')!);
        expect(error.get('int8')).toBeLessThan(2e-2);
        const page = await (await fetch(host.metrics)).text();
        const metric = (name: string): number => Number(new RegExp(`^${name} (.+)$`, 'm').exec(page)?.[1] ?? 0);
        // 64 floats at two boundaries: 128 bytes spared of each by halves, 192 or a little less by bytes.
        expect(metric('intarsia_activation_bytes_spared_total')).toBeGreaterThan(400);
        // Of a value below 1 by its tensor's largest, in eight bits: half a step of 2/255 at most.
        expect(metric('intarsia_activation_packing_error')).toBeGreaterThan(0);
        expect(metric('intarsia_activation_packing_error')).toBeLessThanOrEqual(1 / 127);
      });
    },
  );
});

describe('a plan for a running grid', () => {
  it(
    'names the hosts of the grid, is written as a file, and the file deploys as it is',
    { timeout: 300_000 },
    async () => {
      const model = written('plan-models/layers/1/model.onnx', perceptron(6, 128));
      written('plan-models/other/1/model.onnx', perceptron(1, 8));
      await served('plan-models', [{ name: 'other', model: 'other' }], async (client, host) => {
        const out = join(folder, 'plan.json');
        const target = ['--endpoint', host.grpc];
        const limits = '--memory host/cpu:0=230KiB,host/wasm:0=230KiB'.replaceAll('host/', `${host.facts.name}/`);
        const flags = ['--grid', ...target, ...limits.split(' '), '--no-measure', '--out', out, '--json'];
        const planned = await runProgram(['plan', model, ...flags], {
          timeoutMs: 120_000,
          env: { XDG_DATA_HOME: join(folder, 'data') },
        });
        expect(planned.stderr).toBe('');
        const report = JSON.parse(readFileSync(out, 'utf8')) as {
          readonly choice: { readonly stages: readonly { readonly devices: readonly string[] }[] };
          readonly deployment: { readonly model: string; readonly version: string };
        };
        expect(report.choice.stages.flatMap(({ devices }) => devices).sort()).toEqual(
          ['cpu:0', 'wasm:0'].map((device) => `${host.facts.name}/${device}`),
        );
        expect(report.deployment).toMatchObject({ model: 'layers', version: '1' });
        const deployed = await runProgram(['deploy', '-f', out, ...target], { timeoutMs: 120_000 });
        expect({ code: deployed.code, stderr: deployed.stderr }).toEqual({ code: 0, stderr: '' });
        const placed = await client.grid.status();
        expect(placed.deployments).toContainEqual(expect.objectContaining({ name: 'layers', model: 'layers' }));
      });
    },
  );
});
