/**
 * Gives model files to other hosts: a service of its own on the port of the links. It reads a piece only when the last one
 * was taken, so a slow asker costs one piece of memory, and gives to so many at a time; the next is told to ask elsewhere.
 */
import type {
  sendUnaryData,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { FetchChunk, FetchRequest, HoldsRequest, HoldsResponse } from '#gen/artifacts.js';
import type { ArtifactShelf, GivenFile } from '#ports/artifact-source.js';
import type { Log } from '#ports/log.js';
import { artifactPaths } from './artifact-paths.js';
import type { IncomingCall } from './link-security.js';
import { statusOf, streamErrorOf } from './status.js';

export interface ArtifactServiceOptions {
  readonly shelf: ArtifactShelf;
  readonly log: Log;
  /** Throws when the caller is no host of this grid: LinkSecurity.admit. */
  readonly admit: (call: IncomingCall) => void;
  /** Files given at the same time. 1 to 1,000, default 16. At the bound: RESOURCE_EXHAUSTED, and askers try elsewhere or again. */
  readonly fetchesMax?: number;
  /** Bytes of one piece, default 512 KiB. Higher: fewer messages, other messages of the connection wait longer. */
  readonly chunkBytes?: number;
}

/** What `server.addService` takes. */
export interface AddableService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

const fetchesMaxDefault = 16;
const chunkBytesDefault = 512 * 1024;
const askedMax = 4_096;
const sha256Pattern = /^[0-9a-f]{64}$/;

export function artifactService(options: ArtifactServiceOptions): AddableService {
  const running = { fetches: 0 };
  const holds = (call: ServerUnaryCall<HoldsRequest, HoldsResponse>, callback: sendUnaryData<HoldsResponse>): void => {
    answerHolds(call, options).then(
      (response) => callback(null, response),
      (error: unknown) => callback(statusOf(asIntarsiaError(error))),
    );
  };
  const fetch = (call: ServerWritableStream<FetchRequest, FetchChunk>): void => {
    give(call, options, running).then(
      () => call.end(),
      (error: unknown) => call.emit('error', streamErrorOf(asIntarsiaError(error))),
    );
  };
  return { definition, implementation: { [artifactPaths.holds]: holds, [artifactPaths.fetch]: fetch } };
}

async function answerHolds(
  call: ServerUnaryCall<HoldsRequest, HoldsResponse>,
  { admit, shelf }: ArtifactServiceOptions,
): Promise<HoldsResponse> {
  admit(call);
  const { sha256: asked } = call.request;
  if (asked.length > askedMax) {
    throw intarsiaError('INVALID_ARGUMENT', `${asked.length} files are asked for at once; at most ${askedMax}`);
  }
  const held: string[] = [];
  for (const sha256 of asked) if (sha256Pattern.test(sha256) && (await shelf.holds(sha256))) held.push(sha256);
  return { sha256: held };
}

async function give(
  call: ServerWritableStream<FetchRequest, FetchChunk>,
  options: ArtifactServiceOptions,
  running: { fetches: number },
): Promise<void> {
  options.admit(call);
  const { sha256 } = call.request;
  const offset = Number(call.request.offset);
  if (!sha256Pattern.test(sha256)) throw intarsiaError('INVALID_ARGUMENT', 'a file is asked for by its SHA-256');
  const fetchesMax = options.fetchesMax ?? fetchesMaxDefault;
  if (running.fetches >= fetchesMax) {
    throw intarsiaError('RESOURCE_EXHAUSTED', `this host gives ${fetchesMax} files at a time and does so now`, {
      fetchesMax,
    });
  }
  running.fetches += 1;
  try {
    const file = await options.shelf.open(sha256);
    try {
      if (!Number.isSafeInteger(offset) || offset > file.bytes) {
        throw intarsiaError('INVALID_ARGUMENT', `offset ${offset} is beyond the ${file.bytes} bytes of file ${sha256}`);
      }
      await pump(call, file, offset, options.chunkBytes ?? chunkBytesDefault);
    } finally {
      await file.close();
    }
  } finally {
    running.fetches -= 1;
  }
}

async function pump(
  call: ServerWritableStream<FetchRequest, FetchChunk>,
  file: GivenFile,
  from: number,
  chunkBytes: number,
): Promise<void> {
  await write(call, { fileBytes: BigInt(file.bytes), data: new Uint8Array() });
  for (let offset = from; offset < file.bytes && !call.cancelled;) {
    const data = await file.read(offset, chunkBytes);
    if (data.byteLength === 0) {
      throw intarsiaError('UNAVAILABLE', `file ${call.request.sha256} became shorter while it was given`);
    }
    offset += data.byteLength;
    await write(call, { fileBytes: 0n, data });
  }
}

/** Resolves when the stream takes more, or has ended. */
function write(call: ServerWritableStream<FetchRequest, FetchChunk>, chunk: FetchChunk): Promise<void> {
  if (call.write(chunk) || call.cancelled) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'cancelled', 'close', 'error']) call.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'cancelled', 'close', 'error']) call.on(event, done);
  });
}

const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const definition: ServiceDefinition = {
  [artifactPaths.holds]: {
    path: artifactPaths.holds,
    requestStream: false,
    responseStream: false,
    requestSerialize: (message: HoldsRequest) => toBuffer(HoldsRequest.toBinary(message)),
    requestDeserialize: (bytes: Buffer) => HoldsRequest.fromBinary(bytes),
    responseSerialize: (message: HoldsResponse) => toBuffer(HoldsResponse.toBinary(message)),
    responseDeserialize: (bytes: Buffer) => HoldsResponse.fromBinary(bytes),
  },
  [artifactPaths.fetch]: {
    path: artifactPaths.fetch,
    requestStream: false,
    responseStream: true,
    requestSerialize: (message: FetchRequest) => toBuffer(FetchRequest.toBinary(message)),
    requestDeserialize: (bytes: Buffer) => FetchRequest.fromBinary(bytes),
    responseSerialize: (message: FetchChunk) => toBuffer(FetchChunk.toBinary(message)),
    responseDeserialize: (bytes: Buffer) => FetchChunk.fromBinary(bytes),
  },
};
