import { once } from 'node:events';
import { connect as connectHttp2, constants, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { startGrpcServer, type GrpcServerOptions, type RunningGrpcServer } from '#adapters/grpc/server.js';
import * as gen from '#gen/inference.js';
import { silentLog } from '#ports/log.js';
import { identityRequest, TestClient } from './grpc-client.js';
import { PretendHost } from './pretend-host.js';

const inferPath = '/inference.GRPCInferenceService/ModelInfer';
const streamPath = '/inference.GRPCInferenceService/ModelStreamInfer';
const receiveMsMax = 200;

let host: PretendHost;
let servers: RunningGrpcServer[];
let sessions: ClientHttp2Session[];
beforeEach(() => {
  host = new PretendHost();
  servers = [];
  sessions = [];
});
afterEach(async () => {
  for (const session of sessions) session.destroy();
  await Promise.all(servers.map((server) => server.stop(100)));
});

async function start(options: Partial<GrpcServerOptions> = {}): Promise<RunningGrpcServer> {
  const server = await startGrpcServer({ ...host.serverOptions(), receiveMsMax, log: silentLog, ...options });
  servers.push(server);
  return server;
}

function open(server: RunningGrpcServer, path: string): { session: ClientHttp2Session; stream: ClientHttp2Stream } {
  const session = connectHttp2(`http://127.0.0.1:${server.port}`);
  session.on('error', () => {});
  sessions.push(session);
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => {});
  stream.resume();
  return { session, stream };
}

/** Head of a message, and as much of it as is there. */
function framed(message: Uint8Array, length = message.byteLength): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** How the server ended a call: status, our code and message. */
async function endOf(stream: ClientHttp2Stream): Promise<{ status: string; code: string; message: string }> {
  const headers = await new Promise<Record<string, unknown>>((resolve) => {
    stream.once('response', resolve);
    stream.once('close', () => resolve({ 'grpc-status': `reset ${stream.rstCode}` }));
  });
  return {
    status: String(headers['grpc-status']),
    code: String(headers['intarsia-code']),
    message: decodeURI(String(headers['grpc-message'])),
  };
}

/** Resolves when the call is over, whatever its end. */
function closed(stream: ClientHttp2Stream): Promise<void> {
  return new Promise((resolve) => stream.once('close', resolve));
}

async function expectServed(server: RunningGrpcServer): Promise<void> {
  const client = new TestClient(server.port);
  await expect(client.infer(identityRequest())).resolves.toBeDefined();
  client.close();
}

const request = gen.ModelInferRequest.toBinary(gen.ModelInferRequest.create(identityRequest()));

