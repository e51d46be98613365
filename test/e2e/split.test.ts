/** Split models on the devices of one host, as a user serves them: one command, a file, and clients that know nothing of it. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { connect } from '#client/index.js';
import { GraphBuilder } from '#core/onnx/builder.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { findGrpcioClient, findTritonClient, runPythonClient } from '../conformance/python-clients.js';
import { repositoryRoot, runProgram, startHostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';
import { writeTritonExamples } from './triton-examples.js';

const grpcio = await findGrpcioClient();
const triton = await findTritonClient(
  process.env['INTARSIA_TRITONCLIENT'] ?? 'node_modules/.cache/intarsia/tritonclient',
);
/** Vulkan in software, from Debian's chromium package: the true WebGPU path on a machine without a GPU. */
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json';
const vulkan = { VK_DRIVER_FILES: swiftShader, VK_ICD_FILENAMES: swiftShader };
const noWebgpu = !existsSync(swiftShader);

const folder = temporaryFolder();
const digits = join(repositoryRoot, 'examples/models/digits');
const image = Array.from({ length: 784 }, (_, index) => ((index * 37) % 101) / 100);

/** A stage on the first device of each provider, in this order. */
function splitOver(model: string, providers: readonly string[]): string {
  const path = join(folder, `${model}-${providers.join('-')}.json`);
  const stages = providers.map((provider) => ({ constraints: { providers: [provider] } }));
  const deployment = { name: model, model, version: 1, replicas: 1, split: { stages } };
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, JSON.stringify(deployment));
  return path;
}

async function probabilities(endpoint: string): Promise<{ values: readonly number[]; stages: readonly string[] }> {
  const client = connect({ endpoints: endpoint, discovery: false });
  try {
    const answer = await client.infer('digits', { image: [[chunk(image, 28)]] });
    const said = answer.parameters.get('intarsia_stages')?.value ?? '[]';
    const stages = JSON.parse(String(said)) as { device: string }[];
    return {
      values: answer.output('probabilities').toArray() as number[],
      stages: stages.map(({ device }) => device.split(':')[0] ?? ''),
    };
  } finally {
    client.close();
  }
}

function chunk(values: readonly number[], size: number): number[][] {
  return Array.from({ length: values.length / size }, (_, row) => values.slice(row * size, (row + 1) * size));
}

async function digitsOver(providers: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const repository = join(folder, `digits-${providers.join('-')}`);
  await mkdir(repository, { recursive: true });
  await cp(digits, join(repository, 'digits'), { recursive: true });
  const devices = [...new Set(providers)].flatMap((provider) => ['--device', provider]);
  const host = await startHostProcess(
    [...devices, '--repository', repository, '--deploy', splitOver('digits', providers)],
    { env },
  );
  try {
    return { models: host.facts.models.map(({ name }) => name), ...(await probabilities(host.grpc)) };
  } finally {
    await host.stop();
  }
}

/** What the whole model says, on the CPU. */
async function whole(): Promise<readonly number[]> {
  const host = await startHostProcess(['--device', 'cpu', '--repository', join(repositoryRoot, 'examples/models')]);
  try {
    return (await probabilities(host.grpc)).values;
  } finally {
    await host.stop();
  }
}

