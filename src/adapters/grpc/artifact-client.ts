/**
 * Asks other hosts for model files: the ArtifactTransfer port over gRPC. One connection a host, of its own, so that
 * weights do not stand in the way of requests; given up when nothing was asked of it for a while.
 */
import { Client, type ClientReadableStream, status as Status, type ServiceError } from '@grpc/grpc-js';
import { errorCatalogue, intarsiaError, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import { formatMs, MiB } from '#core/units.js';
import { FetchChunk, FetchRequest, HoldsRequest, HoldsResponse } from '#gen/artifacts.js';
import type { ArtifactPeer, ArtifactTransfer, TransferCall, TransferSink } from '#ports/artifact-source.js';
import { artifactPaths } from './artifact-paths.js';
import { certificateFailure, type LinkSecurity } from './link-security.js';

export interface ArtifactTransferOptions {
  readonly security: LinkSecurity;
  /** Milliseconds without a byte after which a holder counts as gone, default 15,000. */
  readonly idleMsMax?: number;
  /** Milliseconds after which an unused connection is closed, default 60,000. */
  readonly unusedMsMax?: number;
}

const idleMsMaxDefault = 15_000;
const unusedMsMaxDefault = 60_000;
const messageBytesMax = 16 * MiB;
const windowBytes = 16 * MiB;

interface Connection {
  readonly client: Client;
  calls: number;
  timer: NodeJS.Timeout | undefined;
}

const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export function artifactTransfer(options: ArtifactTransferOptions): ArtifactTransfer {
  return new GrpcArtifactTransfer(options);
}

class GrpcArtifactTransfer implements ArtifactTransfer {
  readonly #options: ArtifactTransferOptions;
  /** By host and address: a host that comes back elsewhere is another connection. */
  readonly #connections = new Map<string, Connection>();
  #isClosed = false;

  constructor(options: ArtifactTransferOptions) {
    this.#options = options;
  }

  async holds(peer: ArtifactPeer, sha256s: readonly string[], timeoutMs: number): Promise<ReadonlySet<string>> {
    const connection = this.#connect(peer);
    try {
      return await new Promise((resolve, reject) => {
        connection.client.makeUnaryRequest<HoldsRequest, HoldsResponse>(
          artifactPaths.holds,
          (message) => toBuffer(HoldsRequest.toBinary(message)),
          (bytes) => HoldsResponse.fromBinary(bytes),
          { sha256: [...sha256s] },
          this.#options.security.callMetadata(),
          { deadline: Date.now() + timeoutMs },
          (error, response) => {
            if (error === null && response !== undefined) resolve(new Set(response.sha256));
            else reject(failureOf(peer, error));
          },
        );
      });
    } finally {
      this.#leave(connection, peer);
    }
  }

  fetch(peer: ArtifactPeer, sha256: string, offset: number, sink: TransferSink): TransferCall {
    const connection = this.#connect(peer);
    const call = connection.client.makeServerStreamRequest<FetchRequest, FetchChunk>(
      artifactPaths.fetch,
      (message) => toBuffer(FetchRequest.toBinary(message)),
      (bytes) => FetchChunk.fromBinary(bytes),
      { sha256, offset: BigInt(offset) },
      this.#options.security.callMetadata(),
      // It ends by silence, not by a moment: a large file over a slow line takes what it takes.
      { deadline: Infinity },
    );
    const done = this.#receive(call, peer, sink).finally(() => this.#leave(connection, peer));
    return { done, cancel: () => call.cancel() };
  }

  close(): void {
    this.#isClosed = true;
    for (const { client, timer } of this.#connections.values()) {
      clearTimeout(timer);
      client.close();
    }
    this.#connections.clear();
  }

  async #receive(call: ClientReadableStream<FetchChunk>, peer: ArtifactPeer, sink: TransferSink): Promise<void> {
    const idleMsMax = this.#options.idleMsMax ?? idleMsMaxDefault;
    const silence = { met: false };
    let timer: NodeJS.Timeout | undefined;
    const watch = (): void => {
      timer = setTimeout(() => {
        silence.met = true;
        call.cancel();
      }, idleMsMax);
    };
    try {
      watch();
      // The stream is read no further while the sink writes: that is what holds the sender back.
      for await (const { data } of call as AsyncIterable<FetchChunk>) {
        clearTimeout(timer);
        if (data.byteLength > 0) await sink.write(data);
        watch();
      }
    } catch (thrown) {
      call.cancel();
      if (silence.met) {
        throw intarsiaError('UNAVAILABLE', `host ${peer.host} has sent nothing for ${formatMs(idleMsMax)}`, {
          host: peer.host,
          idleMsMax,
        });
      }
      throw isServiceError(thrown) ? failureOf(peer, thrown) : thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  #connect(peer: ArtifactPeer): Connection {
    if (this.#isClosed) throw intarsiaError('CANCELLED', 'this host is stopping');
    const key = keyOf(peer);
    let connection = this.#connections.get(key);
    if (connection === undefined) {
      const { security } = this.#options;
      const client = new Client(peer.linkAddress, security.channelCredentials(peer.host), {
        ...security.channelOptions(peer.host),
        'grpc.max_receive_message_length': messageBytesMax,
        'grpc-node.flow_control_window': windowBytes,
        'grpc.enable_retries': 0,
        'grpc.use_local_subchannel_pool': 1,
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 2_000,
        'grpc.service_config_disable_resolution': 1,
        'grpc.keepalive_time_ms': 10_000,
        'grpc.keepalive_timeout_ms': 5_000,
      });
      connection = { client, calls: 0, timer: undefined };
      this.#connections.set(key, connection);
    }
    clearTimeout(connection.timer);
    connection.calls += 1;
    return connection;
  }

  #leave(connection: Connection, peer: ArtifactPeer): void {
    connection.calls -= 1;
    if (connection.calls > 0 || this.#isClosed) return;
    connection.timer = setTimeout(() => {
      connection.client.close();
      this.#connections.delete(keyOf(peer));
    }, this.#options.unusedMsMax ?? unusedMsMaxDefault);
    connection.timer.unref();
  }
}

function keyOf({ host, linkAddress }: ArtifactPeer): string {
  return JSON.stringify([host, linkAddress]);
}

function isServiceError(thrown: unknown): thrown is ServiceError {
  return thrown instanceof Error && 'details' in thrown && 'code' in thrown && typeof thrown.code === 'number';
}

function failureOf(peer: ArtifactPeer, error: ServiceError | null): IntarsiaError {
  if (error === null) return intarsiaError('UNAVAILABLE', `host ${peer.host} gave no answer`);
  const refused = certificateFailure(peer.host, error);
  if (refused !== undefined) return refused;
  // An error that never became a status has no metadata.
  const [told] = (error as Partial<ServiceError>).metadata?.get('intarsia-code') ?? [];
  const code =
    typeof told === 'string' && Object.hasOwn(errorCatalogue, told) ? (told as ErrorCode) : codeOf(error.code);
  // What is full over there is not full here.
  const meant = code === 'STORAGE_FULL' ? 'UNAVAILABLE' : code;
  return intarsiaError(meant, `host ${peer.host} (${peer.linkAddress}): ${error.details}`, { host: peer.host }, error);
}

function codeOf(status: Status): ErrorCode {
  if (status === Status.DEADLINE_EXCEEDED) return 'DEADLINE_EXCEEDED';
  if (status === Status.CANCELLED) return 'CANCELLED';
  if (status === Status.RESOURCE_EXHAUSTED) return 'RESOURCE_EXHAUSTED';
  return 'UNAVAILABLE';
}
