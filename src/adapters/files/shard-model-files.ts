/**
 * Shards of models as models of their own: the ModelFiles port over another one. A shard is made from the whole model's
 * files when it is opened, kept on disk under its split and number, and made again only when it is damaged or gone: the
 * same bytes on every host, because the cutter is deterministic. Making is a port, since it takes a thread and an engine.
 *
 * What is kept is bounded in bytes: the shards that nobody holds and that were used least lately go first. The folder is
 * one process's; what a killed one had under way is removed.
 */
import { createHash } from 'node:crypto';
import { renameSync } from 'node:fs';
import { mkdir, readdir, rm, stat, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import type { ArtifactDigest, ModelName, ModelVersion } from '#core/ids.js';
import type { ModelFacts } from '#core/onnx/model-facts.js';
import { readShardName, type SplitSpec } from '#core/split/split-spec.js';
import type { ArtifactPart, ModelArtifact, ModelFiles, ModelFolder, RepositoryListing } from '#ports/model-files.js';

export interface ShardOrder {
  /** The whole model's file, its side files beside it. */
  readonly modelPath: string;
  /** All of the model's files, as they were when somebody hashed them. */
  readonly files: ModelArtifact['files'];
  readonly cuts: readonly number[];
  readonly shard: number;
  /** Types of the values that cross, where the split says them; else an engine is asked, with the whole model. */
  readonly values?: SplitSpec['values'];
  /** Where `model.onnx` and its side files go; it may be there already, whole or damaged. */
  readonly folder: string;
}

export interface MadeShard {
  readonly digest: ArtifactDigest;
  readonly bytes: number;
  readonly facts: ModelFacts;
  /** What every stage of the cut takes and gives. */
  readonly stages: ArtifactPart['stages'];
}

/** Makes a shard, off the main thread. @throws MODEL_INVALID, INVALID_ARGUMENT (no such cut), STORAGE_FULL. */
export type MakeShard = (order: ShardOrder) => Promise<MadeShard>;

export interface ShardModelFilesOptions {
  readonly whole: ModelFiles;
  /** Of which shards are wanted here. */
  readonly splitOf: (id: string) => SplitSpec | undefined;
  readonly makeShard: MakeShard;
  /** Where shards are kept. */
  readonly folder: string;
  /** Bytes of shards that are kept without a holder. */
  readonly bytesMax: number;
}

export const shardFileName = 'model.onnx';
/** Characters of positions that are a folder's name as they are. */
const longestCuts = 100;

export function shardModelFiles(options: ShardModelFilesOptions): ModelFiles {
  return new ShardModelFiles(options);
}

class ShardModelFiles implements ModelFiles {
  readonly #options: ShardModelFilesOptions;
  /** Holders by folder. */
  readonly #held = new Map<string, number>();
  /** One at a time: each takes a thread, and the memory of the whole model. */
  #making: Promise<unknown> = Promise.resolve();
  #tidying: Promise<unknown> = Promise.resolve();

  constructor(options: ShardModelFilesOptions) {
    this.#options = options;
  }

  async list(): Promise<RepositoryListing> {
    return await this.#options.whole.list();
  }

  async open(name: ModelName, files?: ReadonlyMap<string, Uint8Array>): Promise<ModelFolder> {
    const { whole, splitOf } = this.#options;
    const piece = readShardName(name);
    if (piece === undefined) return await whole.open(name, files);
    const split = splitOf(piece.split);
    if (split === undefined || piece.shard > split.cuts.length) {
      throw intarsiaError('MODEL_NOT_FOUND', `shard ${name} is of no split that was assigned to this host`, {
        model: piece.model,
        split: piece.split,
      });
    }
    const folder = await whole.open(piece.model);
    return {
      versions: folder.versions,
      ...(folder.servedVersions === undefined ? {} : { servedVersions: folder.servedVersions }),
      configText: folder.configText,
      bytes: (path) => folder.bytes(path),
      close: () => folder.close(),
      artifact: async (version, fileName) => {
        const model = await folder.artifact(version, fileName);
        try {
          return await this.#shard(model, { ...piece, version, spec: split });
        } finally {
          await model.release();
        }
      },
    };
  }

  async close(): Promise<void> {
    await this.#making.catch(() => undefined);
    await this.#tidying.catch(() => undefined);
    await this.#options.whole.close();
  }

  async #shard(
    model: ModelArtifact,
    piece: {
      readonly model: ModelName;
      readonly version: ModelVersion;
      readonly shard: number;
      readonly spec: SplitSpec;
    },
  ): Promise<ModelArtifact> {
    const { spec, shard } = piece;
    if (spec.digest !== model.digest) {
      throw intarsiaError(
        'MODEL_INVALID',
        `split ${spec.id} was made from artefact ${spec.digest}; version ${piece.version} of model ${JSON.stringify(piece.model)} here is ${model.digest}`,
        { split: spec.id, digest: model.digest },
      );
    }
    const folder = join(this.#options.folder, folderNameOf(spec), String(shard));
    this.#hold(folder, 1);
    try {
      const { cuts, values } = spec;
      const { path: modelPath, files } = model;
      const order = { modelPath, files, cuts, shard, folder, ...(values === undefined ? {} : { values }) };
      const made = await this.#make(order);
      let isHeld = true;
      return {
        digest: made.digest,
        path: join(folder, shardFileName),
        facts: made.facts,
        files: [{ name: shardFileName, bytes: made.bytes, sha256: made.digest }],
        part: {
          model: piece.model,
          shard,
          split: spec,
          digest: model.digest,
          facts: model.facts,
          stages: made.stages,
        },
        release: async () => {
          if (!isHeld) return;
          isHeld = false;
          this.#hold(folder, -1);
          await this.#tidy();
        },
      };
    } catch (thrown) {
      this.#hold(folder, -1);
      throw thrown;
    }
  }

  async #make(order: ShardOrder): Promise<MadeShard> {
    const made = this.#making
      .catch(() => undefined)
      .then(async () => {
        await mkdir(dirname(order.folder), { recursive: true });
        const shard = await this.#options.makeShard(order);
        const now = new Date();
        await utimes(order.folder, now, now);
        return shard;
      });
    this.#making = made;
    const shard = await made;
    await this.#tidy();
    return shard;
  }

  #hold(folder: string, change: number): void {
    const holders = (this.#held.get(folder) ?? 0) + change;
    if (holders > 0) this.#held.set(folder, holders);
    else this.#held.delete(folder);
  }

  async #tidy(): Promise<void> {
    const tidied = this.#tidying.catch(() => undefined).then(() => this.#tidyNow());
    this.#tidying = tidied;
    await tidied;
  }

  /** Removes what nobody holds, the longest unused first, until the rest is within the bound. */
  async #tidyNow(): Promise<void> {
    const kept: { readonly path: string; readonly bytes: number; readonly usedMs: number }[] = [];
    const { folder: root, bytesMax } = this.#options;
    for (const split of await readdir(root).catch(() => [])) {
      for (const shard of await readdir(join(root, split)).catch(() => [])) {
        const path = join(root, split, shard);
        const [place = ''] = shard.split('.');
        if (this.#held.has(join(root, split, place))) continue;
        // What is written beside its place and nobody waits for: a killed process left it.
        if (place !== shard) await rm(path, { recursive: true, force: true });
        else kept.push({ path, bytes: await bytesIn(path), usedMs: (await stat(path)).mtimeMs });
      }
    }
    kept.sort((a, b) => a.usedMs - b.usedMs);
    let bytes = kept.reduce((sum, each) => sum + each.bytes, 0);
    for (const each of kept) {
      if (bytes <= bytesMax) return;
      bytes -= each.bytes;
      if (this.#held.has(each.path)) continue;
      // In one step with the look at who holds it: whoever wants it from now on finds nothing and makes it.
      renameSync(each.path, `${each.path}.gone`);
      await rm(`${each.path}.gone`, { recursive: true, force: true });
    }
  }
}

/** Another cut of another artefact has another name, and names are short enough for any file system. */
function folderNameOf({ digest, cuts }: SplitSpec): string {
  const text = cuts.join('.');
  const isShort = text.length <= longestCuts;
  return `${digest.slice(0, 16)}-${isShort ? text : createHash('sha256').update(text).digest('hex')}`;
}

/** Bytes of the files that a folder alone has: side files with further names elsewhere take no room of their own. */
async function bytesIn(folder: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(folder, { recursive: true })) {
    const found = await stat(join(folder, name));
    if (found.isFile() && found.nlink === 1) bytes += found.size;
  }
  return bytes;
}
