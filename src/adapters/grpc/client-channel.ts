/**
 * A gRPC connection to one endpoint that carries bytes: messages are encoded before and decoded after.
 *
 * It exists so that only this folder names the gRPC library, and so that the hot path has its own codec. Which endpoint a
 * call goes to, retries and the meaning of errors are the client's (src/client). One channel is one HTTP/2 connection,
 * hence one flow-control window: whoever moves large tensors opens several.
 */
import { readFileSync } from 'node:fs';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import type { ChannelCredentials, ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import { intarsiaError, messageOf } from '#core/errors.js';
import { DetachedConnections } from './detached-credentials.js';

export interface ChannelTls {
  /** PEM file of the authority that signed the server's certificate; empty for the system's own list. */
  readonly authorityPath: string;
  /** PEM files of the client's certificate and key, for servers that ask for one. Both empty: none. */
  readonly certificatePath: string;
  readonly keyPath: string;
  /** Name expected in the server's certificate when it differs from the endpoint; empty for the endpoint's. */
  readonly serverName: string;
}

export interface ChannelOptions {
  /** `host:port`, or any target the gRPC library understands. */
  readonly target: string;
  /** Absent: plain text. */
  readonly tls?: ChannelTls;
  /** Bytes of one message, either way; -1 for no limit. */
  readonly messageBytesMax: number;
  /** HTTP/2 receive window of the connection and of each stream, bytes. The library's own default is 64 KiB. */
  readonly windowBytes: number;
  /** Milliseconds after which an attempt to connect is given up and the next one waits. */
  readonly connectBackoffMsMax: number;
}

/** Header names in lower case and their text. */
export type CallMetadata = Readonly<Record<string, string>>;

export interface ChannelCallOptions {
  readonly metadata: CallMetadata;
  /** Moment after which nobody wants the answer, milliseconds since 1970 (gRPC's way); Infinity for none. */
  readonly deadlineWallMs: number;
}

/** How a call failed: gRPC's status number, its message, and the text fields of the trailing metadata. */
export interface CallFailure {
  readonly status: number;
  readonly message: string;
  readonly metadata: CallMetadata;
}

export type CallOutcome =
  { readonly ok: true; readonly message: Uint8Array } | { readonly ok: false; readonly failure: CallFailure };

/** A call on its way. `cancel` makes it end with status CANCELLED, unless it has ended already. */
export interface RunningCall {
  cancel(): void;
}

export interface ChannelStreamListener {
  message(bytes: Uint8Array): void;
  /** The stream takes more after `write` said false. */
  drained(): void;
  /** The last call. `undefined`: the server ended it in good order. */
  end(failure: CallFailure | undefined): void;
}

/** Both directions of a stream of messages. */
export interface ChannelStream extends RunningCall {
  /** False: taken, and please wait for `drained` before the next. */
  write(bytes: Uint8Array): boolean;
  /** Nothing more will be written; what was asked is still answered. */
  finish(): void;
  pause(): void;
  resume(): void;
}

export class GrpcChannel {
  readonly #client: Client;
  readonly #connections = new DetachedConnections();
  #lastMetadata: { readonly fields: CallMetadata; readonly built: Metadata } | undefined;

  constructor(options: ChannelOptions) {
    this.#client = new Client(options.target, this.#connections.under(channelCredentials(options.tls)), {
      'grpc.max_send_message_length': options.messageBytesMax,
      'grpc.max_receive_message_length': options.messageBytesMax,
      'grpc-node.flow_control_window': options.windowBytes,
      // Retries are the client's: it knows other endpoints. The library's own would repeat each attempt once more.
      'grpc.enable_retries': 0,
      // A connection of its own: channels to one endpoint would otherwise share a single one.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': Math.min(100, options.connectBackoffMsMax),
      'grpc.max_reconnect_backoff_ms': options.connectBackoffMsMax,
      'grpc.service_config_disable_resolution': 1,
      'grpc.keepalive_time_ms': 60_000,
      'grpc.keepalive_timeout_ms': 20_000,
      ...(options.tls === undefined || options.tls.serverName === ''
        ? {}
        : {
            'grpc.ssl_target_name_override': options.tls.serverName,
            'grpc.default_authority': options.tls.serverName,
          }),
    });
  }

  /** One request, one answer. `done` is called exactly once, never synchronously. */
  call(
    path: string,
    request: Uint8Array,
    options: ChannelCallOptions,
    done: (outcome: CallOutcome) => void,
  ): RunningCall {
    this.#connections.begin();
    let isCancelled = false;
    const call = this.#client.makeUnaryRequest<Buffer, Buffer>(
      path,
      asIs,
      asIs,
      asBuffer(request),
      this.#metadata(options.metadata),
      { deadline: options.deadlineWallMs },
      (error, message) => {
        this.#connections.end();
        if (error === null && message !== undefined) done({ ok: true, message });
        else done({ ok: false, failure: failureOf(error, isCancelled) });
      },
    );
    return {
      cancel: () => {
        isCancelled = true;
        call.cancel();
      },
    };
  }

  /** A stream of messages both ways; answers go to the listener. */
  stream(path: string, options: ChannelCallOptions, listener: ChannelStreamListener): ChannelStream {
    this.#connections.begin();
    const call: ClientDuplexStream<Buffer, Buffer> = this.#client.makeBidiStreamRequest(
      path,
      asIs,
      asIs,
      this.#metadata(options.metadata),
      { deadline: options.deadlineWallMs },
    );
    let ended = false;
    let isCancelled = false;
    const end = (failure: CallFailure | undefined): void => {
      if (ended) return;
      ended = true;
      this.#connections.end();
      listener.end(failure);
    };
    call.on('data', (message: Buffer) => listener.message(message));
    call.on('drain', () => listener.drained());
    call.on('error', (error: ServiceError) => end(failureOf(error, isCancelled)));
    call.on('end', () => end(undefined));
    return {
      write: (bytes) => call.write(asBuffer(bytes)),
      finish: () => call.end(),
      pause: () => call.pause(),
      resume: () => call.resume(),
      cancel: () => {
        isCancelled = true;
        call.cancel();
      },
    };
  }

  /** Closes the connection; calls in flight still end. */
  close(): void {
    this.#client.close();
  }

  /** Most calls of a client carry the same fields: the library's object is built once for them. */
  #metadata(fields: CallMetadata): Metadata {
    if (this.#lastMetadata?.fields === fields) return this.#lastMetadata.built;
    const built = new Metadata();
    for (const [name, value] of Object.entries(fields)) built.set(name, value);
    this.#lastMetadata = { fields, built };
    return built;
  }
}

