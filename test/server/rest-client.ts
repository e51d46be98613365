/** REST by hand, for requests that no ordinary client would send. */
import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from 'node:http';

export interface RestAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly json: () => Record<string, unknown>;
}

export class RestClient {
  readonly #port: number;

  constructor(port: number) {
    this.#port = port;
  }

  send(
    method: string,
    path: string,
    body?: string | Uint8Array,
    headers: Record<string, string | number> = {},
    options: RequestOptions = {},
  ): Promise<RestAnswer> {
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        host: '127.0.0.1',
        port: this.#port,
        method,
        path,
        headers,
        agent: false,
        ...options,
      });
      request.on('error', reject);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const whole = Buffer.concat(chunks);
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: whole,
            json: () => JSON.parse(whole.toString()) as Record<string, unknown>,
          });
        });
      });
      request.end(body);
    });
  }

  get(path: string, headers: Record<string, string> = {}): Promise<RestAnswer> {
    return this.send('GET', path, undefined, headers);
  }

  post(path: string, json: unknown, headers: Record<string, string> = {}): Promise<RestAnswer> {
    return this.send('POST', path, JSON.stringify(json), { 'content-type': 'application/json', ...headers });
  }

  /** JSON followed by raw tensors. */
  binary(
    path: string,
    json: unknown,
    tensors: readonly Uint8Array[],
    headers: Record<string, string> = {},
  ): Promise<RestAnswer> {
    const head = Buffer.from(JSON.stringify(json));
    return this.send('POST', path, Buffer.concat([head, ...tensors]), {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': head.byteLength,
      ...headers,
    });
  }
}

/** The JSON part and the raw part of an answer with binary tensors. */
export function parts(answer: RestAnswer): { readonly json: Record<string, unknown>; readonly raw: Buffer } {
  const length = Number(answer.headers['inference-header-content-length']);
  return {
    json: JSON.parse(answer.body.toString('utf8', 0, length)) as Record<string, unknown>,
    raw: answer.body.subarray(length),
  };
}
