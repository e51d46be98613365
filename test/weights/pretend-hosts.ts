/** Other hosts with files, in memory: the ArtifactTransfer port with faults, and a source over it. */
import { openArtifactCache } from '#adapters/files/artifact-cache.js';
import { CachedArtifacts } from '#adapters/files/cached-artifacts.js';
import { LocalManifests } from '#adapters/files/local-manifests.js';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { intarsiaError } from '#core/errors.js';
import { PublishedManifests } from '#core/grid/published-manifests.js';
import { hostId } from '#core/ids.js';
import type { ArtifactPeer, ArtifactTransfer, TransferCall, TransferSink } from '#ports/artifact-source.js';
import { RecordingLog } from '../../src/sim/recording-log.js';
import { onTestFinished } from 'vitest';
import { newFolder, type Content } from './weights-folder.js';

export interface PretendHolder {
  readonly files: readonly Content[];
  /** Bytes after which a transfer from it fails. */
  readonly diesAfter?: number;
  /** Flips a bit of every piece. */
  readonly lies?: boolean;
  /** Transfers that it refuses first, because it gives to others. */
  readonly busyTimes?: number;
  readonly peer?: Partial<ArtifactPeer>;
  /** Waits before each piece. */
  readonly gate?: Promise<void>;
}

export interface Fetched {
  readonly host: string;
  readonly sha256: string;
  readonly offset: number;
}

const pieceBytes = 100;

export class PretendHosts implements ArtifactTransfer {
  readonly fetched: Fetched[] = [];
  readonly asked: string[] = [];
  readonly #holders: ReadonlyMap<string, PretendHolder>;
  readonly #refusals = new Map<string, number>();

  constructor(holders: Readonly<Record<string, PretendHolder>>) {
    this.#holders = new Map(Object.entries(holders));
  }

  peers(): readonly ArtifactPeer[] {
    return [...this.#holders].map(([host, { peer }], index) => ({
      host: hostId(host),
      linkAddress: `${host}:1`,
      zone: '',
      sameMachine: false,
      rttMs: 4 ** index,
      serves: true,
      ...peer,
    }));
  }

  holds(peer: ArtifactPeer, sha256s: readonly string[]): Promise<ReadonlySet<string>> {
    this.asked.push(peer.host);
    const held = this.#holders.get(peer.host)?.files.map(({ wanted }) => wanted.sha256) ?? [];
    return Promise.resolve(new Set(held.filter((sha256) => sha256s.includes(sha256))));
  }

  fetch(peer: ArtifactPeer, sha256: string, offset: number, sink: TransferSink): TransferCall {
    this.fetched.push({ host: peer.host, sha256, offset });
    const state = { cancelled: false };
    let stop = (): void => undefined;
    const stopped = new Promise<void>((resolve) => {
      stop = resolve;
    });
    return {
      done: this.#give(peer, sha256, offset, sink, state, stopped),
      cancel: () => {
        state.cancelled = true;
        stop();
      },
    };
  }

  close(): void {
    this.#refusals.clear();
  }

  async #give(
    peer: ArtifactPeer,
    sha256: string,
    from: number,
    sink: TransferSink,
    state: { readonly cancelled: boolean },
    stopped: Promise<void>,
  ): Promise<void> {
    const holder = this.#holders.get(peer.host);
    const file = holder?.files.find(({ wanted }) => wanted.sha256 === sha256);
    if (holder === undefined || file === undefined) throw intarsiaError('NOT_FOUND', 'no such file');
    const refused = this.#refusals.get(peer.host) ?? 0;
    if (refused < (holder.busyTimes ?? 0)) {
      this.#refusals.set(peer.host, refused + 1);
      throw intarsiaError('RESOURCE_EXHAUSTED', 'gives to others');
    }
    for (let offset = from; offset < file.bytes.byteLength; offset += pieceBytes) {
      if (offset - from >= (holder.diesAfter ?? Infinity)) throw intarsiaError('UNAVAILABLE', 'connection lost');
      await Promise.race([holder.gate, stopped]);
      if (state.cancelled) throw intarsiaError('CANCELLED', 'cancelled');
      const piece = Uint8Array.from(file.bytes.subarray(offset, offset + pieceBytes));
      if (holder.lies === true) piece[0] = (piece[0] ?? 0) ^ 1;
      await sink.write(piece);
    }
  }
}

export async function sourceOver(
  hosts: PretendHosts,
  options: { readonly folder?: string; readonly bytesMax?: number; readonly repositories?: readonly string[] } = {},
) {
  const folder = options.folder ?? newFolder();
  const cache = await openArtifactCache({ folder, bytesMax: options.bytesMax ?? 1e6 });
  const published = new PublishedManifests();
  const log = new RecordingLog();
  const clock = new NodeClock();
  const source = new CachedArtifacts({
    cache,
    local: new LocalManifests({ roots: options.repositories ?? [] }),
    published,
    transfer: hosts,
    peers: () => hosts.peers(),
    zone: '',
    clock,
    random: new SeededRandom('weights'),
    log,
  });
  onTestFinished(() => source.close());
  return { source, cache, published, folder, log, clock };
}
