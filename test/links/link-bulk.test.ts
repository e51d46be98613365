/** Bulk channels without gRPC: who gets in, what hostile bytes do, and what happens where they cannot be had. */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it, onTestFinished } from 'vitest';
import { bulkProtocol } from '#adapters/grpc/link-bulk-wire.js';
import { encodeFrame, joinRanges } from '#core/frame.js';
import { linkFrameKind } from '#core/grid/link-frames.js';
import { hostId } from '#core/ids.js';
import type { LinkEvent } from '#ports/links.js';
import { collector, type Numbered } from '#test/contract/remote-delivery.js';
import { newAuthority, writeIdentity } from '../security/grid-certificates.js';
import { newFolder } from '../weights/weights-folder.js';
import { HandDialled } from './hand-dialled.js';
import { startRealHost, waitUntil, type RealHost, type RealHostOptions } from './real-host.js';
import { TcpProxy } from './tcp-proxy.js';

const detour = 'large messages to a host go through gRPC';

async function host(options: RealHostOptions): Promise<RealHost> {
  // Silence is judged late: a busy machine is no lost link.
  const started = await startRealHost({ silenceMsMax: 10_000, connectMsMax: 10_000, ...options });
  onTestFinished(() => started.close());
  return started;
}

async function proxyTo({ server }: RealHost): Promise<TcpProxy> {
  const proxy = await TcpProxy.start(server.port);
  onTestFinished(() => proxy.close());
  return proxy;
}

/** Reasons for which it refused somebody. */
function refusals({ log }: RealHost): string[] {
  return log.find('warn', 'a host was refused').map(({ fields }) => String(fields['reason']));
}

/** Dials and sends a large message; resolves when it is there, whole. */
async function deliver(from: RealHost, to: RealHost, port: number): Promise<void> {
  const { got, ref } = collector(to.system, `sink-of-${from.name}`);
  from.links.setPeer(hostId(to.name), `127.0.0.1:${port}`);
  const data = Uint8Array.from({ length: 600_000 }, (_, index) => index % 251);
  from.system.ref<Numbered>(ref.address).tell({ type: 'numbered', number: 1, data });
  await waitUntil('the message', () => got.length === 1);
  expect(Buffer.compare(got[0]?.data ?? new Uint8Array(), data)).toBe(0);
}

/** First bytes of each connection that passes. */
function beginnings(proxy: TcpProxy): string[] {
  const seen: string[] = [];
  proxy.lets = (first) => {
    seen.push(first.toString('latin1', 0, 4));
    return true;
  };
  return seen;
}

