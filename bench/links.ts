/**
 * Links between two processes of this machine against what they are made of: a bare bidirectional gRPC stream for small
 * messages, a bare TCP connection for 600 KB ones, a bare TLS connection for encrypted ones. Everything in one run, in turn,
 * several times; ratios are of medians.
 *
 * Goal: 600 KB messages at 0.55 of raw TCP or better. Non-goals: other machines, more than two hosts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { Client, credentials, type ClientDuplexStream } from '@grpc/grpc-js';
import { hostId } from '#core/ids.js';
import {
  benchHost,
  echoPath,
  tcpMessageBytes,
  tlsOptions,
  writeCertificates,
  type EchoMessage,
  type SinkMessage,
} from './baselines/link-echo-main.js';
import { startChild, type BenchChild } from './child.js';
import { benchReport, benchRow, median, type BenchOptions, type BenchReport } from './report.js';

const script = 'bench/baselines/link-echo-main.js';
const inFlight = 16;
const small = new Uint8Array(100);
const large = new Uint8Array(tcpMessageBytes).fill(3);

export async function run(options: BenchOptions): Promise<BenchReport> {
  const rounds = options.quick ? 2 : 7;
  const trips = options.quick ? 200 : 3_000;
  const messages = options.quick ? 60 : 800;
  const children: BenchChild[] = [];
  const start = async (kind: string, ...args: readonly string[]): Promise<number> => {
    const child = await startChild(script, [kind, ...args]);
    children.push(child);
    return child.ready['port'] as number;
  };
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-bench-'));
  writeCertificates(folder);
  const near = benchHost('near', 1);
  const nearTls = benchHost('near', 3, folder);
  try {
    near.links.setPeer(hostId('far'), `127.0.0.1:${await start('links')}`);
    const echo = near.system.ref<EchoMessage>({ host: 'far', path: 'echo', incarnation: 0 });
    nearTls.links.setPeer(hostId('far'), `127.0.0.1:${await start('links', folder)}`);
    const sinkAddress = { host: 'far', path: 'sink', incarnation: 0 };
    const sink = near.system.ref<SinkMessage>(sinkAddress);
    const sinkTls = nearTls.system.ref<SinkMessage>(sinkAddress);
    const stream = new GrpcEcho(await start('grpc'));
    const tcpPort = await start('tcp');
    const tlsPort = await start('tls', folder);
    const openTcp = (): Socket => connect(tcpPort, '127.0.0.1');
    const openTls = (): Socket =>
      connectTls({ ...tlsOptions(folder, 'near'), host: '127.0.0.1', port: tlsPort, servername: 'far' });
    const ask = (data: Uint8Array): Promise<Uint8Array> =>
      echo.ask<Uint8Array>((replyTo) => ({ data, replyTo }), { deadlineMs: Infinity });
    const swallow = (to: typeof sink, data: Uint8Array): Promise<number> =>
      to.ask<number>((replyTo) => ({ data, replyTo }), { deadlineMs: Infinity });
    const figures = {
      ask: [],
      grpc: [],
      linkEcho: [],
      tcpEcho: [],
      linkOneWay: [],
      tcpOneWay: [],
      linkTls: [],
      bareTls: [],
      askRate: [],
      grpcRate: [],
    } as Record<string, number[]>;
    for (let round = 0; round <= rounds; round += 1) {
      const measured = {
        ask: await tripMs(trips, () => ask(small)),
        grpc: await tripMs(trips, () => stream.trip(small)),
        askRate: await rate(trips * 3, 64, () => ask(small)),
        grpcRate: await rate(trips * 3, 64, () => stream.trip(small)),
        linkEcho: await rate(messages, inFlight, () => ask(large)),
        tcpEcho: await bareRate(openTcp, 1, messages),
        linkOneWay: await rate(messages, inFlight, () => swallow(sink, large)),
        tcpOneWay: await bareRate(openTcp, 0, messages),
        linkTls: await rate(messages, inFlight, () => swallow(sinkTls, large)),
        bareTls: await bareRate(openTls, 0, messages),
      };
      // The first round warms up.
      if (round > 0) for (const [name, value] of Object.entries(measured)) figures[name]?.push(value);
    }
    const of = (name: string): number => median(figures[name] ?? []);
    stream.close();
    return benchReport(
      'links',
      options,
      [
        benchRow({ key: 'links.ask.p50', label: 'ask over a link, 100 B, p50', value: of('ask') * 1000, unit: 'us' }),
        benchRow({
          key: 'links.grpc.p50',
          label: 'bare gRPC stream echo, 100 B, p50',
          value: of('grpc') * 1000,
          unit: 'us',
        }),
        benchRow({
          key: 'links.ask.ratio',
          label: 'ask to bare gRPC stream, p50',
          value: of('ask') / of('grpc'),
          unit: 'x',
        }),
        benchRow({
          key: 'links.ask.rate',
          label: 'asks over a link, 64 in flight',
          value: of('askRate'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.grpc.rate',
          label: 'bare gRPC stream echo, 64 in flight',
          value: of('grpcRate'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.echo.600kb',
          label: '600 KB echo over a link, 16 in flight',
          value: of('linkEcho'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.tcp.echo.600kb',
          label: '600 KB echo over bare TCP, 16 in flight',
          value: of('tcpEcho'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.echo.ratio-to-tcp',
          label: '600 KB echo, link to bare TCP',
          value: of('linkEcho') / of('tcpEcho'),
          unit: 'x',
          target: { kind: 'at-least', value: 0.55 },
        }),
        benchRow({
          key: 'links.oneway.600kb',
          label: '600 KB one way over a link, 16 in flight',
          value: of('linkOneWay'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.tcp.oneway.600kb',
          label: '600 KB one way over bare TCP, 16 in flight',
          value: of('tcpOneWay'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.oneway.ratio-to-tcp',
          label: '600 KB one way, link to bare TCP',
          value: of('linkOneWay') / of('tcpOneWay'),
          unit: 'x',
          target: { kind: 'at-least', value: 0.55 },
        }),
        benchRow({
          key: 'links.tls.oneway.600kb',
          label: '600 KB one way over a link with TLS',
          value: of('linkTls'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.tls.bare.600kb',
          label: '600 KB one way over bare TLS',
          value: of('bareTls'),
          unit: 'messages/s',
        }),
        benchRow({
          key: 'links.tls.ratio',
          label: '600 KB one way with TLS, link to bare TLS',
          value: of('linkTls') / of('bareTls'),
          unit: 'x',
        }),
      ],
      ['Two processes on loopback, without TLS unless it is named. The bare gRPC stream has the library’s defaults.'],
    );
  } finally {
    for (const { links, system } of [near, nearTls]) {
      links.close();
      system.terminate();
    }
    for (const child of children) await child.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Median of trips one after the other, ms. */
