/**
 * Behind `intarsia optimize`: makes variants of a model, compares each with the exact model on every named device, times
 * both, and writes those that pass where a registry finds them. What is invalid or too far off is refused with the numbers.
 */
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { createHash } from 'node:crypto';
import type { OptimizeReport, OptimizeRequest, VariantOutcome } from '#cli/variant-report.js';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import { modelFacts } from '#core/onnx/model-facts.js';
import type { ExecutionProvider } from '#core/provider.js';
import type { ValueTypes } from '#core/split/boundary-type.js';
import type { Cutter } from '#core/split/cut.js';
import { toleranceOf } from '#core/split/tolerance.js';
import { variantTolerances, type MadeKind } from '#core/variants/variant-tolerance.js';
import type { VariantRecord } from '#core/variants/variant-record.js';
import type { Executor } from '#ports/executor.js';
import { artifactDigestOf } from '#adapters/files/artifact-store.js';
import { engineTypes, explainDrawing, runReference, type Reference } from '../split/reference.js';
import { bringSideFiles } from '../split/shard-files.js';
import { readCutter } from '../split/verify-split.js';
import { assessVariant, type AssessmentParts } from './assess-variant.js';
import { makeVariant, type MadeVariant } from './make-variant.js';

type StartExecutor = (provider: ExecutionProvider) => Promise<Executor>;

const closeGraceMs = 5_000;

/**
 * @throws MODEL_INVALID, NOT_FOUND, DEVICE_UNAVAILABLE, EXECUTION_FAILED (the model does not run on the CPU),
 * FAILED_PRECONDITION (it does not answer the same twice), STORAGE_FULL.
 */
export async function optimizeModel(
  request: OptimizeRequest,
  startExecutor: StartExecutor,
  progress: (share: number, words: string) => void = () => {},
): Promise<OptimizeReport> {
  const path = resolve(request.model);
  const cutter = await readCutter(path);
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-optimize-'));
  const executors = new Map<ExecutionProvider, Executor>();
  try {
    for (const provider of new Set<ExecutionProvider>(['cpu', ...request.devices])) {
      progress(0, `starting ${provider}`);
      executors.set(provider, await startExecutor(provider));
    }
    return await new Optimization(request, { path, folder, cutter, executors, progress }).run();
  } finally {
    for (const executor of executors.values()) await executor.close({ graceMs: closeGraceMs });
    await rm(folder, { recursive: true, force: true });
  }
}

interface OptimizationParts {
  readonly path: string;
  readonly folder: string;
  readonly cutter: Cutter;
  readonly executors: ReadonlyMap<ExecutionProvider, Executor>;
  readonly progress: (share: number, words: string) => void;
}

class Optimization {
  readonly #request: OptimizeRequest;
  readonly #parts: OptimizationParts;

  constructor(request: OptimizeRequest, parts: OptimizationParts) {
    this.#request = request;
    this.#parts = parts;
  }

