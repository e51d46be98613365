/**
 * The client: every call of the inference protocol, typed. Deadlines, retries and endpoints are `Caller`'s; bytes are the
 * codecs'; this file says which call is which.
 */
import { asIntarsiaError, intarsiaError, type IntarsiaError } from '#core/errors.js';
import { decodeInferResponse } from '#core/inference-wire.js';
import type { InferResponseMessage } from '#core/inference-message.js';
import {
  ModelConfigRequest,
  ModelMetadataRequest,
  ModelReadyRequest,
  ModelReadyResponse,
  ModelStatisticsRequest,
  RepositoryIndexRequest,
  RepositoryModelLoadRequest,
  RepositoryModelUnloadRequest,
  ServerLiveResponse,
  ServerMetadataResponse,
  ServerReadyResponse,
} from '#gen/inference.js';
import type { ModelRepositoryParameter } from '#gen/inference.js';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import type { Clock } from '#ports/clock.js';
import { Caller, type CallOptions, type CallStatistics } from './caller.js';
import { encodeRequest, isRepeatable, type InferInputs, type InferOptions } from './infer-request.js';
import { InferResult } from './infer-result.js';
import { GridCalls } from './grid-calls.js';
import { InferStream, type StreamItem } from './infer-stream.js';
import { MetadataCache } from './metadata-cache.js';
import { completeClientOptions, type ClientOptions, type CompleteClientOptions } from './options.js';
import type { EndpointVerdict } from './endpoint-picker.js';
import { verdictOf } from './remote-error.js';
import {
  modelConfigOf,
  modelMetadataOf,
  modelStatisticsOf,
  repositoryModelsOf,
  type ModelConfigJson,
  type ModelMetadata,
  type ModelStatistics,
  type RepositoryModel,
  type ServerMetadata,
} from './server-answers.js';
import { needsDeclaredDatatype, type DeclaredDatatype } from './tensor-input.js';

const service = '/inference.GRPCInferenceService';
const noMessage = new Uint8Array(0);

/** A version of a model; without one, the server chooses. */
export interface ModelCallOptions extends CallOptions {
  readonly version?: string;
}

export interface LoadOptions extends CallOptions {
  /** Configuration used instead of config.pbtxt: JSON text of a ModelConfig. */
  readonly configJson?: string;
  /** Files used instead of the model's folder: bytes by `<version>/<file>`. Needs `configJson`. */
  readonly files?: Readonly<Record<string, Uint8Array>>;
}

/** One request of a stream. */
export interface StreamRequest {
  readonly model: string;
  readonly inputs: InferInputs;
  /** Deadline and cancellation are the stream's. An `id` you give comes back with the answer; default: 1, 2, 3 … */
  readonly options?: Omit<InferOptions, keyof CallOptions>;
}

export interface StreamOptions extends CallOptions {
  /** Requests on their way at once. 1 to 100,000, default 64. Higher: more throughput, more memory. */
  readonly windowMax?: number;
}

/** A stream that is written to by hand: `client.openStream()`. */
export interface ManualStream extends AsyncIterable<StreamItem> {
  readonly inFlight: number;
  /** Resolves, with the request's id, once there was room for it. */
  send(request: StreamRequest): Promise<string>;
  /** Nothing more will be sent; iteration ends after the last answer. */
  end(): void;
  cancel(): void;
}

/**
 * Talks to one or several hosts that speak the Open Inference Protocol over gRPC: Intarsia, Triton, KServe, OpenVINO.
 *
 * Every method rejects with an IntarsiaError, whose `code` says what happened and whose `retryable` says whether the same
 * call may succeed later. Safe to share; make one for the life of the program.
 */
export class InferenceClient {
  /** What operators ask of a grid; a host that serves alone answers UNIMPLEMENTED. */
  readonly grid: GridCalls;
  readonly #options: CompleteClientOptions;
  readonly #caller: Caller;
  readonly #clock: Clock;
  readonly #metadata: MetadataCache;

