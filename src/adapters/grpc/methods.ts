/**
 * Every unary method but ModelInfer: its path, its group, its messages, and which handler answers it. Shared memory and
 * tracing are known and not offered.
 */
import type { IMessageType } from '@protobuf-ts/runtime';
import type { ApiGroup } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';
import * as gen from '#gen/inference.js';
import * as repository from '#gen/model-repository.js';
import type { Caller } from '#ports/inference-gateway.js';

/** Who calls, and until when (monotonic ms). */
export interface ServiceCall {
  readonly caller: Caller;
  readonly deadlineMs: number;
}

type Answer<Response> = Response | Promise<Response>;

/** The handlers this adapter binds; src/server makes them. */
export interface GrpcServices {
  serverLive(): gen.ServerLiveResponse;
  serverReady(): gen.ServerReadyResponse;
  serverMetadata(): gen.ServerMetadataResponse;
  modelReady(request: gen.ModelReadyRequest, call: ServiceCall): gen.ModelReadyResponse;
  modelMetadata(request: gen.ModelMetadataRequest, call: ServiceCall): gen.ModelMetadataResponse;
  modelConfig(request: gen.ModelConfigRequest, call: ServiceCall): gen.ModelConfigResponse;
  modelStatistics(request: gen.ModelStatisticsRequest, call: ServiceCall): Answer<gen.ModelStatisticsResponse>;
  repositoryIndex(request: gen.RepositoryIndexRequest, call: ServiceCall): gen.RepositoryIndexResponse;
  repositoryModelLoad(
    request: gen.RepositoryModelLoadRequest,
    call: ServiceCall,
  ): Answer<gen.RepositoryModelLoadResponse>;
  repositoryModelUnload(
    request: gen.RepositoryModelUnloadRequest,
    call: ServiceCall,
  ): Answer<gen.RepositoryModelUnloadResponse>;
  logSettings(request: gen.LogSettingsRequest): gen.LogSettingsResponse;
}

/** A method whose messages are bytes on both sides. */
export interface UnaryMethod {
  readonly path: string;
  readonly group: ApiGroup;
  /** Decodes, answers, encodes. @throws INVALID_ARGUMENT for bytes that are not the request, and what the handler throws. */
  answer(services: GrpcServices, bytes: Uint8Array, call: ServiceCall): Answer<Uint8Array>;
}

const inferenceService = 'inference.GRPCInferenceService';
const repositoryService = 'inference.model_repository.ModelRepositoryService';

export const inferPath = `/${inferenceService}/ModelInfer`;
export const streamInferPath = `/${inferenceService}/ModelStreamInfer`;

export const unaryMethods: readonly UnaryMethod[] = [
  method('ServerLive', 'health', gen.ServerLiveRequest, gen.ServerLiveResponse, (s) => s.serverLive()),
  method('ServerReady', 'health', gen.ServerReadyRequest, gen.ServerReadyResponse, (s) => s.serverReady()),
  method('ModelReady', 'health', gen.ModelReadyRequest, gen.ModelReadyResponse, (s, r, c) => s.modelReady(r, c)),
  method('ServerMetadata', 'metadata', gen.ServerMetadataRequest, gen.ServerMetadataResponse, (s) =>
    s.serverMetadata(),
  ),
  method('ModelMetadata', 'metadata', gen.ModelMetadataRequest, gen.ModelMetadataResponse, (s, r, c) =>
    s.modelMetadata(r, c),
  ),
  method('ModelConfig', 'model-config', gen.ModelConfigRequest, gen.ModelConfigResponse, (s, r, c) =>
    s.modelConfig(r, c),
  ),
  method('ModelStatistics', 'statistics', gen.ModelStatisticsRequest, gen.ModelStatisticsResponse, (s, r, c) =>
    s.modelStatistics(r, c),
  ),
  method('RepositoryIndex', 'model-repository', gen.RepositoryIndexRequest, gen.RepositoryIndexResponse, (s, r, c) =>
    s.repositoryIndex(r, c),
  ),
  method(
    'RepositoryModelLoad',
    'model-repository',
    gen.RepositoryModelLoadRequest,
    gen.RepositoryModelLoadResponse,
    (s, r, c) => s.repositoryModelLoad(r, c),
  ),
  method(
    'RepositoryModelUnload',
    'model-repository',
    gen.RepositoryModelUnloadRequest,
    gen.RepositoryModelUnloadResponse,
    (s, r, c) => s.repositoryModelUnload(r, c),
  ),
  method('LogSettings', 'logging', gen.LogSettingsRequest, gen.LogSettingsResponse, (s, r) => s.logSettings(r)),
  notOffered('SystemSharedMemoryStatus', 'shared-memory'),
  notOffered('SystemSharedMemoryRegister', 'shared-memory'),
  notOffered('SystemSharedMemoryUnregister', 'shared-memory'),
  notOffered('CudaSharedMemoryStatus', 'shared-memory'),
  notOffered('CudaSharedMemoryRegister', 'shared-memory'),
  notOffered('CudaSharedMemoryUnregister', 'shared-memory'),
  notOffered('TraceSetting', 'trace'),
  // MLServer's model control: the same calls without parameters, and empty answers.
  method(
    'RepositoryIndex',
    'model-repository',
    repository.RepositoryIndexRequest,
    repository.RepositoryIndexResponse,
    (s, r, c) => s.repositoryIndex(r, c),
    repositoryService,
  ),
  method(
    'RepositoryModelLoad',
    'model-repository',
    repository.RepositoryModelLoadRequest,
    repository.RepositoryModelLoadResponse,
    async (s, r, c) => {
      await s.repositoryModelLoad({ ...r, parameters: {} }, c);
      return {};
    },
    repositoryService,
  ),
  method(
    'RepositoryModelUnload',
    'model-repository',
    repository.RepositoryModelUnloadRequest,
    repository.RepositoryModelUnloadResponse,
    async (s, r, c) => {
      await s.repositoryModelUnload({ ...r, parameters: {} }, c);
      return {};
    },
    repositoryService,
  ),
];

function method<Request extends object, Response extends object>(
  name: string,
  group: ApiGroup,
  request: IMessageType<Request>,
  response: IMessageType<Response>,
  handle: (services: GrpcServices, request: Request, call: ServiceCall) => Answer<Response>,
  service = inferenceService,
): UnaryMethod {
  return {
    path: `/${service}/${name}`,
    group,
    answer(services, bytes, call) {
      const answer = handle(services, decoded(request, bytes), call);
      return answer instanceof Promise ? answer.then((value) => response.toBinary(value)) : response.toBinary(answer);
    },
  };
}

function notOffered(name: string, group: ApiGroup): UnaryMethod {
  return {
    path: `/${inferenceService}/${name}`,
    group,
    answer() {
      throw intarsiaError('UNIMPLEMENTED', `${name} is not offered by this host`);
    },
  };
}

/** @throws INVALID_ARGUMENT when the bytes are not such a message. */
export function decoded<Message extends object>(type: IMessageType<Message>, bytes: Uint8Array): Message {
  try {
    return type.fromBinary(bytes);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `the message is not a valid ${type.typeName}`, {}, error);
  }
}