describe('bulk channels of links', { timeout: 60_000 }, () => {
  it('do without gRPC between hosts that know how', async () => {
    const [near, far] = [await host({ name: 'near' }), await host({ name: 'far' })];
    const proxy = await proxyTo(far);
    const seen = beginnings(proxy);
    await deliver(near, far, proxy.port);
    expect(seen.sort()).toEqual(['ITF1', 'ITF1', 'PRI ', 'PRI ']);
    expect(near.links.peers()).toMatchObject([{ state: 'up', version: 2 }]);
    expect(near.log.find('warn', detour)).toEqual([]);
  });

  it('go over gRPC with a host of the previous minor version, whoever dials', async () => {
    for (const dials of ['older', 'newer'] as const) {
      const hosts = { older: await host({ name: 'older', versions: [1, 1] }), newer: await host({ name: 'newer' }) };
      const [from, to] = dials === 'older' ? [hosts.older, hosts.newer] : [hosts.newer, hosts.older];
      const proxy = await proxyTo(to);
      const seen = beginnings(proxy);
      await deliver(from, to, proxy.port);
      expect(seen).toEqual(['PRI ', 'PRI ', 'PRI ', 'PRI ']);
      expect(from.links.peers()).toMatchObject([{ state: 'up', version: 1 }]);
      expect(from.log.find('warn', detour)).toEqual([]);
    }
  });

  it('go over gRPC, and say so, where something in between lets only HTTP/2 through', async () => {
    // A silent one costs half of the time that a dial may take.
    const connectMsMax = 4_000;
    const far = await host({ name: 'far', connectMsMax });
    // It may break other connections, answer them as HTTP/2 would, or say nothing.
    const settings = Buffer.from('000000040000000000', 'hex');
    const habits = [
      (socket: Socket): unknown => socket.destroy(),
      (socket: Socket): unknown => socket.write(settings),
      (): unknown => undefined,
    ];
    for (const [index, refuse] of habits.entries()) {
      const near = await host({ name: `near-${index}`, connectMsMax });
      const proxy = await proxyTo(far);
      proxy.lets = (first, socket) => {
        const isHttp2 = first.toString('latin1', 0, 4) === 'PRI ';
        if (!isHttp2) refuse(socket);
        return isHttp2;
      };
      await deliver(near, far, proxy.port);
      expect(near.log.find('warn', detour)).toHaveLength(2);
      expect(near.links.peers()).toMatchObject([{ state: 'up', version: 2 }]);
    }
  });

  it('are refused without the token of their link, with another one, and a second time', async () => {
    const far = await host({ name: 'far' });
    const near = new HandDialled(far, 'near');
    expect(await near.bare({}).greeting).toBe('ended');
    const welcome = await near.call({}).greeting;
    if (welcome === 'ended') throw new Error('the control channel was refused');
    const { token } = welcome;
    expect(token).toHaveLength(32);
    const other = Uint8Array.from(token, (byte, index) => (index === 31 ? byte ^ 1 : byte));
    expect(await near.bare({}).greeting).toBe('ended');
    expect(await near.bare({ token: other }).greeting).toBe('ended');
    expect(await near.bare({ token: token.subarray(0, 31) }).greeting).toBe('ended');
    // Over gRPC the same holds.
    expect(await near.call({ channel: 1, token: other }).greeting).toBe('ended');
    expect(await near.bare({ token, process: 'another' }).greeting).toBe('ended');
    expect(await near.bare({ token, channel: 2 }).greeting).toBe('ended');
    expect(await near.bare({ token }).greeting).toMatchObject({ host: 'far', version: 2 });
    expect(await near.bare({ token }).greeting).toBe('ended');
    const reason = 'channel 1 of host near belongs to no link that is being opened';
    expect(refusals(far).filter((text) => text === reason)).toHaveLength(7);
    expect(await near.bare({ token, channel: 0 }).greeting).toBe('ended');
    expect(refusals(far)).toContain('a control channel is a call of gRPC');
    expect(JSON.stringify(far.log.lines)).not.toContain(Buffer.from(token).toString('hex'));
  });

  it('are refused with the token of a link that is up', async () => {
    const far = await host({ name: 'far' });
    const near = new HandDialled(far, 'near');
    const { pipe, token } = await up(near, far);
    expect(await near.bare({ token }).greeting).toBe('ended');
    expect(far.links.peers()).toMatchObject([{ host: 'near', state: 'up' }]);
    pipe.close(false);
  });

  it('are lost with their link when they break within a message, of which nothing arrives', async () => {
    const [near, far] = [await host({ name: 'near' }), await host({ name: 'far' })];
    const proxy = await proxyTo(far);
    const { got, ref } = collector(far.system);
    const events: LinkEvent[] = [];
    far.links.subscribe((event) => events.push(event));
    near.links.setPeer(hostId('far'), `127.0.0.1:${proxy.port}`);
    const out = near.system.ref<Numbered>(ref.address);
    out.tell({ type: 'numbered', number: 1, data: new Uint8Array(40_000_000) });
    await waitUntil('a part of the message', () => proxy.bytes > 2_000_000);
    expect(proxy.bytes).toBeLessThan(40_000_000);
    proxy.break();
    await waitUntil('the loss', () => events.some(({ type }) => type === 'lost'));
    await waitUntil('a message over the next link', () => {
      out.tell({ type: 'numbered', number: 2, data: new Uint8Array(100_000) });
      return got.length > 0;
    });
    expect(got.every(({ number, data }) => number === 2 && data.byteLength === 100_000)).toBe(true);
  });

  it('end with their link at a length that no message has, and take no memory for it', async () => {
    const far = await host({ name: 'far', messageBytesMax: 1_000_000 });
    const { pipe } = await up(new HandDialled(far, 'near'), far);
    const lost: string[] = [];
    far.links.subscribe(({ type, reason }) => lost.push(`${type}: ${reason}`));
    const frame = joinRanges(
      encodeFrame({ kind: linkFrameKind.message, number: 0, header: new Uint8Array(), payload: [] }),
    );
    new DataView(frame.buffer).setUint32(20, 2 ** 20, true);
    pipe.write([frame], frame.byteLength);
    await waitUntil('the loss', () => lost.length > 0);
    expect(lost[0]).toMatch(/^lost: the other side broke the protocol: a frame of .* exceeds the limit of/);
  });
});

/** A link that was dialled by hand, with the pipe on which it writes large messages. */
async function up(near: HandDialled, far: RealHost) {
  const control = near.call({});
  const welcome = await control.greeting;
  if (welcome === 'ended') throw new Error('the control channel was refused');
  const { token } = welcome;
  const bulk = near.bare({ token });
  const others = [bulk, near.bare({ token, isAnswering: true }), near.call({ token, isAnswering: true })];
  for (const { greeting } of others) expect(await greeting).toMatchObject({ host: 'far' });
  const ping = joinRanges(encodeFrame({ kind: linkFrameKind.ping, number: 1, header: new Uint8Array(), payload: [] }));
  control.pipe.write([ping], ping.byteLength);
  await waitUntil('the link', () => far.links.peers()[0]?.state === 'up');
  return { pipe: bulk.pipe, token };
}

