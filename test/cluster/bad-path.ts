/**
 * A TCP proxy that makes a path bad: each way it holds bytes back for a while, and now and then for as long as TCP takes to
 * send a lost packet again, which is how loss looks from above TCP. Bytes keep their order.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';

export interface BadPathOptions {
  readonly listen: { readonly address: string; readonly port: number };
  readonly target: { readonly address: string; readonly port: number };
}

/** How bad it is; may change while bytes flow. */
export interface Badness {
  /** Milliseconds each way. */
  delayMs: number;
  /** Of a hundred pieces so many are held back by `stallMs` more, as after a loss. */
  lossPercent: number;
  stallMs: number;
}

export class BadPath {
  readonly badness: Badness;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #pieces = 0;
  #stalled = 0;

  private constructor(server: Server, badness: Badness) {
    this.#server = server;
    this.badness = badness;
  }

  static async start({ listen, target }: BadPathOptions, badness: Badness): Promise<BadPath> {
    const server = createServer();
    const path = new BadPath(server, badness);
    server.on('connection', (near) => {
      const far = connect(target.port, target.address);
      path.#carry(near, far);
      path.#carry(far, near);
    });
    server.listen(listen.port, listen.address);
    await once(server, 'listening');
    return path;
  }

  /** Pieces that were held back as if they had been lost. */
  get stalled(): number {
    return this.#stalled;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #carry(from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.setNoDelay(true);
    let freeMs = 0;
    from.on('data', (bytes: Buffer) => {
      const { delayMs, lossPercent, stallMs } = this.badness;
      this.#pieces += 1;
      // Even spacing instead of chance: every run meets as many losses.
      const isLost = lossPercent > 0 && this.#pieces % Math.round(100 / lossPercent) === 0;
      if (isLost) this.#stalled += 1;
      const nowMs = performance.now();
      freeMs = Math.max(freeMs, nowMs + delayMs + (isLost ? stallMs : 0));
      setTimeout(() => to.write(bytes), freeMs - nowMs);
    });
    from.on('error', () => undefined);
    from.on('close', () => {
      this.#sockets.delete(from);
      to.destroy();
    });
  }
}
