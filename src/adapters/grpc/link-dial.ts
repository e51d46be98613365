/**
 * Opens a link to another host: the own half of the control channel first, then the others, each a gRPC call on a
 * connection of its own, with windows that suit tensors and without compression. Bulk channels do without gRPC where the
 * other host knows how (link-bulk-wire.ts), and where nothing between the two is in the way of it.
 */
import { randomUUID } from 'node:crypto';
import { Client, type ServiceError } from '@grpc/grpc-js';
import { asIntarsiaError, errorCatalogue, intarsiaError, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import { MiB } from '#core/units.js';
import { bareBulkVersionMin } from '#core/grid/link-frames.js';
import type { HostId } from '#core/ids.js';
import type { LinkWelcome } from '#gen/link.js';
import { BulkWire } from './link-bulk-wire.js';
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

/** One call, or one connection without gRPC. */
interface Opening {
  readonly channel: number;
  readonly isAnswering: boolean;
  readonly token: Uint8Array;
  readonly isBare: boolean;
}

const noToken = new Uint8Array();

export interface Dialling {
  cancel(): void;
}

/** Exactly one of the two is called, once, unless it is cancelled before. */
export function dialLink(
  options: DialOptions,
  on: {
    readonly open: (link: DialledLink) => void;
    readonly failed: (error: IntarsiaError) => void;
    /** A bulk channel goes over gRPC because it could not do without. */
    readonly detour: (error: IntarsiaError) => void;
  },
): Dialling {
  const { identity, peer, bulkChannels, security } = options;
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
  const open = ({ channel, isAnswering, token, isBare }: Opening, welcomed: (welcome: LinkWelcome) => void): void => {
    const pipe = isBare ? openBare(options) : openPipe(options);
    pipes[position(channel, isAnswering)] = pipe;
    const refused = (error: unknown): void => {
      clearTimeout(patience);
      if (!isBare) fail(error);
      else if (!isOver) {
        pipe.close(false);
        on.detour(failureOf(peer, error));
        open({ channel, isAnswering, token, isBare: false }, welcomed);
      }
    };
    // Whatever does not understand such a connection may as well say nothing: time is left for gRPC.
    const patienceMs = options.connectMsMax / 2;
    const patience = isBare
      ? setTimeout(() => {
          refused(intarsiaError('UNAVAILABLE', `host ${peer} did not answer in ${patienceMs} ms`));
        }, patienceMs).unref()
      : undefined;
    const read = firstFrame((frame) => {
      clearTimeout(patience);
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
          refused(error);
        }
      },
      room: () => undefined,
      end: (reason) => {
        refused(reason ?? intarsiaError('UNAVAILABLE', `host ${peer} closed the connection`));
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
      token,
      join: isBare ? security.shown.join : '',
    });
  };
  open({ channel: 0, isAnswering: false, token: noToken, isBare: false }, (welcome) => {
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
    const isKnown = welcome.version >= bareBulkVersionMin;
    for (let channel = 0; channel <= bulkChannels; channel += 1) {
      const opening = { channel, token: welcome.token, isBare: isKnown && channel > 0 };
      if (channel > 0) open({ ...opening, isAnswering: false }, opened);
      open({ ...opening, isAnswering: true }, opened);
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

function openBare({ security, peer, address }: DialOptions): LinkPipe {
  return new LinkPipe(BulkWire.dial(address, security.connectionOptions(peer)));
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
