/** Everything but inference over a real socket: metadata, control in four dialects, statistics, health, reflection, refusals. */
import { connect } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { silentLog } from '#ports/log.js';
import { startGrpcServer, type RunningGrpcServer } from '#adapters/grpc/server.js';
import { HealthCheckRequest, HealthCheckResponse, HealthCheckResponse_ServingStatus as Serving } from '#gen/health.js';
import * as gen from '#gen/inference.js';
import * as repository from '#gen/model-repository.js';
import { unhex } from '../protocol/bytes.js';
import { failureOf, identityRequest, TestClient } from './grpc-client.js';
import { identity, PretendHost } from './pretend-host.js';

let host: PretendHost;
let server: RunningGrpcServer;
let client: TestClient;

beforeEach(async () => {
  host = new PretendHost({ broken: { sick: 'model.onnx is corrupt' } });
  server = await startGrpcServer({ ...host.serverOptions(), log: silentLog });
  client = new TestClient(server.port);
});
afterEach(async () => {
  client.close();
  await server.stop(1000);
});

describe('what a host says about itself and its models', () => {
  it('lives, is ready, and names exactly the extensions it implements', async () => {
    expect(await client.call('ServerLive', gen.ServerLiveRequest, gen.ServerLiveResponse, {})).toEqual({ live: true });
    expect(await client.call('ServerReady', gen.ServerReadyRequest, gen.ServerReadyResponse, {})).toEqual({
      ready: true,
    });
    const metadata = await client.call('ServerMetadata', gen.ServerMetadataRequest, gen.ServerMetadataResponse, {});
    expect(metadata).toMatchObject({ name: 'intarsia', version: '9.9.9' });
    expect(metadata.extensions).toContain('binary_tensor_data');
    for (const absent of ['system_shared_memory', 'cuda_shared_memory', 'trace'])
      expect(metadata.extensions).not.toContain(absent);
  });

  it('an unknown model is not ready rather than an error; on a host that is not ready every question is UNAVAILABLE', async () => {
    const ready = (name: string, version = '') =>
      client.call('ModelReady', gen.ModelReadyRequest, gen.ModelReadyResponse, { name, version });
    expect(await ready('identity')).toEqual({ ready: true });
    expect(await ready('identity', '1')).toEqual({ ready: true });
    expect(await ready('identity', '2')).toEqual({ ready: false });
    expect(await ready('nobody')).toEqual({ ready: false });
    expect(await ready('sick')).toEqual({ ready: false });
    host.isReady = false;
    expect((await failureOf(ready('identity'))).code).toBe(status.UNAVAILABLE);
  });

  it('metadata and configuration describe inputs and outputs', async () => {
    const metadata = await client.call('ModelMetadata', gen.ModelMetadataRequest, gen.ModelMetadataResponse, {
      name: 'pair',
    });
    expect(metadata).toEqual({
      name: 'pair',
      versions: ['1'],
      platform: 'onnxruntime_onnx',
      inputs: [
        { name: 'a', datatype: 'INT32', shape: [-1n, -1n] },
        { name: 'b', datatype: 'INT32', shape: [-1n, 2n] },
      ],
      outputs: [
        { name: 'a', datatype: 'INT32', shape: [-1n, -1n] },
        { name: 'b', datatype: 'INT32', shape: [-1n, 2n] },
      ],
    });
    const { config } = await client.call('ModelConfig', gen.ModelConfigRequest, gen.ModelConfigResponse, {
      name: 'pair',
    });
    expect(config).toMatchObject({ name: 'pair', backend: 'onnxruntime', maxBatchSize: 4 });
    expect(config?.input).toMatchObject([
      { name: 'a', dataType: 8, dims: [-1n], optional: false },
      { name: 'b', dataType: 8, dims: [2n], optional: true },
    ]);
    for (const name of ['ModelMetadata', 'ModelConfig', 'ModelStatistics'] as const) {
      const error = await failureOf(
        client.call(name, gen.ModelMetadataRequest, gen.ModelMetadataResponse, { name: 'nobody' }),
      );
      expect(error.code).toBe(status.NOT_FOUND);
      expect(error.details).toBe("Request for unknown model: 'nobody' is not found");
    }
  });

  it('statistics come per version, for one model or for all', async () => {
    const statistics = (name: string) =>
      client.call('ModelStatistics', gen.ModelStatisticsRequest, gen.ModelStatisticsResponse, { name });
    const { modelStats } = await statistics('identity');
    expect(modelStats).toHaveLength(1);
    expect(modelStats[0]).toMatchObject({
      name: 'identity',
      version: '1',
      lastInference: 1_700_000_000_000n,
      inferenceCount: 3n,
      executionCount: 1n,
      inferenceStats: { success: { count: 2n, ns: 40_000n }, queue: { count: 2n, ns: 10_000n } },
      batchStats: [{ batchSize: 3n, computeInfer: { count: 1n, ns: 20_000n } }],
      memoryUsage: [{ type: 'CPU', id: 0n, byteSize: 1234n }],
    });
    expect((await statistics('')).modelStats.length).toBeGreaterThan(3);
  });

  it('log settings change the level of the log, and refuse what they cannot change', async () => {
    const settings = (request: Partial<gen.LogSettingsRequest>) =>
      client.call('LogSettings', gen.LogSettingsRequest, gen.LogSettingsResponse, request);
    expect((await settings({})).settings['log_info']?.parameterChoice).toEqual({
      oneofKind: 'boolParam',
      boolParam: true,
    });
    await settings({
      settings: { log_verbose_level: { parameterChoice: { oneofKind: 'uint32Param', uint32Param: 1 } } },
    });
    expect(host.logLevel).toBe('debug');
    await settings({
      settings: {
        log_verbose_level: { parameterChoice: { oneofKind: 'uint32Param', uint32Param: 0 } },
        log_info: { parameterChoice: { oneofKind: 'boolParam', boolParam: false } },
      },
    });
    expect(host.logLevel).toBe('warn');
    const file = { log_file: { parameterChoice: { oneofKind: 'stringParam' as const, stringParam: 'x.log' } } };
    expect((await failureOf(settings({ settings: file }))).code).toBe(status.INVALID_ARGUMENT);
  });
});

