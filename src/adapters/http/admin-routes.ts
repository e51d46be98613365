/** Every REST route but inference: liveness, metadata, configuration, statistics, model control, log settings. */
import type { IMessageType } from '@protobuf-ts/runtime';
import type { ApiGroup } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';
import type { InferParameters } from '#core/inference-message.js';
import * as gen from '#gen/inference.js';
import type { Caller } from '#ports/inference-gateway.js';
import { ModelConfig } from '#gen/model-config.js';
import { parseJson, readParameters } from './infer-body.js';
import { messageJson } from './proto-json.js';

/** Who calls, and until when (monotonic ms). */
export interface ServiceCall {
  readonly caller: Caller;
  readonly deadlineMs: number;
}

type Answer<Response> = Response | Promise<Response>;
interface VersionRequest {
  readonly name: string;
  readonly version: string;
}

/** The handlers this adapter binds; src/server makes them. */
export interface HttpServices {
  serverLive(): gen.ServerLiveResponse;
  serverReady(): gen.ServerReadyResponse;
  serverMetadata(): gen.ServerMetadataResponse;
  isModelReady(name: string, version: string): boolean;
  modelNames(call: ServiceCall): readonly string[];
  modelMetadata(request: VersionRequest, call: ServiceCall): gen.ModelMetadataResponse;
  modelConfig(request: VersionRequest, call: ServiceCall): gen.ModelConfigResponse;
  modelStatistics(request: VersionRequest, call: ServiceCall): Answer<gen.ModelStatisticsResponse>;
  repositoryIndex(request: gen.RepositoryIndexRequest, call: ServiceCall): gen.RepositoryIndexResponse;
  repositoryModelLoad(request: gen.RepositoryModelLoadRequest, call: ServiceCall): Answer<unknown>;
  repositoryModelUnload(request: gen.RepositoryModelUnloadRequest, call: ServiceCall): Answer<unknown>;
  logSettings(request: gen.LogSettingsRequest): gen.LogSettingsResponse;
}

/** One request as the handlers below see it. */
export interface AdminRequest {
  readonly params: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
  readonly call: ServiceCall;
}

export interface AdminAnswer {
  readonly status: number;
  readonly json: unknown;
}

export interface AdminRoute {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly group: ApiGroup;
  handle(services: HttpServices, request: AdminRequest): Answer<AdminAnswer>;
}

const ok = (json: unknown): AdminAnswer => ({ status: 200, json });
const flag = (holds: boolean, json: unknown): AdminAnswer => ({ status: holds ? 200 : 503, json });

export const adminRoutes: readonly AdminRoute[] = [
  route('GET', '/v2/health/live', 'health', (services) => {
    const { live } = services.serverLive();
    return flag(live, { live });
  }),
  route('GET', '/v2/health/ready', 'health', (services) => {
    const { ready } = services.serverReady();
    return flag(ready, { ready });
  }),
  ...['/v2', '/v2/'].map((path) =>
    route('GET', path, 'metadata', (services) =>
      ok(messageJson(gen.ServerMetadataResponse, services.serverMetadata())),
    ),
  ),
  route('GET', '/v2/models', 'metadata', (services, { call }) => ok({ models: services.modelNames(call) })),
  ...perVersion('GET', '', 'metadata', (services, request) =>
    ok(messageJson(gen.ModelMetadataResponse, services.modelMetadata(versionOf(request), request.call))),
  ),
  ...perVersion('GET', '/ready', 'health', (services, request) => {
    const { name, version } = versionOf(request);
    const ready = request.call.caller.mayUse(name) && services.isModelReady(name, version);
    return flag(ready, { name, ready });
  }),
  ...perVersion('GET', '/config', 'model-config', (services, request) => {
    const { config } = services.modelConfig(versionOf(request), request.call);
    return ok(messageJson(ModelConfig as IMessageType<ModelConfig>, config ?? ModelConfig.create()));
  }),
  route('GET', '/v2/models/stats', 'statistics', statistics),
  ...perVersion('GET', '/stats', 'statistics', statistics),
  ...perVersion('POST', '/generate', 'inference', () => notOffered('generate')),
  ...perVersion('POST', '/generate_stream', 'inference', () => notOffered('generate_stream')),
  ...perVersion('POST', '/infer_stream', 'inference', () => notOffered('infer_stream')),
  ...['/v2/repository/index', '/v2/repository/:repository/index'].map((path) =>
    route('POST', path, 'model-repository', (services, { body, call }) => {
      const ready = objectBody(body)['ready'] === true;
      const { models } = services.repositoryIndex({ repositoryName: '', ready }, call);
      return ok(models.map((model) => messageJson(gen.RepositoryIndexResponse_ModelIndex, model)));
    }),
  ),
  ...['/v2/repository/models/:model', '/v2/repository/:repository/models/:model'].flatMap((path) => [
    route('POST', `${path}/load`, 'model-repository', async (services, { params, body, call }) => {
      const name = params['model'] ?? '';
      const parameters = repositoryParameters(readParameters(objectBody(body)['parameters'], 'parameters'));
      await services.repositoryModelLoad({ repositoryName: '', modelName: name, parameters }, call);
      return ok({ name, load: true });
    }),
    route('POST', `${path}/unload`, 'model-repository', async (services, { params, body, call }) => {
      const name = params['model'] ?? '';
      const parameters = repositoryParameters(readParameters(objectBody(body)['parameters'], 'parameters'));
      await services.repositoryModelUnload({ repositoryName: '', modelName: name, parameters }, call);
      return ok({ name, unload: true });
    }),
  ]),
  route('GET', '/v2/logging', 'logging', (services) => ok(settingsJson(services.logSettings({ settings: {} })))),
  route('POST', '/v2/logging', 'logging', (services, { body }) => {
    const settings = logSettings(readParameters(objectBody(body), 'log settings'));
    return ok(settingsJson(services.logSettings({ settings })));
  }),
  ...(['GET', 'POST'] as const).flatMap((method) =>
    ['/v2/trace/setting', '/v2/models/:model/trace/setting'].map((path) =>
      route(method, path, 'trace', () => notOffered('trace setting')),
    ),
  ),
  ...['systemsharedmemory', 'cudasharedmemory'].flatMap((kind) => [
    route('GET', `/v2/${kind}/status`, 'shared-memory', () => notOffered('shared memory')),
    route('GET', `/v2/${kind}/region/:region/status`, 'shared-memory', () => notOffered('shared memory')),
    route('POST', `/v2/${kind}/unregister`, 'shared-memory', () => notOffered('shared memory')),
    route('POST', `/v2/${kind}/region/:region/register`, 'shared-memory', () => notOffered('shared memory')),
    route('POST', `/v2/${kind}/region/:region/unregister`, 'shared-memory', () => notOffered('shared memory')),
  ]),
];

