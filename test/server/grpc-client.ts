/** A plain gRPC client that carries bytes, and calls by generated message types: what any foreign client would send. */
import { Client, credentials, Metadata, type ChannelCredentials, type ServiceError } from '@grpc/grpc-js';
import type { IMessageType } from '@protobuf-ts/runtime';
import * as gen from '#gen/inference.js';

const service = '/inference.GRPCInferenceService/';
const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes);
const toBytes = (bytes: Buffer): Uint8Array => bytes;

export class TestClient {
  readonly client: Client;

  constructor(port: number, creds: ChannelCredentials = credentials.createInsecure()) {
    this.client = new Client(`127.0.0.1:${port}`, creds, {
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      'grpc.ssl_target_name_override': 'localhost',
      'grpc.enable_retries': 0,
    });
  }

  close(): void {
    this.client.close();
  }

  raw(path: string, bytes: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const call = this.client.makeUnaryRequest(
        path,
        toBuffer,
        toBytes,
        bytes,
        metadataOf(options.metadata),
        options.deadline === undefined ? {} : { deadline: options.deadline },
        (error, value) => {
          if (error === null) resolve(value ?? new Uint8Array());
          else reject(error);
        },
      );
      options.signal?.addEventListener('abort', () => call.cancel());
    });
  }

  async call<Request extends object, Response extends object>(
    name: string,
    request: IMessageType<Request>,
    response: IMessageType<Response>,
    message: Partial<Request>,
    options: CallOptions = {},
  ): Promise<Response> {
    const bytes = request.toBinary(request.create(message as never));
    return response.fromBinary(await this.raw(name.startsWith('/') ? name : service + name, bytes, options));
  }

  infer(message: Partial<gen.ModelInferRequest>, options: CallOptions = {}): Promise<gen.ModelInferResponse> {
    return this.call('ModelInfer', gen.ModelInferRequest, gen.ModelInferResponse, message, options);
  }

  stream(metadata: Record<string, string> = {}) {
    return this.client.makeBidiStreamRequest(service + 'ModelStreamInfer', toBuffer, toBytes, metadataOf(metadata));
  }
}

export interface CallOptions {
  readonly metadata?: Record<string, string>;
  readonly deadline?: number;
  readonly signal?: AbortSignal;
}

function metadataOf(fields: Record<string, string> = {}): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(fields)) metadata.set(key, value);
  return metadata;
}

/** The error a call ends with; fails when it succeeds. */
export async function failureOf(call: Promise<unknown>): Promise<ServiceError> {
  try {
    await call;
  } catch (error) {
    return error as ServiceError;
  }
  throw new Error('the call succeeded');
}

export function floats(...values: number[]): Uint8Array {
  return new Uint8Array(new Float32Array(values).buffer);
}

/** A raw request to the identity model. */
export function identityRequest(
  values: readonly number[] = [1, 2, 3, 4],
  model = 'identity',
): Partial<gen.ModelInferRequest> {
  return {
    modelName: model,
    inputs: [
      gen.ModelInferRequest_InferInputTensor.create({
        name: 'x',
        datatype: 'FP32',
        shape: [BigInt(values.length / 4), 4n],
      }),
    ],
    rawInputContents: [floats(...values)],
  };
}

export function stringParameter(value: string): gen.InferParameter {
  return { parameterChoice: { oneofKind: 'stringParam', stringParam: value } };
}
export function int64Parameter(value: bigint): gen.InferParameter {
  return { parameterChoice: { oneofKind: 'int64Param', int64Param: value } };
}
export function boolParameter(value: boolean): gen.InferParameter {
  return { parameterChoice: { oneofKind: 'boolParam', boolParam: value } };
}

/** A parameter's value, whatever its kind. */
export function valueOf(parameter: gen.InferParameter | undefined): string | bigint | boolean | number | undefined {
  const choice = parameter?.parameterChoice;
  switch (choice?.oneofKind) {
    case 'stringParam':
      return choice.stringParam;
    case 'int64Param':
      return choice.int64Param;
    case 'boolParam':
      return choice.boolParam;
    case 'doubleParam':
      return choice.doubleParam;
    case 'uint64Param':
      return choice.uint64Param;
    default:
      return undefined;
  }
}