describe('model control', () => {
  it('the index tells every version with its state, or only what is ready', async () => {
    const index = (ready: boolean) =>
      client.call('RepositoryIndex', gen.RepositoryIndexRequest, gen.RepositoryIndexResponse, { ready });
    const all = (await index(false)).models;
    expect(all).toContainEqual({ name: 'identity', version: '1', state: 'READY', reason: '' });
    expect(all).toContainEqual({ name: 'sick', version: '1', state: 'UNAVAILABLE', reason: 'model.onnx is corrupt' });
    expect((await index(true)).models.map(({ name }) => name)).not.toContain('sick');
  });

  it("Triton's load: field 2, with a configuration and files", async () => {
    await client.call('RepositoryModelLoad', gen.RepositoryModelLoadRequest, gen.RepositoryModelLoadResponse, {
      modelName: 'identity',
      parameters: {
        config: { parameterChoice: { oneofKind: 'stringParam', stringParam: '{"name":"identity"}' } },
        'file:1/model.onnx': { parameterChoice: { oneofKind: 'bytesParam', bytesParam: new Uint8Array([1, 2]) } },
      },
    });
    const [message] = host.controlled;
    expect(message).toMatchObject({
      type: 'load',
      model: 'identity',
      overrides: { configJson: '{"name":"identity"}' },
    });
    if (message?.type === 'load') expect([...message.overrides.files.keys()]).toEqual(['1/model.onnx']);
  });

  it("KServe's load: field 1, and its answer says so in fields 1 and 2", async () => {
    const answer = await client.raw('/inference.GRPCInferenceService/RepositoryModelLoad', unhex('0a 02 6d 31'));
    expect(host.controlled).toMatchObject([{ type: 'load', model: 'm1' }]);
    expect([...answer]).toEqual([...unhex('0a 02 6d 31 10 01')]);
    const unloaded = await client.raw('/inference.GRPCInferenceService/RepositoryModelUnload', unhex('0a 02 6d 31'));
    expect([...unloaded]).toEqual([...unhex('0a 02 6d 31 10 01')]);
  });

  it("MLServer's own service loads, unloads and lists, with empty answers", async () => {
    const path = '/inference.model_repository.ModelRepositoryService/';
    expect([...(await client.raw(`${path}RepositoryModelLoad`, unhex('12 02 6d 31')))]).toEqual([]);
    expect([...(await client.raw(`${path}RepositoryModelUnload`, unhex('12 02 6d 31')))]).toEqual([]);
    expect(host.controlled).toMatchObject([
      { type: 'load', model: 'm1' },
      { type: 'unload', model: 'm1' },
    ]);
    const { models } = await client.call(
      `${path}RepositoryIndex`,
      repository.RepositoryIndexRequest,
      repository.RepositoryIndexResponse,
      { ready: true },
    );
    expect(models.map(({ name }) => name)).toContain('identity');
  });

  it('a refused load tells the reason of the registry', async () => {
    host.registryOutcome = { ok: false, error: intarsiaError('FAILED_PRECONDITION', 'model control is not explicit') };
    const error = await failureOf(
      client.call('RepositoryModelLoad', gen.RepositoryModelLoadRequest, gen.RepositoryModelLoadResponse, {
        modelName: 'm',
      }),
    );
    expect(error).toMatchObject({ code: status.FAILED_PRECONDITION, details: 'model control is not explicit' });
  });

  it.each([
    ['no name', {}, 'a model name is required'],
    [
      'files without a configuration',
      {
        modelName: 'm',
        parameters: {
          'file:1/model.onnx': { parameterChoice: { oneofKind: 'bytesParam' as const, bytesParam: new Uint8Array() } },
        },
      },
      "parameter 'config' is required",
    ],
    [
      'a parameter nobody knows',
      {
        modelName: 'm',
        parameters: { colour: { parameterChoice: { oneofKind: 'stringParam' as const, stringParam: 'blue' } } },
      },
      "parameter 'colour' is not known",
    ],
  ])('a load with %s is refused', async (_what, request, message) => {
    const error = await failureOf(
      client.call('RepositoryModelLoad', gen.RepositoryModelLoadRequest, gen.RepositoryModelLoadResponse, request),
    );
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(error.details).toContain(message);
    expect(host.controlled).toEqual([]);
  });
});

