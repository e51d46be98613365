/**
 * Everything but inference: liveness, metadata, configuration, statistics, model control, log settings. Handlers over the
 * generated messages; gRPC serves them as they are and REST as JSON. What the four dialects write differently on the same
 * path is understood here.
 */
import type { CatalogEntry, ServedModel } from '#core/catalog.js';
import { intarsiaError } from '#core/errors.js';
import type { ModelName, ModelVersion } from '#core/ids.js';
import type { TensorSpec } from '#core/tensor.js';
import type { LoadOverrides, ModelRegistryMessage, RegistryOutcome } from '#actors/model-registry/protocol.js';
import { readShardName } from '#core/split/split-spec.js';
import type * as gen from '#gen/inference.js';
import type { Clock } from '#ports/clock.js';
import type { Caller } from '#ports/inference-gateway.js';
import type { ActorRef } from '#runtime/actor.js';
import { findServedModel, modelForbidden } from './find-model.js';
import { modelConfigMessage } from './model-config-message.js';
import { rawInputOf } from './raw-request.js';
import type { Router } from './router.js';
import { LogSettings, type LogLevelControl } from './log-settings.js';
import { statisticsMessage, type ModelStatisticsRow } from './statistics-message.js';

export interface ServicesOptions {
  /** Name and version of this server, as ServerMetadata tells them. */
  readonly name: string;
  readonly version: string;
  readonly router: Router;
  readonly registry: Pick<ActorRef<ModelRegistryMessage>, 'ask'>;
  readonly clock: Clock;
  /** False once the host is stopping. */
  readonly live: () => boolean;
  /** Whether the host takes requests: started, not stopping, models of the start loaded. */
  readonly ready: () => boolean;
  /** Figures of every loaded version. */
  readonly statistics: () => Promise<readonly ModelStatisticsRow[]>;
  readonly log: LogLevelControl;
  /** Longest time a load or unload may take, ms. Default 10 minutes. */
  readonly controlMsMax?: number;
}

/** Who calls, and until when. */
export interface ServiceCall {
  readonly caller: Caller;
  /** Monotonic milliseconds; Infinity without a deadline. */
  readonly deadlineMs: number;
}

/** What this host implements of the protocol's extensions, in Triton's words. */
export const extensions: readonly string[] = [
  'classification',
  'sequence',
  'model_repository',
  'model_repository(unload_dependents)',
  'schedule_policy',
  'model_configuration',
  'binary_tensor_data',
  'parameters',
  'statistics',
  'logging',
];

const controlMsMaxDefault = 600_000;

