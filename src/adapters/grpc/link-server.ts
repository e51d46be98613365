/**
 * The port on which other hosts reach this one: links, and whatever else hosts ask of each other (`services`), under the
 * same security. It lets in, checks hellos and puts the channels of a link together; then the link is the session's.
 *
 * A bulk channel may come without gRPC: its hello then carries what the metadata of a call would, and is checked alike.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { TLSSocket, type PeerCertificate } from 'node:tls';
import { Metadata, Server } from '@grpc/grpc-js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import type { Frame } from '#core/frame.js';
import { bareBulkVersionMin } from '#core/grid/link-frames.js';
import { KiB, MiB } from '#core/units.js';
import type { LinkHello } from '#gen/link.js';
import type { AddableService } from './artifact-server.js';
import { tuneHttp2 } from './flow-control.js';
import { shareWithBulk } from './link-bulk-port.js';
import { BulkWire } from './link-bulk-wire.js';
import { linkPath, linkWindowBytes } from './link-dial.js';
import { checkHello, firstFrame, readHello, sendWelcome } from './link-handshake.js';
import { LinkPipe, type LinkChannel } from './link-pipe.js';
import type { IncomingCall } from './link-security.js';
import { linkPieceBytesMax, ServerWire, type Wire } from './link-wire.js';
import type { GrpcLinks } from './links.js';

export interface LinkServerOptions {
  readonly links: GrpcLinks;
  readonly bindAddress: string;
  /** 0 chooses a free one. */
  readonly port: number;
  /** What else is served on the port; each admits its callers itself (LinkSecurity.admit). */
  readonly services?: readonly AddableService[];
  /** Connections at once, default 4,096; further ones are not taken. */
  readonly connectionsMax?: number;
}

export interface RunningLinkServer {
  readonly port: number;
  /** Ends all links and the port. */
  stop(): Promise<void>;
}

/** Links of which some channels are there, at once; a further one is refused. */
const incompleteMax = 1_024;
const bulkChannelsMax = 16;
/** Random bytes that belong to one link while it is being opened. */
const tokenBytes = 32;
const noToken = new Uint8Array();

/** @throws FAILED_PRECONDITION when the port cannot be opened. */
export async function startLinkServer(options: LinkServerOptions): Promise<RunningLinkServer> {
  const { links } = options;
  const server = new Server({
    'grpc.max_receive_message_length': linkPieceBytesMax,
    'grpc.max_send_message_length': linkPieceBytesMax,
    'grpc.enable_channelz': 0,
  });
  const door = new LinkDoor(links);
  for (const service of options.services ?? []) server.addService(service.definition, service.implementation);
  const port = await listen(server, options);
  const http2 = tuneHttp2(
    server,
    {
      windowBytes: linkWindowBytes,
      frameBytesMax: 1 * MiB,
      headerBytesMax: 16 * KiB,
      connectionsMax: options.connectionsMax ?? 4_096,
      receiveMsMax: links.connectMsMax,
      onStream: () => undefined,
      serve: {
        [linkPath]: (stream, headers) => {
          door.enter(stream, headers);
        },
      },
    },
    links.log,
  );
  const bulk = shareWithBulk(http2.servers, {
    firstMsMax: links.connectMsMax,
    onBulk: (socket) => {
      door.enterBare(socket);
    },
    log: links.log,
  });
  return {
    port,
    stop: () =>
      new Promise((resolve) => {
        links.close();
        door.close();
        bulk.close();
        const timer = setTimeout(() => {
          server.forceShutdown();
          http2.destroyConnections();
        }, 500);
        server.tryShutdown(() => {
          clearTimeout(timer);
          resolve();
        });
      }),
  };
}

/** A link of which not all channels are there yet. */
interface Incomplete {
  readonly hello: LinkHello;
  readonly version: number;
  /** What its other calls and connections must show; empty before `bareBulkVersionMin`. */
  readonly token: Uint8Array;
  readonly channels: { out: LinkPipe | undefined; in: LinkPipe | undefined }[];
  readonly timer: NodeJS.Timeout;
}

