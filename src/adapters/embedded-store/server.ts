/**
 * The embedded store: one node that speaks enough of etcd's v3 API for etcdctl and the same client as for etcd. It leaves
 * to others: who starts it again when it dies, and being more than one.
 */
import { randomBytes } from 'node:crypto';
import { Metadata, Server, ServerCredentials, status as grpcCodes } from '@grpc/grpc-js';
import type {
  sendUnaryData,
  ServerDuplexStream,
  ServerUnaryCall,
  ServiceDefinition,
  StatusObject,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { IntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import type { StoreLimits } from '#core/store/machine.js';
import { StoreRefusal } from '#core/store/requests.js';
import { LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchRequest, WatchResponse } from '#gen/etcd.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Log } from '#ports/log.js';
import { DurableStore } from './durable-store.js';
import { claimFolder } from './folder-claim.js';
import { headerAt, isSecret, unaryServices } from './services.js';
import type { UnaryService } from './services.js';
import { WatchStream } from './watch-stream.js';

export interface EmbeddedStoreOptions {
  /** Where its file lives; made when absent. One process at a time. */
  readonly folder: string;
  /** Address to listen on, such as 127.0.0.1. */
  readonly bindAddress: string;
  /** 0 chooses a free one. */
  readonly port: number;
  readonly clock: Clock;
  readonly log: Log;
  /** PEM texts; absent: plain text. `authority` set: clients must show a certificate of it. */
  readonly tls?: { readonly certificate: string; readonly key: string; readonly authority?: string };
  /** Clients must authenticate with this password, whatever their user name. Absent: nobody must. */
  readonly token?: string;
  readonly limits?: Partial<StoreLimits>;
  /** Growth of the file after which it begins again with a snapshot, bytes, default 64 MiB. */
  readonly logBytesMax?: number;
  /** Between progress notices of quiet watches that asked for them, ms, default 10,000. */
  readonly progressMs?: number;
  /** The disk failed: the store has ended, and its process should. */
  readonly onFatal: (error: unknown) => void;
}

export interface EmbeddedStore {
  /** `address:port` */
  readonly address: string;
  readonly port: number;
  /** Ends all streams, writes down what waits, closes the file. */
  stop(): Promise<void>;
}

/** Bytes of one message: etcd's limit of 1.5 MiB for a request, and the room that 128 values of a transaction need. */
const messageBytesMax = 160 * 1_048_576;
const callsPerConnectionMax = 4096;

/** @throws FAILED_PRECONDITION for a damaged or used folder, CONFIG_INVALID for an address that cannot be listened on */
export async function startEmbeddedStore(options: EmbeddedStoreOptions): Promise<EmbeddedStore> {
  const claim = await claimFolder(options.folder);
  try {
    const store = await DurableStore.open({
      folder: options.folder,
      clock: options.clock,
      log: options.log,
      limits: options.limits ?? {},
      logBytesMax: options.logBytesMax ?? 64 * 1_048_576,
      newCluster: () => randomBytes(8).readBigUInt64BE().toString(),
      onFatal: options.onFatal,
    });
    const running = new StoreServer(options, store);
    const port = await running.listen().catch(async (error: unknown) => {
      await store.close();
      throw error;
    });
    return {
      address: `${options.bindAddress}:${port}`,
      port,
      stop: async () => {
        await running.stop();
        await claim.release();
      },
    };
  } catch (error) {
    await claim.release();
    throw error;
  }
}

class StoreServer {
  private readonly options: EmbeddedStoreOptions;
  private readonly store: DurableStore;
  private readonly session = randomBytes(24).toString('base64url');
  private readonly watches = new Set<WatchStream>();
  private readonly server: Server;
  private port = 0;
  private progress: Timer | undefined;

  constructor(options: EmbeddedStoreOptions, store: DurableStore) {
    this.options = options;
    this.store = store;
    this.server = new Server({
      'grpc.max_receive_message_length': messageBytesMax,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': callsPerConnectionMax,
    });
    const definition: Record<string, ServiceDefinition[string]> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const service of this.services()) {
      definition[service.path] = {
        path: service.path,
        requestStream: false,
        responseStream: false,
        requestDeserialize: (bytes: Buffer) => service.request.fromBinary(bytes),
        requestSerialize: (message: unknown) => Buffer.from(service.request.toBinary(message)),
        responseSerialize: (message: unknown) => Buffer.from(service.response.toBinary(message)),
        responseDeserialize: (bytes: Buffer) => service.response.fromBinary(bytes),
      };
      implementation[service.path] = (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>) =>
        this.answer(service, call, answer);
    }
    definition[watchPath] = duplex(watchPath, WatchRequest, WatchResponse);
    implementation[watchPath] = (call: ServerDuplexStream<WatchRequest, WatchResponse>) => this.watch(call);
    definition[keepAlivePath] = duplex(keepAlivePath, LeaseKeepAliveRequest, LeaseKeepAliveResponse);
    implementation[keepAlivePath] = (call: ServerDuplexStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>) =>
      this.keepAlive(call);
    this.server.addService(definition, implementation);
    store.onDurable(() => {
      for (const watch of this.watches) watch.pump();
    });
    this.planProgress();
  }

  listen(): Promise<number> {
    const { bindAddress, port, tls } = this.options;
    const credentials =
      tls === undefined
        ? ServerCredentials.createInsecure()
        : ServerCredentials.createSsl(
            tls.authority === undefined ? null : Buffer.from(tls.authority),
            [{ cert_chain: Buffer.from(tls.certificate), private_key: Buffer.from(tls.key) }],
            tls.authority !== undefined,
          );
    return new Promise((resolve, reject) => {
      const host = bindAddress.includes(':') ? `[${bindAddress}]` : bindAddress;
      this.server.bindAsync(`${host}:${port}`, credentials, (error, bound) => {
        if (error !== null) {
          const message = `the store cannot listen on ${host}:${port}: ${messageOf(error)}`;
          reject(intarsiaError('CONFIG_INVALID', message, { bindAddress, port }, error));
          return;
        }
        this.port = bound;
        resolve(bound);
      });
    });
  }

  async stop(): Promise<void> {
    this.progress?.cancel();
    for (const watch of this.watches) watch.end();
    this.watches.clear();
    this.server.forceShutdown();
    await this.store.close();
  }

  private services(): UnaryService[] {
    const { bindAddress, tls, token, clock } = this.options;
    return unaryServices({
      store: this.store,
      clientUrl: () => `${tls === undefined ? 'http' : 'https'}://${bindAddress}:${this.port}`,
      nowMs: () => clock.nowMs(),
      token,
      session: this.session,
    });
  }

  private answer(service: UnaryService, call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>): void {
    const refusal = service.open ? undefined : this.refusalOf(call.metadata);
    if (refusal !== undefined) {
      answer(statusOf(refusal));
      return;
    }
    service.handle(call.request).then(
      (response) => answer(null, response),
      (error: unknown) => {
        if (!(error instanceof StoreRefusal)) {
          this.options.log.error('a call of the store failed', { path: service.path, reason: messageOf(error) });
        }
        answer(statusOf(error));
      },
    );
  }

  private watch(call: ServerDuplexStream<WatchRequest, WatchResponse>): void {
    if (this.refuses(call)) return;
    const stream = new WatchStream(call, this.store, (revision) => headerAt(this.store, revision));
    this.watches.add(stream);
    this.onEnd(call, () => {
      stream.end();
      this.watches.delete(stream);
    });
  }

  private keepAlive(call: ServerDuplexStream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>): void {
    if (this.refuses(call)) return;
    call.on('data', ({ id }: LeaseKeepAliveRequest) => {
      const { machine, durableRevision } = this.store;
      // As etcd: a lease that is not there gets no time.
      const ttl = machine.hasLease(id) ? machine.keepAlive(id, this.options.clock.nowMs()) : 0;
      if (!call.write({ header: headerAt(this.store, durableRevision), id, ttl })) {
        call.pause();
        call.once('drain', () => call.resume());
      }
    });
    this.onEnd(call, () => {});
  }

  private onEnd<Request, Response>(call: ServerDuplexStream<Request, Response>, ended: () => void): void {
    call.on('end', () => {
      ended();
      call.end();
    });
    call.on('cancelled', ended);
    call.on('error', ended);
  }

  private refuses<Request, Response>(call: ServerDuplexStream<Request, Response>): boolean {
    const refusal = this.refusalOf(call.metadata);
    if (refusal !== undefined) call.emit('error', statusOf(refusal));
    return refusal !== undefined;
  }

  private refusalOf(metadata: Metadata): StoreRefusal | undefined {
    if (this.options.token === undefined) return undefined;
    const sent = metadata.get('token')[0] ?? metadata.get('authorization')[0];
    if (sent === undefined) return new StoreRefusal('INVALID_ARGUMENT', 'user name is empty');
    return isSecret(String(sent), this.session) ? undefined : new StoreRefusal('UNAUTHENTICATED', 'invalid auth token');
  }

  private planProgress(): void {
    this.progress = this.options.clock.schedule(this.options.progressMs ?? 10_000, () => {
      for (const watch of this.watches) watch.notifyProgress();
      this.planProgress();
    });
  }
}

const watchPath = '/etcdserverpb.Watch/Watch';
const keepAlivePath = '/etcdserverpb.Lease/LeaseKeepAlive';

interface MessageType<Message> {
  fromBinary(bytes: Uint8Array): Message;
  toBinary(message: Message): Uint8Array;
}

function duplex<Request, Response>(
  path: string,
  request: MessageType<Request>,
  response: MessageType<Response>,
): ServiceDefinition[string] {
  return {
    path,
    requestStream: true,
    responseStream: true,
    requestDeserialize: (bytes: Buffer) => request.fromBinary(bytes),
    requestSerialize: (message: unknown) => Buffer.from(request.toBinary(message as Request)),
    responseSerialize: (message: unknown) => Buffer.from(response.toBinary(message as Response)),
    responseDeserialize: (bytes: Buffer) => response.fromBinary(bytes),
  };
}

function statusOf(error: unknown): Partial<StatusObject> & { readonly name: string; readonly message: string } {
  const code =
    error instanceof StoreRefusal
      ? grpcCodes[error.status]
      : error instanceof IntarsiaError
        ? grpcCodes.FAILED_PRECONDITION
        : grpcCodes.INTERNAL;
  const message = messageOf(error);
  return { name: 'Error', message, code, details: message, metadata: new Metadata() };
}
