import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { openGrpcLoad } from '#adapters/grpc/load-channel.js';
import { openRestLoad } from '#adapters/http/load-rest.js';
import { connect } from '#client/index.js';
import { ServerLiveResponse } from '#gen/inference.js';
import { decodeInferRequest, encodeInferResponse, encodeStreamInferResponse } from '#core/inference-wire.js';
import type { InferParameter } from '#core/inference-message.js';
import type { Tensor } from '#core/tensor.js';
import type { LoadProtocol, LoadTarget, LoadTransport } from '#ports/load-transport.js';
import { receiptReader } from '#cli/load/answer-receipt.js';
import { openClientLoad, type ClientLoad } from '#cli/load/client-load.js';
import { randomInputs } from '#cli/load/random-inputs.js';
import { requestBody } from '#cli/load/request-bodies.js';
import { echoOf, startPretendServer, StatusError, streamError } from '../client/pretend-server.js';
import type { PretendServer } from '../client/pretend-server.js';

const opened: (() => void)[] = [];
afterEach(() => {
  for (const close of opened.splice(0)) close();
});

const tensor: Tensor = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 2],
  data: new Uint8Array(new Float32Array([1, 2]).buffer),
};
const receipt = new Map<string, InferParameter>([
  ['intarsia_device', { kind: 'string', value: 'cpu:0' }],
  ['intarsia_queue_us', { kind: 'int64', value: 33n }],
]);

function targetOf(protocol: LoadProtocol, address: string, more: Partial<LoadTarget> = {}): LoadTarget {
  const { path, headers, body } = requestBody(protocol, { name: 'm', version: '' }, [tensor]);
  return { protocol, address, tls: false, path, headers, bodies: [body], connections: 2, timeoutMs: 0, ...more };
}

function open(target: LoadTarget): LoadTransport {
  const transport = target.protocol.startsWith('grpc') ? openGrpcLoad(target) : openRestLoad(target);
  opened.push(() => transport.close());
  return transport;
}

function send(transport: LoadTransport, body = 0): Promise<{ code: string; answer: Uint8Array | undefined }> {
  return new Promise((resolve) => transport.send(body, true, (code, answer) => resolve({ code, answer })));
}

async function grpcServer(): Promise<PretendServer> {
  const server = await startPretendServer({
    unary: {
      ServerLive: () => ServerLiveResponse.toBinary({ live: true }),
      ModelInfer: ({ bytes, metadata }) => {
        if (metadata.get('x-fail').length > 0)
          throw new StatusError('UNAVAILABLE', 'full', { 'intarsia-code': 'QUEUE_FULL' });
        if (metadata.get('x-odd').length > 0) throw new StatusError('DATA_LOSS', 'odd');
        return encodeInferResponse(echoOf(decodeInferRequest(bytes), receipt)).toBytes();
      },
    },
    stream: (request) =>
      request.modelName === 'bad'
        ? streamError('no', '')
        : encodeStreamInferResponse(echoOf(request, receipt)).toBytes(),
  });
  opened.push(() => server.stop());
  return server;
}

