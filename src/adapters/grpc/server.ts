/**
 * The gRPC port: the inference service, MLServer's model control, health and reflection, bound to handlers that know
 * nothing of gRPC. It owns sockets, limits, TLS and the translation of errors; what requests mean is src/server's.
 *
 * The gRPC library serves everything but the two methods that carry the load (infer-call.ts).
 */
import { readFileSync } from 'node:fs';
import {
  Server,
  ServerCredentials,
  setLogger,
  type sendUnaryData,
  type ServerOptions,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { BufferPool } from '#core/buffer-pool.js';
import { asIntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import type { GridAdmin } from '#ports/grid-admin.js';
import type { Allocate } from '#core/frame.js';
import type { Log } from '#ports/log.js';
import { headerOf, monotonicDeadline, type GrpcContext } from './context.js';
import { tuneHttp2, type Http2Control } from './flow-control.js';
import {
  gridUnaryMethods,
  handleGridUnary,
  handlePrepareSplit,
  handleWatchEvents,
  handleWatchHosts,
  prepareSplitPath,
  watchEventsPath,
  watchHostsPath,
} from './grid-methods.js';
import { handleHealthCheck, handleHealthWatch, healthCheckPath, healthWatchPath, type GrpcHealth } from './health.js';
import { InferCall } from './infer-call.js';
import { handleInfer } from './infer-handlers.js';
import { handleStreamInfer } from './infer-stream.js';
import { inferPath, streamInferPath, unaryMethods, type GrpcServices, type UnaryMethod } from './methods.js';
import { ReceiveWatch } from './receive-watch.js';
import { addReflection, reflectionPaths } from './reflection.js';
import { statusOf } from './status.js';

export interface GrpcServerOptions extends GrpcContext {
  readonly services: GrpcServices;
  readonly health: GrpcHealth;
  /** The grid the host is part of; absent: the grid's service is not offered. */
  readonly grid?: GridAdmin;
  readonly log: Log;
  /** Address to listen on; port 0 chooses a free one. */
  readonly bindAddress: string;
  readonly port: number;
  /** PEM files; absent: plain text. */
  readonly tls?: {
    readonly certificatePath: string;
    readonly keyPath: string;
    /** Set: clients must show a certificate of this authority. */
    readonly clientAuthorityPath: string;
  };
  /** Bytes of one message, either way. */
  readonly messageBytesMax: number;
  readonly connectionsMax: number;
  readonly headerBytesMax: number;
  /** Milliseconds a client may take for a request: this long, and again for every 64 KiB it has sent. Default 30,000. */
  readonly receiveMsMax?: number;
  /** Calls of one connection at once; further ones wait at the client. Default 1,024. */
  readonly callsPerConnectionMax?: number;
  /** Requests of one ModelStreamInfer in flight; then the stream is not read until one is answered. Default 256. */
  readonly requestsPerStreamMax?: number;
  /** HTTP/2 receive window of each connection and stream, bytes. Default 16 MiB. Higher: large tensors flow faster, more memory a connection. */
  readonly windowBytes?: number;
}

export interface RunningGrpcServer {
  readonly port: number;
  /** Takes no new calls, waits up to `graceMs` for those under way, then ends them. */
  stop(graceMs: number): Promise<void>;
}

const callsPerConnectionMaxDefault = 1024;
const requestsPerStreamMaxDefault = 256;
const windowBytesDefault = 16 * 1024 * 1024;
const frameBytesMax = 1024 * 1024;
const receiveMsMaxDefault = 30_000;
/** Longer requests are rare, and their memory is better given back. */
const pooledBytesMax = 8 * 1024 * 1024;
const allocate: Allocate = (bytes) => {
  if (bytes > readBytes) keepFreedMemory();
  return new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);
};
/** HTTP/2 of Node copies all it reads into pieces of at most this size, each of them fresh. */
const readBytes = 64 * 1024;
const keptBytes = 32 * 1024 * 1024;
let isMemoryKept = false;

/**
 * glibc gives the end of its memory back to the system as soon as 128 KiB of it are free, and gets it again page by page:
 * a tenth of the time that a tensor of 600 KB takes. What has once been mapped and is freed teaches it to keep twice as
 * much, which is why this buffer is made, never touched and left to the garbage collector. Other systems are not concerned.
 */
function keepFreedMemory(): void {
  if (isMemoryKept) return;
  isMemoryKept = true;
  Buffer.allocUnsafeSlow(keptBytes / 2);
}
/** A silent connection is asked whether it lives after this long, ms, and closed when it does not answer in time. */
const keepaliveMs = 60_000;
const keepaliveTimeoutMs = 20_000;
const streamingPaths: ReadonlySet<string> = new Set([streamInferPath, ...reflectionPaths]);

/** @throws CONFIG_INVALID when a TLS file cannot be used, FAILED_PRECONDITION when the port cannot be opened. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<RunningGrpcServer> {
  const receiveMsMax = options.receiveMsMax ?? receiveMsMaxDefault;
  const limits: ServerOptions = {
    'grpc.max_receive_message_length': options.messageBytesMax,
    'grpc.max_send_message_length': options.messageBytesMax,
    'grpc.max_concurrent_streams': options.callsPerConnectionMax ?? callsPerConnectionMaxDefault,
    'grpc.keepalive_time_ms': Math.min(keepaliveMs, receiveMsMax * 2),
    'grpc.keepalive_timeout_ms': Math.min(keepaliveTimeoutMs, receiveMsMax),
    'grpc.enable_channelz': 0,
  };
  setLogger(libraryLog(options.log));
  const server = new Server(limits);
  server.addService(definition(options), implementation(options));
  addReflection(server);
  const port = await listen(server, options);
  const incoming = new ReceiveWatch({
    messageBytesMax: options.messageBytesMax,
    receiveMsMax,
    admits: (bytes) => options.gateway.admits(bytes),
  });
  const memory = new BufferPool({ bytesMax: pooledBytesMax, freeBytesMax: 2 * pooledBytesMax, allocate });
  const callOptions = { messageBytesMax: options.messageBytesMax, memory };
  const streamOptions = { requestsMax: options.requestsPerStreamMax ?? requestsPerStreamMaxDefault };
  const http2 = tuneHttp2(
    server,
    {
      windowBytes: options.windowBytes ?? windowBytesDefault,
      frameBytesMax,
      headerBytesMax: options.headerBytesMax,
      connectionsMax: options.connectionsMax,
      receiveMsMax,
      onStream: (stream, path) => incoming.watch(stream, !streamingPaths.has(path)),
      serve: {
        [inferPath]: (stream, headers) => handleInfer(options, new InferCall(stream, headers, callOptions)),
        [streamInferPath]: (stream, headers) =>
          handleStreamInfer(options, streamOptions, new InferCall(stream, headers, callOptions)),
      },
    },
    options.log,
  );
  return {
    port,
    stop: async (graceMs) => {
      await stop(server, http2, graceMs);
      incoming.close();
    },
  };
}

/** What the library would print on the console: failures reach whoever awaits them anyway. */
function libraryLog(log: Log): Partial<Console> {
  const write = (...words: unknown[]): void => log.debug('gRPC library', { text: words.map(String).join(' ') });
  return { error: write, info: write, debug: write };
}

const passBuffer = (bytes: Buffer): Buffer => bytes;

/** All methods that the library serves in one definition: it tells them apart by path. */
function definition({ grid }: GrpcServerOptions): ServiceDefinition {
  const shape = (path: string, responseStream: boolean) => ({
    path,
    requestStream: false,
    responseStream,
    requestSerialize: passBuffer,
    requestDeserialize: passBuffer,
    responseSerialize: passBuffer,
    responseDeserialize: passBuffer,
  });
  return Object.fromEntries([
    ...unaryMethods.map(({ path }) => [path, shape(path, false)]),
    [healthCheckPath, shape(healthCheckPath, false)],
    [healthWatchPath, shape(healthWatchPath, true)],
    ...(grid === undefined
      ? []
      : [
          ...gridUnaryMethods.map(({ path }) => [path, shape(path, false)]),
          [watchHostsPath, shape(watchHostsPath, true)],
          [watchEventsPath, shape(watchEventsPath, true)],
          [prepareSplitPath, shape(prepareSplitPath, true)],
        ]),
  ]) as ServiceDefinition;
}

type UnaryHandler = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;

function implementation(options: GrpcServerOptions) {
  return {
    ...Object.fromEntries(unaryMethods.map((method) => [method.path, unaryHandler(method, options)])),
    [healthCheckPath]: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) =>
      handleHealthCheck(options, options.health, call, callback),
    [healthWatchPath]: (call: ServerWritableStream<Buffer, Buffer>) => handleHealthWatch(options, options.health, call),
    ...(options.grid === undefined ? {} : gridImplementation(options, options.grid)),
  };
}