/** The same bytes in the library's type, without a copy. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const asIs = (bytes: Buffer): Buffer => bytes;

function channelCredentials(tls: ChannelTls | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  return credentials.createSsl(
    pem('authorityPath', tls.authorityPath),
    pem('keyPath', tls.keyPath),
    pem('certificatePath', tls.certificatePath),
  );
}

function pem(option: string, path: string): Buffer | null {
  if (path === '') return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw intarsiaError('CONFIG_INVALID', `option tls.${option}: ${path} cannot be read: ${messageOf(error)}`, {
      option: `tls.${option}`,
      path,
    });
  }
}

/** What the library says of a stream that was reset with CANCEL, by the other end or, as Node has it, by a connection that went. */
const resetDetails = 'Call cancelled';

/** A call that nobody here cancelled did not end because its caller wanted it: whoever was to answer is gone. */
function failureOf(error: ServiceError | null, isCancelled: boolean): CallFailure {
  if (error === null) return { status: 13, message: 'the call ended without an answer', metadata: {} };
  const metadata: Record<string, string> = {};
  // An error that never became a status (thrown by a serializer, say) has no metadata.
  const trailing = (error as Partial<ServiceError>).metadata?.getMap() ?? {};
  for (const [name, value] of Object.entries(trailing)) if (typeof value === 'string') metadata[name] = value;
  if (error.code === status.CANCELLED && error.details === resetDetails && !isCancelled) {
    return { status: status.UNAVAILABLE, message: 'Connection dropped: the call was reset', metadata };
  }
  return { status: error.code, message: error.details === '' ? error.message : error.details, metadata };
}
