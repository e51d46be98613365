/** grpc.health.v1: Check and Watch over the host's own notion of health. */
import type { sendUnaryData, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { asIntarsiaError, intarsiaError } from '#core/errors.js';
import { HealthCheckRequest, HealthCheckResponse, HealthCheckResponse_ServingStatus as Status } from '#gen/health.js';
import type { Caller } from '#ports/inference-gateway.js';
import { headerOf, type GrpcContext } from './context.js';
import { decoded } from './methods.js';
import { statusOf, streamErrorOf } from './status.js';

export type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** What this adapter asks; src/server answers. */
export interface GrpcHealth {
  check(service: string, caller: Caller): ServingStatus;
  watch(service: string, caller: Caller, listener: (status: ServingStatus) => void): () => void;
}

export const healthCheckPath = '/grpc.health.v1.Health/Check';
export const healthWatchPath = '/grpc.health.v1.Health/Watch';

export function handleHealthCheck(
  context: GrpcContext,
  health: GrpcHealth,
  call: ServerUnaryCall<Buffer, Buffer>,
  callback: sendUnaryData<Buffer>,
): void {
  try {
    const { service } = decoded(HealthCheckRequest, call.request);
    const status = health.check(service, callerOf(context, call));
    if (status === 'SERVICE_UNKNOWN')
      throw intarsiaError('NOT_FOUND', `service '${service.slice(0, 80)}' is not known`);
    callback(null, encoded(status));
  } catch (error) {
    callback(statusOf(asIntarsiaError(error)));
  }
}

export function handleHealthWatch(
  context: GrpcContext,
  health: GrpcHealth,
  call: ServerWritableStream<Buffer, Buffer>,
): void {
  try {
    const { service } = decoded(HealthCheckRequest, call.request);
    const stop = health.watch(service, callerOf(context, call), (status) => call.write(encoded(status)));
    call.on('cancelled', stop);
  } catch (error) {
    call.emit('error', streamErrorOf(asIntarsiaError(error)));
  }
}

function callerOf(
  context: GrpcContext,
  call: { readonly metadata: ServerUnaryCall<Buffer, Buffer>['metadata'] },
): Caller {
  return context.access.authorize('health', 'grpc', (name) => headerOf(call.metadata, name));
}

function encoded(status: ServingStatus): Buffer {
  return Buffer.from(HealthCheckResponse.toBinary({ status: Status[status] }));
}
