/** What the handlers of one server share, and how the library's calls are read. */
import type { Metadata } from '@grpc/grpc-js';
import type { Access, InferGateway } from '#ports/inference-gateway.js';

export interface GrpcContext {
  readonly gateway: InferGateway;
  readonly access: Access;
  /** Wall clock, ms since 1970: the library's deadlines count on it. */
  readonly wallMs: () => number;
}

/** A header's first value as text. */
export function headerOf(metadata: Metadata, name: string): string | undefined {
  const [value] = metadata.get(name);
  return value === undefined || typeof value === 'string' ? value : value.toString('latin1');
}

/** The library's deadline (wall clock) on the host's monotonic clock. */
export function monotonicDeadline(context: GrpcContext, deadline: Date | number): number {
  const wallMs = typeof deadline === 'number' ? deadline : deadline.getTime();
  return wallMs === Infinity ? Infinity : context.gateway.nowMs() + (wallMs - context.wallMs());
}
