/** A dialler of links that does one step at a time, and what no host would do. */
import { randomUUID } from 'node:crypto';
import { Client } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { BulkWire } from '#adapters/grpc/link-bulk-wire.js';
import { linkPath } from '#adapters/grpc/link-dial.js';
import { firstFrame, readWelcome, sendHello } from '#adapters/grpc/link-handshake.js';
import { LinkPipe } from '#adapters/grpc/link-pipe.js';
import type { LinkSecurity, LinkSecurityOptions } from '#adapters/grpc/link-security.js';
import { ClientWire, passBytes, passPiece, type Piece } from '#adapters/grpc/link-wire.js';
import { hostId } from '#core/ids.js';
import { LinkHello, type LinkWelcome } from '#gen/link.js';
import { plainSecurity } from '../security/grid-certificates.js';
import type { RealHost } from './real-host.js';

/** A welcome, or that the connection has ended without one. */
export type Greeting = LinkWelcome | 'ended';

export class HandDialled {
  readonly #host: RealHost;
  readonly security: LinkSecurity;
  readonly #hello: LinkHello;

  /** @param tls Certificates and join token that it shows; absent: plain text. */
  constructor(host: RealHost, name: string, tls: Partial<LinkSecurityOptions> = {}) {
    this.#host = host;
    this.security = plainSecurity(name, { grid: 'test', ...tls });
    this.#hello = LinkHello.create({
      grid: 'test',
      host: name,
      toHost: host.name,
      process: randomUUID(),
      versionMin: 1,
      versionMax: 2,
      link: randomUUID(),
      bulkChannels: 1,
      softwareVersion: '0.0.0',
    });
  }

  get address(): string {
    return `127.0.0.1:${this.#host.server.port}`;
  }

  /** A call of gRPC. */
  call(hello: Partial<LinkHello>): { readonly pipe: LinkPipe; readonly greeting: Promise<Greeting> } {
    const { security } = this;
    const peer = hostId(this.#host.name);
    const client = new Client(this.address, security.channelCredentials(peer), security.channelOptions(peer));
    const call = client.makeBidiStreamRequest<Piece, Buffer>(linkPath, passPiece, passBytes, security.callMetadata());
    return this.#greet(new LinkPipe(new ClientWire(client, call)), hello);
  }

  /** A connection without gRPC. */
  bare(hello: Partial<LinkHello>, security = this.security) {
    const wire = BulkWire.dial(this.address, security.connectionOptions(hostId(this.#host.name)));
    return this.#greet(new LinkPipe(wire), { channel: 1, join: security.shown.join, ...hello });
  }

  #greet(pipe: LinkPipe, hello: Partial<LinkHello>) {
    onTestFinished(() => pipe.close(false));
    const greeting = new Promise<Greeting>((resolve, reject) => {
      const read = firstFrame((frame) => {
        pipe.unlisten();
        resolve(readWelcome(frame));
      });
      pipe.listen({
        piece: (piece) => {
          try {
            read(piece);
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)));
          }
        },
        room: () => undefined,
        end: () => resolve('ended'),
      });
    });
    sendHello(pipe, { ...this.#hello, ...hello });
    return { pipe, greeting };
  }
}
