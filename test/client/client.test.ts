import { afterEach, describe, expect, it } from 'vitest';
import { decodeInferRequest, encodeInferResponse } from '#core/inference-wire.js';
import type { InferParameter, InferRequestMessage } from '#core/inference-message.js';
import {
  ModelConfigResponse,
  ModelMetadataRequest,
  ModelMetadataResponse,
  ModelReadyRequest,
  ModelReadyResponse,
  ModelStatisticsResponse,
  RepositoryIndexResponse,
  RepositoryModelLoadRequest,
  RepositoryModelLoadResponse,
  ServerLiveResponse,
  ServerMetadataResponse,
  ServerReadyResponse,
} from '#gen/inference.js';
import { connect, IntarsiaError } from '#client/index.js';
import type { ClientOptions, InferenceClient } from '#client/index.js';
import { echo, echoOf, startPretendServer, StatusError } from './pretend-server.js';
import type { PretendServer, UnaryHandler } from './pretend-server.js';

const opened: { close(): void }[] = [];
afterEach(() => {
  for (const thing of opened.splice(0)) thing.close();
});

async function serve(unary: Readonly<Record<string, UnaryHandler>>): Promise<PretendServer> {
  const server = await startPretendServer({ unary });
  opened.push({ close: () => server.stop() });
  return server;
}

function clientOf(
  endpoints: string | readonly string[],
  options: Omit<ClientOptions, 'endpoints'> = {},
): InferenceClient {
  const client = connect({ endpoints, ...options });
  opened.push(client);
  return client;
}