function route(method: 'GET' | 'POST', path: string, group: ApiGroup, handle: AdminRoute['handle']): AdminRoute {
  return { method, path, group, handle };
}

/** The route of a model and that of one of its versions. */
function perVersion(
  method: 'GET' | 'POST',
  suffix: string,
  group: ApiGroup,
  handle: AdminRoute['handle'],
): readonly AdminRoute[] {
  return [`/v2/models/:model${suffix}`, `/v2/models/:model/versions/:version${suffix}`].map((path) =>
    route(method, path, group, handle),
  );
}

function versionOf({ params }: AdminRequest): VersionRequest {
  return { name: params['model'] ?? '', version: params['version'] ?? '' };
}

async function statistics(services: HttpServices, request: AdminRequest): Promise<AdminAnswer> {
  const answer = await services.modelStatistics(versionOf(request), request.call);
  return ok(messageJson(gen.ModelStatisticsResponse, answer));
}

function notOffered(what: string): never {
  throw intarsiaError('UNIMPLEMENTED', `${what} is not offered by this host`);
}

function objectBody(body: Buffer): Readonly<Record<string, unknown>> {
  return body.byteLength === 0 ? {} : parseJson(body);
}

/** File contents are base64 in JSON. */
function repositoryParameters(parameters: InferParameters): Record<string, gen.ModelRepositoryParameter> {
  return Object.fromEntries(
    [...parameters].map(([key, { kind, value }]): [string, gen.ModelRepositoryParameter] => {
      if (kind === 'bool') return [key, { parameterChoice: { oneofKind: 'boolParam', boolParam: value } }];
      if (kind !== 'string')
        throw intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' must be a text or a boolean`);
      if (!key.startsWith('file:')) return [key, { parameterChoice: { oneofKind: 'stringParam', stringParam: value } }];
      const bytesParam = Buffer.from(value, 'base64');
      return [key, { parameterChoice: { oneofKind: 'bytesParam', bytesParam } }];
    }),
  );
}

function logSettings(parameters: InferParameters): gen.LogSettingsRequest['settings'] {
  return Object.fromEntries(
    [...parameters].map(([key, { kind, value }]): [string, gen.LogSettingsRequest_SettingValue] => {
      if (kind === 'bool') return [key, { parameterChoice: { oneofKind: 'boolParam', boolParam: value } }];
      if (kind === 'string') return [key, { parameterChoice: { oneofKind: 'stringParam', stringParam: value } }];
      if (kind === 'int64' && value >= 0n && value < 2n ** 32n) {
        return [key, { parameterChoice: { oneofKind: 'uint32Param', uint32Param: Number(value) } }];
      }
      throw intarsiaError('INVALID_ARGUMENT', `log setting '${key.slice(0, 80)}' has a value of the wrong type`);
    }),
  );
}

function settingsJson({ settings }: gen.LogSettingsResponse): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(settings).map(([key, { parameterChoice: choice }]): [string, unknown] => {
      switch (choice.oneofKind) {
        case 'boolParam':
          return [key, choice.boolParam];
        case 'uint32Param':
          return [key, choice.uint32Param];
        case 'stringParam':
          return [key, choice.stringParam];
        default:
          return [key, null];
      }
    }),
  );
}