describe('dialects of inference', () => {
  it("a request as KServe's and MLServer's clients write it (typed, no parameters of newer kinds) is answered alike", async () => {
    // model_name "identity", inputs[0] { name "x", datatype "FP32", shape [1,4] packed, contents { fp32_contents 1 2 3 4 } }
    const golden = unhex(
      '0a 08 69 64 65 6e 74 69 74 79 2a 21 0a 01 78 12 04 46 50 33 32 1a 02 01 04 2a 12 32 10 00 00 80 3f 00 00 00 40 00 00 40 40 00 00 80 40',
    );
    const answer = gen.ModelInferResponse.fromBinary(
      await client.raw('/inference.GRPCInferenceService/ModelInfer', golden),
    );
    expect(answer.outputs[0]?.contents?.fp32Contents).toEqual([1, 2, 3, 4]);
    for (const { parameterChoice } of Object.values(answer.parameters)) {
      expect(['boolParam', 'int64Param', 'stringParam']).toContain(parameterChoice.oneofKind);
    }
  });

  it('metadata carry no fields on whose meaning the dialects disagree', async () => {
    const bytes = await client.raw(
      '/inference.GRPCInferenceService/ModelMetadata',
      unhex('0a 08 69 64 65 6e 74 69 74 79'),
    );
    const fields = new Set<number>();
    for (let at = 0; at < bytes.byteLength;) {
      const tag = bytes[at]!;
      fields.add(tag >> 3);
      expect(tag & 7).toBe(2);
      at += 2 + bytes[at + 1]!;
    }
    expect([...fields].sort()).toEqual([1, 2, 3, 4, 5]);
  });
});

