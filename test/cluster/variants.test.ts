/** One model on two real hosts in two forms: exact where there is room for it, in eight bits where there is not. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { connect, type GridStatus } from '#client/index.js';
import { optimizeModel } from '#compose/variants/optimize-model.js';
import type { VariantRecord } from '#core/variants/variant-record.js';
import { Cluster } from './cluster.js';

const testMs = 240_000;
const model = 'examples/models/digits/1/model.onnx';
const ones = Float32Array.from({ length: 784 }, (_, index) => (index % 7) / 7);

/** The repository's files of the digits, with the variants that `intarsia optimize` makes. */
async function digits(folder: string): Promise<Readonly<Record<string, Uint8Array>>> {
  const request = {
    ...{ model, out: join(folder, 'variants'), vectors: '', shapes: new Map(), devices: ['cpu' as const], keep: [] },
    ...{ seed: 1, variants: ['fp16', 'int8'] as const },
  };
  const { variants } = await optimizeModel(request, (provider) => startProcessExecutor({ provider, lanes: 1 }));
  const config = await readFile('examples/models/digits/config.pbtxt', 'utf8');
  const allow = 'parameters { key: "intarsia_variants" value { string_value: "allow" } }';
  const files: Record<string, Uint8Array> = {
    'digits/config.pbtxt': new TextEncoder().encode(`${config}\n${allow}\n`),
    'digits/1/model.onnx': await readFile(model),
    'digits/labels.txt': await readFile('examples/models/digits/labels.txt'),
  };
  for (const { kind, path } of variants) {
    const record = JSON.parse(await readFile(join(dirname(path), 'variant.json'), 'utf8')) as VariantRecord;
    // Which form is faster is this machine's affair; the order of preference is to be the same on all: exact, int8, fp16.
    const runMs = kind === 'int8' ? 2 : 3;
    const rows = record.rows.map((row) => ({ ...row, runMs, exactRunMs: 1 }));
    files[`digits/1/variants/${kind}/model.onnx`] = await readFile(path);
    files[`digits/1/variants/${kind}/variant.json`] = new TextEncoder().encode(JSON.stringify({ ...record, rows }));
  }
  return files;
}

function memoryOf({ hosts }: GridStatus, name: string): number {
  return hosts.find(({ host }) => host === name)?.devices[0]?.memoryBytes ?? 0;
}

describe('one model in two forms on two hosts', () => {
  let folder: string;
  let cluster: Cluster;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'intarsia-forms-'));
    const hosts = [
      { name: 'host-1', args: ['--memory-share', '0.9'] },
      // It has to get the model, and its variant, from the other.
      { name: 'host-2', args: ['--memory-share', '0.1'], hasRepository: false },
    ];
    cluster = await Cluster.start({ store: 'embedded', hosts, files: await digits(folder) });
  }, testMs);
  afterAll(async () => {
    await cluster.end();
    await rm(folder, { recursive: true, force: true });
  }, testMs);

  it(
    'is served exactly where it has room and as int8 where only that fits, with the reason, and clients see one model',
    async () => {
      // Of what a copy is said to take, the variant needs seven tenths: that much the small host has.
      const memoryBytes = Math.ceil(memoryOf(await cluster.status(), 'host-2') * 1.2);
      const wanted = { name: 'digits', model: 'digits', version: '1', replicas: 2, memoryBytes };
      const { applied, refusals, placements } = await cluster.client.grid.deploy(JSON.stringify(wanted));
      expect([applied, refusals]).toEqual([true, []]);
      const told = placements.join('\n');
      expect(told).toContain('host-1/cpu:0 (cpu), the exact model');
      expect(told).toMatch(
        /host-2\/cpu:0 \(cpu\), variant int8 \(int8, because the exact model takes \d+ bytes .* \d+ bytes missing\)/,
      );
      expect(told).toMatch(/variant int8: within tolerance on cpu: largest error /);

      const { replicas } = await cluster.until('both copies', (status) =>
        status.deployments.some(({ name, ready, state }) => name === 'digits' && ready === 2 && state === 'complete'),
      );
      const forms = replicas.filter(({ deployment }) => deployment === 'digits');
      expect(forms.map(({ host, variant }) => `${host} ${variant}`).sort()).toEqual(['host-1 ', 'host-2 int8']);
      const [small] = forms.filter(({ host }) => host === 'host-2');
      expect(small?.reason).toMatch(/^int8, because the exact model takes /);
      expect(small?.variantGate).toMatch(/^within tolerance on cpu/);

      const seen = new Map<string, readonly number[]>();
      for (let asked = 0; seen.size < 2 && asked < 400; asked += 1) {
        const { grpc } = cluster.hosts[asked % 2]!;
        const client = connect({ endpoints: grpc, discovery: false });
        try {
          const answer = await client.infer('digits', {
            image: { datatype: 'FP32', shape: [1, 1, 28, 28], data: ones },
          });
          expect([answer.model, answer.version]).toEqual(['digits', '1']);
          const form = String(answer.parameters.get('intarsia_variant')?.value ?? 'exact');
          seen.set(form, answer.output('probabilities').toArray() as number[]);
        } finally {
          client.close();
        }
      }
      expect([...seen.keys()].sort()).toEqual(['exact', 'int8']);
      for (const [index, value] of (seen.get('int8') ?? []).entries()) {
        expect(Math.abs(value - (seen.get('exact')?.[index] ?? NaN))).toBeLessThan(0.05);
      }
      const index = await cluster.client.repositoryIndex();
      expect(index.filter(({ name }) => name.includes('digits')).map(({ name }) => name)).toEqual(['digits']);
    },
    testMs,
  );

  it(
    'is refused with the bytes that the smallest form lacks on every host when none fits',
    async () => {
      const memoryBytes = memoryOf(await cluster.status(), 'host-1') * 4;
      const wanted = { name: 'digits', model: 'digits', version: '1', replicas: 2, memoryBytes };
      const { applied, refusals } = await cluster.client.grid.deploy(JSON.stringify({ ...wanted, name: 'huge' }));
      expect(applied).toBe(false);
      for (const host of ['host-1', 'host-2']) {
        expect(refusals.join()).toMatch(
          new RegExp(`${host}: a copy in its smallest form, int8, takes \\d+ bytes .*: \\d+ bytes missing`),
        );
      }
    },
    testMs,
  );
});