  async run(): Promise<OptimizeReport> {
    const { cutter, folder, path, progress } = this.#parts;
    const { graph } = cutter;
    const { variants, vectors, seed } = this.#request;
    const locations = modelFacts(graph.model).externalTensors.map(({ location }) => location);
    await bringSideFiles(locations, { from: dirname(path), to: folder });
    progress(0.02, 'reference');
    const own = dirname(path);
    const reference = await runReference({
      cutter,
      path,
      cpu: this.#cpu,
      folders: vectors !== '' ? [vectors] : /^[1-9][0-9]*$/.test(basename(own)) ? [own, dirname(own)] : [own],
      mustHaveVectors: vectors !== '',
      seed,
    });
    if (reference.unstable !== '') {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        `no variant of ${path} can be judged: ${reference.unstable}; ${explainDrawing(graph)}`,
      );
    }
    progress(0.05, 'types of values');
    const types = await engineTypes(graph, { cpu: this.#cpu, folder, optimization: reference.optimization });
    const { sideFiles, source } = await this.#readSource(locations);
    const outcomes: VariantOutcome[] = [];
    for (const [index, kind] of variants.entries()) {
      progress(0.1 + (0.9 * index) / variants.length, kind);
      outcomes.push(await this.#try(kind, { reference, types, sideFiles, source }));
    }
    return {
      model: this.#request.model,
      bytes: source.bytes,
      vectors: reference.vectors.map(({ name }) => name),
      variants: outcomes,
    };
  }

  async #readSource(locations: readonly string[]): Promise<{
    readonly sideFiles: ReadonlyMap<string, Uint8Array>;
    readonly source: VariantRecord['madeFrom'];
  }> {
    const { path, cutter } = this.#parts;
    const sideFiles = new Map<string, Uint8Array>();
    const files = [fileOf(basename(path), cutter.graph.model.bytes)];
    for (const location of [...new Set(locations)].sort()) {
      let bytes: Uint8Array;
      try {
        bytes = await readFile(join(dirname(path), location));
      } catch (error) {
        throw intarsiaError('NOT_FOUND', `side file ${location} cannot be read: ${messageOf(error)}`, {}, error);
      }
      sideFiles.set(location, bytes);
      files.push(fileOf(location, bytes));
    }
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    return { sideFiles, source: { digest: artifactDigestOf(files), bytes } };
  }

  async #try(
    kind: MadeKind,
    {
      reference,
      types,
      sideFiles,
      source,
    }: {
      readonly reference: Reference;
      readonly types: ValueTypes;
      readonly sideFiles: ReadonlyMap<string, Uint8Array>;
      readonly source: VariantRecord['madeFrom'];
    },
  ): Promise<VariantOutcome> {
    const { cutter, folder, path, executors } = this.#parts;
    const { graph } = cutter;
    const limit = this.#request.tolerance ?? variantTolerances[kind];
    const notes: string[] = [];
    let last: VariantOutcome = { ...refused(kind, 'it was not tried'), notes };
    // Whole-number arithmetic first; where that is too far off, eight bits in the weights alone.
    for (const form of kind === 'int8' ? (['dynamic', 'weights'] as const) : (['dynamic'] as const)) {
      let made: MadeVariant;
      try {
        made = await makeVariant(kind, {
          graph,
          types,
          form,
          path: join(folder, `variant-${kind}.onnx`),
          source: path,
          cpu: this.#cpu,
          ...{ sideFiles, request: this.#request },
        });
      } catch (error) {
        if (error instanceof IntarsiaError && refusals.has(error.code)) return refused(kind, error.message, notes);
        throw error;
      }
      notes.push(...made.notes);
      const usual = toleranceOf(graph, types, { isUnoptimized: false, isReferenceEngine: false });
      const parts: AssessmentParts = { kind, made, reference, usual, limit, source: path, seed: this.#request.seed };
      const devices = kind === 'ort' ? new Map([['cpu' as const, this.#cpu]]) : executors;
      const { rows, vectors } = await assessVariant(parts, graph, devices);
      const { bytes } = made;
      last = { kind, state: 'refused', reason: '', path: '', bytes, rows, notes };
      if (rows.some(({ verdict }) => verdict === 'equal')) {
        return await this.#write(last, { made, source, limit, vectors });
      }
      const reason = rows.map((row) => `${row.provider}: ${row.reason}`).join('; ');
      last = { ...last, reason };
      if (kind === 'int8' && form === 'dynamic' && made.isDynamic)
        notes.push(`whole-number arithmetic is refused: ${reason}`);
      else break;
    }
    return last;
  }

  async #write(
    outcome: VariantOutcome,
    {
      made,
      source,
      limit,
      vectors,
    }: {
      readonly made: MadeVariant;
      readonly source: VariantRecord['madeFrom'];
      readonly limit: number;
      readonly vectors: readonly string[];
    },
  ): Promise<VariantOutcome> {
    const { kind, rows, notes } = outcome;
    const out = this.#request.out === '' ? join(dirname(this.#parts.path), 'variants') : resolve(this.#request.out);
    const record: VariantRecord = {
      kind,
      digest: made.digest,
      bytes: made.bytes,
      madeFrom: source,
      tolerance: limit,
      vectors,
      rows,
      notes,
      ...(made.shapes === undefined ? {} : { shapes: made.shapes }),
      ...(kind === 'ort' ? { boundTo: { engine: this.#cpu.description.engine, processor: processorHere() } } : {}),
    };
    const target = join(out, kind);
    const incoming = join(out, `.${kind}-${process.pid}`);
    try {
      await mkdir(incoming, { recursive: true });
      await writeFile(join(incoming, 'model.onnx'), await readFile(made.path));
      await writeFile(join(incoming, 'variant.json'), `${JSON.stringify(record, undefined, 2)}\n`);
      // Both files change at once, or none.
      await rm(target, { recursive: true, force: true });
      await rename(incoming, target);
    } catch (error) {
      await rm(incoming, { recursive: true, force: true });
      const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC';
      throw intarsiaError(
        isFull ? 'STORAGE_FULL' : 'FAILED_PRECONDITION',
        `variant ${kind} cannot be written to ${target}: ${messageOf(error)}`,
        { path: target },
        error,
      );
    }
    return { ...outcome, state: 'written', path: join(target, 'model.onnx'), record };
  }

  get #cpu(): Executor {
    return this.#parts.executors.get('cpu') as Executor;
  }
}

/** What is wrong with a variant rather than with the work. */
const refusals: ReadonlySet<string> = new Set([
  'FAILED_PRECONDITION',
  'INVALID_ARGUMENT',
  'MODEL_INVALID',
  'OUT_OF_MEMORY',
]);

function refused(kind: MadeKind, reason: string, notes: readonly string[] = []): VariantOutcome {
  return { kind, state: 'refused', reason, path: '', bytes: 0, rows: [], notes };
}

function fileOf(
  name: string,
  bytes: Uint8Array,
): { readonly name: string; readonly bytes: number; readonly sha256: string } {
  return { name, bytes: bytes.byteLength, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** Name of this machine's processor: what a model that ONNX Runtime optimised is bound to. */
export function processorHere(): string {
  return cpus()[0]?.model.trim() || process.arch;
}
