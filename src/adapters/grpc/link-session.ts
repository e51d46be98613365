/**
 * One link while it lasts: frames over a control channel and bulk channels, in both directions, the same at both ends.
 *
 * What may be under way is bounded by credits: the receiver tells what it has taken from each channel, and a sender has at
 * most a window of messages and bytes out that are not taken yet. Beyond that, and beyond what the pipes take, messages
 * wait in a queue that is bounded too. When a pipe ends, or nothing was heard for too many ticks, the session is lost.
 */
import type { ActorAddress, Delivery } from '#core/actor-address.js';
import { Deque } from '#core/deque.js';
import { asIntarsiaError, intarsiaError, messageOf } from '#core/errors.js';
import { encodeFrame, FrameDecoder, type Frame, type OutgoingFrame } from '#core/frame.js';
import { linkFrameKind as kind } from '#core/grid/link-frames.js';
import { IncomingOrder, OutgoingOrder, waitsForNone } from '#core/grid/link-order.js';
import { decodeValue, encodeValue, type EncodedValue } from '#core/grid/value-codec.js';
import { WatchedHere } from '#core/grid/watch-book.js';
import { KiB, MiB } from '#core/units.js';
import type { Clock, Timer } from '#ports/clock.js';
import type { Entrance } from '#ports/links.js';
import { allocatePooled, allocateReceived } from './link-memory.js';
import type { LinkChannel, LinkPipe } from './link-pipe.js';

export interface SessionLimits {
  /** Messages of at least so many bytes go over bulk channels. */
  readonly bulkBytesMin: number;
  readonly messageBytesMax: number;
  readonly queueMessagesMax: number;
  readonly queueBytesMax: number;
  readonly keepaliveMs: number;
  readonly silenceMsMax: number;
}

/** Whom it belongs to. */
export interface SessionOwner {
  readonly host: string;
  readonly peer: string;
  readonly clock: Clock;
  readonly limits: SessionLimits;
  readonly entrance: () => Entrance | undefined;
  readonly counts: SessionCounts;
  ended(actor: ActorAddress, reason: 'stopped' | 'failed'): void;
  lost(reason: string): void;
}

export interface SessionCounts {
  sentMessages: number;
  sentBytes: number;
  receivedMessages: number;
  receivedBytes: number;
}

/** What a sender may have out, not yet taken over there, on each channel. One larger message passes when nothing is out. */
const windowBytes = 16 * MiB;
const windowMessages = 4_096;
/** Longest piece of a large message, and of gathered small ones. */
const pieceBytesMax = 1 * MiB;
const gatherBytesMax = 64 * KiB;
/** Credit is told after a share of the window, or this long after something was taken. */
const creditShare = 1 / 4;
const creditDelayMs = 5;
const frameOverheadBytes = 64;

const none = new Uint8Array();

interface Waiting {
  readonly ranges: readonly Uint8Array[];
  /** Of the frame. */
  readonly bytes: number;
  readonly isMessage: boolean;
}

class Channel {
  readonly out: LinkPipe;
  readonly in: LinkPipe;
  readonly decoder: FrameDecoder;
  readonly queue = new Deque<Waiting>();
  /** Credits, pings and pongs: they pass messages that wait for credit, or two full ends would wait for each other. */
  readonly urgent = new Deque<Waiting>();
  /** The message whose pieces are being written, and how far that has come. */
  current: { readonly waiting: Waiting; range: number; offset: number } | undefined;
  outMessages = 0;
  outBytes = 0;
  takenMessages = 0;
  takenBytes = 0;

  constructor(pipes: LinkChannel, frameBytesMax: number) {
    this.out = pipes.out;
    this.in = pipes.in;
    this.decoder = new FrameDecoder({ frameBytesMax, allocate: allocateReceived });
  }
}

export class LinkSession {
  readonly #owner: SessionOwner;
  /** 0: control; 1 and up: bulk. */
  readonly #channels: readonly Channel[];
  readonly #outgoing: OutgoingOrder;
  readonly #incoming: IncomingOrder<Frame>;
  readonly #watched: WatchedHere;
  #waitingMessages = 0;
  #waitingBytes = 0;
  #isOver = false;
  #isPumpPending = false;
  #creditTimer: Timer | undefined;
  #tick: Timer | undefined;
  #silentTicks = 0;
  #pingNumber = 0;
  #pingSentMs = 0;
  #pongListeners: (() => void)[] = [];
  #roundTripMs: number | undefined;
  #bytesPerSecond: number | undefined;
  #busySinceMs = 0;
  #busyBytes = 0;