/** A REST server of a few lines; remembers what it was sent. */
async function restServer(): Promise<{ address: string; bodies: { url: string; header: string; body: Buffer }[] }> {
  const bodies: { url: string; header: string; body: Buffer }[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const header = request.headers['inference-header-content-length'];
      if (request.method === 'POST') {
        bodies.push({
          url: request.url ?? '',
          header: typeof header === 'string' ? header : '',
          body: Buffer.concat(chunks),
        });
      }
      if (request.headers['x-fail'] !== undefined) response.writeHead(503).end('{"error":"full"}');
      else {
        const json = '{"model_name":"}{","parameters":{"intarsia_device":"cpu:0","intarsia_queue_us":33},"outputs":[]}';
        response.end(Buffer.concat([Buffer.from(json), Buffer.from([0x7b, 0xff])]));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  opened.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, bodies };
}

describe.each(['grpc', 'grpc-stream'] as const)('load over %s', (protocol) => {
  it('sends its bodies and hands over answers with their receipts', async () => {
    const server = await grpcServer();
    const transport = open(targetOf(protocol, server.endpoint));
    await transport.open();
    const answers = await Promise.all(Array.from({ length: 20 }, () => send(transport)));
    expect(answers.map(({ code }) => code)).toEqual(Array.from({ length: 20 }, () => ''));
    for (const { answer } of answers) {
      expect(receiptReader(protocol)(answer ?? new Uint8Array(0))).toMatchObject({ device: 'cpu:0', queueUs: 33 });
    }
  });

  it('carries messages of several megabytes', async () => {
    const server = await grpcServer();
    const data = new Uint8Array(3 * 1024 * 1024).fill(9);
    const large: Tensor = { name: 'x', datatype: 'UINT8', shape: [data.byteLength], data };
    const { body } = requestBody(protocol, { name: 'm', version: '' }, [large]);
    const { code, answer } = await send(open(targetOf(protocol, server.endpoint, { bodies: [body] })));
    expect(code).toBe('');
    expect(answer?.byteLength).toBeGreaterThan(data.byteLength);
  });

  it('says UNANSWERED for what is open when it closes, and UNAVAILABLE when nobody listens', async () => {
    const silent = await startPretendServer({
      unary: { ModelInfer: ({ cancelled }) => cancelled.then(() => new Uint8Array(0)) },
      stream: () => new Promise(() => {}),
    });
    opened.push(() => silent.stop());
    const transport = open(targetOf(protocol, silent.endpoint));
    await transport.open();
    const waiting = send(transport);
    transport.close();
    expect((await waiting).code).toBe('UNANSWERED');

    const gone = await grpcServer();
    gone.stop();
    await expect(open(targetOf(protocol, gone.endpoint)).open()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect((await send(open(targetOf(protocol, gone.endpoint)))).code).toBe('UNAVAILABLE');
  });
});

describe('load over gRPC', () => {
  it("names a failure by our code, or else by the status's name", async () => {
    const server = await grpcServer();
    expect((await send(open(targetOf('grpc', server.endpoint, { headers: { 'x-fail': '1' } })))).code).toBe(
      'QUEUE_FULL',
    );
    expect((await send(open(targetOf('grpc', server.endpoint, { headers: { 'x-odd': '1' } })))).code).toBe('DATA_LOSS');
    expect((await send(open(targetOf('grpc', server.endpoint, { path: '/no.Service/Method' })))).code).toBe(
      'UNIMPLEMENTED',
    );
  });

  it('tells an error inside a stream, and the stream goes on', async () => {
    const server = await grpcServer();
    const bodies = ['bad', 'm'].map((name) => requestBody('grpc-stream', { name, version: '' }, [tensor]).body);
    const transport = open(targetOf('grpc-stream', server.endpoint, { bodies, connections: 1 }));
    expect((await send(transport, 0)).code).toBe('STREAM_ERROR');
    expect((await send(transport, 1)).code).toBe('');
    expect(server.seen.get('ModelStreamInfer')).toBe(1);
  });
});

describe('load over the client', () => {
  const openClient = (target: LoadTarget): ClientLoad => {
    const transport = openClientLoad(target, connect);
    opened.push(() => transport.close());
    return transport;
  };

  it('asks another endpoint when one is gone, fails nothing, and counts what that took', async () => {
    const [first, second] = [await grpcServer(), await grpcServer()];
    const transport = openClient(targetOf('client', `${first.endpoint},${second.endpoint}`));
    await transport.open();
    expect((await send(transport)).code).toBe('');
    first.stop();
    const answers = await Promise.all(Array.from({ length: 20 }, () => send(transport)));
    expect(answers.map(({ code }) => code)).toEqual(Array.from({ length: 20 }, () => ''));
    expect(receiptReader('client')(answers[0]?.answer ?? new Uint8Array(0))).toMatchObject({ device: 'cpu:0' });
    expect(transport.statistics).toMatchObject({ inFlight: 0 });
    expect(transport.statistics.retries).toBeGreaterThan(0);
  });

  it('names a failure by our code, and says UNANSWERED for what is open when it closes', async () => {
    const server = await grpcServer();
    const failing = openClient(targetOf('client', server.endpoint, { headers: { 'x-odd': '1' } }));
    expect((await send(failing)).code).not.toBe('');
    const silent = await startPretendServer({
      unary: { ModelInfer: ({ cancelled }) => cancelled.then(() => new Uint8Array(0)) },
    });
    opened.push(() => silent.stop());
    const transport = openClient(targetOf('client', silent.endpoint));
    const waiting = send(transport);
    transport.close();
    expect((await waiting).code).toBe('UNANSWERED');
  });
});

describe('load over REST', () => {
  it('sends JSON that a v2 server understands', async () => {
    const { address, bodies } = await restServer();
    const transport = open(targetOf('rest-json', address));
    await transport.open();
    const { code, answer } = await send(transport);
    expect(code).toBe('');
    expect(receiptReader('rest-json')(answer ?? new Uint8Array(0))).toMatchObject({ device: 'cpu:0', queueUs: 33 });
    expect(bodies[0]?.url).toBe('/v2/models/m/infer');
    expect(JSON.parse(bodies[0]?.body.toString() ?? '')).toEqual({
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], data: [1, 2] }],
    });
  });

  it('sends binary tensors behind a JSON header', async () => {
    const { address, bodies } = await restServer();
    const transport = open(targetOf('rest-binary', address));
    expect((await send(transport)).code).toBe('');
    const [sent] = bodies;
    const length = Number(sent?.header);
    expect(JSON.parse(sent?.body.subarray(0, length).toString() ?? '')).toMatchObject({
      parameters: { binary_data_output: true },
      inputs: [{ name: 'x', parameters: { binary_data_size: 8 } }],
    });
    expect(sent?.body.subarray(length)).toEqual(Buffer.from(tensor.data));
  });

  it('names a failure by its status', async () => {
    const { address } = await restServer();
    expect((await send(open(targetOf('rest-json', address, { headers: { 'x-fail': '1' } })))).code).toBe('HTTP_503');
  });
});

