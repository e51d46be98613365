/**
 * Fetches one content into the cache: from this host's repository, else from other hosts, the nearest holder first. A
 * holder that dies in the middle is followed by the next one at the byte where it stopped.
 *
 * Whoever sent bytes with a wrong SHA-256 alone is not asked again for this file. When several sent parts, nobody knows
 * whose was wrong: then each is asked for the whole.
 */
import { asIntarsiaError, intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import type { ManifestFile } from '#core/grid/manifest.js';
import { orderHolders } from '#core/grid/holder-order.js';
import type { ModelManifest } from '#core/grid/records.js';
import type { HostId } from '#core/ids.js';
import type { ArtifactPeer, ArtifactPeers, ArtifactTransfer } from '#ports/artifact-source.js';
import type { Clock } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import type { Random } from '#ports/random.js';
import type { ArtifactCache } from './artifact-cache.js';
import type { LocalManifests } from './local-manifests.js';
import type { PartialFile } from './partial-file.js';

/** What all fetches of a host share. */
export interface FetchPorts {
  readonly cache: ArtifactCache;
  readonly local: LocalManifests;
  readonly transfer: ArtifactTransfer;
  readonly peers: ArtifactPeers;
  readonly zone: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** See orderHolders. */
  readonly draw: number;
  /** Answers of peers, remembered for a moment: one question serves all files of a model. */
  readonly memory: Map<string, { readonly untilMs: number; readonly answer: Promise<ReadonlySet<string>> }>;
}

const holdsMsMax = 5_000;
/** An answer of a peer is believed for this long, ms. */
const rememberMs = 5_000;
const rememberedMax = 10_000;
/** Peers asked at the same time, in all, and holders that are enough to start with. */
const askedAtOnce = 8;
const askedMax = 256;
const holdersEnough = 3;
/** Rounds in a row without a byte while holders are busy, and how long each waits, ms. */
const roundsMax = 60;
const waitMsFirst = 100;
const waitMsMax = 5_000;
const localChunkBytes = 1024 * 1024;

export class FileFetch {
  /** Settles when the content is in the cache, or cannot be. */
  readonly done: Promise<void>;
  readonly #file: ManifestFile;
  readonly #manifest: ModelManifest;
  readonly #ports: FetchPorts;
  readonly #listeners = new Set<(offset: number, received: number) => void>();
  /** Hosts that sent wrong bytes. */
  readonly #banned = new Set<HostId>();
  /** Why holders did not give it. */
  readonly #notes = new Map<HostId, string>();
  #settle!: { readonly resolve: () => void; readonly reject: (error: IntarsiaError) => void };
  #cancelled: IntarsiaError | undefined;
  #stop: (() => void) | undefined;
  #received = 0;
  /** Of these, bytes that came before the file was begun anew. */
  #receivedBefore = 0;
  /** Hosts that sent bytes since. */
  readonly #contributors = new Set<HostId>();
  /** After parts of several hosts did not fit together: one host gives all of it. */
  #wholeOnly = false;

  constructor(file: ManifestFile, manifest: ModelManifest, ports: FetchPorts) {
    this.#file = file;
    this.#manifest = manifest;
    this.#ports = ports;
    this.done = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Its waiters may have left before it fails.
    this.done.catch(() => undefined);
  }

  /** One more who wants it. @returns Leaves; the last to leave cancels. */
  join(onBytes: (offset: number, received: number) => void): () => void {
    this.#listeners.add(onBytes);
    return () => {
      if (this.#listeners.delete(onBytes) && this.#listeners.size === 0) {
        this.cancel(intarsiaError('CANCELLED', `nobody waits for file ${this.#file.sha256} any more`));
      }
    };
  }

  get isCancelled(): boolean {
    return this.#cancelled !== undefined;
  }

  cancel(reason: IntarsiaError): void {
    this.#cancelled ??= reason;
    this.#stop?.();
  }

  /** Does it. Never rejects: see `done`. */
  async run(): Promise<void> {
    try {
      await this.#fetch();
      this.#settle.resolve();
    } catch (thrown) {
      this.#settle.reject(this.#cancelled ?? asIntarsiaError(thrown));
    }
  }

  async #fetch(): Promise<void> {
    const { cache } = this.#ports;
    this.#checkWanted();
    if ((await cache.find(this.#file)) !== undefined) return;
    const partial = await cache.begin(this.#file);
    try {
      if (!(await this.#copyLocal(partial))) await this.#fetchFromPeers(partial);
      this.#ports.log.debug('a model file is in the cache', { sha256: this.#file.sha256, bytes: this.#file.bytes });
    } catch (thrown) {
      // On a full disk the part that is there would be in everybody's way.
      if (asIntarsiaError(thrown).code === 'STORAGE_FULL') await partial.discard();
      else await partial.leave();
      throw thrown;
    } finally {
      cache.closed(this.#file);
    }
  }

  /** From a repository of this host, where the file looks as it did when it was hashed. */
  async #copyLocal(partial: PartialFile): Promise<boolean> {
    const { local } = this.#ports;
    await local.describe(this.#manifest.model, this.#manifest.version).catch(() => undefined);
    const source = await local.open(this.#file.sha256);
    if (source === undefined) return false;
    try {
      while (partial.offset < this.#file.bytes) {
        this.#checkWanted();
        const piece = await source.read(partial.offset, localChunkBytes);
        if (piece.byteLength === 0) break;
        await partial.write(piece);
        this.#tell(partial.offset);
      }
      await partial.finish();
      return true;
    } catch (thrown) {
      if (asIntarsiaError(thrown).code !== 'ARTIFACT_DAMAGED') throw thrown;
      await partial.restart();
      return false;
    } finally {
      await source.close();
    }
  }

  async #fetchFromPeers(partial: PartialFile): Promise<void> {
    if (partial.offset === this.#file.bytes && (await this.#finish(partial))) return;
    let idleRounds = 0;
    for (;;) {
      const before = this.#received;
      const wasWholeOnly = this.#wholeOnly;
      let isBusy = false;
      for (const peer of await this.#holders()) {
        this.#checkWanted();
        const outcome = await this.#fetchFrom(peer, partial);
        if (outcome === 'done') return;
        if (outcome === 'busy') isBusy = true;
      }
      // Where each host gives all of it, bytes of one that failed are no step forward.
      const isForward = this.#wholeOnly ? !wasWholeOnly : this.#received > before;
      idleRounds = isForward ? 0 : idleRounds + 1;
      if (idleRounds > 0 && (!isBusy || idleRounds >= roundsMax)) throw this.#nobody();
      if (idleRounds > 0) await this.#wait(Math.min(waitMsMax, waitMsFirst * 2 ** idleRounds));
    }
  }

  async #fetchFrom(peer: ArtifactPeer, partial: PartialFile): Promise<'done' | 'busy' | 'failed'> {
    if (this.#wholeOnly) await this.#startOver(partial);
    const call = this.#ports.transfer.fetch(peer, this.#file.sha256, partial.offset, {
      write: async (bytes) => {
        this.#checkWanted();
        await partial.write(bytes);
        if (bytes.byteLength > 0) this.#contributors.add(peer.host);
        this.#received += bytes.byteLength;
        this.#tell(partial.offset);
      },
    });
    this.#stop = () => call.cancel();
    let failure: IntarsiaError | undefined;
    try {
      await call.done;
    } catch (thrown) {
      failure = asIntarsiaError(thrown);
    } finally {
      this.#stop = undefined;
    }
    this.#checkWanted();
    if (failure?.code === 'STORAGE_FULL') throw failure;
    const isWhole = partial.offset === this.#file.bytes;
    if ((failure === undefined && isWhole) || failure?.code === 'ARTIFACT_DAMAGED') {
      if (failure === undefined && (await this.#finish(partial))) return 'done';
      await this.#blame(peer, partial, failure);
      return 'failed';
    }
    this.#note(peer, failure === undefined ? 'it ended too early' : messageOf(failure));
    return failure?.code === 'RESOURCE_EXHAUSTED' ? 'busy' : 'failed';
  }

  /** @returns False when the bytes are not the right ones. */
  async #finish(partial: PartialFile): Promise<boolean> {
    try {
      await partial.finish();
      return true;
    } catch (thrown) {
      if (asIntarsiaError(thrown).code !== 'ARTIFACT_DAMAGED') throw thrown;
      if (this.#contributors.size === 0) await this.#startOver(partial);
      return false;
    }
  }

  /**
   * Somebody sent wrong bytes: this host when it broke the transfer's rules or nobody else sent any. Otherwise it is found
   * out by asking for the whole.
   */
  async #blame(peer: ArtifactPeer, partial: PartialFile, failure: IntarsiaError | undefined): Promise<void> {
    const sentAll = this.#contributors.size === 1 && this.#received - this.#receivedBefore === partial.offset;
    const sure = failure !== undefined || sentAll;
    const why = failure?.message ?? 'its bytes have another SHA-256';
    this.#ports.log.warn('a model file arrived damaged', { from: peer.host, sha256: this.#file.sha256, sure, why });
    if (sure) {
      this.#banned.add(peer.host);
      this.#note(peer, why);
    } else this.#wholeOnly = true;
    await this.#startOver(partial);
  }

  async #startOver(partial: PartialFile): Promise<void> {
    await partial.restart();
    this.#contributors.clear();
    this.#receivedBefore = this.#received;
  }

  /** Who holds it, nearest first; asked in small groups until there are enough. */
  async #holders(): Promise<readonly ArtifactPeer[]> {
    const { peers, zone, draw } = this.#ports;
    const known = peers(this.#manifest).filter(({ host }) => !this.#banned.has(host));
    const ordered = orderHolders(known, { zone, draw }, this.#file.sha256).slice(0, askedMax);
    const found: ArtifactPeer[] = [];
    for (let first = 0; first < ordered.length && found.length < holdersEnough; first += askedAtOnce) {
      this.#checkWanted();
      const group = ordered.slice(first, first + askedAtOnce);
      const answers = await Promise.all(group.map((peer) => this.#ask(peer)));
      found.push(...group.filter((_peer, index) => answers[index] === true));
    }
    return found;
  }

  async #ask(peer: ArtifactPeer): Promise<boolean> {
    const { clock, memory, transfer } = this.#ports;
    const key = JSON.stringify([peer.host, peer.linkAddress, this.#manifest.digest]);
    let remembered = memory.get(key);
    if (remembered === undefined || remembered.untilMs < clock.nowMs()) {
      if (memory.size >= rememberedMax) memory.clear();
      const sha256s = [...new Set(this.#manifest.files.map(({ sha256 }) => sha256))];
      remembered = { untilMs: clock.nowMs() + rememberMs, answer: transfer.holds(peer, sha256s, holdsMsMax) };
      memory.set(key, remembered);
    }
    try {
      const holds = (await remembered.answer).has(this.#file.sha256);
      if (!holds) this.#note(peer, 'it does not hold the file');
      return holds;
    } catch (thrown) {
      memory.delete(key);
      this.#note(peer, messageOf(thrown));
      return false;
    }
  }

  #nobody(): IntarsiaError {
    const { model, version } = this.#manifest;
    const notes = [...this.#notes].slice(0, 4).map(([host, why]) => `${host}: ${why}`);
    const asked = notes.length === 0 ? 'there is no other host' : notes.join('; ');
    return intarsiaError(
      'UNAVAILABLE',
      `no host gives the file ${this.#file.path} of model ${model} version ${version} (${asked})`,
      { model, version, path: this.#file.path, sha256: this.#file.sha256 },
    );
  }

  #note(peer: ArtifactPeer, why: string): void {
    this.#notes.set(peer.host, why);
  }

  #tell(offset: number): void {
    for (const listener of this.#listeners) listener(offset, this.#received);
  }

  #checkWanted(): void {
    if (this.#cancelled !== undefined) throw this.#cancelled;
  }

  #wait(ms: number): Promise<void> {
    const { clock, random } = this.#ports;
    return new Promise((resolve) => {
      const timer = clock.schedule(ms * (0.5 + random.next() / 2), resolve);
      this.#stop = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}
