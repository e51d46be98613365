/**
 * Load over HTTP/1.1: one POST per request, on as many connections as the generator may have requests on their way.
 * Bodies are sent as they are; an answer is read only when somebody wants it.
 */
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { LoadDone, LoadTarget, LoadTransport } from '#ports/load-transport.js';

/** A transport for `rest-json` and `rest-binary`: the difference is in the bodies and headers of the target. */
export function openRestLoad(target: LoadTarget): LoadTransport {
  const origin = `${target.tls ? 'https' : 'http'}://${target.address}`;
  const pool = new Pool(origin, {
    connections: target.connections,
    pipelining: 1,
    headersTimeout: target.timeoutMs === 0 ? 0 : target.timeoutMs,
    bodyTimeout: 0,
    keepAliveTimeout: 60_000,
  });
  const headers = { ...target.headers };
  const bodies = target.bodies.map((body) => Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  let closed = false;
  return {
    open: async () => {
      // undici connects when it is used: a request that every server answers, whatever it says.
      try {
        const answer = await pool.request({ path: '/', method: 'GET' });
        await answer.body.dump();
      } catch (error) {
        throw intarsiaError('UNAVAILABLE', `${origin} cannot be reached: ${messageOf(error)}`, {}, error);
      }
    },
    send: (body, wantsAnswer, done) => {
      pool.dispatch(
        { path: target.path, method: 'POST', headers, body: bodies[body] ?? null },
        new AnswerHandler(wantsAnswer, () => closed, done),
      );
    },
    close: () => {
      closed = true;
      void pool.destroy();
    },
  };
}

class AnswerHandler implements Dispatcher.DispatchHandler {
  readonly #done: LoadDone;
  readonly #isClosed: () => boolean;
  readonly #chunks: Buffer[] | undefined;
  #status = 0;

  constructor(wantsAnswer: boolean, isClosed: () => boolean, done: LoadDone) {
    this.#chunks = wantsAnswer ? [] : undefined;
    this.#isClosed = isClosed;
    this.#done = done;
  }

  onRequestStart(): void {
    // Nothing to prepare; the dispatcher insists on the method.
  }

  onResponseStart(_controller: Dispatcher.DispatchController, statusCode: number): void {
    this.#status = statusCode;
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks?.push(chunk);
  }

  onResponseEnd(): void {
    const code = this.#status === 200 ? '' : `HTTP_${this.#status}`;
    this.#done(code, this.#chunks === undefined ? undefined : Buffer.concat(this.#chunks));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    const timedOut = (error as Error & { code?: string }).code === 'UND_ERR_HEADERS_TIMEOUT';
    this.#done(this.#isClosed() ? 'UNANSWERED' : timedOut ? 'DEADLINE_EXCEEDED' : 'UNAVAILABLE', undefined);
  }
}
