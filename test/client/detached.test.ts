/** A connection whose other end is silent, as behind a pulled cable: its writes never fail, and nothing comes back. */
import { createServer as createHttp2Server } from 'node:http2';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { expect, it, onTestFinished } from 'vitest';
import { GrpcChannel, type CallOutcome } from '#adapters/grpc/client-channel.js';

async function portOf(server: { listen(port: number, host: string): unknown; address(): unknown }): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server as Server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** A cable that can be pulled: bytes of both directions are kept until it is plugged. */
class Cable {
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  /** How many connections have ended. */
  ended = 0;

  constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, '127.0.0.1');
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on('data', (bytes: Buffer) => to.write(bytes));
        from.on('error', () => undefined);
        from.on('close', () => {
          this.#sockets.delete(from);
          to.destroy();
        });
      }
      near.on('close', () => (this.ended += 1));
    });
    onTestFinished(() => {
      this.cut();
      this.#server.close();
    });
  }

  open(): Promise<number> {
    return portOf(this.#server);
  }

  pull(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  plug(): void {
    for (const socket of this.#sockets) socket.resume();
  }

  /** Every connection breaks. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

async function channelOver(): Promise<{ readonly cable: Cable; readonly channel: GrpcChannel }> {
  const server = createHttp2Server();
  server.on('stream', (stream) => {
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(Buffer.alloc(5));
  });
  const cable = new Cable(await portOf(server));
  onTestFinished(() => void server.close());
  const target = `127.0.0.1:${await cable.open()}`;
  const channel = new GrpcChannel({ target, messageBytesMax: -1, windowBytes: 1 << 20, connectBackoffMsMax: 100 });
  onTestFinished(() => channel.close());
  return { cable, channel };
}

function ask(channel: GrpcChannel, deadlineWallMs = Infinity): Promise<CallOutcome> {
  return new Promise((resolve) => channel.call('/any', new Uint8Array(8), { metadata: {}, deadlineWallMs }, resolve));
}

it('ends calls at their deadline and when they are cancelled, and goes on when the other end does', async () => {
  const { cable, channel } = await channelOver();
  expect(await ask(channel)).toMatchObject({ ok: true });
  cable.pull();
  const late = await Promise.all(Array.from({ length: 50 }, () => ask(channel, Date.now() + 100)));
  for (const outcome of late) expect(outcome).toMatchObject({ ok: false, failure: { status: 4 } });
  const cancelled = new Promise<CallOutcome>((resolve) => {
    const options = { metadata: {}, deadlineWallMs: Infinity };
    channel.call('/any', new Uint8Array(8), options, resolve).cancel();
  });
  expect(await cancelled).toMatchObject({ ok: false, failure: { status: 1 } });
  cable.plug();
  expect(await ask(channel)).toMatchObject({ ok: true });
  expect(cable.ended).toBe(0);
});

it('ends calls when the connection breaks, and makes another one', async () => {
  const { cable, channel } = await channelOver();
  expect(await ask(channel)).toMatchObject({ ok: true });
  cable.pull();
  const waiting = Array.from({ length: 10 }, () => ask(channel));
  cable.cut();
  for (const outcome of await Promise.all(waiting)) {
    expect(outcome).toMatchObject({ ok: false, failure: { status: 14 } });
  }
  expect(await ask(channel)).toMatchObject({ ok: true });
});

it('lets go of the connection when the channel is closed, though the other end is silent', async () => {
  const { cable, channel } = await channelOver();
  expect(await ask(channel)).toMatchObject({ ok: true });
  cable.pull();
  expect(await ask(channel, Date.now() + 50)).toMatchObject({ ok: false });
  channel.close();
  cable.plug();
  while (cable.ended === 0) await new Promise((resolve) => setImmediate(resolve));
});
