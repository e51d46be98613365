/** The first frames of each call: who dials whom, in which version, for which link. */
import { intarsiaError } from '#core/errors.js';
import { encodeFrame, FrameDecoder, joinRanges, type Frame } from '#core/frame.js';
import { agreedVersion, linkFrameKind } from '#core/grid/link-frames.js';
import { KiB } from '#core/units.js';
import { LinkHello, LinkWelcome } from '#gen/link.js';
import type { LinkPipe } from './link-pipe.js';

/** Who this host is, to others. */
export interface LinkIdentity {
  readonly grid: string;
  readonly host: string;
  /** Random text of this process. */
  readonly process: string;
  /** Incarnation of the host in the grid; 0 before it has joined. */
  readonly generation: () => number;
  readonly softwareVersion: string;
  /** Oldest and newest version of the link protocol. */
  readonly versions: readonly [number, number];
}

const textMax = 255;
const firstFrameBytesMax = 4 * KiB;

export function sendHello(pipe: LinkPipe, hello: LinkHello): void {
  write(pipe, linkFrameKind.hello, LinkHello.toBinary(hello));
}

/** @param token On the control channel, from `bareBulkVersionMin`; empty otherwise. */
export function sendWelcome(pipe: LinkPipe, identity: LinkIdentity, version: number, token: Uint8Array): void {
  const welcome: LinkWelcome = {
    host: identity.host,
    process: identity.process,
    generation: BigInt(identity.generation()),
    version,
    softwareVersion: identity.softwareVersion,
    token,
  };
  write(pipe, linkFrameKind.welcome, LinkWelcome.toBinary(welcome));
}

function write(pipe: LinkPipe, kind: number, header: Uint8Array): void {
  const frame = joinRanges(encodeFrame({ kind, number: 0, header, payload: [] }));
  pipe.write([frame], frame.byteLength);
}

/** @throws INVALID_ARGUMENT when the frame is no hello. */
export function readHello(frame: Frame): LinkHello {
  const hello = LinkHello.fromBinary(headerOf(frame, linkFrameKind.hello));
  for (const text of [
    hello.grid,
    hello.host,
    hello.toHost,
    hello.process,
    hello.link,
    hello.softwareVersion,
    hello.join,
  ]) {
    if (text.length > textMax) throw intarsiaError('INVALID_ARGUMENT', 'a text of the link hello is too long');
  }
  return hello;
}

/** @throws INVALID_ARGUMENT when the frame is no welcome. */
export function readWelcome(frame: Frame): LinkWelcome {
  return LinkWelcome.fromBinary(headerOf(frame, linkFrameKind.welcome));
}

/** Reads the first frame of a call, in whatever pieces it comes. Call `unlisten` before anything else follows. */
export function firstFrame(onFrame: (frame: Frame) => void): (piece: Uint8Array) => void {
  const decoder = new FrameDecoder({ frameBytesMax: firstFrameBytesMax });
  return (piece) => {
    decoder.push(piece, onFrame);
  };
}

function headerOf(frame: Frame, kind: number): Uint8Array {
  if (frame.kind === kind) return frame.header;
  throw intarsiaError('INVALID_ARGUMENT', `a link begins with a frame of kind ${frame.kind} instead of ${kind}`);
}

/**
 * The version to speak with whoever says this hello.
 * @throws FAILED_PRECONDITION (another host was wanted, no common version), ALREADY_EXISTS (it has this host's own name),
 * PERMISSION_DENIED (another grid, or not the host that was let in).
 */
export function checkHello(hello: LinkHello, identity: LinkIdentity, admitted: string): number {
  if (hello.grid !== identity.grid || hello.host !== admitted) {
    throw intarsiaError('PERMISSION_DENIED', `host ${admitted} says it is ${hello.host} of the grid ${hello.grid}`);
  }
  if (hello.host === identity.host) {
    throw intarsiaError(
      'ALREADY_EXISTS',
      `two hosts are named ${identity.host}: this one, and the one that dials; give one of them another --host-name`,
      { host: identity.host },
    );
  }
  if (hello.toHost !== identity.host) {
    throw intarsiaError('FAILED_PRECONDITION', `host ${hello.toHost} is wanted and this is host ${identity.host}`);
  }
  const { versions } = identity;
  const version = agreedVersion(versions, [hello.versionMin, hello.versionMax]);
  if (version !== undefined) return version;
  throw intarsiaError(
    'FAILED_PRECONDITION',
    `host ${identity.host} (${identity.softwareVersion}) speaks link versions ${versions[0]} to ${versions[1]}, host ${hello.host} (${hello.softwareVersion}) ${hello.versionMin} to ${hello.versionMax}: none in common`,
  );
}