export function createServices(options: ServicesOptions) {
  const { router } = options;
  const logSettings = new LogSettings(options.log);
  const entryOf = (name: string): CatalogEntry | undefined => router.current.catalog.models.get(name as ModelName);

  function servedModel(
    request: { readonly name: string; readonly version: string },
    { caller }: ServiceCall,
  ): ServedModel {
    if (!caller.mayUse(request.name)) throw modelForbidden(request.name);
    return findServedModel(entryOf(request.name), request.name, request.version);
  }

  /** Whether the version, or the default one, takes requests. */
  function isModelReady(name: string, version: string): boolean {
    const entry = entryOf(name);
    const wanted = version === '' ? entry?.defaultVersion : (version as ModelVersion);
    return wanted !== undefined && entry?.served.has(wanted) === true;
  }

  async function control(call: ServiceCall, build: ControlMessage): Promise<void> {
    const deadlineMs = Math.min(call.deadlineMs, options.clock.nowMs() + (options.controlMsMax ?? controlMsMaxDefault));
    const outcome = await options.registry.ask<RegistryOutcome>(build, { deadlineMs });
    if (!outcome.ok) throw outcome.error;
  }

  return {
    serverLive: (): gen.ServerLiveResponse => ({ live: options.live() }),
    serverReady: (): gen.ServerReadyResponse => ({ ready: options.ready() }),
    serverMetadata: (): gen.ServerMetadataResponse => ({
      name: options.name,
      version: options.version,
      extensions: [...extensions],
    }),

    modelReady(request: gen.ModelReadyRequest, { caller }: ServiceCall): gen.ModelReadyResponse {
      if (!options.ready()) throw intarsiaError('UNAVAILABLE', 'the host is not ready');
      return { ready: caller.mayUse(request.name) && isModelReady(request.name, request.version) };
    },

    isModelReady,

    /** Names of the models the caller may use, in alphabetical order. */
    modelNames({ caller }: ServiceCall): string[] {
      return [...router.current.catalog.models.keys()].filter((name) => caller.mayUse(name)).sort();
    },

    modelMetadata(request: gen.ModelMetadataRequest, call: ServiceCall): gen.ModelMetadataResponse {
      const model = servedModel(request, call);
      const versions = request.version === '' ? [...(entryOf(request.name)?.served.keys() ?? [])] : [request.version];
      return {
        name: model.name,
        versions,
        platform: model.config.platform,
        inputs: model.inputs.map(tensorMetadata),
        outputs: model.outputs.map(tensorMetadata),
      };
    },

    modelConfig(request: gen.ModelConfigRequest, call: ServiceCall): gen.ModelConfigResponse {
      return { config: modelConfigMessage(servedModel(request, call).config) };
    },

    async modelStatistics(
      request: gen.ModelStatisticsRequest,
      call: ServiceCall,
    ): Promise<gen.ModelStatisticsResponse> {
      if (request.name !== '') servedModel(request, call);
      const rows = await options.statistics();
      const wanted = rows.filter(
        ({ model, version }) =>
          call.caller.mayUse(model) &&
          // Clients know no shards: the metrics of each host tell of them.
          readShardName(model) === undefined &&
          (request.name === '' || request.name === model) &&
          (request.version === '' || request.version === version),
      );
      return { modelStats: wanted.map(statisticsMessage) };
    },

    repositoryIndex(request: gen.RepositoryIndexRequest, { caller }: ServiceCall): gen.RepositoryIndexResponse {
      const models: gen.RepositoryIndexResponse_ModelIndex[] = [];
      for (const entry of router.current.catalog.models.values()) {
        if (!caller.mayUse(entry.name)) continue;
        for (const { version, state, reason } of entry.versions)
          models.push({ name: entry.name, version, state, reason });
        if (entry.versions.length === 0) {
          models.push({ name: entry.name, version: '', state: 'UNAVAILABLE', reason: entry.reason });
        }
      }
      return { models: request.ready ? models.filter(({ state }) => state === 'READY') : models };
    },

    async repositoryModelLoad(
      request: gen.RepositoryModelLoadRequest,
      call: ServiceCall,
    ): Promise<gen.RepositoryModelLoadResponse> {
      const model = controlledModel(request, call);
      const overrides = loadOverrides(request.parameters);
      await control(call, (replyTo) => ({ type: 'load', model, overrides, replyTo }));
      return { modelName: model, isLoaded: true };
    },

    async repositoryModelUnload(
      request: gen.RepositoryModelUnloadRequest,
      call: ServiceCall,
    ): Promise<gen.RepositoryModelUnloadResponse> {
      const model = controlledModel(request, call);
      for (const [key, { parameterChoice }] of Object.entries(request.parameters)) {
        // Ensembles are not served, so no model depends on another one.
        if (key !== 'unload_dependents' || parameterChoice.oneofKind !== 'boolParam') throw unknownParameter(key);
      }
      await control(call, (replyTo) => ({ type: 'unload', model, replyTo }));
      return { modelName: model, isUnloaded: true };
    },

    /** The tensor that a REST body is which is nothing but the bytes of the model's only input. */
    rawInput: (model: { readonly name: string; readonly version: string }, body: Uint8Array, caller: Caller) =>
      rawInputOf(router, model, body, caller),

    logSettings: (request: gen.LogSettingsRequest): gen.LogSettingsResponse => logSettings.apply(request),
  };
}

type ControlMessage = (
  replyTo: Parameters<Parameters<ActorRef<ModelRegistryMessage>['ask']>[0]>[0],
) => ModelRegistryMessage;

/** The model's name: field 2 with Triton and MLServer, field 1 with KServe. */
function controlledModel(
  request: { readonly repositoryName: string; readonly modelName: string },
  { caller }: ServiceCall,
): string {
  const name = request.modelName === '' ? request.repositoryName : request.modelName;
  if (name === '') throw intarsiaError('INVALID_ARGUMENT', 'a model name is required');
  if (!caller.mayUse(name)) throw modelForbidden(name);
  return name;
}

function loadOverrides(parameters: Readonly<Record<string, gen.ModelRepositoryParameter>>): LoadOverrides {
  const files = new Map<string, Uint8Array>();
  let configJson: string | undefined;
  for (const [key, { parameterChoice }] of Object.entries(parameters)) {
    if (key === 'config') {
      if (parameterChoice.oneofKind !== 'stringParam') throw wrongParameter(key, 'a text: a ModelConfig as JSON');
      configJson = parameterChoice.stringParam;
    } else if (key.startsWith('file:')) {
      if (parameterChoice.oneofKind !== 'bytesParam') throw wrongParameter(key, 'bytes: the content of the file');
      files.set(key.slice('file:'.length), parameterChoice.bytesParam);
    } else throw unknownParameter(key);
  }
  if (files.size > 0 && configJson === undefined) {
    throw intarsiaError('INVALID_ARGUMENT', "parameter 'config' is required when files are given");
  }
  return configJson === undefined ? { files } : { configJson, files };
}

function wrongParameter(key: string, wanted: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' must be ${wanted}`);
}

function unknownParameter(key: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `parameter '${key.slice(0, 80)}' is not known, or is of the wrong type`);
}

function tensorMetadata({ name, datatype, shape }: TensorSpec): gen.ModelMetadataResponse_TensorMetadata {
  return { name, datatype, shape: shape.map(BigInt) };
}
