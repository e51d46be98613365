/**
 * A road to a server for load: sends prebuilt bodies as fast as it is told to. Made for measuring, so it must cost far
 * less than the server it drives: nothing is encoded, decoded or copied per request.
 *
 * Promises: `done` is called exactly once per `send`, never synchronously; after `close` every open request ends with
 * `UNANSWERED`; a lost connection ends its requests with `UNAVAILABLE` and is opened again by a later `send`.
 */
export interface LoadTransport {
  /** Opens every connection. @throws UNAVAILABLE when one cannot be opened. */
  open(): Promise<void>;
  /** Sends the body of this index. `wantsAnswer`: hand over the answer's bytes, headers of the protocol left out. */
  send(body: number, wantsAnswer: boolean, done: LoadDone): void;
  close(): void;
}

/** `code` is empty when the server answered well; otherwise an error code or the name of a status. */
export type LoadDone = (code: string, answer: Uint8Array | undefined) => void;

/** `client` is `intarsia/client` as programs use it, with retries; the others are bare roads without any. */
export const loadProtocols = ['grpc', 'grpc-stream', 'rest-json', 'rest-binary', 'client'] as const;
export type LoadProtocol = (typeof loadProtocols)[number];

/** Where and what a transport sends. */
export interface LoadTarget {
  readonly protocol: LoadProtocol;
  /** `host:port`; of `client` any number of them, with commas between. */
  readonly address: string;
  readonly tls: boolean;
  /** gRPC method or path of the URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Whole bodies, without gRPC's frame; of `client` those of gRPC. Used by their index. */
  readonly bodies: readonly Uint8Array[];
  readonly connections: number;
  /** Time limit told to the server with each request, ms; 0 for none. */
  readonly timeoutMs: number;
}
