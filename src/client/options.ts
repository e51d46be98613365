/** Options of a client: what may be given, and the complete, checked result. Each says its unit, default and range. */
import { intarsiaError } from '#core/errors.js';
import { MiB } from '#core/units.js';
import type { ChannelTls } from '#adapters/grpc/client-channel.js';
import type { Clock } from '#ports/clock.js';
import type { Random } from '#ports/random.js';

export interface ClientOptions {
  /** Where hosts listen for gRPC: `host`, `host:port`, `grpc://host:port`, or `grpcs://host:port` for TLS. Port 8001 unless given. 1 to 256. */
  readonly endpoints: string | readonly string[];
  /** Talk TLS to every endpoint. `true` trusts the system's authorities. Default: only to endpoints written `grpcs://`. */
  readonly tls?: boolean | Partial<ChannelTls>;
  /** Bearer token sent with every call; empty for none. It goes over plain text to loopback only, unless `allowPlaintextToken`. */
  readonly token?: string;
  /** Send the token without TLS to an address that is not loopback. Default false. */
  readonly allowPlaintextToken?: boolean;
  /** More headers for every call, such as `triton-grpc-protocol-inference`. Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Milliseconds a call may take, all its attempts together, unless the call says otherwise. Default 30,000; Infinity for no limit. */
  readonly timeoutMs?: number;
  /** Attempts of one call, the first included. 1 to 10, default 3. 1 never retries. */
  readonly attemptsMax?: number;
  /** How much retrying the client may do. */
  readonly retry?: Partial<RetryOptions>;
  /** How a failing endpoint is left alone. */
  readonly ejection?: Partial<EjectionOptions>;
  /** Which endpoint gets the next call. `least-in-flight` (default) suits unequal hosts, `round-robin` equal ones. */
  readonly balancing?: Balancing;
  /**
   * Connections to each endpoint, 1 to 64, default 1. Each has a flow-control window of its own: raise it to 2 or 4 where
   * tensors of a megabyte and more travel with several in flight.
   */
  readonly connections?: number;
  /** Bytes of one message, either way. Default 2 GiB − 1, gRPC's own limit. Beyond: REQUEST_TOO_LARGE. */
  readonly messageBytesMax?: number;
  /** HTTP/2 receive window, bytes, 64 KiB to 1 GiB, default 16 MiB. Higher: large answers arrive faster, more memory per connection. */
  readonly windowBytes?: number;
  /** Calls on their way at once. 1 to 1,000,000, default 10,000. At the bound: RESOURCE_EXHAUSTED. */
  readonly inFlightMax?: number;
  /**
   * Learn all gateways of a grid from any of them, and use them all. Default true; servers that are no grid are used as
   * they are. False: only the endpoints given.
   */
  readonly discovery?: boolean;
  /** Milliseconds after which a call makes the client look for gateways again, 100 to 3,600,000, default 5,000. */
  readonly discoveryMs?: number;
  /** Time and chance, for tests. Default: the system's. */
  readonly clock?: Clock;
  readonly random?: Random;
}

export type Balancing = 'least-in-flight' | 'round-robin';

/** The token bucket of gRPC's retry throttling: retries stop while the bucket is at most half full. */
export interface RetryOptions {
  /**
   * Tokens in the full bucket; each failed attempt takes one. 1 to 1,000, default 256: an executor that dies with two batches
   * of 64 in its hands fails 128 calls in one moment, and each of them is worth its retry.
   */
  readonly tokensMax: number;
  /** Tokens a success gives back. 0 to 1, default 0.1: at most about one retry in ten calls when everything fails slowly. */
  readonly tokensPerSuccess: number;
  /** Wait before the second attempt on the same endpoint, doubled each time, drawn between 0 and this. Default 50 ms. */
  readonly backoffMsMin: number;
  /** Largest wait between two attempts. Default 2,000 ms. */
  readonly backoffMsMax: number;
}

export interface EjectionOptions {
  /** Failures in a row after which an endpoint gets no more calls for a while. 1 to 1,000, default 3. */
  readonly failuresMax: number;
  /** First time out, doubled with each ejection in a row. Default 1,000 ms. */
  readonly ejectMsMin: number;
  /** Longest time out. Default 30,000 ms. */
  readonly ejectMsMax: number;
}

export interface EndpointOptions {
  /** As the user wrote it, for messages. */
  readonly name: string;
  /** What the gRPC library dials. */
  readonly target: string;
  readonly tls?: ChannelTls;
}