class LinkDoor {
  readonly #links: GrpcLinks;
  readonly #incomplete = new Map<string, Incomplete>();
  /** Those that have not said who they are. */
  readonly #unheard = new Set<LinkPipe>();

  constructor(links: GrpcLinks) {
    this.#links = links;
  }

  enter(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const wire = new ServerWire(stream);
    const refuse = (error: unknown): void => {
      const refusal = asIntarsiaError(error);
      this.#log(refusal);
      wire.refuse(refusal);
    };
    let admitted: string;
    try {
      if (this.#links.isClosed) throw intarsiaError('UNAVAILABLE', 'this host closes its links');
      admitted = this.#links.security.admit(incomingCall(stream, headers));
    } catch (error) {
      // Told by nothing: the call is over.
      stream.on('error', () => undefined);
      refuse(error);
      return;
    }
    this.#hear(wire, (pipe, frame) => this.#greet(pipe, readHello(frame), admitted), refuse);
  }

  /** A connection without gRPC, for one half of a bulk channel. */
  enterBare(socket: Socket): void {
    const wire = BulkWire.over(socket);
    const greet = (pipe: LinkPipe, frame: Frame): void => {
      if (this.#links.isClosed) throw intarsiaError('UNAVAILABLE', 'this host closes its links');
      const { identity, security } = this.#links;
      const hello = readHello(frame);
      checkHello(hello, identity, security.admitShown(hello, certificateOf(socket)));
      if (hello.channel === 0) throw intarsiaError('INVALID_ARGUMENT', 'a control channel is a call of gRPC');
      this.#join(hello, pipe);
    };
    this.#hear(wire, greet, (error) => {
      this.#log(asIntarsiaError(error));
      wire.cancel();
    });
  }

