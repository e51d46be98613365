/**
 * The ArtifactSource port: a model's files from the cache, this host's repository, or the nearest other host that holds
 * them, in this order; and the ArtifactShelf port: what this host gives to others.
 *
 * One transfer a content, however many want it; it ends early only when nobody wants it any more. How a content is
 * fetched is file-fetch.ts's, who is asked first is core's (holder-order).
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { asIntarsiaError, intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import { checkManifest, manifestBytes, type ManifestFile } from '#core/grid/manifest.js';
import type { PublishedManifests } from '#core/grid/published-manifests.js';
import type { ModelManifest } from '#core/grid/records.js';
import type { DescribedVariant } from '#core/grid/variant-verification.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import type {
  ArtifactPeers,
  ArtifactShelf,
  ArtifactSource,
  ArtifactTransfer,
  FetchOptions,
  FetchProgress,
  GivenFile,
  HeldModel,
  ModelFetch,
} from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type { ArtifactCache } from './artifact-cache.js';
import { systemCode } from './disk-failure.js';
import { FileFetch, type FetchPorts } from './file-fetch.js';
import { givenFile, type LocalManifests } from './local-manifests.js';

export interface CachedArtifactsOptions {
  readonly cache: ArtifactCache;
  readonly local: LocalManifests;
  /** What may be given to other hosts. */
  readonly published: PublishedManifests;
  readonly transfer: ArtifactTransfer;
  readonly peers: ArtifactPeers;
  /** This host's zone; empty for none. */
  readonly zone: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Contents fetched at once. 1 to 64, default 4. Higher: many small files come sooner, more disk and network at once. */
  readonly parallelMax?: number;
}

/** A model whose links are in the cache, for whoever opens models: see grid-model-files.ts. */
export interface HeldTree {
  readonly manifest: ModelManifest;
  /** Folder of models in the layout of a repository, with this one. */
  readonly path: string;
}

interface Hold {
  readonly tree: Promise<HeldTree>;
  holders: number;
  /** Makes the fetch stop because nobody waits for it. */
  readonly abandon: () => void;
  readonly watchers: Set<(progress: FetchProgress) => void>;
}

const parallelMaxDefault = 4;
/** A file thrown out by another process between its arrival and its link is fetched again so often. */
const placingsMax = 3;
const progressMs = 250;

export class CachedArtifacts implements ArtifactSource, ArtifactShelf {
  readonly #options: CachedArtifactsOptions;
  readonly #ports: FetchPorts;
  readonly #holds = new Map<string, Hold>();
  readonly #trees = new Map<string, HeldTree>();
  /** Transfers by SHA-256, until they have closed their file. */
  readonly #fetches = new Map<string, { readonly fetch: FileFetch; readonly ended: Promise<void> }>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #isClosed = false;

  constructor(options: CachedArtifactsOptions) {
    this.#options = options;
    this.#ports = { ...options, draw: options.random.below(2 ** 31), memory: new Map() };
  }

  ensure(manifest: ModelManifest, options: FetchOptions): ModelFetch {
    const { clock } = this.#options;
    let cancel = (_reason: IntarsiaError): void => undefined;
    const cancelled = new Promise<never>((_resolve, reject) => {
      cancel = reject;
    });
    // Cancelling after the end must not be a rejection that nobody awaits.
    cancelled.catch(() => undefined);
    const what = `${manifest.model} version ${manifest.version}`;
    const timer = Number.isFinite(options.deadlineMs)
      ? clock.scheduleAt(options.deadlineMs, () => {
          cancel(intarsiaError('DEADLINE_EXCEEDED', `the files of model ${what} were not here in time`));
        })
      : undefined;
    const held = this.#hold(manifest, options, cancelled).finally(() => timer?.cancel());
    return {
      held,
      cancel: () => cancel(intarsiaError('CANCELLED', `fetching the files of model ${what} was cancelled`)),
    };
  }

  async describe(model: ModelName, version: ModelVersion): Promise<ModelManifest | undefined> {
    return await this.#options.local.describe(model, version);
  }

  async variants(model: ModelName, version: ModelVersion): Promise<readonly DescribedVariant[]> {
    return await this.#options.local.variants(model, version);
  }