  /** @throws CONFIG_INVALID when an option is out of its range. */
  constructor(options: ClientOptions) {
    this.#options = completeClientOptions(options);
    this.#clock = options.clock ?? new NodeClock();
    this.#caller = new Caller(this.#options, this.#clock, options.random ?? new SeededRandom());
    this.grid = new GridCalls({ caller: this.#caller, clock: this.#clock, metadata: this.#options.metadata });
    this.#metadata = new MetadataCache(this.#clock, (model, version, call) =>
      this.modelMetadata(model, { ...call, ...(version === '' ? {} : { version }) }),
    );
  }

  /** Whether a host answers at all. */
  async live(options: CallOptions = {}): Promise<boolean> {
    return ServerLiveResponse.fromBinary(await this.#unary('ServerLive', noMessage, options)).live;
  }

  /** Whether a host takes inference requests. */
  async ready(options: CallOptions = {}): Promise<boolean> {
    return ServerReadyResponse.fromBinary(await this.#unary('ServerReady', noMessage, options)).ready;
  }

  async serverMetadata(options: CallOptions = {}): Promise<ServerMetadata> {
    const { name, version, extensions } = ServerMetadataResponse.fromBinary(
      await this.#unary('ServerMetadata', noMessage, options),
    );
    return { name, version, extensions };
  }

  /** Whether the model answers requests; false for one that nobody knows. */
  async modelReady(model: string, options: ModelCallOptions = {}): Promise<boolean> {
    const request = ModelReadyRequest.toBinary({ name: model, version: options.version ?? '' });
    return ModelReadyResponse.fromBinary(await this.#unary('ModelReady', request, options)).ready;
  }

  /** Inputs, outputs and versions. @throws MODEL_NOT_FOUND. */
  async modelMetadata(model: string, options: ModelCallOptions = {}): Promise<ModelMetadata> {
    const request = ModelMetadataRequest.toBinary({ name: model, version: options.version ?? '' });
    return modelMetadataOf(await this.#unary('ModelMetadata', request, options));
  }

  /** The complete configuration as the protocol writes it in JSON. @throws MODEL_NOT_FOUND, UNIMPLEMENTED (KServe, MLServer). */
  async modelConfig(model: string, options: ModelCallOptions = {}): Promise<ModelConfigJson> {
    const request = ModelConfigRequest.toBinary({ name: model, version: options.version ?? '' });
    return modelConfigOf(await this.#unary('ModelConfig', request, options));
  }

  /** Totals since the load, of one model or, with an empty name, of all. */
  async modelStatistics(model = '', options: ModelCallOptions = {}): Promise<ModelStatistics[]> {
    const request = ModelStatisticsRequest.toBinary({ name: model, version: options.version ?? '' });
    return modelStatisticsOf(await this.#unary('ModelStatistics', request, options));
  }

  /** Every model the repository holds, loaded or not. */
  async repositoryIndex(options: CallOptions & { readonly readyOnly?: boolean } = {}): Promise<RepositoryModel[]> {
    const request = RepositoryIndexRequest.toBinary({ repositoryName: '', ready: options.readyOnly ?? false });
    return repositoryModelsOf(await this.#unary('RepositoryIndex', request, options));
  }

  /** Loads or reloads a model; resolves when it is ready. Default timeout 10 minutes. @throws MODEL_INVALID, OUT_OF_MEMORY … */
  async loadModel(model: string, options: LoadOptions = {}): Promise<void> {
    const parameters: Record<string, ModelRepositoryParameter> = {};
    if (options.configJson !== undefined) {
      parameters['config'] = { parameterChoice: { oneofKind: 'stringParam', stringParam: options.configJson } };
    }
    for (const [path, bytes] of Object.entries(options.files ?? {})) {
      parameters[`file:${path}`] = { parameterChoice: { oneofKind: 'bytesParam', bytesParam: bytes } };
    }
    const request = RepositoryModelLoadRequest.toBinary({ repositoryName: '', modelName: model, parameters });
    await this.#once('RepositoryModelLoad', request, options);
    this.#metadata.forget(model);
  }

  /** Unloads a model; what it has in flight is still answered. Default timeout 10 minutes. */
  async unloadModel(model: string, options: CallOptions = {}): Promise<void> {
    const request = RepositoryModelUnloadRequest.toBinary({ repositoryName: '', modelName: model, parameters: {} });
    await this.#once('RepositoryModelUnload', request, options);
    this.#metadata.forget(model);
  }

  /**
   * Runs a model once.
   *
   * ```ts
   * const result = await client.infer('digits', { image: { data: pixels, shape: [1, 1, 28, 28] } });
   * const probabilities = result.output('probabilities').asFloat32();
   * ```
   * @throws INVALID_ARGUMENT (inputs), MODEL_NOT_FOUND, MODEL_NOT_READY, QUEUE_FULL, DEADLINE_EXCEEDED, CANCELLED …
   */
  async infer(model: string, inputs: InferInputs, options: InferOptions = {}): Promise<InferResult> {
    const declared = needsDeclaration(inputs) ? await this.#declaredDatatypes(model, options) : nothingDeclared;
    const answer = await this.#caller.call(
      {
        path: `${service}/ModelInfer`,
        message: encodeRequest(model, inputs, options, declared),
        idempotent: isRepeatable(options),
        kind: model,
      },
      options,
    );
    return new InferResult(readAnswer(answer, model));
  }

  /**
   * Sends requests over one stream as fast as they are answered: `requests` is asked for the next one when there is room.
   * Items come in the order the server finishes; an error belongs to its item. Nothing is retried. No time limit unless
   * the options set one. Leaving the loop early cancels what is on its way.
   *
   * ```ts
   * for await (const item of client.stream(requests)) {
   *   if (item.ok) use(item.id, item.result);
   *   else report(item.id, item.error);
   * }
   * ```
   */
  async *stream(
    requests: Iterable<StreamRequest> | AsyncIterable<StreamRequest>,
    options: StreamOptions = {},
  ): AsyncGenerator<StreamItem, void, undefined> {
    const stream = this.openStream(options);
    const sending: { done: boolean; error: Error | undefined } = { done: false, error: undefined };
    const pump = async (): Promise<void> => {
      try {
        for await (const request of requests) await stream.send(request);
        sending.done = true;
        stream.end();
      } catch (error) {
        sending.error = error instanceof Error ? error : asIntarsiaError(error);
        stream.cancel();
      }
    };
    // Never rejects. Not awaited either: the source may have nothing to give for ever.
    void pump();
    let drained = false;
    try {
      yield* stream;
      drained = true;
    } catch (error) {
      // What the source threw is the cause; the stream then only says that it was cancelled.
      throw sending.error ?? error;
    } finally {
      if (!drained) stream.cancel();
    }
    if (!sending.done)
      throw sending.error ?? intarsiaError('UNAVAILABLE', 'the server ended the stream before all was sent');
  }

  /** A stream that is written to by hand. End it with `end` or `cancel`. @throws as `stream`. */
  openStream(options: StreamOptions = {}): ManualStream {
    const windowMax = options.windowMax ?? 64;
    if (!Number.isSafeInteger(windowMax) || windowMax < 1 || windowMax > 100_000) {
      throw intarsiaError('INVALID_ARGUMENT', `windowMax must be a whole number from 1 to 100000; it is ${windowMax}`);
    }
    const deadlineMs = this.#caller.deadlineMs({ timeoutMs: Infinity, ...options });
    this.#caller.admit();
    const { endpoint, channel } = this.#caller.acquireEndpoint();
    const startMs = this.#clock.nowMs();
    const stream = new InferStream({
      channel,
      endpoint: this.#caller.endpointName(endpoint.index),
      metadata: this.#options.metadata,
      deadlineWallMs: this.#clock.wallMs() + (deadlineMs - startMs),
      limits: { windowMax },
      signal: options.signal,
      onEnd: (failure, error) => {
        const verdict: EndpointVerdict =
          failure === undefined || error === undefined
            ? 'healthy'
            : verdictOf(failure, error, this.#clock.nowMs() - startMs);
        this.#caller.releaseEndpoint(endpoint, verdict);
        this.#caller.leave();
      },
    });
    let sent = 0;
    return {
      get inFlight() {
        return stream.inFlight;
      },
      send: async ({ model, inputs, options: wanted = {} }) => {
        const declared = needsDeclaration(inputs) ? await this.#declaredDatatypes(model, wanted) : nothingDeclared;
        sent += 1;
        const id = wanted.id ?? String(sent);
        await stream.sendEncoded(encodeRequest(model, inputs, { ...wanted, id }, declared));
        return id;
      },
      end: () => stream.end(),
      cancel: () => stream.cancel(),
      [Symbol.asyncIterator]: () => stream[Symbol.asyncIterator](),
    };
  }

  /** Counts since the client was made: calls, attempts, retries. */
  get statistics(): CallStatistics {
    return this.#caller.statistics;
  }

  /** Each endpoint with what is on its way to it, and whether it is left alone for now. */
  get endpoints(): readonly { readonly name: string; readonly inFlight: number; readonly ejected: boolean }[] {
    return this.#caller.endpoints;
  }

  /** Closes the connections. Calls on their way still end; new ones fail with UNAVAILABLE. */
  close(): void {
    this.#caller.close();
  }

  #unary(method: string, message: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    return this.#caller.call({ path: `${service}/${method}`, message, idempotent: true }, options);
  }

  /** Loading takes as long as it takes, and is not repeated by itself. */
  #once(method: string, message: Uint8Array, options: CallOptions): Promise<Uint8Array> {
    const request = { path: `${service}/${method}`, message, idempotent: false };
    return this.#caller.call(request, { timeoutMs: 600_000, ...options });
  }

  /** The model's declaration of its inputs, asked once and remembered. */
  async #declaredDatatypes(model: string, options: InferOptions): Promise<DeclaredDatatype> {
    const { inputs: specs } = await this.#metadata.get(model, options.version ?? '', options);
    return (name) => specs.find((spec) => spec.name === name)?.datatype;
  }
}

/** Plain numbers have no datatype of their own: the model's declaration decides. */
function needsDeclaration(inputs: InferInputs): boolean {
  return Object.values(inputs).some(needsDeclaredDatatype);
}

const nothingDeclared: DeclaredDatatype = () => undefined;

function readAnswer(answer: Uint8Array, model: string): InferResponseMessage {
  try {
    return decodeInferResponse(answer);
  } catch (error) {
    throw unreadable(model, error);
  }
}

function unreadable(model: string, cause: unknown): IntarsiaError {
  return intarsiaError('INTERNAL', `the answer of model '${model}' cannot be read as a ModelInferResponse`, {}, cause);
}

/**
 * A client for one or several hosts. Nothing is sent before the first call.
 *
 * ```ts
 * const client = connect({ endpoints: '127.0.0.1:8001' });
 * console.log(await client.serverMetadata());
 * client.close();
 * ```
 * @throws CONFIG_INVALID when an option is out of its range.
 */
export function connect(options: ClientOptions): InferenceClient {
  return new InferenceClient(options);
}
