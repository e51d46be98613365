/**
 * The port on which other hosts reach this one: links, and whatever else hosts ask of each other (`services`), under the
 * same security. It lets in, checks hellos and puts the channels of a link together; then the link is the session's.
 */
import { Server, type ServerDuplexStream, type ServiceDefinition } from '@grpc/grpc-js';
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import { KiB, MiB } from '#core/units.js';
import type { LinkHello } from '#gen/link.js';
import type { AddableService } from './artifact-server.js';
import { tuneHttp2 } from './flow-control.js';
import { linkPath, linkPieceBytesMax, linkWindowBytes } from './link-dial.js';
import { checkHello, readHello, sendWelcome } from './link-handshake.js';
import { LinkPipe, passBytes, passPiece, type Piece } from './link-pipe.js';
import type { GrpcLinks } from './links.js';
import { streamErrorOf } from './status.js';

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

/** @throws FAILED_PRECONDITION when the port cannot be opened. */
export async function startLinkServer(options: LinkServerOptions): Promise<RunningLinkServer> {
  const { links } = options;
  const server = new Server({
    'grpc.max_receive_message_length': linkPieceBytesMax,
    'grpc.max_send_message_length': linkPieceBytesMax,
    'grpc.enable_channelz': 0,
  });
  const door = new LinkDoor(links);
  server.addService(definition, {
    [linkPath]: (call: ServerDuplexStream<Buffer, Piece>) => {
      door.enter(call);
    },
  });
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
      serve: {},
    },
    links.log,
  );
  return {
    port,
    stop: () =>
      new Promise((resolve) => {
        links.close();
        door.close();
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
  readonly control: LinkPipe;
  readonly bulk: (LinkPipe | undefined)[];
  readonly timer: NodeJS.Timeout;
}

class LinkDoor {
  readonly #links: GrpcLinks;
  readonly #incomplete = new Map<string, Incomplete>();

  constructor(links: GrpcLinks) {
    this.#links = links;
  }

  enter(call: ServerDuplexStream<Buffer, Piece>): void {
    const refuse = (error: unknown): void => {
      const refusal = asIntarsiaError(error);
      this.#log(refusal);
      call.emit('error', streamErrorOf(refusal));
    };
    let admitted: string;
    try {
      if (this.#links.isClosed) throw intarsiaError('UNAVAILABLE', 'this host closes its links');
      admitted = this.#links.security.admit(call);
    } catch (error) {
      call.on('data', () => undefined);
      refuse(error);
      return;
    }
    const pipe = new LinkPipe(call, () => {
      call.emit('error', streamErrorOf(intarsiaError('UNAVAILABLE', 'the link is closed')));
    });
    const timer = setTimeout(() => {
      pipe.close(false);
    }, this.#links.connectMsMax);
    pipe.listen({
      piece: (piece) => {
        pipe.unlisten();
        clearTimeout(timer);
        this.#greet(pipe, piece, admitted).catch((error: unknown) => {
          pipe.release();
          refuse(error);
        });
      },
      room: () => undefined,
      end: () => {
        clearTimeout(timer);
      },
    });
  }

  close(): void {
    for (const link of [...this.#incomplete.keys()]) this.#giveUp(link);
  }

  async #greet(pipe: LinkPipe, piece: Uint8Array, admitted: string): Promise<void> {
    const { identity } = this.#links;
    const hello = readHello(piece);
    const version = checkHello(hello, identity, admitted);
    if (hello.channel > 0) {
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
    const bulk = new Array<undefined>(hello.bulkChannels).fill(undefined);
    this.#incomplete.set(hello.link, { hello, version, control: pipe, bulk, timer });
    sendWelcome(pipe, identity, version);
  }

  #join(hello: LinkHello, pipe: LinkPipe): void {
    const link = this.#incomplete.get(hello.link);
    const index = hello.channel - 1;
    if (link?.hello.process !== hello.process || index >= link.bulk.length || link.bulk[index] !== undefined) {
      throw intarsiaError('FAILED_PRECONDITION', `channel ${hello.channel} belongs to no link that is being opened`);
    }
    link.bulk[index] = pipe;
    sendWelcome(pipe, this.#links.identity, link.version);
    const bulk = link.bulk.filter((each) => each !== undefined);
    if (bulk.length < link.bulk.length) return;
    clearTimeout(link.timer);
    this.#incomplete.delete(hello.link);
    if (this.#links.isClosed) {
      for (const each of [link.control, ...bulk]) each.close(false);
      return;
    }
    this.#links.peer(hello.host).open({ process: hello.process, version: link.version, control: link.control, bulk });
  }

  #giveUp(name: string): void {
    const link = this.#incomplete.get(name);
    if (link === undefined) return;
    clearTimeout(link.timer);
    this.#incomplete.delete(name);
    for (const pipe of [link.control, ...link.bulk]) pipe?.close(false);
  }

  #log(refusal: IntarsiaError): void {
    const level = refusal.retryable ? 'debug' : 'warn';
    this.#links.log[level]('a host was refused', { code: refusal.code, reason: refusal.message });
  }
}

const definition: ServiceDefinition = {
  [linkPath]: {
    path: linkPath,
    requestStream: true,
    responseStream: true,
    requestSerialize: passPiece,
    requestDeserialize: passBytes,
    responseSerialize: passPiece,
    responseDeserialize: passBytes,
  },
};

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