  /**
   * The files of a model in a folder of their own, to be looked at: nothing is served of them. @throws as `ensure` fails.
   */
  async borrow(
    manifest: ModelManifest,
    { deadlineMs }: Pick<FetchOptions, 'deadlineMs'>,
  ): Promise<HeldTree & { readonly release: () => Promise<void> }> {
    const { clock, cache } = this.#options;
    const checked = checkManifest(manifest);
    const onAbandon = new Set<() => void>();
    const late = { isLate: false };
    const abandon = (): void => {
      late.isLate = true;
      for (const listener of [...onAbandon]) listener();
    };
    const timer = Number.isFinite(deadlineMs) ? clock.scheduleAt(deadlineMs, abandon) : undefined;
    const path = await cache.makeTree();
    try {
      const progress = new Progress(checked, clock, new Set());
      await this.#placeAll(path, {
        manifest: checked,
        progress,
        isWanted: () => !late.isLate && !this.#isClosed,
        onAbandon,
      });
      if (this.#isClosed) throw intarsiaError('CANCELLED', 'this host is stopping');
      if (late.isLate) {
        const what = `${manifest.model} version ${manifest.version}`;
        throw intarsiaError('DEADLINE_EXCEEDED', `the files of model ${what} were not here in time`);
      }
    } catch (thrown) {
      await cache.removeTree(path);
      throw asIntarsiaError(thrown);
    } finally {
      timer?.cancel();
    }
    return { manifest: checked, path, release: () => cache.removeTree(path) };
  }

  /** Models that are held now. */
  held(): readonly HeldTree[] {
    return [...this.#trees.values()];
  }

  /** Makes a content's hash be checked again when it is wanted next: somebody found it damaged. */
  distrust(sha256: string): void {
    this.#options.cache.distrust(sha256);
  }

  async holds(sha256: string): Promise<boolean> {
    const file = await this.#openHeld(sha256);
    await file?.close();
    return file !== undefined;
  }

  async open(sha256: string): Promise<GivenFile> {
    const file = await this.#openHeld(sha256);
    if (file === undefined) {
      throw intarsiaError('NOT_FOUND', `this host holds no file ${sha256} of a published model`, { sha256 });
    }
    return file;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { fetch } of this.#fetches.values()) {
      fetch.cancel(intarsiaError('CANCELLED', 'this host is stopping'));
    }
    await Promise.allSettled([...this.#holds.values()].map(({ tree }) => tree));
    this.#options.transfer.close();
    await this.#options.cache.close();
  }

  async #hold(manifest: ModelManifest, options: FetchOptions, cancelled: Promise<never>): Promise<HeldModel> {
    if (this.#isClosed) throw intarsiaError('CANCELLED', 'this host is stopping');
    const checked = checkManifest(manifest);
    const key = keyOf(checked);
    const hold = this.#holds.get(key) ?? this.#startHold(key, checked);
    hold.holders += 1;
    if (options.onProgress !== undefined) hold.watchers.add(options.onProgress);
    let isHeld = true;
    const release = async (): Promise<void> => {
      if (!isHeld) return;
      isHeld = false;
      hold.holders -= 1;
      if (hold.holders > 0 || this.#holds.get(key) !== hold) return;
      this.#holds.delete(key);
      hold.abandon();
      const tree = await hold.tree.catch(() => undefined);
      if (tree === undefined) return;
      this.#trees.delete(key);
      await this.#options.cache.removeTree(tree.path);
    };
    try {
      const tree = await Promise.race([hold.tree, cancelled]);
      return { manifest: tree.manifest, release };
    } catch (thrown) {
      release().catch((error: unknown) => {
        this.#options.log.warn('a cancelled fetch left files in the cache', { error: messageOf(error) });
      });
      throw asIntarsiaError(thrown);
    } finally {
      if (options.onProgress !== undefined) hold.watchers.delete(options.onProgress);
    }
  }

  #startHold(key: string, manifest: ModelManifest): Hold {
    let isWanted = true;
    const watchers = new Set<(progress: FetchProgress) => void>();
    const progress = new Progress(manifest, this.#options.clock, watchers);
    const abandoned = new Set<() => void>();
    const job: Job = {
      manifest,
      progress,
      isWanted: () => isWanted && !this.#isClosed,
      onAbandon: abandoned,
    };
    const tree = this.#build(key, job);
    const hold: Hold = {
      tree,
      holders: 0,
      watchers,
      abandon: () => {
        isWanted = false;
        for (const listener of [...abandoned]) listener();
      },
    };
    this.#holds.set(key, hold);
    tree.catch(() => {
      // What failed is tried anew by the next who asks.
      if (this.#holds.get(key) === hold) this.#holds.delete(key);
    });
    return hold;
  }

  async #build(key: string, job: Job): Promise<HeldTree> {
    const { cache } = this.#options;
    const { manifest } = job;
    const path = await cache.makeTree();
    try {
      await this.#placeAll(path, job);
      if (!job.isWanted()) throw intarsiaError('CANCELLED', 'nobody waits for the files any more');
      const tree: HeldTree = { manifest, path };
      this.#trees.set(key, tree);
      return tree;
    } catch (thrown) {
      await cache.removeTree(path);
      throw asIntarsiaError(thrown);
    }
  }

  /** A few files at a time; the first failure ends it once those under way have ended. */
  async #placeAll(tree: string, job: Job): Promise<void> {
    const files = [...job.manifest.files];
    const failures: unknown[] = [];
    const work = async (): Promise<void> => {
      for (let file = files.shift(); file !== undefined; file = files.shift()) {
        if (failures.length > 0 || !job.isWanted()) return;
        try {
          await this.#place(file, tree, job);
        } catch (thrown) {
          failures.push(thrown);
        }
      }
    };
    await Promise.all(Array.from({ length: this.#parallelMax() }, work));
    if (failures.length > 0) throw failures[0];
  }

  /** Makes one file be linked in the tree. */
  async #place(file: ManifestFile, tree: string, job: Job): Promise<void> {
    const { cache } = this.#options;
    const target = `${job.manifest.model}/${file.path}`;
    for (let placing = 0; placing < placingsMax; placing += 1) {
      if (await cache.place(file, tree, target)) {
        job.progress.fileDone(file);
        return;
      }
      await this.#obtain(file, job);
    }
    throw intarsiaError(
      'STORAGE_FULL',
      `the cache throws file ${file.sha256} out as fast as it arrives: other processes need its room`,
      { sha256: file.sha256 },
    );
  }

  /** Joins the transfer of a content or starts one. */
  async #obtain(file: ManifestFile, job: Job): Promise<void> {
    let current = this.#fetches.get(file.sha256);
    while (current?.fetch.isCancelled === true) {
      await current.ended;
      current = this.#fetches.get(file.sha256);
    }
    const fetch = current?.fetch ?? this.#start(file, job.manifest);
    const onBytes = (offset: number, received: number): void => job.progress.fileHas(file, offset, received);
    const leave = fetch.join(onBytes);
    job.onAbandon.add(leave);
    try {
      if (!job.isWanted()) leave();
      await fetch.done;
    } finally {
      job.onAbandon.delete(leave);
      leave();
    }
  }

  #start(file: ManifestFile, manifest: ModelManifest): FileFetch {
    const fetch = new FileFetch(file, manifest, this.#ports);
    this.#fetches.set(file.sha256, { fetch, ended: this.#run(fetch, file.sha256) });
    return fetch;
  }

  /** Runs a transfer when it is its turn. Never rejects. */
  async #run(fetch: FileFetch, sha256: string): Promise<void> {
    if (this.#running < this.#parallelMax()) this.#running += 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    await fetch.run();
    this.#fetches.delete(sha256);
    const next = this.#waiting.shift();
    // The next one takes over this one's place.
    if (next === undefined) this.#running -= 1;
    else next();
  }

  #parallelMax(): number {
    return this.#options.parallelMax ?? parallelMaxDefault;
  }

  async #openHeld(sha256: string): Promise<GivenFile | undefined> {
    const { published, cache, local } = this.#options;
    const bytes = published.bytesOf(sha256);
    if (bytes === undefined) return undefined;
    const path = await cache.peek({ sha256, bytes });
    if (path === undefined) return await local.open(sha256);
    try {
      return givenFile(await open(path, constants.O_RDONLY), bytes);
    } catch (thrown) {
      // Thrown out between the two steps.
      if (systemCode(thrown) === 'ENOENT') return await local.open(sha256);
      throw thrown;
    }
  }
}

