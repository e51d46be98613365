/**
 * The other end of the links benchmark, in a process of its own: a host with an actor that echoes and one that swallows, a bare
 * gRPC stream that echoes, or a bare connection, TCP or TLS, that echoes or swallows. Prints its port as JSON.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { issueCertificate, makeAuthority } from '#adapters/certificates/issue.js';
import { startLinkServer } from '#adapters/grpc/link-server.js';
import { GrpcLinks } from '#adapters/grpc/links.js';
import { openLinkSecurity } from '#adapters/grpc/link-security.js';
import { NodeClock } from '#adapters/node/clock.js';
// Links are parts of hosts. How often V8 looks through the heap for received bytes that are gone depends on how large the
// heap is, so that all that a host loads is loaded here, too.
import '#compose/host.js';
import { hostId } from '#core/ids.js';
import { silentLog } from '#ports/log.js';
import { entranceOf } from '#runtime/entrance.js';
import { ActorSystem } from '#runtime/system.js';
import type { ReplyTo } from '#runtime/actor.js';
import { seededRandom } from '#sim/random.js';

export interface EchoMessage {
  readonly data: Uint8Array;
  readonly replyTo: ReplyTo<Uint8Array>;
}
/** Swallowed, and answered with how many bytes it had. */
export interface SinkMessage {
  readonly data: Uint8Array;
  readonly replyTo: ReplyTo<number>;
}

export const echoPath = '/bench.Echo/Exchange';
const pass = (bytes: Buffer): Buffer => bytes;

/** An authority and certificates of both hosts. */
export function writeCertificates(folder: string): void {
  const authority = makeAuthority({ name: 'bench', days: 2, wallMs: Date.now() });
  for (const name of ['near', 'far']) {
    const pair = issueCertificate(authority, { name, addresses: [], kind: 'host', days: 1, wallMs: Date.now() });
    const { certificatePath, keyPath, authorityPath } = filesOf(folder, name);
    writeFileSync(certificatePath, pair.certificate);
    writeFileSync(keyPath, pair.key, { mode: 0o600 });
    writeFileSync(authorityPath, authority.certificate);
  }
}

function filesOf(folder: string, name: string) {
  const at = (file: string): string => (folder === '' ? '' : join(folder, file));
  return { certificatePath: at(`${name}.pem`), keyPath: at(`${name}.key`), authorityPath: at('ca.pem') };
}

/** What a bare TLS connection needs, at either end. */
export function tlsOptions(folder: string, name: string) {
  const { certificatePath, keyPath, authorityPath } = filesOf(folder, name);
  return { cert: readFileSync(certificatePath), key: readFileSync(keyPath), ca: readFileSync(authorityPath) };
}

/** A host with links and nothing else. @param folder Where its certificates are; empty: plain text. */
export function benchHost(name: string, number: number, folder = '') {
  const clock = new NodeClock();
  const security = openLinkSecurity({
    grid: 'bench',
    host: hostId(name),
    ...filesOf(folder, name),
    joinTokenPath: '',
    addresses: ['127.0.0.1'],
    allowPlaintext: false,
    wallMs: Date.now(),
  });
  const links = new GrpcLinks({
    grid: 'bench',
    host: hostId(name),
    process: randomUUID(),
    softwareVersion: '0.0.0',
    security,
    clock,
    log: silentLog,
  });
  const system = new ActorSystem({
    host: name,
    clock,
    random: seededRandom(number),
    log: silentLog,
    remote: links,
    incarnationMin: number * 2 ** 32,
  });
  links.attach(entranceOf(system));
  return { links, system, clock };
}

async function serveLinks(folder: string): Promise<number> {
  const { links, system } = benchHost('far', 2, folder);
  system.spawn<EchoMessage>('echo', () => ({ receive: ({ data, replyTo }) => void replyTo.tell(data) }));
  system.spawn<SinkMessage>('sink', () => ({ receive: ({ data, replyTo }) => void replyTo.tell(data.byteLength) }));
  return (await startLinkServer({ links, bindAddress: '127.0.0.1', port: 0 })).port;
}

function serveGrpc(): Promise<number> {
  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.enable_channelz': 0 });
  server.addService(
    {
      exchange: {
        path: echoPath,
        requestStream: true,
        responseStream: true,
        requestSerialize: pass,
        requestDeserialize: pass,
        responseSerialize: pass,
        responseDeserialize: pass,
      },
    },
    { exchange: (call: ServerDuplexStream<Buffer, Buffer>) => call.on('data', (bytes: Buffer) => call.write(bytes)) },
  );
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(error);
    });
  });
}

/** The first byte says what: 1 echoes, 0 swallows and answers one byte for every so many. */
function echoOrSwallow(socket: Socket): void {
  socket.setNoDelay(true);
  let mode: number | undefined;
  let owed = 0;
  socket.on('data', (given: Buffer) => {
    let bytes = given;
    if (mode === undefined) {
      mode = bytes[0] ?? 0;
      bytes = bytes.subarray(1);
    }
    if (mode === 1) socket.write(bytes);
    else {
      owed += bytes.byteLength;
      for (; owed >= tcpMessageBytes; owed -= tcpMessageBytes) socket.write('.');
    }
  });
  socket.on('error', () => undefined);
}

function serveTcp(): Promise<number> {
  return listen(createServer(echoOrSwallow));
}

function serveTls(folder: string): Promise<number> {
  return listen(createTlsServer({ ...tlsOptions(folder, 'far'), requestCert: true }, echoOrSwallow));
}

function listen(server: TcpServer): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}

export const tcpMessageBytes = 600_000;

const servers = { links: serveLinks, grpc: serveGrpc, tcp: serveTcp, tls: serveTls };

async function main(kind: string, folder: string): Promise<void> {
  const port = await servers[kind as keyof typeof servers](folder);
  process.stdout.write(`${JSON.stringify({ port })}\n`);
}

if (process.argv[1]?.endsWith('link-echo-main.js') === true) await main(process.argv[2] ?? '', process.argv[3] ?? '');