describe('random inputs', () => {
  const options = { seed: 's', batch: 3, shapes: new Map<string, readonly number[]>() };

  it('have the shape of the model, with the batch asked for, and are the same for the same seed', () => {
    const specs = [
      { name: 'a', datatype: 'FP32', shape: [-1, 4] },
      { name: 'b', datatype: 'INT64', shape: [-1, -1] },
      { name: 'w', datatype: 'BYTES', shape: [2] },
    ] as const;
    const inputs = randomInputs(specs, { ...options, shapes: new Map([['b', [3, 7]]]) });
    expect(inputs.map(({ shape }) => shape)).toEqual([[3, 4], [3, 7], [2]]);
    expect(inputs.map(({ data }) => data.byteLength)).toEqual([48, 168, 24]);
    const floats = new Float32Array(inputs[0]?.data.buffer as ArrayBuffer);
    expect(floats.every((value) => value >= 0 && value <= 1)).toBe(true);
    expect(randomInputs(specs, { ...options, shapes: new Map([['b', [3, 7]]]) })).toEqual(inputs);
  });

  it('refuse a shape that does not fit the model', () => {
    const specs = [{ name: 'a', datatype: 'FP32', shape: [-1, 4] }] as const;
    expect(() => randomInputs(specs, { ...options, shapes: new Map([['a', [1, 5]]]) })).toThrow(
      "--shape a=1,5 does not fit the model's shape [-1,4]",
    );
    expect(() => randomInputs(specs, { ...options, shapes: new Map([['z', [1]]]) })).toThrow("--shape names 'z'");
  });
});