/** What is wanted for one model. */
interface Job {
  readonly manifest: ModelManifest;
  readonly progress: Progress;
  readonly isWanted: () => boolean;
  readonly onAbandon: Set<() => void>;
}

/** Counts what is here of a model and tells those who watch, not too often. */
class Progress {
  readonly #manifest: ModelManifest;
  readonly #clock: Clock;
  readonly #watchers: ReadonlySet<(progress: FetchProgress) => void>;
  readonly #has = new Map<string, number>();
  readonly #received = new Map<string, number>();
  readonly #done = new Set<string>();
  /** Set while watchers are about to be told. */
  #isTold = false;
  #toldMs = -Infinity;

  constructor(manifest: ModelManifest, clock: Clock, watchers: ReadonlySet<(progress: FetchProgress) => void>) {
    this.#manifest = manifest;
    this.#clock = clock;
    this.#watchers = watchers;
  }

  fileHas(file: ManifestFile, offset: number, received: number): void {
    this.#has.set(file.sha256, offset);
    this.#received.set(file.sha256, received);
    this.#tell();
  }

  fileDone(file: ManifestFile): void {
    this.#done.add(file.path);
    this.#has.set(file.sha256, file.bytes);
    this.#tell();
  }

  #tell(): void {
    if (this.#isTold || this.#watchers.size === 0) return;
    this.#isTold = true;
    this.#clock.schedule(this.#toldMs + progressMs - this.#clock.nowMs(), () => {
      this.#isTold = false;
      this.#toldMs = this.#clock.nowMs();
      const progress: FetchProgress = {
        filesDone: this.#done.size,
        filesTotal: this.#manifest.files.length,
        bytesDone: total(this.#has),
        bytesTotal: manifestBytes(this.#manifest),
        bytesReceived: total(this.#received),
      };
      for (const watcher of [...this.#watchers]) watcher(progress);
    });
  }
}

function total(counts: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

/** Two manifests of one model version with other files are two things to hold. */
function keyOf({ model, version, files }: ModelManifest): string {
  return JSON.stringify([model, version, files.map(({ path, sha256 }) => [path, sha256])]);
}