describe('health', () => {
  const check = async (service: string): Promise<string> => {
    const { status: serving } = await client.call(
      '/grpc.health.v1.Health/Check',
      HealthCheckRequest,
      HealthCheckResponse,
      { service },
    );
    return Serving[serving];
  };

  it('Check answers for the host, the service and each model', async () => {
    expect(await check('')).toBe('SERVING');
    expect(await check('inference.GRPCInferenceService')).toBe('SERVING');
    expect(await check('identity')).toBe('SERVING');
    expect(await check('sick')).toBe('NOT_SERVING');
    expect((await failureOf(check('nobody'))).code).toBe(status.NOT_FOUND);
    host.isReady = false;
    expect(await check('')).toBe('SERVING');
    expect(await check('inference.GRPCInferenceService')).toBe('NOT_SERVING');
  });

  it('Watch tells the status now and at each change', async () => {
    const watch = client.client.makeServerStreamRequest(
      '/grpc.health.v1.Health/Watch',
      (message: { service: string }) => Buffer.from(HealthCheckRequest.toBinary(message)),
      (bytes) => HealthCheckResponse.fromBinary(bytes),
      { service: 'later' },
    );
    watch.on('error', () => {});
    const seen: string[] = [];
    const next = () =>
      new Promise<void>((resolve) =>
        watch.once('data', (response: HealthCheckResponse) => {
          seen.push(Serving[response.status]);
          resolve();
        }),
      );
    await next();
    host.publish([identity, { ...identity, name: 'later' }]);
    await next();
    host.publish([identity], { later: 'gone bad' });
    await next();
    expect(seen).toEqual(['SERVICE_UNKNOWN', 'SERVING', 'NOT_SERVING']);
    watch.cancel();
  });
});

describe('the port itself', () => {
  it.each([
    'SystemSharedMemoryStatus',
    'SystemSharedMemoryRegister',
    'CudaSharedMemoryRegister',
    'CudaSharedMemoryUnregister',
    'TraceSetting',
  ])('%s is honestly UNIMPLEMENTED', async (name) => {
    const error = await failureOf(client.raw(`/inference.GRPCInferenceService/${name}`, new Uint8Array()));
    expect(error).toMatchObject({ code: status.UNIMPLEMENTED, details: `${name} is not offered by this host` });
  });

  it('a method that nobody knows is UNIMPLEMENTED', async () => {
    expect((await failureOf(client.raw('/inference.GRPCInferenceService/Dance', new Uint8Array()))).code).toBe(
      status.UNIMPLEMENTED,
    );
  });

  it('reflection lists the services and describes their messages', async () => {
    // ServerReflectionRequest { list_services: "" } and { file_containing_symbol: "inference.ModelInferRequest" }
    const reflect = (request: Uint8Array) =>
      new Promise<string>((resolve, reject) => {
        const stream = client.client.makeBidiStreamRequest(
          '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
          (bytes: Uint8Array) => Buffer.from(bytes),
          (bytes) => bytes,
        );
        stream.on('data', (bytes: Buffer) => {
          resolve(bytes.toString('latin1'));
          stream.end();
        });
        stream.on('error', reject);
        stream.write(request);
      });
    const services = await reflect(unhex('3a 00'));
    for (const name of [
      'inference.GRPCInferenceService',
      'grpc.health.v1.Health',
      'inference.model_repository.ModelRepositoryService',
    ]) {
      expect(services).toContain(name);
    }
    const symbol = new TextEncoder().encode('inference.ModelInferRequest');
    expect(await reflect(Uint8Array.from([0x22, symbol.byteLength, ...symbol]))).toContain('raw_input_contents');
  });

  it('the port being taken is told with the port and what to do', async () => {
    const second = startGrpcServer({ ...host.serverOptions(), port: server.port, log: silentLog });
    await expect(second).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(second).rejects.toThrow(`the gRPC port 127.0.0.1:${server.port} cannot be opened`);
    await expect(second).rejects.toThrow('--grpc-port');
  });

  it('the HTTP/2 windows, frames and headers are those of the configuration', async () => {
    const session = connect(`http://127.0.0.1:${server.port}`);
    await new Promise<void>((resolve) => session.once('remoteSettings', () => resolve()));
    expect(session.remoteSettings).toMatchObject({
      initialWindowSize: 16 * 1024 * 1024,
      maxFrameSize: 1024 * 1024,
      maxHeaderListSize: 16 * 1024,
      maxConcurrentStreams: 1024,
    });
    session.close();
  });

  it('bytes that are no HTTP/2 do not disturb the others', async () => {
    const socket = connectTcp(server.port, '127.0.0.1');
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => {});
    socket.resume();
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(3));
    await closed;
    await expect(client.infer(identityRequest())).resolves.toBeDefined();
  });
});
