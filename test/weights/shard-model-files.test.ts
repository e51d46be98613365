import { existsSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { shardModelFiles, type MakeShard } from '#adapters/files/shard-model-files.js';
import { keptShard } from '#compose/split/kept-shard.js';
import { artifactDigest, modelName, modelVersion } from '#core/ids.js';
import { readModel } from '#core/onnx/model-reader.js';
import { readModelFacts } from '#core/onnx/model-facts.js';
import { encodeModel } from '#core/onnx/writer.js';
import { Cutter } from '#core/split/cut.js';
import { readSplitGraph } from '#core/split/graph.js';
import { shardModelName, splitIdOf, type SplitSpec } from '#core/split/split-spec.js';
import type { ModelArtifact, ModelFiles } from '#ports/model-files.js';
import { perceptronDraft } from '../split/perceptron.js';
import { newFolder } from './weights-folder.js';

const version = modelVersion('1');
const side = 'weights.bin';
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
/** Weights in a side file. */
const encoded = encodeModel(perceptronDraft(3, 8), { location: side, tensorBytesMin: 16 });
const bytes = Buffer.concat(encoded.parts);
const weights = Buffer.concat(encoded.external?.parts ?? []);
const digest = artifactDigest(sha256(bytes));

function splitAt(cuts: readonly number[]): SplitSpec {
  const { crossings } = new Cutter(readSplitGraph(readModel(bytes))).cut(cuts.filter((cut) => cut < 6));
  return {
    ...{ format: 1, id: splitIdOf({ digest, cuts, compression: 'none' }), digest, cuts, compression: 'none' },
    shards: [...cuts, 0].map(() => ({ memoryBytes: 0 })),
    values: Object.fromEntries(crossings.map(({ name }) => [name, { dataType: 1, shape: [-1, 8] }])),
  };
}

interface World {
  readonly root: string;
  readonly folder: string;
  /** The model's files as a process that begins now would have them. */
  start(options?: { makeShard?: MakeShard; bytesMax?: number; splits?: readonly SplitSpec[] }): {
    readonly files: ModelFiles;
    open(shard: number, split?: SplitSpec): Promise<ModelArtifact>;
  };
}

const halves = splitAt([2]);

function newWorld(): World {
  const folder = newFolder();
  const root = newFolder();
  writeFileSync(join(folder, 'model.onnx'), bytes);
  writeFileSync(join(folder, side), weights);
  const artifact = (): Promise<ModelArtifact> =>
    Promise.resolve({
      digest,
      path: join(folder, 'model.onnx'),
      facts: readModelFacts(bytes),
      files: [
        { name: 'model.onnx', bytes: bytes.byteLength, sha256: digest },
        { name: side, bytes: weights.byteLength, sha256: sha256(weights) },
      ],
      release: () => Promise.resolve(),
    });
  const whole: ModelFiles = {
    list: () => Promise.resolve({ models: [], notes: [] }),
    open: () =>
      Promise.resolve({
        ...{ versions: [version], configText: undefined, artifact },
        bytes: () => Promise.resolve(new Uint8Array()),
        close: () => Promise.resolve(),
      }),
    close: () => Promise.resolve(),
  };
  return {
    root,
    folder,
    start: ({ makeShard = keptShard, bytesMax = 1e9, splits = [halves] } = {}) => {
      const splitOf = (id: string): SplitSpec | undefined => splits.find((split) => split.id === id);
      const files = shardModelFiles({ whole, splitOf, makeShard, folder: root, bytesMax });
      const open = async (shard: number, split = splits[0] ?? halves): Promise<ModelArtifact> => {
        const opened = await files.open(shardModelName(modelName('m'), split.id, shard));
        return await opened.artifact(version, 'model.onnx');
      };
      return { files, open };
    },
  };
}

/** Makes a shard, ends, puts a mark beside it that is gone when it is made anew, and lets `harm` do its work. */
async function restarted(harm: (folder: string, world: World) => void): Promise<{ isKept: boolean }> {
  const world = newWorld();
  const before = world.start();
  const first = await before.open(1);
  const folder = dirname(first.path);
  const model = readFileSync(first.path);
  expect(sha256(model)).toBe(first.digest);
  await first.release();
  await before.files.close();
  writeFileSync(join(folder, 'mark'), '');
  harm(folder, world);
  const again = await world.start().open(1);
  expect([again.digest, again.path, again.part]).toEqual([first.digest, first.path, first.part]);
  expect(readFileSync(again.path)).toEqual(model);
  expect(readFileSync(join(folder, side))).toEqual(weights);
  return { isKept: existsSync(join(folder, 'mark')) };
}

function flip(path: string, at: number): void {
  const content = readFileSync(path);
  content[at] = (content[at] ?? 0) ^ 1;
  rmSync(path);
  writeFileSync(path, content);
}

describe('shards on disk', () => {
  it('are taken as they are by the next process', async () => {
    expect(await restarted(() => {})).toEqual({ isKept: true });
    // A side file may be a copy where no further name was possible.
    const copied = (folder: string): void => {
      rmSync(join(folder, side));
      writeFileSync(join(folder, side), weights);
    };
    expect(await restarted(copied)).toEqual({ isKept: true });
  });

  it('that are damaged in any byte are found and made anew, the same bytes', async () => {
    const shardBytes = statSync((await newWorld().start().open(1)).path).size;
    const damage = fc.record({ name: fc.constantFrom('model.onnx', side), at: fc.nat() });
    await fc.assert(
      fc.asyncProperty(damage, async ({ name, at }) => {
        const size = name === side ? weights.byteLength : shardBytes;
        expect(await restarted((folder) => flip(join(folder, name), at % size))).toEqual({ isKept: false });
      }),
      { numRuns: 20 },
    );
  });

  it('that miss a file, are cut short or have a note that says something else are made anew', async () => {
    const harms: ((folder: string) => void)[] = [
      ...['model.onnx', 'shard.json', side].map((name) => (folder: string) => rmSync(join(folder, name))),
      ...['model.onnx', 'shard.json'].map((name) => (folder: string) => {
        writeFileSync(join(folder, name), readFileSync(join(folder, name)).subarray(0, 50));
      }),
      (folder) => {
        const note = JSON.parse(readFileSync(join(folder, 'shard.json'), 'utf8')) as { stages: unknown[] };
        note.stages.reverse();
        writeFileSync(join(folder, 'shard.json'), JSON.stringify(note));
      },
    ];
    for (const harm of harms) expect(await restarted(harm)).toEqual({ isKept: false });
  });

  it('of two cuts that differ only far behind are two', async () => {
    const cuts = Array.from({ length: 62 }, (_, at) => 10_000 + at);
    const splits = [splitAt([...cuts, 20_000]), splitAt([...cuts, 20_001])];
    const { open } = newWorld().start({ splits, makeShard: pretendShard });
    const paths = await Promise.all(splits.map(async (split) => (await open(0, split)).path));
    expect(new Set(paths).size).toBe(2);
  });
});

const pieceBytes = 1000;
const pretendShard: MakeShard = async ({ folder }) => {
  const path = join(folder, 'model.onnx');
  if (!existsSync(path)) {
    await mkdir(`${folder}.draft`, { recursive: true });
    await mkdir(folder, { recursive: true });
    await writeFile(path, new Uint8Array(pieceBytes));
    rmSync(`${folder}.draft`, { recursive: true });
  }
  return { digest, bytes: pieceBytes, facts: readModelFacts(bytes), stages: [] };
};

/** Shards that are there, by number. */
function there(root: string): readonly string[] {
  return readdirSync(root)
    .flatMap((split) => readdirSync(join(root, split)))
    .sort();
}

describe('the bound of shards on disk', () => {
  const pieces = splitAt([1, 2, 3, 4, 5]);

  it('is kept by throwing out what nobody holds, the longest unused first', async () => {
    const world = newWorld();
    const { open } = world.start({ splits: [pieces], makeShard: pretendShard, bytesMax: 2 * pieceBytes });
    const held = await Promise.all([0, 1, 2, 3].map((shard) => open(shard)));
    const lately = Date.now() / 1000;
    for (const [shard, { path }] of held.entries())
      utimesSync(dirname(path), lately, lately + (shard === 1 ? -9 : shard));
    for (const one of held.slice(0, 3)) await one.release();
    // The fourth is held and does not count.
    expect(there(world.root)).toEqual(['0', '2', '3']);
    await held[3]?.release();
    expect(there(world.root)).toEqual(['2', '3']);
  });

  it('counts for what an earlier process held, too, and removes what that had under way', async () => {
    const world = newWorld();
    const before = world.start({ splits: [pieces], makeShard: pretendShard, bytesMax: pieceBytes });
    const { path } = (await Promise.all([0, 1, 2, 3].map((shard) => before.open(shard))))[0] as ModelArtifact;
    await mkdir(`${dirname(path)}.0a1b2c`);
    const after = world.start({ splits: [pieces], makeShard: pretendShard, bytesMax: pieceBytes });
    await after.open(2);
    expect(there(world.root)).toHaveLength(2);
    expect(there(world.root)).toContain('2');
  });

  it('never costs a shard that is held or under way, whoever opens and releases what at the same time', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 5 }), { maxLength: 30 }), fc.nat({ max: 3 }), async (wanted, kept) => {
        const world = newWorld();
        const bytesMax = kept * pieceBytes;
        const { open, files } = world.start({ splits: [pieces], makeShard: pretendShard, bytesMax });
        await Promise.all(
          wanted.map(async (shard, turn) => {
            const held = await open(shard);
            for (let look = 0; look < 1 + (turn % 4); look += 1) {
              expect(existsSync(held.path)).toBe(true);
              await new Promise(setImmediate);
            }
            await held.release();
          }),
        );
        expect(there(world.root).length).toBeLessThanOrEqual(kept);
        await files.close();
      }),
      { numRuns: 30 },
    );
  });
});