describe('requests that arrive badly', () => {
  it.each([
    ['never comes', Buffer.alloc(0)],
    ['stops in its head', Buffer.from([0, 0, 0])],
    ['stops in its body', framed(request.subarray(0, 10), request.byteLength)],
  ])('a request that %s is ended (slow-loris), the others are not', async (_how, bytes) => {
    const server = await start();
    const { stream } = open(server, inferPath);
    if (bytes.byteLength > 0) stream.write(bytes);
    expect(await endOf(stream)).toMatchObject({
      status: '4',
      code: 'DEADLINE_EXCEEDED',
      message: expect.stringMatching(/arrives too slowly: \d+ bytes in \d+ ms/) as string,
    });
    await expectServed(server);
  });

  it('a request that waits for its device is not taken for one that does not arrive', async () => {
    const server = await start();
    host.devices.cpu.behaviour = 'hold';
    const client = new TestClient(server.port);
    const flight = client.infer(identityRequest());
    await host.devices.cpu.arrived(1);
    // Another one proves that the watch has gone round meanwhile.
    expect((await endOf(open(server, inferPath).stream)).status).toBe('4');
    expect((await endOf(open(server, inferPath).stream)).status).toBe('4');
    host.devices.cpu.release();
    await expect(flight).resolves.toBeDefined();
    client.close();
  });

  it('silence between the messages of a stream is allowed, silence in the middle of one is not', async () => {
    const server = await start();
    const client = new TestClient(server.port);
    const silent = client.stream();
    silent.on('error', () => {});
    silent.write(request);
    await once(silent, 'data');
    const { stream } = open(server, streamPath);
    stream.write(framed(request));
    stream.write(framed(request.subarray(0, 10), request.byteLength));
    await closed(stream);
    expect(stream.rstCode).toBe(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    silent.write(request);
    await once(silent, 'data');
    silent.cancel();
    client.close();
  });

  it('a connection that does not speak HTTP/2 is closed', async () => {
    const server = await start();
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    await once(socket, 'close');
    await expectServed(server);
  });

  it('a message of 2 GiB is refused by its announced length, and what still comes of it is not kept', async () => {
    const server = await start({ messageBytesMax: 2 ** 31 - 1 });
    const { stream } = open(server, inferPath);
    stream.write(framed(new Uint8Array(10), 2 ** 31));
    expect(await endOf(stream)).toMatchObject({
      status: '8',
      code: 'REQUEST_TOO_LARGE',
      message: 'a request may have 2 GiB; this one has 2 GiB',
    });
    await closed(stream);
    await expectServed(server);
  });

  it('messages that would not fit beside those that arrive are refused before their bytes come', async () => {
    host = new PretendHost({ bytesInFlightMax: 1_000_000 });
    const server = await start({ receiveMsMax: 60_000 });
    const first = open(server, inferPath);
    first.stream.write(framed(new Uint8Array(10), 600_000));
    await once(first.session, 'remoteSettings');
    const second = open(server, streamPath);
    second.stream.write(framed(new Uint8Array(10), 600_000));
    expect(await endOf(second.stream)).toMatchObject({ status: '8', code: 'RESOURCE_EXHAUSTED' });
    first.stream.close();
    await closed(first.stream);
    const third = open(server, streamPath);
    third.stream.end(framed(new Uint8Array(600_000)));
    // Not refused: it arrives, and turns out to be no request.
    expect((await endOf(third.stream)).code).not.toBe('RESOURCE_EXHAUSTED');
    await expectServed(server);
  });

  it('however a stream is cut into pieces, its messages are the same', async () => {
    const server = await start({ receiveMsMax: 60_000 });
    const messages = [identityRequest(), { ...identityRequest(), id: 'b' }, {}].map((message) =>
      gen.ModelInferRequest.toBinary(gen.ModelInferRequest.create(message)),
    );
    const bytes = Buffer.concat(messages.map((message) => framed(message)));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: bytes.byteLength - 1 }), { maxLength: 12 }), async (cuts) => {
        const { session, stream } = open(server, streamPath);
        let answerBytes = 0;
        stream.on('data', (chunk: Buffer) => (answerBytes += chunk.byteLength));
        const places = [0, ...cuts.sort((a, b) => a - b), bytes.byteLength];
        for (let index = 1; index < places.length; index += 1) {
          const piece = bytes.subarray(places[index - 1], places[index]);
          if (piece.byteLength > 0) await new Promise((resolve) => stream.write(piece, resolve));
        }
        stream.end();
        await closed(stream);
        session.destroy();
        expect(stream.rstCode).toBe(constants.NGHTTP2_NO_ERROR);
        expect(answerBytes).toBeGreaterThan(100);
      }),
      { numRuns: 20, plugins: [fc.interruptAfterTimeLimit(5_000)] },
    );
  });
});

describe('the end of the port', () => {
  it('does not wait longer than it may for a call that does not end', async () => {
    const server = await start();
    host.devices.cpu.behaviour = 'hold';
    const client = new TestClient(server.port);
    const flight = client.infer(identityRequest());
    const failed = expect(flight).rejects.toMatchObject({ code: 14 });
    await host.devices.cpu.arrived(1);
    await server.stop(50);
    await failed;
    client.close();
  });
});