describe('intarsia serve --deploy with a split model on one host', () => {
  it('serves stages on cpu and wasm as the one model that clients know', { timeout: 240_000 }, async () => {
    const { models, values, stages } = await digitsOver(['cpu', 'wasm']);
    expect(models).toEqual(['digits']);
    expect(stages).toEqual(['cpu', 'wasm']);
    const expected = await whole();
    expect(values).toHaveLength(10);
    for (const [index, value] of values.entries()) expect(value).toBeCloseTo(expected[index]!, 5);
  });

  it.skipIf(noWebgpu)(
    'serves stages on cpu, wasm and webgpu in one pipeline (skipped without SwiftShader of the chromium package)',
    { timeout: 300_000 },
    async () => {
      const { values, stages } = await digitsOver(['cpu', 'webgpu', 'wasm'], vulkan);
      expect(stages).toEqual(['cpu', 'webgpu', 'wasm']);
      const expected = await whole();
      for (const [index, value] of values.entries()) expect(value).toBeCloseTo(expected[index]!, 3);
    },
  );

  it.skipIf(noWebgpu)(
    'intarsia verify finds stages on cpu, wasm and webgpu equal (skipped without SwiftShader of the chromium package)',
    { timeout: 300_000 },
    async () => {
      const model = join(digits, '1/model.onnx');
      const flags = ['--stages', '3', '--devices', 'cpu,wasm,webgpu', '--cuts', '4', '--json'];
      const { code, stdout } = await runProgram(['verify', model, ...flags], { env: vulkan, timeoutMs: 280_000 });
      const report = JSON.parse(stdout) as { cutsTried: number; wrong: number; devices: string[] };
      expect({ code, wrong: report.wrong, devices: report.devices }).toEqual({
        code: 0,
        wrong: 0,
        devices: ['cpu', 'wasm', 'webgpu'],
      });
      expect(report.cutsTried).toBeGreaterThanOrEqual(4);
    },
  );

  const skipped = [grpcio, triton].flatMap((client) => (client.ok ? [] : [client.reason]));
  const reason = skipped.length === 2 ? ` (skipped: ${skipped.join('; ')})` : '';
  describe.skipIf(reason !== '')(`for clients of others${reason}`, () => {
    it('answers stock clients as Triton does for a model that is served in pieces', { timeout: 300_000 }, async () => {
      const repository = join(folder, 'triton');
      await mkdir(repository, { recursive: true });
      await writeTritonExamples(repository);
      const host = await startHostProcess([
        ...['--device', 'cpu', '--device', 'wasm', '--repository', repository],
        ...['--deploy', splitOver('simple', ['cpu', 'cpu'])],
      ]);
      try {
        if (grpcio.ok) {
          const { checks, passed } = await runPythonClient(grpcio.client, 'grpcio_client.py', [host.grpc]);
          expect(checks.filter(({ status }) => status === 'failed')).toEqual([]);
          expect(passed).toBeGreaterThanOrEqual(20);
        }
        if (triton.ok) {
          const args = ['--grpc', host.grpc, '--http', new URL(host.http).host];
          const { checks, passed } = await runPythonClient(triton.client, 'triton_client.py', args);
          expect(checks.filter(({ status }) => status === 'failed')).toEqual([]);
          expect(passed).toBeGreaterThanOrEqual(24);
        }
        const metrics = await (await fetch(host.metrics)).text();
        const runs = Number(/^intarsia_stage_runs_total (\d+)/m.exec(metrics)?.[1] ?? 0);
        expect(runs).toBeGreaterThan(20);
      } finally {
        await host.stop();
      }
    });
  });

  it('takes requests of ever other shapes through all stages', { timeout: 120_000 }, async () => {
    const graph = new GraphBuilder('shapes');
    let value = graph.input('x', 'FP32', ['rows', 'columns']);
    for (let step = 0; step < 4; step += 1) {
      value = graph.node('Mul', [value, graph.constant(`two${step}`, [1], Float32Array.of(2))]);
    }
    graph.output(value, 'FP32', ['rows', 'columns'], 'y');
    const repository = join(folder, 'shapes-models');
    mkdirSync(join(repository, 'shapes/1'), { recursive: true });
    writeFileSync(join(repository, 'shapes/1/model.onnx'), encodeModelBytes(graph.model({ opset: 17 })));
    const deployment = splitOver('shapes', ['cpu', 'wasm', 'cpu']);
    const host = await startHostProcess([
      ...['--device', 'cpu', '--device', 'wasm', '--repository', repository, '--deploy', deployment],
    ]);
    const client = connect({ endpoints: host.grpc, discovery: false });
    try {
      for (const [rows, columns] of [
        [1, 1],
        [3, 5],
        [7, 2],
        [1, 1000],
        [2, 2],
      ] as const) {
        const x = chunk(
          Array.from({ length: rows * columns }, (_, at) => at),
          columns,
        );
        const answer = await client.infer('shapes', { x });
        expect(answer.output('y').shape).toEqual([rows, columns]);
        expect(answer.output('y').toArray()).toEqual(x.flat().map((one) => one * 16));
      }
    } finally {
      client.close();
      await host.stop();
    }
  });

  it('ends with the reason when the gate refuses the split', { timeout: 120_000 }, async () => {
    const path = join(folder, 'refused.json');
    const split = { stages: 2, compression: 'int8', tolerance: 1e-9 };
    writeFileSync(path, JSON.stringify({ name: 'digits', model: 'digits', version: 1, replicas: 1, split }));
    const args = ['serve', '--device', 'cpu', '--repository', join(repositoryRoot, 'examples/models')];
    const ports = ['--http-port', '0', '--grpc-port', '0', '--metrics-port', '0'];
    const { code, stderr } = await runProgram([...args, ...ports, '--deploy', path], { timeoutMs: 110_000 });
    expect(code).toBe(1);
    expect(stderr).toContain('deployment digits is refused: the pieces are not equal to the whole');
  });
});