  /** The control channel first, then at least one bulk channel. Nothing happens before `start`. */
  constructor(owner: SessionOwner, channels: readonly LinkChannel[]) {
    this.#owner = owner;
    const frameBytesMax = owner.limits.messageBytesMax + 4 * KiB;
    const bulkChannels = channels.length - 1;
    this.#channels = channels.map((pipes) => new Channel(pipes, frameBytesMax));
    this.#outgoing = new OutgoingOrder(bulkChannels);
    this.#incoming = new IncomingOrder(bulkChannels, (frame, channel) => this.#take(frame, channel + 1));
    this.#watched = new WatchedHere(
      (actor) => owner.entrance()?.whenEnded(actor) ?? Promise.resolve('stopped'),
      (actor, reason) => this.tellEnded(actor, reason),
    );
  }

  /**
   * Takes the channels over, with what came on them meanwhile. Call it once, when the owner knows the session: a channel
   * may have ended since the handshake, and then the session is lost in here.
   */
  start(): void {
    this.#channels.forEach((channel, index) => {
      const end = (reason: unknown): void => {
        this.#lose(reason === undefined ? 'the connection has ended' : `the connection broke: ${messageOf(reason)}`);
      };
      channel.out.listen({
        piece: () => this.#lose('the other side broke the protocol: it writes where it should read'),
        room: () => this.#pump(channel),
        end,
      });
      channel.in.listen({
        piece: (piece) => this.#received(() => channel.decoder.push(piece, (frame) => this.#arrived(frame, index))),
        room: () => undefined,
        end,
        into: {
          target: () => channel.decoder.target(),
          advance: (bytes) =>
            this.#received(() => channel.decoder.advance(bytes, (frame) => this.#arrived(frame, index))),
        },
      });
    });
    if (this.#isOver) return;
    const { clock, limits } = this.#owner;
    this.#tick = clock.schedule(limits.keepaliveMs, () => this.#lookAfter());
    this.#ping();
  }

  get roundTripMs(): number | undefined {
    return this.#roundTripMs;
  }

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond;
  }

  get waitingMessages(): number {
    return this.#waitingMessages;
  }

  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** A message that was encoded as `[path, incarnation, message]`. */
  send(to: ActorAddress, value: EncodedValue): Delivery {
    const { limits, counts } = this.#owner;
    const bytes = value.bytes + frameOverheadBytes;
    if (this.#waitingMessages >= limits.queueMessagesMax || this.#waitingBytes + bytes > limits.queueBytesMax) {
      return 'full';
    }
    counts.sentMessages += 1;
    counts.sentBytes += bytes;
    const receiver = `${to.path}#${to.incarnation}`;
    if (bytes < limits.bulkBytesMin) {
      const { tag, number } = this.#outgoing.small(receiver);
      this.#enqueue(0, { kind: kind.message, tag, number, ...value }, true);
    } else {
      const { channel, number } = this.#outgoing.large(receiver);
      this.#enqueue(channel + 1, { kind: kind.message, tag: 0, number, ...value }, true);
    }
    return 'accepted';
  }

  watch(actor: ActorAddress): void {
    this.#tell(['watch', actor.path, actor.incarnation, '', []]);
  }

  unwatch(actor: ActorAddress): void {
    this.#tell(['unwatch', actor.path, actor.incarnation, '', []]);
  }

  tellEnded(actor: ActorAddress, reason: 'stopped' | 'failed'): void {
    if (this.#isOver) return;
    // What the actor sent before its end arrives before the news of it.
    this.#tell(['ended', actor.path, actor.incarnation, reason, this.#outgoing.allLarge()]);
  }

  /** Resolves whether the other end answers within that time, ms. */
  probe(withinMs: number): Promise<boolean> {
    if (this.#isOver) return Promise.resolve(false);
    return new Promise((resolve) => {
      const timer = this.#owner.clock.schedule(withinMs, () => resolve(false));
      this.#pongListeners.push(() => {
        timer.cancel();
        resolve(true);
      });
      this.#ping();
    });
  }

  /** Ends it. `gently`: the other end is told. The owner is not. */
  close(gently: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#tick?.cancel();
    this.#creditTimer?.cancel();
    this.#watched.close();
    const control = this.#channels[0];
    if (gently && control?.out.hasRoom === true) {
      const ranges = encodeFrame({ kind: kind.bye, number: 0, header: none, payload: [] });
      control.out.write(ranges, byteSum(ranges));
    }
    for (const channel of this.#channels) {
      channel.out.close(gently);
      channel.in.close(gently);
    }
    for (const listener of this.#pongListeners.splice(0)) listener();
  }

  #lose(reason: string): void {
    if (this.#isOver) return;
    this.close(false);
    this.#owner.lost(reason);
  }

  #lookAfter(): void {
    // Own ticks are counted, not milliseconds: a host that was stopped itself does not blame the other.
    const { keepaliveMs, silenceMsMax } = this.#owner.limits;
    this.#silentTicks += 1;
    if (this.#silentTicks * keepaliveMs > silenceMsMax) {
      this.#lose(`nothing was heard for ${silenceMsMax} ms`);
      return;
    }
    this.#ping();
    this.#tick = this.#owner.clock.schedule(keepaliveMs, () => this.#lookAfter());
  }

  #ping(): void {
    this.#pingNumber = (this.#pingNumber + 1) >>> 0;
    this.#pingSentMs = this.#owner.clock.nowMs();
    this.#hurry({ kind: kind.ping, number: this.#pingNumber, header: none, payload: [] });
  }

  // Out

  #tell(content: unknown): void {
    this.#enqueue(0, { kind: kind.watch, number: 0, ...encodeValue(content) }, false);
  }

  #hurry(frame: OutgoingFrame): void {
    if (this.#isOver) return;
    const ranges = encodeFrame(frame, allocatePooled);
    this.#channels[0]?.urgent.push({ ranges, bytes: byteSum(ranges), isMessage: false });
    this.#pumpSoon();
  }

  #enqueue(index: number, frame: OutgoingFrame, isMessage: boolean): void {
    const channel = this.#channels[index];
    if (channel === undefined || this.#isOver) return;
    const ranges = encodeFrame(frame, allocatePooled);
    const bytes = byteSum(ranges);
    channel.queue.push({ ranges, bytes, isMessage });
    if (isMessage) {
      this.#waitingMessages += 1;
      this.#waitingBytes += bytes;
    }
    this.#pumpSoon();
  }

  /** What is sent in one turn goes out together. */
  #pumpSoon(): void {
    if (this.#isPumpPending) return;
    this.#isPumpPending = true;
    this.#owner.clock.defer(this.#pumpAll);
  }

  readonly #pumpAll = (): void => {
    this.#isPumpPending = false;
    for (const channel of this.#channels) this.#pump(channel);
  };

  #pump(channel: Channel): void {
    while (!this.#isOver && channel.out.hasRoom) {
      const ranges: Uint8Array[] = [];
      const bytes = this.#nextPiece(channel, ranges);
      if (bytes === 0) return;
      channel.out.write(ranges, bytes);
    }
  }

  /** Fills a piece with the rest of what is under way and, while it is short, with what follows. */
  #nextPiece(channel: Channel, into: Uint8Array[]): number {
    let bytes = 0;
    while (bytes < gatherBytesMax) {
      channel.current ??= this.#begin(channel);
      const { current } = channel;
      if (current === undefined) break;
      const { ranges } = current.waiting;
      for (; current.range < ranges.length && bytes < pieceBytesMax;) {
        const range = ranges[current.range] as Uint8Array;
        const part = range.subarray(current.offset, current.offset + pieceBytesMax - bytes);
        into.push(part);
        bytes += part.byteLength;
        current.offset += part.byteLength;
        if (current.offset === range.byteLength) {
          current.range += 1;
          current.offset = 0;
        }
      }
      if (current.range === ranges.length) channel.current = undefined;
    }
    return bytes;
  }

  /** The next frame, when the credit is there. What is no message needs none. */
  #begin(channel: Channel): Channel['current'] {
    if (channel.urgent.length > 0) return { waiting: channel.urgent.shift(), range: 0, offset: 0 };
    const head = channel.queue.peek();
    if (head === undefined) return undefined;
    if (head.isMessage) {
      const isOut = channel.outMessages > 0;
      if (isOut && (channel.outMessages >= windowMessages || channel.outBytes + head.bytes > windowBytes)) {
        return undefined;
      }
      if (channel !== this.#channels[0] && !isOut) {
        this.#busySinceMs = this.#owner.clock.nowMs();
        this.#busyBytes = 0;
      }
      channel.outMessages += 1;
      channel.outBytes += head.bytes;
    }
    return { waiting: channel.queue.shift(), range: 0, offset: 0 };
  }

  // In

  #received(decode: () => void): void {
    this.#silentTicks = 0;
    try {
      decode();
    } catch (error) {
      this.#lose(`the other side broke the protocol: ${asIntarsiaError(error).message}`);
    }
  }

  #arrived(frame: Frame, index: number): void {
    if (this.#isOver) return;
    if (frame.kind === kind.message) {
      if (index > 0) this.#incoming.large(frame, index - 1, frame.number);
      else this.#incoming.small(frame, frame.tag === waitsForNone ? [] : [[frame.tag, frame.number]]);
      return;
    }
    switch (frame.kind) {
      case kind.watch: {
        const [, , , , waits] = decodeValue(frame.header, frame.payload) as readonly unknown[];
        this.#incoming.small(frame, waits as readonly (readonly [number, number])[], false);
        return;
      }
      case kind.credit:
        this.#credited(decodeValue(frame.header, frame.payload) as readonly [number, number, number]);
        return;
      case kind.ping:
        this.#hurry({ kind: kind.pong, number: frame.number, header: none, payload: [] });
        return;
      case kind.pong:
        this.#ponged(frame.number);
        return;
      case kind.bye:
        this.#lose('the other side has closed the link');
        return;
      default:
        throw intarsiaError('INVALID_ARGUMENT', `frame kind ${frame.kind} is not known`);
    }
  }

  #take(frame: Frame, index: number): void {
    if (this.#isOver) return;
    const entrance = this.#owner.entrance();
    const { host, peer, counts } = this.#owner;
    if (frame.kind === kind.message) {
      const bytes = frame.header.byteLength + frame.payload.byteLength + frameOverheadBytes;
      counts.receivedMessages += 1;
      counts.receivedBytes += bytes;
      const [path, incarnation, message] = decodeValue(
        frame.header,
        frame.payload,
        (address) => entrance?.ref(address) ?? address,
      ) as [string, number, unknown];
      entrance?.deliver({ host, path, incarnation }, message);
      this.#taken(index, frameBytes(frame));
      return;
    }
    const [what, path, incarnation, reason] = decodeValue(frame.header, frame.payload) as [
      string,
      string,
      number,
      'stopped' | 'failed',
    ];
    if (what === 'watch') this.#watched.watch({ host, path, incarnation });
    else if (what === 'unwatch') this.#watched.unwatch({ host, path, incarnation });
    else this.#owner.ended({ host: peer, path, incarnation }, reason);
  }

  #taken(index: number, bytes: number): void {
    const channel = this.#channels[index];
    if (channel === undefined) return;
    channel.takenMessages += 1;
    channel.takenBytes += bytes;
    if (channel.takenBytes >= windowBytes * creditShare || channel.takenMessages >= windowMessages * creditShare) {
      this.#credit(channel, index);
    } else {
      this.#creditTimer ??= this.#owner.clock.schedule(creditDelayMs, () => {
        this.#creditTimer = undefined;
        this.#channels.forEach((each, position) => this.#credit(each, position));
      });
    }
  }

  #credit(channel: Channel, index: number): void {
    if (channel.takenMessages === 0) return;
    const { takenMessages, takenBytes } = channel;
    channel.takenMessages = 0;
    channel.takenBytes = 0;
    this.#hurry({ kind: kind.credit, number: 0, ...encodeValue([index, takenMessages, takenBytes]) });
  }

  #credited([index, messages, bytes]: readonly [number, number, number]): void {
    const channel = this.#channels[index];
    if (channel === undefined || messages > channel.outMessages || bytes > channel.outBytes) {
      throw intarsiaError('INVALID_ARGUMENT', `credit for more than was sent on channel ${index}`);
    }
    channel.outMessages -= messages;
    channel.outBytes -= bytes;
    this.#waitingMessages -= messages;
    this.#waitingBytes -= bytes;
    if (index > 0) {
      this.#outgoing.taken(index - 1, messages);
      this.#busyBytes += bytes;
      const ms = this.#owner.clock.nowMs() - this.#busySinceMs;
      if (ms > 0 && this.#busyBytes >= MiB)
        this.#bytesPerSecond = smooth(this.#bytesPerSecond, (this.#busyBytes / ms) * 1_000);
    }
    this.#pump(channel);
  }

  #ponged(number: number): void {
    if (number !== this.#pingNumber) return;
    this.#roundTripMs = smooth(this.#roundTripMs, this.#owner.clock.nowMs() - this.#pingSentMs);
    for (const listener of this.#pongListeners.splice(0)) listener();
  }
}

function smooth(average: number | undefined, value: number): number {
  return average === undefined ? value : average * 0.8 + value * 0.2;
}

/** Bytes the frame took on the wire: what its sender counted. */
function frameBytes({ header, payload }: Frame): number {
  return 24 + Math.ceil(header.byteLength / 8) * 8 + Math.ceil(payload.byteLength / 8) * 8;
}

function byteSum(ranges: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const range of ranges) bytes += range.byteLength;
  return bytes;
}
