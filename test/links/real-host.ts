/** A host of a test: actors with real links on loopback. */
import { randomUUID } from 'node:crypto';
import { openLinkSecurity, type LinkSecurityOptions } from '#adapters/grpc/link-security.js';
import { startLinkServer, type RunningLinkServer } from '#adapters/grpc/link-server.js';
import { GrpcLinks, type GrpcLinksOptions } from '#adapters/grpc/links.js';
import { NodeClock } from '#adapters/node/clock.js';
import { hostId } from '#core/ids.js';
import { entranceOf } from '#runtime/entrance.js';
import { ActorSystem } from '#runtime/system.js';
import { RecordingLog, seededRandom } from '#testing.js';

export interface RealHost {
  readonly name: string;
  readonly links: GrpcLinks;
  readonly system: ActorSystem;
  readonly server: RunningLinkServer;
  readonly log: RecordingLog;
  close(): Promise<void>;
}

export interface RealHostOptions extends Partial<GrpcLinksOptions> {
  readonly name: string;
  readonly tls?: Partial<LinkSecurityOptions>;
}

let processes = 0;

export async function startRealHost(options: RealHostOptions): Promise<RealHost> {
  processes += 1;
  const clock = new NodeClock();
  const log = new RecordingLog();
  const security = openLinkSecurity({
    grid: options.grid ?? 'test',
    host: hostId(options.name),
    certificatePath: '',
    keyPath: '',
    authorityPath: '',
    joinTokenPath: '',
    addresses: ['127.0.0.1'],
    allowPlaintext: false,
    wallMs: Date.now(),
    ...options.tls,
  });
  const links = new GrpcLinks({
    grid: 'test',
    host: hostId(options.name),
    process: randomUUID(),
    softwareVersion: '0.0.0',
    security,
    clock,
    log,
    keepaliveMs: 100,
    silenceMsMax: 500,
    connectMsMax: 1_000,
    backoffMsMin: 20,
    backoffMsMax: 200,
    ...options,
  });
  const system = new ActorSystem({
    host: options.name,
    clock,
    random: seededRandom(processes),
    log,
    remote: links,
    incarnationMin: processes * 2 ** 32,
  });
  links.attach(entranceOf(system));
  const server = await startLinkServer({ links, bindAddress: '127.0.0.1', port: 0 });
  return {
    name: options.name,
    links,
    system,
    server,
    log,
    close: async () => {
      system.terminate();
      await server.stop();
    },
  };
}

/** Lets the event loop go on until this is true. */
export async function waitUntil(what: string, condition: () => boolean, patienceMs = 20_000): Promise<void> {
  const endMs = performance.now() + patienceMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`waited ${patienceMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
