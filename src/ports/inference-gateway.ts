/**
 * The door between a transport and the host: what gRPC and REST call with a decoded request, and how they are answered.
 *
 * Promises:
 * - `infer` never throws and never waits. Each call is answered exactly once, by `succeed` or `fail`, perhaps before
 *   `infer` returns; after `cancel` it is answered at once.
 * - Nothing here knows sockets, headers or encodings: a transport decodes, asks for the caller, calls, encodes.
 * - The message's bytes are read until the answer and never written to.
 */
import type { ApiGroup } from '#core/api-group.js';
import type { IntarsiaError } from '#core/errors.js';
import type { TenantId } from '#core/ids.js';
import type { InferRequestMessage, InferResponseMessage } from '#core/inference-message.js';
import type { SloClass } from '#core/scheduling/slo-class.js';

/** Who calls, once the credentials were checked. */
export interface Caller {
  readonly tenant: TenantId;
  /** Whether the request may name another tenant in `intarsia_tenant`: true only where no tokens are configured. */
  readonly namesTenant: boolean;
  /** What the tenant's requests aim at where they do not say so themselves; instead of what the model says. */
  readonly slo?: TenantSlo;
  /** Whether the caller may use, or learn about, this model. */
  mayUse(model: string): boolean;
}

/** A tenant's target. At least one of the two means something. */
export interface TenantSlo {
  /** Milliseconds; 0: that of the class. */
  readonly sloMs: number;
  readonly sloClass: SloClass | undefined;
}

export interface InferCall {
  readonly caller: Caller;
  /** Moment on the host's monotonic clock (ms) after which nobody wants the answer; Infinity without one. */
  readonly deadlineMs: number;
  /** Bytes the request occupies in memory; counted against the host's limit while it is in flight. */
  readonly messageBytes: number;
  /** Milliseconds from arrival in which the client hopes for an answer; 0 without a hope. */
  readonly sloMs: number;
  /** W3C trace context the client sent. */
  readonly traceparent: string | undefined;
  /** Parameters that begin with `triton_` and are allowed on this transport. */
  readonly reservedParameters: ReadonlySet<string>;
}

/** The other end of a call. */
export interface InferReply {
  /**
   * @param requestIsRead Nobody reads the bytes of the request any more, unless outputs are views on them: their memory may
   * be used again.
   */
  succeed(answer: InferResponseMessage, requestIsRead: boolean): void;
  fail(error: IntarsiaError): void;
}

/** A call under way. */
export interface InferTicket {
  /** The client went away: leave every queue at once. Does nothing once the call is answered. */
  cancel(): void;
}

export interface InferGateway {
  infer(message: InferRequestMessage, call: InferCall, reply: InferReply): InferTicket;
  /** Milliseconds on the clock that `deadlineMs` counts on. */
  nowMs(): number;
  /** Whether a request of so many bytes would be admitted now; asked before a large body is read. */
  admits(bytes: number): boolean;
}

export type Transport = 'grpc' | 'http';

/** Checks credentials. */
export interface Access {
  /**
   * Who calls this group of the API. `header` reads a header by its lower-case name.
   * @throws UNAUTHENTICATED without a known token where one is needed, PERMISSION_DENIED when the token or a missing
   * header forbids the group.
   */
  authorize(group: ApiGroup, transport: Transport, header: (name: string) => string | undefined): Caller;
}
