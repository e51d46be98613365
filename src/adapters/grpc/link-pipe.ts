/**
 * One channel of a link: a gRPC call with both directions, as a byte stream in pieces. Pieces are written without being
 * joined first: the gRPC library asks what a serializer gives it for its length and to `copy` itself behind the five bytes
 * of its own frame head, and does nothing else with it, so that bytes are copied once on their way out.
 */
import type { ClientDuplexStream, ServerDuplexStream } from '@grpc/grpc-js';

/** Zeros before each piece: with the head of five bytes what follows lies at a multiple of eight. */
export const piecePadding = 3;

/** Bytes that look to the gRPC library like a Buffer. */
export class Piece {
  readonly length: number;
  readonly byteLength: number;
  readonly #ranges: readonly Uint8Array[];

  constructor(ranges: readonly Uint8Array[], bytes: number) {
    this.#ranges = ranges;
    this.byteLength = bytes + piecePadding;
    this.length = this.byteLength;
  }

  copy(target: Buffer, start = 0): number {
    let offset = start;
    for (; offset < start + piecePadding; offset += 1) target[offset] = 0;
    for (const range of this.#ranges) {
      target.set(range, offset);
      offset += range.byteLength;
    }
    return this.byteLength;
  }
}

export const passPiece = (piece: Piece): Buffer => piece as unknown as Buffer;
export const passBytes = (bytes: Buffer): Buffer => bytes;

export type LinkCall = ClientDuplexStream<Piece, Buffer> | ServerDuplexStream<Buffer, Piece>;

export interface PipeListener {
  readonly piece: (piece: Uint8Array) => void;
  /** It takes more again. */
  readonly room: () => void;
  /** Once, when it is over: the error, or undefined. */
  readonly end: (reason: unknown) => void;
}

/** Pieces kept while nobody listens; then the other side has to wait. */
const earlyPiecesMax = 16;

/** Both directions of one channel. */
export class LinkPipe {
  readonly #call: LinkCall;
  readonly #cancel: () => void;
  #isFull = false;
  #isOver = false;
  #listener: PipeListener | undefined;
  /** What came before anybody listened, and whether it has ended since. */
  #early: Uint8Array[] = [];
  #earlyEnd: { readonly reason: unknown } | undefined;

  /** `cancel` ends it at once, with whatever is under way. */
  constructor(call: LinkCall, cancel: () => void) {
    this.#call = call;
    this.#cancel = cancel;
    call.on('data', (message: Buffer) => {
      if (this.#isOver) return;
      const piece = message.subarray(piecePadding);
      if (this.#listener === undefined) this.#keep(piece);
      else this.#listener.piece(piece);
    });
    call.on('drain', () => {
      this.#isFull = false;
      if (!this.#isOver) this.#listener?.room();
    });
    call.on('error', (error: Error) => this.#end(error));
    call.on('end', () => this.#end(undefined));
    call.on('close', () => this.#end(undefined));
    // A server's call whose connection breaks says nothing else.
    call.on('cancelled', () => this.#end(undefined));
  }

  /** Whether it takes more now. */
  get hasRoom(): boolean {
    return !this.#isFull && !this.#isOver;
  }

  /** Hands over what came meanwhile, then all that comes, to this listener instead of the one before. */
  listen(listener: PipeListener): void {
    this.#listener = listener;
    const early = this.#early;
    this.#early = [];
    for (const piece of early) if (!this.#isOver) listener.piece(piece);
    if (this.#earlyEnd !== undefined) listener.end(this.#earlyEnd.reason);
    else if (early.length >= earlyPiecesMax) this.#call.resume();
  }

  /** Listens no more; what comes waits for the next listener. */
  unlisten(): void {
    this.#listener = undefined;
  }

  write(ranges: readonly Uint8Array[], bytes: number): void {
    if (this.#isOver) return;
    this.#isFull = !(this.#call as ClientDuplexStream<Piece, Buffer>).write(new Piece(ranges, bytes));
  }

  /** Ends it without telling the listener. What was written may still get through when it is ended gently. */
  close(gently: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (gently) this.#call.end();
    else this.#cancel();
  }

  /** Lets go of the call: from here on it is somebody else's. */
  release(): void {
    this.#isOver = true;
  }

  #keep(piece: Uint8Array): void {
    this.#early.push(piece);
    if (this.#early.length === earlyPiecesMax) this.#call.pause();
  }

  #end(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#listener === undefined) this.#earlyEnd = { reason };
    else this.#listener.end(reason);
  }
}