export interface CompleteClientOptions {
  readonly endpoints: readonly EndpointOptions[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly attemptsMax: number;
  readonly retry: RetryOptions;
  readonly ejection: EjectionOptions;
  readonly balancing: Balancing;
  readonly connections: number;
  readonly messageBytesMax: number;
  readonly windowBytes: number;
  readonly inFlightMax: number;
  readonly discovery: boolean;
  readonly discoveryMs: number;
  /** Whether the token may go there: over TLS, to loopback, or anywhere when the user said so. */
  readonly maySend: (endpoint: EndpointOptions) => boolean;
}

const grpcPortDefault = 8001;
const int32Max = 2 ** 31 - 1;

/**
 * Fills in defaults and checks every value.
 * @throws CONFIG_INVALID naming the option, what it must be and what it is.
 */
export function completeClientOptions(options: ClientOptions): CompleteClientOptions {
  const listed = typeof options.endpoints === 'string' ? [options.endpoints] : options.endpoints;
  inRange('endpoints', listed.length, { min: 1, max: 256 }, 'entries');
  const tls = completeTls(options.tls);
  const endpoints = listed.map((text) => parseEndpoint(text, tls));
  const token = options.token ?? '';
  const maySend = ({ tls: secure, target }: EndpointOptions): boolean =>
    token === '' || secure !== undefined || isLoopback(target) || options.allowPlaintextToken === true;
  const exposed = endpoints.find((endpoint) => !maySend(endpoint));
  if (exposed !== undefined) {
    throw wrong(
      'token',
      'sent over TLS or to a loopback address, unless allowPlaintextToken is set',
      `for ${exposed.name} without TLS`,
    );
  }
  const complete: CompleteClientOptions = {
    endpoints,
    metadata: { ...options.headers, ...(token === '' ? {} : { authorization: `Bearer ${token}` }) },
    timeoutMs: options.timeoutMs ?? 30_000,
    attemptsMax: options.attemptsMax ?? 3,
    retry: { tokensMax: 256, tokensPerSuccess: 0.1, backoffMsMin: 50, backoffMsMax: 2000, ...options.retry },
    ejection: { failuresMax: 3, ejectMsMin: 1000, ejectMsMax: 30_000, ...options.ejection },
    balancing: options.balancing ?? 'least-in-flight',
    connections: options.connections ?? 1,
    messageBytesMax: options.messageBytesMax ?? int32Max,
    windowBytes: options.windowBytes ?? 16 * MiB,
    inFlightMax: options.inFlightMax ?? 10_000,
    discovery: options.discovery ?? true,
    discoveryMs: options.discoveryMs ?? 5000,
    maySend,
  };
  if (!(complete.timeoutMs > 0)) throw wrong('timeoutMs', 'a number of milliseconds above 0', complete.timeoutMs);
  inRange('attemptsMax', complete.attemptsMax, { min: 1, max: 10 });
  inRange('retry.tokensMax', complete.retry.tokensMax, { min: 1, max: 1000 });
  inRange('retry.tokensPerSuccess', complete.retry.tokensPerSuccess, { min: 0, max: 1, fraction: true });
  inRange('retry.backoffMsMin', complete.retry.backoffMsMin, { min: 0, max: 60_000, fraction: true });
  inRange('retry.backoffMsMax', complete.retry.backoffMsMax, {
    min: complete.retry.backoffMsMin,
    max: 600_000,
    fraction: true,
  });
  inRange('ejection.failuresMax', complete.ejection.failuresMax, { min: 1, max: 1000 });
  inRange('ejection.ejectMsMin', complete.ejection.ejectMsMin, { min: 0, max: 600_000, fraction: true });
  inRange('ejection.ejectMsMax', complete.ejection.ejectMsMax, {
    min: complete.ejection.ejectMsMin,
    max: 3_600_000,
    fraction: true,
  });
  inRange('connections', complete.connections, { min: 1, max: 64 });
  inRange('messageBytesMax', complete.messageBytesMax, { min: 1024, max: int32Max }, 'bytes');
  inRange('windowBytes', complete.windowBytes, { min: 65_535, max: 1024 * MiB }, 'bytes');
  inRange('discoveryMs', complete.discoveryMs, { min: 100, max: 3_600_000, fraction: true });
  inRange('inFlightMax', complete.inFlightMax, { min: 1, max: 1_000_000 });
  return complete;
}

function completeTls(tls: ClientOptions['tls']): ChannelTls | undefined {
  if (tls === undefined || tls === false) return undefined;
  const nothing: ChannelTls = { authorityPath: '', certificatePath: '', keyPath: '', serverName: '' };
  const complete = tls === true ? nothing : { ...nothing, ...tls };
  if ((complete.certificatePath === '') !== (complete.keyPath === '')) {
    throw wrong('tls', 'given with both certificatePath and keyPath, or neither', 'one of the two');
  }
  return complete;
}

function parseEndpoint(text: string, tls: ChannelTls | undefined): EndpointOptions {
  const parts = /^(?:(grpcs?|https?):\/\/)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?\/?$/.exec(text);
  const [, scheme, host, portText] = parts ?? [];
  const port = portText === undefined ? grpcPortDefault : Number(portText);
  if (host === undefined || port < 1 || port > 65_535) {
    throw wrong('endpoints', 'written host:port, grpc://host:port or grpcs://host:port', JSON.stringify(text));
  }
  const secure = tls ?? (scheme === 'grpcs' || scheme === 'https' ? completeTls(true) : undefined);
  return { name: text, target: `${host}:${port}`, ...(secure === undefined ? {} : { tls: secure }) };
}

/** An endpoint that a server named; undefined when the text is none. */
export function completeEndpoint(text: string, tls: ChannelTls | undefined): EndpointOptions | undefined {
  try {
    return parseEndpoint(text, tls);
  } catch {
    // Somebody else's text: one gateway fewer, no failure of a call.
    return undefined;
  }
}

export function isLoopback(target: string): boolean {
  return /^(localhost|127(\.[0-9]+){3}|\[::1\]):/.test(target);
}

function inRange(
  option: string,
  value: number,
  range: { readonly min: number; readonly max: number; readonly fraction?: boolean },
  unit = '',
): void {
  if (value >= range.min && value <= range.max && (range.fraction === true || Number.isInteger(value))) return;
  const kind = range.fraction === true ? 'a number' : 'a whole number';
  throw wrong(option, `${kind} from ${range.min} to ${range.max}${unit === '' ? '' : ` ${unit}`}`, value);
}

function wrong(option: string, wanted: string, value: string | number): Error {
  return intarsiaError('CONFIG_INVALID', `client option ${option} must be ${wanted}; it is ${value}`, { option });
}
