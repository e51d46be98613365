/**
 * One call of a link as its users see it: it can be listened to by one after the other (the handshake, then the session),
 * keeps what comes in between, and tells its end once.
 */
import type { Wire } from './link-wire.js';

export interface PipeListener {
  readonly piece: (piece: Uint8Array) => void;
  /** It takes more again. */
  readonly room: () => void;
  /** Once, when it is over: the error, or undefined. */
  readonly end: (reason: unknown) => void;
  /** Where it wants bytes to be, if the way of the call can read to a place it is given; the others come as pieces. */
  readonly into?: {
    /** Never empty; filled, at least in part, before it is asked again. */
    readonly target: () => Uint8Array;
    readonly advance: (bytes: number) => void;
  };
}

/** Both halves of a channel: who writes on one of them does not write on the other. */
export interface LinkChannel {
  readonly out: LinkPipe;
  readonly in: LinkPipe;
}

/** Pieces kept while nobody listens; then the other side has to wait. */
const earlyPiecesMax = 16;
/** A gentle end becomes a rough one after this long, ms. */
const gentleMsMax = 1_000;

export class LinkPipe {
  readonly #wire: Wire;
  #isFull = false;
  #isOver = false;
  #listener: PipeListener | undefined;
  /** What came before anybody listened, and whether it has ended since. */
  #early: Uint8Array[] = [];
  #earlyEnd: { readonly reason: unknown } | undefined;
  #ending: NodeJS.Timeout | undefined;

  constructor(wire: Wire) {
    this.#wire = wire;
    wire.listen({
      piece: (piece) => {
        if (this.#isOver) return;
        if (this.#listener === undefined) this.#keep(piece);
        else this.#listener.piece(piece);
      },
      room: () => {
        this.#isFull = false;
        if (!this.#isOver) this.#listener?.room();
      },
      end: (reason) => this.#end(reason),
      target: () => (this.#isOver ? undefined : this.#listener?.into?.target()),
      advance: (bytes) => {
        if (!this.#isOver) this.#listener?.into?.advance(bytes);
      },
    });
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
    else if (early.length >= earlyPiecesMax) this.#wire.resume();
  }

  /** Listens no more; what comes waits for the next listener. */
  unlisten(): void {
    this.#listener = undefined;
  }

  /** Keeps a piece for the next listener, who gets it first. */
  putBack(piece: Uint8Array): void {
    this.#early.unshift(piece);
  }

  /** The handshake is over, and the other side silent until it hears from here. */
  settle(): void {
    this.#wire.settle();
  }

  write(ranges: readonly Uint8Array[], bytes: number): void {
    if (this.#isOver) return;
    this.#isFull = !this.#wire.write(ranges, bytes);
  }

  /** Ends it without telling the listener. What was written may still get through when it is ended gently. */
  close(gently: boolean): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (!gently) {
      this.#wire.cancel();
      return;
    }
    this.#wire.end();
    this.#ending = setTimeout(() => {
      this.#wire.cancel();
    }, gentleMsMax).unref();
  }

  /** Lets go of the call: from here on it is somebody else's. */
  release(): void {
    this.#isOver = true;
  }

  #keep(piece: Uint8Array): void {
    this.#early.push(piece);
    if (this.#early.length === earlyPiecesMax) this.#wire.pause();
  }

  #end(reason: unknown): void {
    clearTimeout(this.#ending);
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#listener === undefined) this.#earlyEnd = { reason };
    else this.#listener.end(reason);
  }
}