function gridImplementation(options: GrpcServerOptions, grid: GridAdmin) {
  return {
    ...Object.fromEntries(gridUnaryMethods.map((method) => [method.path, handleGridUnary(options, grid, method)])),
    [watchHostsPath]: (call: ServerWritableStream<Buffer, Buffer>) => handleWatchHosts(options, grid, call),
    [watchEventsPath]: (call: ServerWritableStream<Buffer, Buffer>) => handleWatchEvents(options, grid, call),
    [prepareSplitPath]: (call: ServerWritableStream<Buffer, Buffer>) => handlePrepareSplit(options, grid, call),
  };
}

function unaryHandler(method: UnaryMethod, options: GrpcServerOptions): UnaryHandler {
  const answer = async (call: ServerUnaryCall<Buffer, Buffer>): Promise<Buffer> => {
    const caller = options.access.authorize(method.group, 'grpc', (name) => headerOf(call.metadata, name));
    const deadlineMs = monotonicDeadline(options, call.getDeadline());
    const bytes = await method.answer(options.services, call.request, { caller, deadlineMs });
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  return (call, callback) => {
    answer(call).then(
      (bytes) => callback(null, bytes),
      (error: unknown) => callback(statusOf(asIntarsiaError(error))),
    );
  };
}

function listen(server: Server, options: GrpcServerOptions): Promise<number> {
  const host = options.bindAddress.includes(':') ? `[${options.bindAddress}]` : options.bindAddress;
  const address = `${host}:${options.port}`;
  const credentials = credentialsOf(options);
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error === null) resolve(port);
      else {
        reject(
          intarsiaError(
            'FAILED_PRECONDITION',
            `the gRPC port ${address} cannot be opened: ${error.message}. Another program may use it; choose another with --grpc-port`,
            { port: options.port },
            error,
          ),
        );
      }
    });
  });
}

function credentialsOf({ tls }: GrpcServerOptions): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const read = (option: string, path: string): Buffer => {
    try {
      return readFileSync(path);
    } catch (error) {
      throw intarsiaError('CONFIG_INVALID', `${option} cannot be read: ${messageOf(error)}`, { option }, error);
    }
  };
  const mutual = tls.clientAuthorityPath !== '';
  try {
    return ServerCredentials.createSsl(
      mutual ? read('tls.clientAuthorityPath', tls.clientAuthorityPath) : null,
      [
        {
          cert_chain: read('tls.certificatePath', tls.certificatePath),
          private_key: read('tls.keyPath', tls.keyPath),
        },
      ],
      mutual,
    );
  } catch (error) {
    const known = asIntarsiaError(error);
    if (known.code === 'CONFIG_INVALID') throw known;
    throw intarsiaError('CONFIG_INVALID', `the TLS files cannot be used: ${known.message}`, {}, error);
  }
}

function stop(server: Server, http2: Http2Control, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      server.forceShutdown();
      http2.destroyConnections();
    }, graceMs);
    server.tryShutdown(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
