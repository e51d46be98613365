/**
 * One shard in its folder: taken as it is when an earlier process left it whole, written anew otherwise. It is written
 * beside its place and put there by renaming, so that what is there is whole; `shard.json` says which bytes it must have,
 * and has a checksum of its own. Side files are further names of the whole model's, which whoever holds the model has
 * checked, or copies of them, which must have the same SHA-256.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { diskFailure, systemCode } from '#adapters/files/disk-failure.js';
import { startProcessExecutor } from '#adapters/process/process-executor.js';
import { shardFileName, type MadeShard, type ShardOrder } from '#adapters/files/shard-model-files.js';
import { intarsiaError } from '#core/errors.js';
import { artifactDigest, sessionId } from '#core/ids.js';
import { readModelFacts } from '#core/onnx/model-facts.js';
import { onnxDataTypeOf } from '#core/onnx/data-type.js';
import type { ValueType } from '#core/onnx/model-view.js';
import { declaredTypes, type ValueTypes } from '#core/split/boundary-type.js';
import type { CutPlan } from '#core/split/cut.js';
import { encodeShard, encodeWithOutputs } from '#core/split/shard-writer.js';
import { bringSideFiles, writeModelFile } from './shard-files.js';
import { readCutter } from './verify-split.js';

interface ShardNote {
  readonly digest: string;
  readonly stages: MadeShard['stages'];
  /** Of the two above. */
  readonly check: string;
}

const typeLoadMsMax = 600_000;

/** @throws MODEL_INVALID, INVALID_ARGUMENT (no such shard), NOT_FOUND (a file of the model), STORAGE_FULL. */
export async function keptShard(order: ShardOrder): Promise<MadeShard> {
  const { folder } = order;
  const known = await takeKept(order);
  if (known !== undefined) return known;
  const draft = `${folder}.${randomBytes(6).toString('hex')}`;
  try {
    await mkdir(draft, { recursive: true });
    const made = await cutInto(draft, order);
    await rm(folder, { recursive: true, force: true });
    await rename(draft, folder);
    return made;
  } catch (thrown) {
    throw systemCode(thrown) === '' ? thrown : diskFailure(draft, thrown);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** What an earlier process left, if it is whole. */
async function takeKept(order: ShardOrder): Promise<MadeShard | undefined> {
  const { folder } = order;
  let note: ShardNote;
  let bytes: Uint8Array;
  try {
    note = JSON.parse(await readFile(join(folder, 'shard.json'), 'utf8')) as ShardNote;
    bytes = await readFile(join(folder, shardFileName));
  } catch {
    return undefined;
  }
  const digest = createHash('sha256').update(bytes).digest('hex');
  if (digest !== note.digest || checkOf(note) !== note.check) return undefined;
  for (const location of sideFilesOf(bytes)) {
    if (!(await isWhole(location, order))) return undefined;
  }
  return {
    digest: artifactDigest(digest),
    bytes: bytes.byteLength,
    facts: readModelFacts(bytes),
    stages: note.stages,
  };
}

function checkOf({ digest, stages }: Omit<ShardNote, 'check'>): string {
  return createHash('sha256').update(JSON.stringify({ digest, stages })).digest('hex');
}

/** Whether a side file beside the shard is the one beside the model. */
async function isWhole(location: string, { folder, modelPath, files }: ShardOrder): Promise<boolean> {
  const paths = [join(folder, location), join(dirname(modelPath), location)];
  const [mine, original] = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
  if (mine === undefined || original === undefined) return false;
  if (mine.dev === original.dev && mine.ino === original.ino) return true;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(paths[0] ?? '')) hash.update(chunk as Uint8Array);
  const digest = hash.digest('hex');
  return files.some(({ name, sha256 }) => name === location && sha256 === digest);
}

async function cutInto(draft: string, { modelPath, cuts, shard: index, values }: ShardOrder): Promise<MadeShard> {
  const cutter = await readCutter(modelPath);
  const plan = cutter.cut(cuts);
  const shard = plan.shards[index];
  if (shard === undefined) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `the cut [${cuts.join(',')}] has ${plan.shards.length} shards, no ${index}`,
    );
  }
  const types = await crossingTypes(plan, { modelPath, draft, values });
  const [problem] = cutter.problems(plan, types);
  if (problem !== undefined) {
    throw intarsiaError('MODEL_INVALID', `the cut [${cuts.join(',')}] is not possible: ${problem}`);
  }
  const encoded = encodeShard(plan, shard, types);
  const path = join(draft, shardFileName);
  const { digest, byteLength } = await writeModelFile(path, encoded);
  await bringSideFiles(encoded.locations, { from: dirname(modelPath), to: draft });
  const stages = plan.shards.map(({ inputs, outputs }) => ({ inputs, outputs }));
  const note: ShardNote = { digest, stages, check: checkOf({ digest, stages }) };
  await writeFile(join(draft, 'shard.json'), JSON.stringify(note));
  return { digest, bytes: byteLength, facts: readModelFacts(await readFile(path)), stages };
}

/**
 * Types of the values that cross: the engine's word, since what files say of values in between can be wrong. The gate has
 * asked it already, of all values that it could tell; only without these is the whole model loaded here.
 */
async function crossingTypes(
  { graph, crossings }: CutPlan,
  { modelPath, draft, values }: { readonly draft: string } & Pick<ShardOrder, 'modelPath' | 'values'>,
): Promise<ValueTypes> {
  const types = new Map(declaredTypes(graph));
  const outputs = new Set(graph.outputs.map(({ name }) => name));
  const asked = crossings.map(({ name }) => name).filter((name) => !outputs.has(name));
  if (asked.length === 0) return types;
  if (values !== undefined) {
    for (const name of asked) {
      const value = Object.hasOwn(values, name) ? values[name] : undefined;
      if (value === undefined) continue;
      const shape = value.shape?.map((size) => ({ size, symbol: '' }));
      types.set(name, { kind: 'tensor', dataType: value.dataType, shape });
    }
    return types;
  }
  const folder = join(draft, 'types');
  await mkdir(folder);
  const executor = await startProcessExecutor({ provider: 'cpu', runMsMax: typeLoadMsMax });
  try {
    const encoded = encodeWithOutputs(graph, asked);
    const artifact = await writeModelFile(join(folder, shardFileName), encoded);
    await bringSideFiles(sideFilesOf(graph.model.bytes), { from: dirname(modelPath), to: folder });
    const loaded = await executor.load({
      session: sessionId('types'),
      artifact,
      model: { name: 'types', version: '1' },
      options: { intraOpThreads: 1, optimization: 'disabled' },
    });
    for (const { name, datatype, shape } of loaded.outputs) {
      const dimensions = shape.map((size) => ({ size, symbol: '' }));
      const type: ValueType = {
        kind: 'tensor',
        dataType: onnxDataTypeOf(datatype),
        shape: shape.length === 0 ? undefined : dimensions,
      };
      if (!outputs.has(name)) types.set(name, type);
    }
  } finally {
    await executor.close({ graceMs: 1_000 });
    await rm(folder, { recursive: true, force: true });
  }
  return types;
}

function sideFilesOf(bytes: Uint8Array): readonly string[] {
  return readModelFacts(bytes).externalTensors.map(({ location }) => location);
}