async function failureOf(promise: Promise<unknown>): Promise<IntarsiaError> {
  const error: unknown = await promise.then(
    (value) => new Error(`it succeeded: ${JSON.stringify(value)}`),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(IntarsiaError);
  return error as IntarsiaError;
}

const one = { x: new Float32Array([1]) };
const busy: UnaryHandler = () => {
  throw new StatusError('UNAVAILABLE', 'Exceeds maximum queue size', { 'intarsia-code': 'QUEUE_FULL' });
};
const never: UnaryHandler = ({ cancelled }) => cancelled.then(() => new Uint8Array(0));

describe('calls about the server and its models', () => {
  it('come back as plain data', async () => {
    const loads: RepositoryModelLoadRequest[] = [];
    const server = await serve({
      ServerLive: () => ServerLiveResponse.toBinary({ live: true }),
      ServerReady: () => ServerReadyResponse.toBinary({ ready: false }),
      ServerMetadata: () =>
        ServerMetadataResponse.toBinary({ name: 'pretend', version: '9', extensions: ['statistics'] }),
      ModelReady: ({ bytes }) =>
        ModelReadyResponse.toBinary({ ready: ModelReadyRequest.fromBinary(bytes).version === '2' }),
      ModelMetadata: ({ bytes }) => {
        const { name, version } = ModelMetadataRequest.fromBinary(bytes);
        return ModelMetadataResponse.toBinary({
          name,
          versions: [version],
          platform: 'onnxruntime_onnx',
          inputs: [{ name: 'x', datatype: 'INT64', shape: [-1n, 3n] }],
          outputs: [],
        });
      },
      ModelConfig: () =>
        ModelConfigResponse.toBinary(
          ModelConfigResponse.create({
            config: { name: 'm', maxBatchSize: 8, metricTags: {}, parameters: {} },
          }),
        ),
      ModelStatistics: () =>
        ModelStatisticsResponse.toBinary({
          modelStats: [
            {
              name: 'm',
              version: '1',
              lastInference: 1_700_000_000_000n,
              inferenceCount: 12n,
              executionCount: 4n,
              inferenceStats: { queue: { count: 12n, ns: 3600n } },
              batchStats: [{ batchSize: 3n, computeInfer: { count: 4n, ns: 900n } }],
              memoryUsage: [],
              responseStats: {},
            },
          ],
        }),
      RepositoryIndex: () =>
        RepositoryIndexResponse.toBinary({
          models: [{ name: 'm', version: '1', state: 'UNAVAILABLE', reason: 'unloaded' }],
        }),
      RepositoryModelLoad: ({ bytes }) => {
        loads.push(RepositoryModelLoadRequest.fromBinary(bytes));
        return RepositoryModelLoadResponse.toBinary({ modelName: 'm', isLoaded: true });
      },
      RepositoryModelUnload: () => new Uint8Array(0),
    });
    const client = clientOf(server.endpoint);
    expect(await client.live()).toBe(true);
    expect(await client.ready()).toBe(false);
    expect(await client.serverMetadata()).toEqual({ name: 'pretend', version: '9', extensions: ['statistics'] });
    expect(await client.modelReady('m', { version: '2' })).toBe(true);
    expect(await client.modelMetadata('m', { version: '7' })).toEqual({
      name: 'm',
      versions: ['7'],
      platform: 'onnxruntime_onnx',
      inputs: [{ name: 'x', datatype: 'INT64', shape: [-1, 3] }],
      outputs: [],
    });
    expect(await client.modelConfig('m')).toMatchObject({ name: 'm', max_batch_size: 8 });
    expect(await client.modelStatistics('m')).toMatchObject([
      {
        name: 'm',
        inferenceCount: 12,
        executionCount: 4,
        lastInferenceMs: 1_700_000_000_000,
        queue: { count: 12, ns: 3600 },
        success: { count: 0, ns: 0 },
        batches: [{ size: 3, count: 4, inferNs: 900 }],
      },
    ]);
    expect(await client.repositoryIndex()).toEqual([
      { name: 'm', version: '1', state: 'UNAVAILABLE', reason: 'unloaded' },
    ]);
    await client.loadModel('m', { configJson: '{}', files: { '1/model.onnx': new Uint8Array([8]) } });
    expect(loads[0]).toMatchObject({
      modelName: 'm',
      parameters: {
        config: { parameterChoice: { stringParam: '{}' } },
        'file:1/model.onnx': { parameterChoice: { bytesParam: Buffer.from([8]) } },
      },
    });
    await client.unloadModel('m');
  });
});

describe('infer', () => {
  it('sends typed inputs and reads typed outputs', async () => {
    const server = await serve({ ModelInfer: echo });
    const result = await clientOf(server.endpoint).infer(
      'm',
      {
        floats: { data: new Float32Array([1, 2.5, -3, 0]), shape: [2, 2] },
        words: ['hello', 'wörld'],
        flags: [[true], [false]],
        longs: new BigInt64Array([-(2n ** 62n)]),
      },
      { id: 'r1', version: '3' },
    );
    expect([result.model, result.version, result.id]).toEqual(['m', '3', 'r1']);
    expect(result.output('floats').asFloat32()).toEqual(new Float32Array([1, 2.5, -3, 0]));
    expect(result.output('floats').toNested()).toEqual([
      [1, 2.5],
      [-3, 0],
    ]);
    expect(result.output('words').asStrings()).toEqual(['hello', 'wörld']);
    expect(result.output('flags').toNested()).toEqual([[true], [false]]);
    expect(result.output('longs').asBigInt64()).toEqual(new BigInt64Array([-(2n ** 62n)]));
    expect(() => result.output('floats').asInt32()).toThrow("output 'floats' is FP32; asInt32() reads INT32");
    expect(() => result.output('nothing')).toThrow("has no output 'nothing'; it has floats, words, flags, longs");
  });

  it('lets the model declare the datatype of plain numbers, and asks once', async () => {
    const server = await serve({
      ModelInfer: echo,
      ModelMetadata: () =>
        ModelMetadataResponse.toBinary({
          name: 'm',
          versions: ['1'],
          platform: '',
          inputs: [{ name: 'x', datatype: 'INT32', shape: [2n] }],
          outputs: [],
        }),
    });
    const client = clientOf(server.endpoint);
    for (let round = 0; round < 3; round += 1) {
      const result = await client.infer('m', { x: [7, -1] });
      expect(result.output().asInt32()).toEqual(new Int32Array([7, -1]));
    }
    expect(server.seen.get('ModelMetadata')).toBe(1);
  });

  it('sends sequence, priority, classification and billing parameters as the protocol names them', async () => {
    const requests: InferRequestMessage[] = [];
    const server = await serve({
      ModelInfer: (call) => {
        requests.push(decodeInferRequest(call.bytes));
        return echo(call);
      },
    });
    await clientOf(server.endpoint).infer('m', one, {
      sequence: { id: 5, start: true },
      priority: 1,
      queueTimeoutUs: 2000,
      project: 'p',
      user: 'u',
      outputs: ['a', { name: 'b', classes: 3 }],
      parameters: { custom: 0.5 },
    });
    const [request] = requests;
    expect(Object.fromEntries(request?.parameters ?? [])).toEqual({
      sequence_id: { kind: 'int64', value: 5n },
      sequence_start: { kind: 'bool', value: true },
      sequence_end: { kind: 'bool', value: false },
      priority: { kind: 'int64', value: 1n },
      timeout: { kind: 'int64', value: 2000n },
      intarsia_project: { kind: 'string', value: 'p' },
      intarsia_user: { kind: 'string', value: 'u' },
      custom: { kind: 'double', value: 0.5 },
    });
    expect(request?.outputs.map(({ name, parameters }) => [name, parameters.get('classification')?.value])).toEqual([
      ['a', undefined],
      ['b', 3n],
    ]);
  });

  it('reads the receipt out of the answer', async () => {
    const parameters = new Map<string, InferParameter>([
      ['intarsia_device', { kind: 'string', value: 'cpu:0' }],
      ['intarsia_queue_us', { kind: 'int64', value: 120n }],
      ['intarsia_compute_us', { kind: 'int64', value: 900n }],
      ['intarsia_batch_items', { kind: 'int64', value: 8n }],
      ['intarsia_cost_usd', { kind: 'string', value: '1.5e-7' }],
    ]);
    const server = await serve({
      ModelInfer: ({ bytes }) => encodeInferResponse(echoOf(decodeInferRequest(bytes), parameters)).toBytes(),
    });
    const { receipt } = await clientOf(server.endpoint).infer('m', one);
    expect(receipt).toMatchObject({
      device: 'cpu:0',
      queueUs: 120,
      computeUs: 900,
      batchItems: 8,
      costUsd: 1.5e-7,
    });
  });

  it('moves a tensor larger than the default limits of gRPC', async () => {
    const server = await serve({ ModelInfer: echo });
    const large = new Float32Array(2 * 1024 * 1024).fill(0.25);
    const result = await clientOf(server.endpoint, { connections: 2 }).infer('m', { x: large });
    expect(Buffer.from(large.buffer).equals(result.output().data)).toBe(true);
  });

  it('refuses a message beyond its limit with REQUEST_TOO_LARGE', async () => {
    const server = await serve({ ModelInfer: echo });
    const client = clientOf(server.endpoint, { messageBytesMax: 4096 });
    const error = await failureOf(client.infer('m', { x: new Uint8Array(10_000) }));
    expect(error.code).toBe('REQUEST_TOO_LARGE');
    expect(server.seen.get('ModelInfer')).toBeUndefined();
  });

  it('sends token and headers with each call', async () => {
    let seen: (string | Buffer)[] = [];
    const server = await serve({
      ServerLive: ({ metadata }) => {
        seen = [...metadata.get('authorization'), ...metadata.get('x-more')];
        return ServerLiveResponse.toBinary({ live: true });
      },
    });
    await clientOf(server.endpoint, { token: 'secret', headers: { 'x-more': '1' } }).live();
    expect(seen).toEqual(['Bearer secret', '1']);
  });
});

describe('errors', () => {
  it('are rebuilt with code, details and endpoint from what our hosts send', async () => {
    const server = await serve({
      ModelInfer: () => {
        throw new StatusError('RESOURCE_EXHAUSTED', 'device cpu:0 has too little memory', {
          'intarsia-code': 'OUT_OF_MEMORY',
          'intarsia-details': '{"bytesMissing":12}',
        });
      },
    });
    const error = await failureOf(clientOf(server.endpoint).infer('m', one));
    expect(error.code).toBe('OUT_OF_MEMORY');
    expect(error.retryable).toBe(false);
    expect(error.details).toMatchObject({ bytesMissing: 12, endpoint: server.endpoint, attempts: 1 });
  });

  it.each([
    ['NOT_FOUND', "Request for unknown model: 'm' is not found", 'MODEL_NOT_FOUND'],
    ['INVALID_ARGUMENT', "unexpected inference input 'y' for model 'm'", 'INVALID_ARGUMENT'],
    ['UNIMPLEMENTED', 'no', 'UNIMPLEMENTED'],
    ['UNAUTHENTICATED', 'who?', 'UNAUTHENTICATED'],
    ['INTERNAL', 'broken', 'INTERNAL'],
  ] as const)('of other servers are told by their status: %s "%s" is %s', async (status, message, code) => {
    const server = await serve({
      ModelInfer: () => {
        throw new StatusError(status, message);
      },
    });
    const error = await failureOf(clientOf(server.endpoint).infer('m', one));
    expect(error.code).toBe(code);
    expect(error.message).toBe(message);
    expect(server.seen.get('ModelInfer')).toBe(1);
  });

  it('say that an endpoint cannot be reached', async () => {
    const server = await serve({});
    server.stop();
    const error = await failureOf(clientOf(server.endpoint, { attemptsMax: 1 }).live());
    expect(error.code).toBe('UNAVAILABLE');
    expect(error.message).toContain(`endpoint ${server.endpoint} cannot be reached`);
  });

  it('say INTERNAL for an answer that cannot be read', async () => {
    const server = await serve({ ModelInfer: () => new Uint8Array([0xff, 0xff, 0xff]) });
    expect((await failureOf(clientOf(server.endpoint).infer('m', one))).code).toBe('INTERNAL');
  });
});

describe('deadlines and cancellation', () => {
  it('end a call at its deadline, and the server knows the deadline', async () => {
    let deadline = 0;
    const server = await serve({
      ModelInfer: (call) => {
        deadline = call.deadline;
        return never(call);
      },
    });
    const before = Date.now();
    const error = await failureOf(clientOf(server.endpoint).infer('m', one, { timeoutMs: 200 }));
    expect(error.code).toBe('DEADLINE_EXCEEDED');
    expect(deadline).toBeGreaterThanOrEqual(before);
    expect(deadline).toBeLessThanOrEqual(Date.now() + 200);
  });

  it('fail at once when the deadline has passed already, without asking anybody', async () => {
    const server = await serve({ ModelInfer: echo });
    const error = await failureOf(clientOf(server.endpoint).infer('m', one, { deadline: new Date(Date.now() - 1) }));
    expect(error.code).toBe('DEADLINE_EXCEEDED');
    expect(server.seen.size).toBe(0);
  });

  it('cancel on the server what the caller aborts', async () => {
    let sawCancel: () => void = () => {};
    const seen = new Promise<void>((resolve) => (sawCancel = resolve));
    const controller = new AbortController();
    const server = await serve({
      ModelInfer: async ({ cancelled }) => {
        controller.abort();
        await cancelled;
        sawCancel();
        return new Uint8Array(0);
      },
    });
    const error = await failureOf(clientOf(server.endpoint).infer('m', one, { signal: controller.signal }));
    expect(error.code).toBe('CANCELLED');
    await seen;
  });

  it('do not send what was aborted before', async () => {
    const server = await serve({ ModelInfer: echo });
    const error = await failureOf(clientOf(server.endpoint).infer('m', one, { signal: AbortSignal.abort() }));
    expect(error.code).toBe('CANCELLED');
    expect(server.seen.size).toBe(0);
  });
});

describe('retries', () => {
  it('repeat a retryable failure and stop at attemptsMax', async () => {
    let calls = 0;
    const server = await serve({
      ModelInfer: (call) => {
        calls += 1;
        return calls < 3 ? busy(call) : echo(call);
      },
      ModelReady: busy,
    });
    const client = clientOf(server.endpoint, { retry: { backoffMsMin: 0, backoffMsMax: 0 } });
    await client.infer('m', one);
    expect(calls).toBe(3);
    expect(client.statistics).toMatchObject({ calls: 1, attempts: 3, retries: 2 });
    const error = await failureOf(client.modelReady('m'));
    expect(error.code).toBe('QUEUE_FULL');
    expect(error.details['attempts']).toBe(3);
  });

  it('try another endpoint first', async () => {
    const bad = await serve({ ModelInfer: busy });
    const good = await serve({ ModelInfer: echo });
    // A back-off that would outlast the test: going to the other endpoint must not wait for it.
    const client = clientOf([bad.endpoint, good.endpoint], {
      balancing: 'round-robin',
      retry: { backoffMsMin: 60_000, backoffMsMax: 60_000 },
    });
    await client.infer('m', one);
    await client.infer('m', one);
    expect(bad.seen.get('ModelInfer')).toBe(2);
    expect(good.seen.get('ModelInfer')).toBe(2);
  });

  it('stop when the budget is used up', async () => {
    const server = await serve({ ModelInfer: busy });
    const client = clientOf(server.endpoint, {
      retry: { tokensMax: 4, backoffMsMin: 0, backoffMsMax: 0 },
      attemptsMax: 3,
    });
    for (let call = 0; call < 10; call += 1) await failureOf(client.infer('m', one));
    // The bucket holds 4 and retries need more than 2: the first failure leaves 3 and allows one retry, which leaves 2.
    expect(client.statistics).toMatchObject({ calls: 10, attempts: 11, retries: 1, retriesRefused: 10 });
  });

  it('never repeat a request of a sequence', async () => {
    const server = await serve({ ModelInfer: busy });
    const client = clientOf(server.endpoint, { retry: { backoffMsMin: 0, backoffMsMax: 0 } });
    await failureOf(client.infer('m', one, { sequence: { id: 1, start: true } }));
    expect(server.seen.get('ModelInfer')).toBe(1);
  });

  it('obey a server that asks for none', async () => {
    const server = await serve({
      ModelInfer: () => {
        throw new StatusError('UNAVAILABLE', 'later', { 'grpc-retry-pushback-ms': '-1' });
      },
    });
    await failureOf(clientOf(server.endpoint).infer('m', one));
    expect(server.seen.get('ModelInfer')).toBe(1);
  });

  it('go on with another endpoint when one is gone, and leave the dead one alone', async () => {
    const dead = await serve({ ModelInfer: echo });
    const alive = await serve({ ModelInfer: echo });
    dead.stop();
    const client = clientOf([dead.endpoint, alive.endpoint], {
      balancing: 'round-robin',
      ejection: { failuresMax: 1, ejectMsMin: 60_000, ejectMsMax: 60_000 },
    });
    for (let call = 0; call < 6; call += 1) await client.infer('m', one);
    expect(alive.seen.get('ModelInfer')).toBe(6);
    expect(client.statistics.attempts).toBe(7);
    expect(client.endpoints).toEqual([
      { name: dead.endpoint, inFlight: 0, ejected: true },
      { name: alive.endpoint, inFlight: 0, ejected: false },
    ]);
  });
});

describe('bounds', () => {
  it('refuse a call beyond inFlightMax', async () => {
    const server = await serve({ ModelInfer: never });
    const client = clientOf(server.endpoint, { inFlightMax: 2 });
    const controller = new AbortController();
    const waiting = [1, 2].map(() => failureOf(client.infer('m', one, { signal: controller.signal })));
    const error = await failureOf(client.infer('m', one));
    expect(error.code).toBe('RESOURCE_EXHAUSTED');
    expect(error.message).toContain('2 calls are on their way');
    controller.abort();
    await Promise.all(waiting);
    expect(client.statistics.inFlight).toBe(0);
  });

  it('spread calls over endpoints by what is in flight', async () => {
    const first = await serve({ ModelInfer: never });
    const second = await serve({ ModelInfer: never });
    const client = clientOf([first.endpoint, second.endpoint]);
    const controller = new AbortController();
    const waiting = Array.from({ length: 6 }, () => failureOf(client.infer('m', one, { signal: controller.signal })));
    // The choice is made before anything is awaited.
    expect(client.endpoints.map((endpoint) => endpoint.inFlight)).toEqual([3, 3]);
    controller.abort();
    await Promise.all(waiting);
  });

  it('say UNAVAILABLE after close', async () => {
    const client = connect({ endpoints: '127.0.0.1:1' });
    client.close();
    expect((await failureOf(client.live())).message).toBe('this client is closed');
  });
});
