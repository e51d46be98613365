/** One variant of a model as a file, made by core's conversions or by ONNX Runtime's optimiser. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { OptimizeRequest } from '#cli/variant-report.js';
import { artifactDigest, sessionId, type ArtifactDigest } from '#core/ids.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { SplitGraph } from '#core/split/graph.js';
import { fixedShapeVariant } from '#core/variants/fixed-shape.js';
import type { SideFiles } from '#core/variants/graph-edit.js';
import { halfVariant } from '#core/variants/half-variant.js';
import { int8Variant, type Int8Form } from '#core/variants/int8-variant.js';
import type { MadeKind } from '#core/variants/variant-tolerance.js';
import type { Executor } from '#ports/executor.js';
import { referenceThreads } from '../split/reference.js';
import { writeModelFile } from '../split/shard-files.js';

export interface MadeVariant {
  readonly path: string;
  readonly digest: ArtifactDigest;
  readonly bytes: number;
  readonly notes: readonly string[];
  /** Whether anything in it multiplies whole numbers. */
  readonly isDynamic: boolean;
  /** Of a fixed shape. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
}

export interface MakeOptions {
  readonly graph: SplitGraph;
  readonly types: ValueTypes;
  readonly form: Int8Form;
  readonly sideFiles: SideFiles;
  readonly request: OptimizeRequest;
  /** Where the variant goes. */
  readonly path: string;
  /** Where the model lies. */
  readonly source: string;
  readonly cpu: Executor;
}

/** @throws FAILED_PRECONDITION (nothing to do, or not valid for this model), INVALID_ARGUMENT (sizes), MODEL_INVALID. */
export async function makeVariant(kind: MadeKind, options: MakeOptions): Promise<MadeVariant> {
  const { graph, types, form, sideFiles, request, path } = options;
  switch (kind) {
    case 'fp16': {
      const made = halfVariant(graph, types, { keep: new Set(request.keep), sideFiles });
      const notes = [`${made.nodes} nodes compute in halves, ${made.weights} weights are halves`];
      if (made.clamped > 0) notes.push(`${made.clamped} weights beyond ±65504 were set to it`);
      if (made.vanished > 0) notes.push(`${made.vanished} weights were too small for halves and became zero`);
      return { ...written(await writeModelFile(path, made)), notes, isDynamic: false };
    }
    case 'int8': {
      const made = int8Variant(graph, types, { form, sideFiles });
      const notes = [
        `${made.integerNodes} nodes multiply whole numbers, ${made.weightOnlyNodes} have weights of eight bits only`,
      ];
      return { ...written(await writeModelFile(path, made)), notes, isDynamic: made.integerNodes > 0 };
    }
    case 'fixed': {
      const { batch, shapes } = request;
      const wanted = batch ?? (shapes.size === 0 ? 1 : undefined);
      const made = fixedShapeVariant(graph.model, {
        shapes,
        sideFiles,
        ...(wanted === undefined ? {} : { batch: wanted }),
      });
      return {
        ...written(await writeModelFile(path, made)),
        notes: [`fixed: ${made.fixed.join(', ')}`],
        isDynamic: false,
        shapes: Object.fromEntries(made.inputs.map(({ name, shape }) => [name, shape])),
      };
    }
    case 'ort':
      return saveOptimized(options);
  }
}

/** The model as ONNX Runtime's optimiser leaves it on this processor. */
async function saveOptimized({ path, source, cpu, graph }: MakeOptions): Promise<MadeVariant> {
  const session = sessionId('optimized');
  const digest = artifactDigest(createHash('sha256').update(graph.model.bytes).digest('hex'));
  const { optimization } = await cpu.load({
    session,
    artifact: { digest, path: source },
    model: { name: 'optimized', version: '1' },
    options: { intraOpThreads: referenceThreads, optimization: 'all', optimizedModelPath: path },
  });
  await cpu.unload(session);
  const hash = createHash('sha256').update(await readFile(path));
  return {
    path,
    digest: artifactDigest(hash.digest('hex')),
    bytes: (await stat(path)).size,
    notes: [`ONNX Runtime's optimisation at level ${optimization}`],
    isDynamic: false,
  };
}

function written({
  path,
  digest,
  byteLength,
}: {
  readonly path: string;
  readonly digest: ArtifactDigest;
  readonly byteLength: number;
}): Pick<MadeVariant, 'path' | 'digest' | 'bytes'> {
  return { path, digest, bytes: byteLength };
}
