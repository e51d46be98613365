/**
 * The benchmark models on disk: built when they are missing, checked by their digest when they are there.
 *
 * The folder is a model repository in Triton's form (`<model>/config.pbtxt`, `<model>/1/model.onnx`), so that a host can
 * serve it as it is. 0.6 GB with all models; git ignores it.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { datatypeOfOnnx, tritonDatatypeName } from '#core/datatype.js';
import type { GraphDraft, ValueDraft } from '#core/onnx/draft.js';
import { encodeModel } from '#core/onnx/writer.js';
import { bertBase } from './bert-base.js';
import { mlp } from './mlp.js';
import { mobilenetV2 } from './mobilenet-v2.js';
import type { Network } from './network.js';
import { resnet50 } from './resnet50.js';

export const benchModelKinds = ['mlp', 'mobilenet_v2', 'resnet50', 'bert_base'] as const;
export type BenchModelKind = (typeof benchModelKinds)[number];

interface BenchModel {
  readonly build: (countOnly?: boolean) => Network;
  /** SHA-256 of the file. A change of a generator changes it: build, look, and write the new one here. */
  readonly digest: string;
  readonly maxBatchSize: number;
}

export const benchModels: Readonly<Record<BenchModelKind, BenchModel>> = {
  mlp: { build: mlp, digest: 'cd29c7636f8077485f6e2cb80d4f0264eeaa60b8c34fe95662721918b4c168b5', maxBatchSize: 64 },
  mobilenet_v2: {
    build: mobilenetV2,
    digest: 'b5895708ca257fb6e51d9bba8bba51d7a5f36dc59635784ec8540f35e3e2d0ba',
    maxBatchSize: 16,
  },
  resnet50: {
    build: resnet50,
    digest: 'd6760c519c624e1b25628767fc591d959f21d95df55d577ca4a06a58c366c125',
    maxBatchSize: 16,
  },
  bert_base: {
    build: bertBase,
    digest: 'f4007afa8bde628714779dac0e4eee65a88d4ead13ee3bcc4d21d49cc367a514',
    maxBatchSize: 16,
  },
};

export interface EnsuredModel {
  readonly kind: BenchModelKind;
  /** The ONNX file. */
  readonly path: string;
  /** SHA-256, hexadecimal. */
  readonly digest: string;
  readonly bytes: number;
  /** False when a file with the right digest was there. */
  readonly built: boolean;
}

/** The model's file below `folder`, which is the model repository. @throws when what is built is not what was expected. */
export async function ensureModel(kind: BenchModelKind, folder: string): Promise<EnsuredModel> {
  const { build, digest: wanted } = benchModels[kind];
  const path = join(folder, kind, '1/model.onnx');
  if ((await digestOf(path)) === wanted)
    return { kind, path, digest: wanted, bytes: (await stat(path)).size, built: false };
  await mkdir(join(folder, kind, '1'), { recursive: true });
  const model = build().graph.model({ opset: 17 });
  const { parts, byteLength } = encodeModel(model);
  const half = `${path}.${process.pid}.part`;
  const hash = createHash('sha256');
  try {
    const file = await open(half, 'w');
    try {
      for (const part of parts) {
        hash.update(part);
        await file.writeFile(part);
      }
    } finally {
      await file.close();
    }
    const digest = hash.digest('hex');
    if (digest !== wanted) throw new Error(`bench model '${kind}' came out as ${digest}, expected ${wanted}`);
    await rename(half, path);
    await writeFile(join(folder, kind, 'config.pbtxt'), configOf(kind, model.graph));
    return { kind, path, digest, bytes: byteLength, built: true };
  } finally {
    await rm(half, { force: true });
  }
}

/** The configuration beside the model: everything written out, batches formed from what waits. */
export function configOf(kind: BenchModelKind, graph: GraphDraft): string {
  const { maxBatchSize } = benchModels[kind];
  const values = (list: readonly ValueDraft[]): string =>
    list
      .map(({ name, dataType, shape = [] }) => {
        const type = tritonDatatypeName(datatypeOfOnnx.get(dataType) ?? 'FP32');
        const dims = shape.slice(1).map((size) => (typeof size === 'number' ? size : -1));
        return `  { name: "${name}" data_type: ${type} dims: [ ${dims.join(', ')} ] }`;
      })
      .join(',\n');
  return [
    `name: "${kind}"`,
    'backend: "onnxruntime"',
    `max_batch_size: ${maxBatchSize}`,
    `input [\n${values(graph.inputs)}\n]`,
    `output [\n${values(graph.outputs)}\n]`,
    'dynamic_batching { }',
    '',
  ].join('\n');
}

async function digestOf(path: string): Promise<string | undefined> {
  const isThere = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isThere) return undefined;
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}
