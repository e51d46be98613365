/** Much in both directions of one connection at once: neither end may wait for the other to read. */
import { createServer, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { GrpcChannel } from '#adapters/grpc/client-channel.js';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { MiB } from '#core/units.js';

const windowBytes = 16 * MiB;

/** A server of Node's own that answers each call with its request, as soon as it is there, with windows as a host's. */
async function echo(): Promise<string> {
  const server = createServer({
    settings: { initialWindowSize: windowBytes, maxFrameSize: MiB },
    maxSessionMemory: 1024,
  });
  const sessions = new Set<ServerHttp2Session>();
  server.on('session', (session) => {
    sessions.add(session);
    session.setLocalWindowSize(windowBytes);
  });
  server.on('stream', (stream) => {
    const pieces: Buffer[] = [];
    stream.on('data', (piece: Buffer) => pieces.push(piece));
    stream.on('error', () => undefined);
    stream.on('end', () => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      for (const piece of pieces) stream.write(piece);
      stream.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it('answers many large calls at once on one connection, whose both ends write more than the kernel keeps', async () => {
  const channel = new GrpcChannel({
    target: await echo(),
    messageBytesMax: -1,
    windowBytes,
    connectBackoffMsMax: 1_000,
  });
  onTestFinished(() => channel.close());
  const request = new Uint8Array(600_000).fill(7);
  let left = 300;
  const caller = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const outcome = await new Promise<unknown>((resolve) => {
        channel.call('/echo', request, { metadata: {}, deadlineWallMs: Infinity }, resolve);
      });
      expect(outcome).toMatchObject({ ok: true, message: { byteLength: request.byteLength } });
    }
  };
  await Promise.all(Array.from({ length: 32 }, caller));
});

it('so does the load generator, which tells of an address where nobody listens before it begins', async () => {
  const request = new Uint8Array(600_000).fill(7);
  const target = {
    protocol: 'grpc',
    tls: false,
    path: '/echo',
    headers: {},
    bodies: [request],
    connections: 1,
    timeoutMs: 0,
  } as const;
  const transport = openGrpcLoad({ ...target, address: await echo() });
  onTestFinished(() => transport.close());
  await transport.open();
  let left = 300;
  const caller = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const code = await new Promise((resolve) => transport.send(0, false, resolve));
      expect(code).toBe('');
    }
  };
  await Promise.all(Array.from({ length: 32 }, caller));

  const closed = createServer();
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${(closed.address() as AddressInfo).port}`;
  await new Promise((resolve) => closed.close(resolve));
  await expect(openGrpcLoad({ ...target, address }).open()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
});