async function tripMs(count: number, trip: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const beganMs = performance.now();
    await trip();
    times.push(performance.now() - beganMs);
  }
  return median(times);
}

/** Trips a second with so many in flight. */
async function rate(count: number, concurrency: number, trip: () => Promise<unknown>): Promise<number> {
  let left = count;
  const beganMs = performance.now();
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await trip();
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return (count * 1000) / (performance.now() - beganMs);
}

/** Messages a second over a bare connection: echoed (1), or swallowed and counted (0). */
async function bareRate(open: () => Socket, mode: 0 | 1, count: number): Promise<number> {
  const socket = open();
  socket.setNoDelay(true);
  await new Promise((resolve) => socket.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', resolve));
  const beganMs = performance.now();
  await new Promise<void>((resolve) => {
    let sent = 0;
    let received = 0;
    const bytesEach = mode === 1 ? tcpMessageBytes : 1;
    const more = (): void => {
      while (sent < count && sent - Math.floor(received / bytesEach) < inFlight) {
        socket.write(large);
        sent += 1;
      }
    };
    socket.on('data', (bytes: Buffer) => {
      received += bytes.byteLength;
      if (received >= count * bytesEach) resolve();
      else more();
    });
    socket.write(Buffer.from([mode]));
    more();
  });
  const seconds = (performance.now() - beganMs) / 1000;
  socket.destroy();
  return count / seconds;
}

class GrpcEcho {
  readonly #client: Client;
  readonly #call: ClientDuplexStream<Buffer, Buffer>;
  readonly #waiting: (() => void)[] = [];

  constructor(port: number) {
    const pass = (bytes: Buffer): Buffer => bytes;
    this.#client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
    this.#call = this.#client.makeBidiStreamRequest(echoPath, pass, pass);
    this.#call.on('data', () => this.#waiting.shift()?.());
    this.#call.on('error', () => undefined);
  }

  trip(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#call.write(Buffer.from(data));
    });
  }

  close(): void {
    this.#call.cancel();
    this.#client.close();
  }
}