  /** Waits for the first frame, not too long, and refuses what `greet` does not take. */
  #hear(
    wire: Wire,
    greet: (pipe: LinkPipe, frame: Frame) => Promise<void> | void,
    refuse: (error: unknown) => void,
  ): void {
    const pipe = new LinkPipe(wire);
    const timer = setTimeout(() => {
      heard();
      pipe.close(false);
    }, this.#links.connectMsMax);
    this.#unheard.add(pipe);
    const heard = (): void => {
      clearTimeout(timer);
      this.#unheard.delete(pipe);
    };
    const giveUp = (error: unknown): void => {
      heard();
      pipe.release();
      refuse(error);
    };
    const read = firstFrame((frame) => {
      pipe.unlisten();
      heard();
      (async () => greet(pipe, frame))().catch(giveUp);
    });
    pipe.listen({
      piece: (piece) => {
        try {
          read(piece);
        } catch (error) {
          giveUp(error);
        }
      },
      room: () => undefined,
      end: heard,
    });
  }

  close(): void {
    for (const pipe of this.#unheard) pipe.close(false);
    this.#unheard.clear();
    for (const link of [...this.#incomplete.keys()]) this.#giveUp(link);
  }

  async #greet(pipe: LinkPipe, hello: LinkHello, admitted: string): Promise<void> {
    const { identity } = this.#links;
    const version = checkHello(hello, identity, admitted);
    if (hello.channel > 0 || hello.isAnswering) {
      this.#join(hello, pipe);
      return;
    }
    if (hello.bulkChannels < 1 || hello.bulkChannels > bulkChannelsMax) {
      throw intarsiaError(
        'INVALID_ARGUMENT',
        `a link has 1 to ${bulkChannelsMax} bulk channels, not ${hello.bulkChannels}`,
      );
    }
    if (this.#incomplete.size >= incompleteMax || this.#incomplete.has(hello.link)) {
      throw intarsiaError('RESOURCE_EXHAUSTED', `${this.#incomplete.size} links are being opened already`);
    }
    await this.#links.peer(hello.host).makeWay(hello.process);
    const timer = setTimeout(() => {
      this.#giveUp(hello.link);
    }, this.#links.connectMsMax);
    const channels = Array.from({ length: 1 + hello.bulkChannels }, () => ({ out: undefined, in: undefined }));
    const token = version >= bareBulkVersionMin ? randomBytes(tokenBytes) : noToken;
    const link: Incomplete = { hello, version, token, channels, timer };
    this.#incomplete.set(hello.link, link);
    (link.channels[0] as (typeof link.channels)[number]).in = pipe;
    sendWelcome(pipe, identity, version, token);
  }

  #join(hello: LinkHello, pipe: LinkPipe): void {
    const link = this.#incomplete.get(hello.link);
    const channel = link?.channels[hello.channel];
    const half = hello.isAnswering ? 'out' : 'in';
    // Whoever has no link, or another token, or comes a second time, does not learn which of them it is.
    if (
      link?.hello.process !== hello.process ||
      link.hello.host !== hello.host ||
      channel === undefined ||
      channel[half] !== undefined ||
      !isSameToken(link.token, hello.token)
    ) {
      throw intarsiaError(
        'FAILED_PRECONDITION',
        `channel ${hello.channel} of host ${hello.host} belongs to no link that is being opened`,
      );
    }
    channel[half] = pipe;
    sendWelcome(pipe, this.#links.identity, link.version, noToken);
    const channels: LinkChannel[] = [];
    for (const each of link.channels) {
      if (each.out === undefined || each.in === undefined) return;
      channels.push({ out: each.out, in: each.in });
    }
    this.#awaitFirst(link, channels);
  }

  /** The side that dialled speaks first: it must have heard all welcomes before anything else. */
  #awaitFirst({ hello, version, timer }: Incomplete, channels: readonly LinkChannel[]): void {
    const first = channels[0]?.in;
    first?.listen({
      piece: (piece) => {
        first.unlisten();
        first.putBack(piece);
        clearTimeout(timer);
        this.#incomplete.delete(hello.link);
        this.#links.peer(hello.host).open({ process: hello.process, version, channels });
      },
      room: () => undefined,
      end: () => {
        this.#giveUp(hello.link);
      },
    });
  }

  #giveUp(name: string): void {
    const link = this.#incomplete.get(name);
    if (link === undefined) return;
    clearTimeout(link.timer);
    this.#incomplete.delete(name);
    closeAll(link);
  }

  #log(refusal: IntarsiaError): void {
    const level = refusal.retryable ? 'debug' : 'warn';
    this.#links.log[level]('a host was refused', { code: refusal.code, reason: refusal.message });
  }
}

function closeAll({ channels }: Incomplete): void {
  for (const channel of channels) {
    channel.out?.close(false);
    channel.in?.close(false);
  }
}

/** What a call shows of itself, as the gRPC library would tell it. */
function incomingCall(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): IncomingCall {
  return {
    metadata: Metadata.fromHttp2Headers(headers),
    getAuthContext: () => {
      const certificate = certificateOf(stream.session?.socket);
      return certificate === undefined ? {} : { sslPeerCertificate: certificate };
    },
  };
}

function certificateOf(socket: Socket | undefined): PeerCertificate | undefined {
  return socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate() : undefined;
}

function isSameToken(own: Uint8Array, shown: Uint8Array): boolean {
  return own.byteLength === shown.byteLength && timingSafeEqual(own, shown);
}

async function listen(server: Server, { bindAddress, port, links }: LinkServerOptions): Promise<number> {
  const host = bindAddress.includes(':') ? `[${bindAddress}]` : bindAddress;
  return new Promise((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, links.security.serverCredentials(), (error, bound) => {
      if (error === null) resolve(bound);
      else {
        reject(
          intarsiaError(
            'FAILED_PRECONDITION',
            `the port for links ${host}:${port} cannot be opened: ${error.message}. Another program may use it`,
            { port },
            error,
          ),
        );
      }
    });
  });
}
