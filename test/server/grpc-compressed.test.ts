/** Compressed requests, which the host inflates by itself: gzip and deflate, bombs, broken ones, unknown encodings, order. */
import { connect, type ClientHttp2Session } from 'node:http2';
import { deflateSync, gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startGrpcServer, type RunningGrpcServer } from '#adapters/grpc/server.js';
import * as gen from '#gen/inference.js';
import { silentLog } from '#ports/log.js';
import { identityRequest } from './grpc-client.js';
import { PretendHost } from './pretend-host.js';

const inferPath = '/inference.GRPCInferenceService/ModelInfer';
const streamPath = '/inference.GRPCInferenceService/ModelStreamInfer';

let server: RunningGrpcServer;
let session: ClientHttp2Session;
beforeEach(async () => {
  server = await startGrpcServer({ ...new PretendHost().serverOptions(), messageBytesMax: 1_000_000, log: silentLog });
  session = connect(`http://127.0.0.1:${server.port}`);
});
afterEach(async () => {
  session.destroy();
  await server.stop(1000);
});

function bytesOf(id: string): Uint8Array {
  return gen.ModelInferRequest.toBinary(gen.ModelInferRequest.create({ ...identityRequest(), id }));
}

function framed(message: Uint8Array, compressed: boolean): Buffer {
  const head = Buffer.alloc(5);
  head[0] = compressed ? 1 : 0;
  head.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([head, message]);
}

interface Ended {
  readonly status: string;
  readonly code: string;
  readonly messages: readonly Uint8Array[];
}

function call(path: string, encoding: string, body: Buffer): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      'grpc-encoding': encoding,
      te: 'trailers',
    });
    const pieces: Buffer[] = [];
    let status = '';
    let code = '';
    const read = (headers: Record<string, unknown>): void => {
      if (headers['grpc-status'] !== undefined) status = headers['grpc-status'] as string;
      if (headers['intarsia-code'] !== undefined) code = headers['intarsia-code'] as string;
    };
    stream.on('response', read);
    stream.on('trailers', read);
    stream.on('data', (piece: Buffer) => pieces.push(piece));
    stream.on('error', reject);
    stream.on('close', () => resolve({ status, code, messages: cut(Buffer.concat(pieces)) }));
    stream.end(body);
  });
}

function cut(bytes: Buffer): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    messages.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

describe('compressed requests', () => {
  it.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
  ] as const)('%s is inflated', async (encoding, compress) => {
    const ended = await call(inferPath, encoding, framed(compress(bytesOf('a')), true));
    expect(ended.status).toBe('0');
    expect(gen.ModelInferResponse.fromBinary(ended.messages[0]!).id).toBe('a');
  });

  it('messages of a stream keep their order, compressed or not', async () => {
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const body = Buffer.concat(
      ids.map((id, index) => (index % 2 === 0 ? framed(gzipSync(bytesOf(id)), true) : framed(bytesOf(id), false))),
    );
    const ended = await call(streamPath, 'gzip', body);
    expect(ended.status).toBe('0');
    expect(ended.messages.map((bytes) => gen.ModelStreamInferResponse.fromBinary(bytes).inferResponse?.id)).toEqual(
      ids,
    );
  });

  it.each([
    ['a bomb', 'gzip', gzipSync(new Uint8Array(2_000_000)), '8', 'REQUEST_TOO_LARGE'],
    ['what is no gzip', 'gzip', Buffer.from('no gzip at all'), '3', 'INVALID_ARGUMENT'],
    ['an encoding nobody knows', 'snappy', Buffer.from('?'), '12', 'UNIMPLEMENTED'],
    ['a compressed message without an encoding', 'identity', Buffer.from('?'), '12', 'UNIMPLEMENTED'],
  ])('%s ends the call, and the host serves on', async (_what, encoding, bytes, status, code) => {
    for (const path of [inferPath, streamPath]) {
      expect(await call(path, encoding, framed(bytes, true))).toMatchObject({ status, code });
    }
    expect((await call(inferPath, 'identity', framed(bytesOf('b'), false))).status).toBe('0');
  });
});

it('a call that ends without a request is refused', async () => {
  expect(await call(inferPath, 'identity', Buffer.alloc(0))).toMatchObject({ status: '3', code: 'INVALID_ARGUMENT' });
});
