/**
 * Calls of the Open Inference Protocol over gRPC, as bytes: what the remote executor needs of `inference.GRPCInferenceService`,
 * and what the server's statuses mean here.
 */
import { readFileSync } from 'node:fs';
import {
  type ChannelCredentials,
  Client,
  credentials,
  Metadata,
  status as Status,
  type ServiceError,
} from '@grpc/grpc-js';
import type { IMessageType } from '@protobuf-ts/runtime';
import { intarsiaError, messageOf, type ErrorCode, type IntarsiaError } from '#core/errors.js';
import { MiB } from '#core/units.js';

export interface RemoteEndpoint {
  /** `host:port` of its gRPC endpoint. */
  readonly endpoint: string;
  /** Bearer token; empty for none. Secret: never part of a message. */
  readonly token: string;
  readonly tls: boolean;
  /** PEM file of the authority that signed the server's certificate. Absent: the system's own list. */
  readonly authorityPath?: string;
  /** PEM files of the certificate and key to show to a server that asks for one. Both or none. */
  readonly certificatePath?: string;
  readonly keyPath?: string;
}

const service = '/inference.GRPCInferenceService/';
/** Receive window of the connection: the library's 64 KiB would halve the speed of large tensors. */
const windowBytes = 16 * MiB;

const codeOfStatus: Readonly<Partial<Record<Status, ErrorCode>>> = {
  [Status.INVALID_ARGUMENT]: 'INVALID_ARGUMENT',
  [Status.NOT_FOUND]: 'MODEL_NOT_FOUND',
  [Status.DEADLINE_EXCEEDED]: 'DEVICE_UNAVAILABLE',
  [Status.RESOURCE_EXHAUSTED]: 'RESOURCE_EXHAUSTED',
  [Status.FAILED_PRECONDITION]: 'MODEL_NOT_READY',
  [Status.UNIMPLEMENTED]: 'UNIMPLEMENTED',
  [Status.UNAVAILABLE]: 'DEVICE_UNAVAILABLE',
  [Status.CANCELLED]: 'EXECUTOR_LOST',
  // The server's doors, not the client's: whoever asked us cannot help it.
  [Status.UNAUTHENTICATED]: 'DEVICE_UNAVAILABLE',
  [Status.PERMISSION_DENIED]: 'DEVICE_UNAVAILABLE',
};

/** @throws CONFIG_INVALID when one of the files cannot be used. */
function credentialsOf(remote: RemoteEndpoint): ChannelCredentials {
  if (!remote.tls) return credentials.createInsecure();
  const read = (option: string, path: string | undefined): Buffer | null => {
    if (path === undefined) return null;
    try {
      return readFileSync(path);
    } catch (error) {
      const reason = `option remoteDevices.${option} of ${remote.endpoint} cannot be read: ${messageOf(error)}`;
      throw intarsiaError('CONFIG_INVALID', reason, { option, endpoint: remote.endpoint }, error);
    }
  };
  return credentials.createSsl(
    read('authorityPath', remote.authorityPath),
    read('keyPath', remote.keyPath),
    read('certificatePath', remote.certificatePath),
  );
}

export class RemoteCalls {
  readonly #client: Client;
  readonly #metadata = new Metadata();
  readonly #endpoint: string;

  constructor(remote: RemoteEndpoint) {
    this.#endpoint = remote.endpoint;
    this.#client = new Client(remote.endpoint, credentialsOf(remote), {
      'grpc.max_send_message_length': -1,
      'grpc.max_receive_message_length': -1,
      'grpc-node.flow_control_window': windowBytes,
      'grpc.enable_retries': 0,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 5_000,
      'grpc.service_config_disable_resolution': 1,
      'grpc.keepalive_time_ms': 20_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
    if (remote.token !== '') this.#metadata.set('authorization', `Bearer ${remote.token}`);
  }

  /** One call with messages of the generated types. @throws IntarsiaError. */
  async ask<Request extends object, Response extends object>(
    method: string,
    types: { readonly request: IMessageType<Request>; readonly response: IMessageType<Response> },
    request: Request,
    timeoutMs: number,
  ): Promise<Response> {
    return types.response.fromBinary(await this.bytes(method, types.request.toBinary(request), timeoutMs));
  }

  /** One call with encoded messages. @throws IntarsiaError. */
  bytes(method: string, request: Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest<Uint8Array, Uint8Array>(
        service + method,
        (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
        (buffer) => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength),
        request,
        this.#metadata,
        { deadline: Date.now() + timeoutMs },
        (error, response) => {
          if (error === null && response !== undefined) resolve(response);
          else reject(this.#failure(method, error));
        },
      );
    });
  }

  /** Closes the connection. */
  close(): void {
    this.#client.close();
  }

  #failure(method: string, error: ServiceError | null): IntarsiaError {
    const code = error === null ? 'EXECUTION_FAILED' : (codeOfStatus[error.code] ?? 'EXECUTION_FAILED');
    const words = error === null ? 'no answer' : `${Status[error.code]}: ${error.details}`;
    return intarsiaError(
      code,
      `${method} on ${this.#endpoint} failed with ${words}`,
      { endpoint: this.#endpoint },
      error,
    );
  }
}