describe('bulk channels of links with TLS', { timeout: 60_000 }, () => {
  const authority = newAuthority();
  const joinToken = 'a token of more than sixteen characters';
  const tls = (name: string, changes = {}) => ({
    ...writeIdentity(newFolder(), name, { authority, token: joinToken, ...changes }),
    grid: 'test',
  });

  it('do without gRPC as well', async () => {
    const [near, far] = [await host({ name: 'near', tls: tls('near') }), await host({ name: 'far', tls: tls('far') })];
    await deliver(near, far, far.server.port);
    expect(near.links.peers()).toMatchObject([{ state: 'up', version: 2 }]);
    expect(near.log.find('warn', detour)).toEqual([]);
  });

  it('ask for certificate and join token like calls of gRPC, whatever token of a link is shown', async () => {
    const far = await host({ name: 'far', tls: tls('far') });
    const near = new HandDialled(far, 'near', tls('near'));
    const welcome = await near.call({}).greeting;
    if (welcome === 'ended') throw new Error('the control channel was refused');
    const { token } = welcome;
    // Without the join token, with another one, and with the certificate of another host.
    expect(await near.bare({ token, join: '' }).greeting).toBe('ended');
    expect(await near.bare({ token, join: 'f'.repeat(64) }).greeting).toBe('ended');
    const other = new HandDialled(far, 'other', tls('other'));
    expect(await near.bare({ token }, other.security).greeting).toBe('ended');
    expect(refusals(far)).toEqual([
      expect.stringContaining('shows no join token'),
      expect.stringContaining('shows another join token'),
      expect.stringContaining('does not name the host near'),
    ]);
    expect(await near.bare({ token }).greeting).toMatchObject({ host: 'far' });
  });

  it('are closed to whoever shows no certificate', async () => {
    // Nothing but the missing certificate ends the connection this soon.
    const far = await host({ name: 'far', tls: tls('far'), connectMsMax: 600_000 });
    const socket = connectTls({
      host: '127.0.0.1',
      port: far.server.port,
      rejectUnauthorized: false,
      ALPNProtocols: [bulkProtocol],
    });
    socket.on('secureConnect', () => socket.write('ITF1'));
    await endOf(socket);
    expect(far.links.peers()).toEqual([]);
  });
});

describe('the port for links', { timeout: 60_000 }, () => {
  const open = (to: RealHost): Socket => connect(to.server.port, '127.0.0.1');

  it('ends a connection that says nothing, or not enough', async () => {
    const far = await host({ name: 'far', connectMsMax: 200 });
    const beginnings = ['', 'I', 'ITF', 'PRI', 'ITF1', 'ITF1\u0001\u0000'];
    const sockets = beginnings.map((text) => {
      const socket = open(far);
      if (text !== '') socket.write(text);
      return socket;
    });
    await Promise.all(sockets.map(endOf));
  });

  it('refuses hostile first bytes, says so, and serves on', async () => {
    const far = await host({ name: 'far' });
    const hostile = ['GET / HTTP/1.1\r\n\r\n', '\u0016\u0003\u0001\u0002\u0000', '\u0000\u0000\u0000\u0000', 'ITF2'];
    for (const text of hostile) {
      const socket = open(far);
      socket.write(text, 'latin1');
      await endOf(socket);
    }
    expect(far.log.find('warn', 'speaks neither of its protocols').map(({ fields }) => fields['first'])).toEqual(
      hostile.map((text) => Buffer.from(text, 'latin1').toString('hex', 0, 4)),
    );
    const near = await host({ name: 'near' });
    await deliver(near, far, far.server.port);
  });

  it('refuses a hello that is none, or longer than any', async () => {
    const far = await host({ name: 'far' });
    const frame = (kind: number, header: Uint8Array): Uint8Array =>
      joinRanges(encodeFrame({ kind, number: 0, header, payload: [] }));
    const hostile = [
      frame(linkFrameKind.hello, new Uint8Array(100_000)).subarray(0, 64),
      frame(linkFrameKind.hello, new Uint8Array(64).fill(255)),
      frame(linkFrameKind.message, new Uint8Array(8)),
      frame(linkFrameKind.hello, new Uint8Array()),
    ];
    for (const bytes of hostile) {
      const socket = open(far);
      socket.write(bytes);
      await endOf(socket);
    }
    expect(refusals(far)).toHaveLength(hostile.length);
  });

  it('takes the first bytes one at a time', async () => {
    const far = await host({ name: 'far' });
    const socket = open(far);
    socket.setNoDelay(true);
    for (const byte of joinRanges(
      encodeFrame({ kind: linkFrameKind.message, number: 0, header: new Uint8Array(), payload: [] }),
    )) {
      await new Promise((resolve) => socket.write(Uint8Array.of(byte), resolve));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await endOf(socket);
    expect(refusals(far)).toEqual([expect.stringContaining('begins with a frame of kind 3')]);
  });
});

function endOf(socket: Socket): Promise<void> {
  socket.on('error', () => undefined);
  socket.resume();
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
