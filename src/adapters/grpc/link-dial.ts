/**
 * Opens a link to another host: the own half of the control channel first, then the other calls, each a gRPC call on a
 * connection of its own, with windows that suit tensors and without compression.
 */
import { randomUUID } from 'node:crypto';
import { Client, type ServiceError } from '@grpc/grpc-js';
import { asIntarsiaError, errorCatalogue, intarsiaError, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import { MiB } from '#core/units.js';
import type { HostId } from '#core/ids.js';
import type { LinkWelcome } from '#gen/link.js';
import { firstFrame, readWelcome, sendHello, type LinkIdentity } from './link-handshake.js';
import { LinkPipe, type LinkChannel } from './link-pipe.js';
import { certificateFailure, type LinkSecurity } from './link-security.js';
import { ClientWire, linkPieceBytesMax, passBytes, passPiece, type Piece } from './link-wire.js';

export const linkPath = '/intarsia.link.v1.Link/Exchange';
/** HTTP/2 receive window of each connection and stream, bytes. */
export const linkWindowBytes = 16 * MiB;

export interface DialOptions {
  readonly identity: LinkIdentity;
  readonly security: LinkSecurity;
  readonly peer: HostId;
  readonly address: string;
  readonly bulkChannels: number;
  readonly connectMsMax: number;
}

export interface DialledLink {
  readonly welcome: LinkWelcome;
  /** The control channel first. */
  readonly channels: readonly LinkChannel[];
}

export interface Dialling {
  cancel(): void;
}

/** Exactly one of the two is called, once, unless it is cancelled before. */
export function dialLink(
  options: DialOptions,
  on: { readonly open: (link: DialledLink) => void; readonly failed: (error: IntarsiaError) => void },
): Dialling {
  const { identity, peer, bulkChannels } = options;
  const link = randomUUID();
  const pipes: (LinkPipe | undefined)[] = [];
  let isOver = false;
  const end = (): void => {
    isOver = true;
    clearTimeout(timer);
  };
  const giveUp = (): void => {
    end();
    for (const pipe of pipes) pipe?.close(false);
  };
  const fail = (error: unknown): void => {
    if (isOver) return;
    giveUp();
    on.failed(failureOf(peer, error));
  };
  const timer = setTimeout(() => {
    fail(
      intarsiaError('UNAVAILABLE', `host ${peer} at ${options.address} did not answer in ${options.connectMsMax} ms`),
    );
  }, options.connectMsMax);
  const open = (channel: number, isAnswering: boolean, welcomed: (welcome: LinkWelcome) => void): void => {
    const pipe = openPipe(options);
    pipes[position(channel, isAnswering)] = pipe;
    const read = firstFrame((frame) => {
      pipe.unlisten();
      const welcome = readWelcome(frame);
      if (welcome.host !== peer) {
        throw intarsiaError('FAILED_PRECONDITION', `at ${options.address} host ${welcome.host} answers, not ${peer}`);
      }
      welcomed(welcome);
    });
    pipe.listen({
      piece: (piece) => {
        try {
          read(piece);
        } catch (error) {
          fail(error);
        }
      },
      room: () => undefined,
      end: (reason) => {
        fail(reason ?? intarsiaError('UNAVAILABLE', `host ${peer} closed the connection`));
      },
    });
    sendHello(pipe, {
      grid: identity.grid,
      host: identity.host,
      toHost: peer,
      process: identity.process,
      generation: BigInt(identity.generation()),
      versionMin: identity.versions[0],
      versionMax: identity.versions[1],
      link,
      channel,
      bulkChannels,
      softwareVersion: identity.softwareVersion,
      isAnswering,
    });
  };
  open(0, false, (welcome) => {
    let missing = 1 + 2 * bulkChannels;
    const opened = (): void => {
      missing -= 1;
      if (missing > 0 || isOver) return;
      end();
      for (const pipe of pipes) pipe?.settle();
      const channels: LinkChannel[] = [];
      for (let channel = 0; channel <= bulkChannels; channel += 1) {
        const [out, into] = [pipes[position(channel, false)], pipes[position(channel, true)]];
        if (out !== undefined && into !== undefined) channels.push({ out, in: into });
      }
      on.open({ welcome, channels });
    };
    for (let channel = 0; channel <= bulkChannels; channel += 1) {
      if (channel > 0) open(channel, false, opened);
      open(channel, true, opened);
    }
  });
  return { cancel: giveUp };
}

function openPipe({ security, peer, address, connectMsMax }: DialOptions): LinkPipe {
  const client = new Client(address, security.channelCredentials(peer), {
    ...security.channelOptions(peer),
    'grpc.max_send_message_length': linkPieceBytesMax,
    'grpc.max_receive_message_length': linkPieceBytesMax,
    'grpc-node.flow_control_window': linkWindowBytes,
    'grpc.enable_retries': 0,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.service_config_disable_resolution': 1,
    'grpc.initial_reconnect_backoff_ms': connectMsMax,
    'grpc.enable_channelz': 0,
  });
  const call = client.makeBidiStreamRequest<Piece, Buffer>(linkPath, passPiece, passBytes, security.callMetadata(), {
    deadline: Infinity,
  });
  return new LinkPipe(new ClientWire(client, call));
}

/** Where a call of a link stands among all of them. */
function position(channel: number, isAnswering: boolean): number {
  return channel * 2 + (isAnswering ? 1 : 0);
}

function failureOf(peer: string, error: unknown): IntarsiaError {
  if (!isServiceError(error)) return asIntarsiaError(error);
  const certificate = certificateFailure(peer, error);
  if (certificate !== undefined) return certificate;
  const [code] = error.metadata.get('intarsia-code');
  const known = typeof code === 'string' && Object.hasOwn(errorCatalogue, code) ? (code as ErrorCode) : 'UNAVAILABLE';
  return intarsiaError(known, `host ${peer}: ${error.details}`, { host: peer }, error);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'details' in error && 'metadata' in error;
}
