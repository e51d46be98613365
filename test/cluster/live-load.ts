/**
 * Load on a grid while a test breaks something: an open loop, by `intarsia/client` with all endpoints or by a stock client of
 * one host that retries nothing. Tests wait for answers that come after a moment, and look at what failed at the end.
 */
import { NodeClock } from '#adapters/node/clock.js';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { openClientLoad } from '#cli/load/client-load.js';
import { completeLoadPlan } from '#cli/load/load-plan.js';
import type { LoadReport } from '#cli/load/load-report.js';
import { runLoad } from '#cli/load/load-runner.js';
import { requestBody } from '#cli/load/request-bodies.js';
import { connect } from '#client/index.js';
import type { LoadTarget, LoadTransport } from '#ports/load-transport.js';
import { isFull } from './extent.js';

export interface LoadOptions {
  readonly kind: 'client' | 'stock';
  /** All that are given to the client; a stock client takes the first. */
  readonly endpoints: readonly string[];
  readonly perSecond?: number;
  /** Default 2 s; where other tests run beside it, 10 s. */
  readonly deadlineMs?: number;
}

const deadlineMsDefault = isFull ? 2_000 : 10_000;

/** A bound for every test. */
const windowMsMax = 600_000;

export class LiveLoad {
  readonly #ending = new AbortController();
  readonly #report: Promise<LoadReport>;
  readonly #transport: LoadTransport;
  readonly #kind: LoadOptions['kind'];
  readonly #startMs = performance.now();
  #answers = 0;
  /** Code, client and moment of each failed request. */
  readonly failures: string[] = [];
  #waiting: { readonly at: number; readonly resolve: () => void }[] = [];

  private constructor(
    transport: LoadTransport,
    { kind, perSecond = 100, deadlineMs = deadlineMsDefault }: LoadOptions,
  ) {
    this.#transport = transport;
    this.#kind = kind;
    this.#report = runLoad({
      plan: completeLoadPlan({
        arrivals: { kind: 'poisson', ratePerSecond: perSecond },
        warmUpMs: 0,
        windowMs: windowMsMax,
        deadlineMs,
        drainMsMax: 2 * deadlineMs,
        receiptEvery: 0,
      }),
      transport: {
        open: () => transport.open(),
        send: (body, wantsAnswer, done) =>
          transport.send(body, wantsAnswer, (code, answer) => {
            this.#ended(code);
            done(code, answer);
          }),
        close: () => transport.close(),
      },
      clock: new NodeClock(),
      itemsPerRequest: 1,
      receiptOf: () => undefined,
      signal: this.#ending.signal,
    });
  }

  /** Resolves once the first hundred answers are there: caches are warm, and times of attempts learnt. */
  static async start(options: LoadOptions): Promise<LiveLoad> {
    const { kind, endpoints, deadlineMs = deadlineMsDefault } = options;
    const protocol = kind === 'client' ? 'client' : 'grpc';
    const x = { name: 'x', datatype: 'FP32', shape: [1, 4], data: new Uint8Array(16) } as const;
    const { path, headers, body } = requestBody(protocol, { name: 'affine', version: '' }, [x]);
    const target: LoadTarget = {
      protocol,
      address: kind === 'client' ? endpoints.join(',') : (endpoints[0] ?? ''),
      tls: false,
      path,
      headers,
      bodies: [body],
      connections: 1,
      timeoutMs: deadlineMs,
    };
    const transport = kind === 'client' ? openClientLoad(target, connect) : openGrpcLoad(target);
    await transport.open();
    const load = new LiveLoad(transport, options);
    await load.more(100);
    return load;
  }

  /** Resolves once so many more requests were answered well. */
  more(answers: number): Promise<void> {
    const at = this.#answers + answers;
    return new Promise((resolve) => this.#waiting.push({ at, resolve }));
  }

  /** Sends nothing more, waits for what is on its way, and says what came of it all. */
  async stop(): Promise<LoadReport> {
    this.#ending.abort();
    const report = await this.#report;
    this.#transport.close();
    return report;
  }

  #ended(code: string): void {
    if (code !== '') {
      const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(2);
      this.failures.push(`${code} (${this.#kind}, after ${seconds} s)`);
      return;
    }
    this.#answers += 1;
    for (const { at, resolve } of this.#waiting) if (at <= this.#answers) resolve();
    this.#waiting = this.#waiting.filter(({ at }) => at > this.#answers);
  }
}
