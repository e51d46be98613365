/**
 * A small inference server that speaks the Open Inference Protocol over gRPC, for the remote executor: a thread executor
 * behind the methods that the executor calls. Models are loaded on request from paths that the test publishes.
 */
import { Server, ServerCredentials, status as Status, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import type { IMessageType } from '@protobuf-ts/runtime';
import { startThreadExecutor } from '#adapters/piscina/thread-executor.js';
import type { Datatype } from '#core/datatype.js';
import { asIntarsiaError, errorCatalogue } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import { noParameters } from '#core/inference-message.js';
import { decodeInferRequest, encodeInferResponse } from '#core/inference-wire.js';
import {
  ModelMetadataRequest,
  ModelMetadataResponse,
  ModelReadyRequest,
  ModelReadyResponse,
  RepositoryModelLoadRequest,
  RepositoryModelLoadResponse,
  ServerLiveRequest,
  ServerLiveResponse,
  ServerMetadataRequest,
  ServerMetadataResponse,
} from '#gen/inference.js';
import type { LoadedSession } from '#ports/executor.js';
import { loadRequest } from './executor.js';

export interface OipServer {
  readonly port: number;
  publish(name: string, path: string): void;
  /** Whether `ServerLive` says yes. */
  live: boolean;
  /** Values of the `authorization` header that were seen. */
  readonly tokensSeen: ReadonlySet<string>;
  stop(): Promise<void>;
}

type Bytes = Uint8Array;

export async function startOipServer(): Promise<OipServer> {
  const executor = await startThreadExecutor({ provider: 'cpu' });
  const published = new Map<string, string>();
  const loaded = new Map<string, LoadedSession>();
  const tokensSeen = new Set<string>();
  const state = { live: true };

  const methods: Record<string, (request: Bytes) => Promise<Bytes>> = {
    ServerLive: typed(ServerLiveRequest, ServerLiveResponse, () => ({ live: state.live })),
    ServerMetadata: typed(ServerMetadataRequest, ServerMetadataResponse, () => ({
      name: 'test server',
      version: '1.2',
      extensions: [],
    })),
    ModelReady: typed(ModelReadyRequest, ModelReadyResponse, ({ name }) => ({ ready: loaded.has(name) })),
    ModelMetadata: typed(ModelMetadataRequest, ModelMetadataResponse, ({ name }) => {
      const { inputs, outputs } = known(loaded, name);
      const tensors = (specs: typeof inputs) => specs.map((spec) => ({ ...spec, shape: spec.shape.map(BigInt) }));
      return {
        name,
        versions: ['1'],
        platform: 'onnx',
        inputs: tensors(inputs),
        outputs: tensors(outputs),
        properties: {},
      };
    }),
    RepositoryModelLoad: typed(RepositoryModelLoadRequest, RepositoryModelLoadResponse, async ({ modelName }) => {
      loaded.set(modelName, await executor.load(loadRequest(modelName, known(published, modelName))));
      return RepositoryModelLoadResponse.create();
    }),
    ModelInfer: async (bytes) => {
      const request = decodeInferRequest(bytes);
      const result = await executor.run({
        session: request.modelName as SessionId,
        inputs: request.inputs.map((input) => ({
          name: input.name,
          datatype: input.datatype as Datatype,
          shape: input.shape,
          chunks: [input.data],
        })),
        outputs: request.outputs.map((output) => output.name),
      });
      const outputs = result.outputs.map((output) => ({ ...output, parameters: noParameters }));
      const { modelName, modelVersion, id } = request;
      return encodeInferResponse({
        modelName,
        modelVersion,
        id,
        parameters: noParameters,
        outputs,
        rawContents: true,
      }).toBytes();
    },
  };

  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  for (const [name, method] of Object.entries(methods)) {
    server.register(
      `/inference.GRPCInferenceService/${name}`,
      (call: ServerUnaryCall<Bytes, Bytes>, callback: sendUnaryData<Bytes>) => {
        for (const value of call.metadata.get('authorization')) tokensSeen.add(String(value));
        method(call.request).then(
          (response) => callback(null, response),
          (error: unknown) => {
            const { code, message } = asIntarsiaError(error);
            callback({ code: Status[errorCatalogue[code].grpc], details: message });
          },
        );
      },
      (bytes) => Buffer.from(bytes),
      (buffer) => new Uint8Array(buffer),
      'unary',
    );
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  return {
    port,
    publish: (name, path) => void published.set(name, path),
    get live() {
      return state.live;
    },
    set live(live: boolean) {
      state.live = live;
    },
    tokensSeen,
    stop: async () => {
      server.forceShutdown();
      await executor.close({ graceMs: 20_000 });
    },
  };
}

function typed<Request extends object, Response extends object>(
  request: IMessageType<Request>,
  response: IMessageType<Response>,
  answer: (request: Request) => Response | Promise<Response>,
): (bytes: Bytes) => Promise<Bytes> {
  return async (bytes) => response.toBinary(await answer(request.fromBinary(bytes)));
}

function known<Value>(map: ReadonlyMap<string, Value>, name: string): Value {
  const value = map.get(name);
  if (value === undefined)
    throw Object.assign(asIntarsiaError(new Error(`model ${name} is unknown`)), { code: 'MODEL_NOT_FOUND' });
  return value;
}
