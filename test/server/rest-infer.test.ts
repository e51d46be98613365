/** REST inference over a real socket: JSON, binary tensors, raw bodies, compression, and every refusal. */
import { connect } from 'node:net';
import { deflateSync, gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import { silentLog } from '#ports/log.js';
import { startHttpServer, type RunningHttpServer } from '#adapters/http/server.js';
import { floats } from './grpc-client.js';
import { PretendHost } from './pretend-host.js';
import { parts, RestClient } from './rest-client.js';

let host: PretendHost;
let server: RunningHttpServer;
let client: RestClient;
const path = '/v2/models/identity/infer';

async function start(options: Partial<Parameters<typeof startHttpServer>[0]> = {}): Promise<RunningHttpServer> {
  return startHttpServer({
    ...host.serverOptions(),
    log: silentLog,
    receiveMsMax: 10_000,
    loadReport: () => ({ queue: 3 }),
    ...options,
  });
}

beforeEach(async () => {
  host = new PretendHost({ broken: { sick: 'model.onnx is corrupt' } });
  server = await start();
  client = new RestClient(server.port);
});
afterEach(async () => {
  host.devices.cpu.release();
  await server.stop(500);
});

const input = (data: unknown = [[1, 2, 3, 4]], fields: object = {}) => ({
  inputs: [{ name: 'x', shape: [1, 4], datatype: 'FP32', data, ...fields }],
});
const binaryInput = (bytes: number) => ({
  inputs: [{ name: 'x', shape: [1, 4], datatype: 'FP32', parameters: { binary_data_size: bytes } }],
});

describe('answers', () => {
  it.each([
    ['nested', [[1, 2, 3, 4]]],
    ['flat', [1, 2, 3, 4]],
  ])('JSON data may be %s', async (_what, data) => {
    const answer = await client.post(path, { ...input(data), id: 'abc' });
    expect(answer.status).toBe(200);
    expect(answer.headers['content-type']).toBe('application/json');
    expect(answer.json()).toMatchObject({
      id: 'abc',
      model_name: 'identity',
      model_version: '1',
      parameters: { intarsia_device: 'cpu:0', intarsia_queue_us: 120, intarsia_cost_usd: '5.00000e-7' },
      outputs: [{ name: 'x', datatype: 'FP32', shape: [1, 4], data: [1, 2, 3, 4] }],
    });
  });

  it('a version in the path is the one that answers', async () => {
    expect((await client.post('/v2/models/identity/versions/1/infer', input())).status).toBe(200);
    expect((await client.post('/v2/models/identity/versions/2/infer', input())).status).toBe(404);
  });

  it('binary tensors travel behind the JSON, both ways', async () => {
    const answer = await client.binary(path, { ...binaryInput(16), parameters: { binary_data_output: true } }, [
      floats(1, 2, 3, 4),
    ]);
    expect(answer.status).toBe(200);
    expect(answer.headers['content-type']).toBe('application/octet-stream');
    const { json, raw } = parts(answer);
    expect(json['outputs']).toEqual([
      { name: 'x', datatype: 'FP32', shape: [1, 4], parameters: { binary_data_size: 16 } },
    ]);
    expect([...raw]).toEqual([...floats(1, 2, 3, 4)]);
  });

  it('each output may be wanted as JSON or binary, whatever the word for all', async () => {
    const outputs = [{ name: 'x', parameters: { binary_data: false } }];
    const json = await client.binary(path, { ...binaryInput(16), parameters: { binary_data_output: true }, outputs }, [
      floats(1, 2, 3, 4),
    ]);
    expect(json.json()['outputs']).toMatchObject([{ data: [1, 2, 3, 4] }]);
    const binary = await client.post(path, { ...input(), outputs: [{ name: 'x', parameters: { binary_data: true } }] });
    expect([...parts(binary).raw]).toEqual([...floats(1, 2, 3, 4)]);
  });

  it('two binary tensors are taken in the order of the inputs', async () => {
    const request = {
      inputs: [
        { name: 'b', shape: [1, 2], datatype: 'INT32', parameters: { binary_data_size: 8 } },
        { name: 'a', shape: [1, 1], datatype: 'INT32', parameters: { binary_data_size: 4 } },
      ],
    };
    const bytes = new Uint8Array(Int32Array.from([7, 8, 9]).buffer);
    const answer = await client.binary('/v2/models/pair/infer', request, [bytes]);
    expect(answer.json()['outputs']).toMatchObject([
      { name: 'a', data: [9] },
      { name: 'b', data: [7, 8] },
    ]);
  });

  it('a raw body is the only input of its model, and is answered in binary', async () => {
    const raw = (model: string, body: Uint8Array) =>
      client.send('POST', `/v2/models/${model}/infer`, body, { 'inference-header-content-length': 0 });
    const answer = await raw('identity', floats(1, 2, 3, 4));
    expect(answer.status).toBe(200);
    expect([...parts(answer).raw]).toEqual([...floats(1, 2, 3, 4)]);
    expect(host.devices.cpu.seen[0]?.inputs[0]?.shape).toEqual([1, 4]);
    expect((await raw('blob', new Uint8Array(33))).status).toBe(200);
    expect(host.devices.cpu.seen[1]?.inputs[0]?.shape).toEqual([33]);
    expect(parts(await raw('texts', Buffer.from('hello'))).raw.toString('latin1')).toBe('\x05\0\0\0hello');
    for (const [model, body] of [
      ['pair', floats(1)],
      ['identity', floats(1, 2)],
      ['nobody', floats(1)],
    ] as const) {
      expect((await raw(model, body)).status).toBe(model === 'nobody' ? 404 : 400);
    }
  });

  it('NaN and infinities pass as texts in JSON and as they are in binary', async () => {
    const answer = await client.post(path, input(['NaN', 'Infinity', '-Infinity', 0.5]));
    expect(answer.json()['outputs']).toMatchObject([{ data: ['NaN', 'Infinity', '-Infinity', 0.5] }]);
    const bytes = floats(NaN, Infinity, -Infinity, -0);
    const binary = await client.binary(path, { ...binaryInput(16), parameters: { binary_data_output: true } }, [bytes]);
    expect([...parts(binary).raw]).toEqual([...bytes]);
  });

  it('texts travel as JSON texts', async () => {
    const inputs = [{ name: 't', shape: [2], datatype: 'BYTES', data: ['żółw', ''] }];
    const answer = await client.post('/v2/models/texts/infer', { inputs });
    expect(answer.json()['outputs']).toMatchObject([{ datatype: 'BYTES', data: ['żółw', ''] }]);
  });

  it('classification answers with labels', async () => {
    const answer = await client.post(path, {
      ...input([1, 9, 3, 2]),
      outputs: [{ name: 'x', parameters: { classification: 1 } }],
    });
    expect(answer.json()['outputs']).toMatchObject([{ datatype: 'BYTES', shape: [1, 1], data: ['9.000000:1:dog'] }]);
  });

  it('parameters reach the device', async () => {
    const parameters = { priority: 2, intarsia_project: 'apollo', intarsia_deadline_ms: 5000.5 };
    await client.post(path, { ...input(), parameters }, { 'x-slo-ttft-ms': '40' });
    const [seen] = host.devices.cpu.seen;
    expect(seen).toMatchObject({ priority: 2, sloMs: 40, billing: { project: 'apollo' } });
    expect(seen!.deadlineMs - seen!.arrivedMs).toBeCloseTo(5000.5, 3);
  });

  it('bodies may be packed with gzip or deflate, and answers are when asked', async () => {
    const json = JSON.stringify(input());
    for (const [encoding, packed] of [
      ['gzip', gzipSync(json)],
      ['deflate', deflateSync(json)],
    ] as const) {
      expect((await client.send('POST', path, packed, { 'content-encoding': encoding })).status).toBe(200);
    }
    const large = { inputs: [{ name: 'x', shape: [5000], datatype: 'UINT8', data: Array(5000).fill(7) }] };
    const answer = await client.post('/v2/models/blob/infer', large, { 'accept-encoding': 'gzip' });
    expect(answer.headers['content-encoding']).toBe('gzip');
    expect(JSON.parse(gunzipSync(answer.body).toString())).toMatchObject({ outputs: [{ shape: [5000] }] });
  });

  it('a client that asks for load metrics gets them in a header', async () => {
    const json = await client.post(path, input(), { 'endpoint-load-metrics-format': 'json' });
    expect(json.headers['endpoint-load-metrics']).toBe('JSON {"named_metrics":{"queue":3}}');
    const text = await client.post(path, input(), { 'endpoint-load-metrics-format': 'text' });
    expect(text.headers['endpoint-load-metrics']).toBe('TEXT named_metrics.queue=3');
  });

  it('a 4 MiB tensor goes through in both directions', async () => {
    const data = Buffer.alloc(4 * 1024 * 1024, 'abcdefg');
    const request = {
      inputs: [
        { name: 'x', shape: [data.byteLength], datatype: 'UINT8', parameters: { binary_data_size: data.byteLength } },
      ],
      parameters: { binary_data_output: true },
    };
    expect(Buffer.compare(parts(await client.binary('/v2/models/blob/infer', request, [data])).raw, data)).toBe(0);
  });
});

describe('refusals', () => {
  const cases: readonly [what: string, url: string, request: unknown, status: number, message: string][] = [
    ['an unknown model', '/v2/models/nobody/infer', input(), 404, "Request for unknown model: 'nobody' is not found"],
    ['a model that failed to load', '/v2/models/sick/infer', input(), 503, 'model.onnx is corrupt'],
    ['an unknown input', path, input([1, 2, 3, 4], { name: 'y' }), 400, "unexpected inference input 'y'"],
    [
      'a wrong datatype',
      path,
      input([1, 2, 3, 4], { datatype: 'INT32' }),
      400,
      "data-type is 'INT32', but model 'identity' expects 'FP32'",
    ],
    ['a datatype that does not exist', path, input([1], { datatype: 'FP33' }), 400, "unknown datatype 'FP33'"],
    ['a wrong shape', path, input([1, 2], { shape: [1, 2] }), 400, 'Expected [-1,4], got [1,2]'],
    ['fewer elements than the shape says', path, input([1, 2, 3]), 400, 'data has 3 elements, but shape [1,4] has 4'],
    [
      'a text among numbers',
      path,
      input([1, 'two', 3, 4]),
      400,
      'element 1 must be a number, "NaN", "Infinity" or "-Infinity"; it is "two"',
    ],
    ['null among numbers', path, input([1, null, 3, 4]), 400, 'it is null'],
    [
      'a number out of range',
      '/v2/models/blob/infer',
      { inputs: [{ name: 'x', shape: [1], datatype: 'UINT8', data: [256] }] },
      400,
      'a whole number from 0 to 255; it is 256',
    ],
    ['FP16 in JSON', path, input([1, 2, 3, 4], { datatype: 'FP16' }), 400, 'send it as binary data'],
    ['no data', path, { inputs: [{ name: 'x', shape: [1, 4], datatype: 'FP32' }] }, 400, 'data must be a list'],
    ['no inputs', path, {}, 400, 'inputs must be a list'],
    ['a list instead of a request', path, [1], 400, 'the request must be a JSON object'],
    ['a shape that is no list', path, input([1], { shape: 4 }), 400, "shape of input 'x' must be a list"],
    ['a shape with a fraction', path, input([1], { shape: [1.5] }), 400, 'must be a list of whole numbers'],
    ['an empty batch', path, input([], { shape: [0, 4] }), 400, 'batch-size must be >= 1'],
    [
      'binary data that is not there',
      path,
      binaryInput(16),
      400,
      'has 16 bytes by its parameter, but 0 are left in the body',
    ],
    [
      'a parameter that is a list',
      path,
      { ...input(), parameters: { a: [] } },
      400,
      "parameter 'a' must be a boolean, a number or a text",
    ],
    [
      "a parameter with Triton's prefix",
      path,
      { ...input(), parameters: { triton_enable_empty_final_response: true } },
      400,
      'is reserved',
    ],
    [
      'binary_data that is no flag',
      path,
      { ...input(), outputs: [{ name: 'x', parameters: { binary_data: 1 } }] },
      400,
      "parameter 'binary_data' must be a boolean",
    ],
    [
      'a parameter named like a prototype',
      path,
      { ...input(), ['__proto__']: 1, parameters: JSON.parse('{"__proto__": 1}') as object },
      200,
      '',
    ],
  ];
  it.each(cases)('%s', async (_what, url, request, status, message) => {
    const answer = await client.post(url, request);
    expect(answer.status).toBe(status);
    if (status !== 200) expect(answer.json()['error']).toContain(message);
    expect((await client.post(path, input())).status).toBe(200);
  });

  it.each([
    ['nothing', ''],
    ['no JSON', '{"inputs": ['],
    ['NaN as Python writes it', '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,1,2,3]}]}'],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x00])],
  ])('a body of %s is not JSON', async (_what, body) => {
    const answer = await client.send('POST', path, body, { 'content-type': 'application/json' });
    expect(answer.status).toBe(400);
    expect(answer.json()['error']).toContain('not JSON');
  });

  it('data nested a hundred thousand lists deep is refused, not a crash', async () => {
    const deep = `${'['.repeat(100_000)}1${']'.repeat(100_000)}`;
    const body = `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":${deep}}]}`;
    const answer = await client.send('POST', path, body, { 'content-type': 'application/json' });
    expect(answer.status).toBe(400);
    expect(answer.json()['error']).toContain('nested deeper than 64 lists');
  });

  it('a length of the JSON that the body does not have is refused', async () => {
    for (const length of ['-1', '99999', 'many', '1.5']) {
      const answer = await client.send('POST', path, '{}', { 'inference-header-content-length': length });
      expect(answer.status).toBe(400);
      expect(answer.json()['error']).toContain('Inference-Header-Content-Length');
    }
  });

  it('bytes that belong to no input are refused', async () => {
    const answer = await client.binary(path, binaryInput(16), [floats(1, 2, 3, 4, 5)]);
    expect(answer.json()['error']).toBe('4 bytes of the body belong to no input');
  });

  it('any content type is read: clients send what they like', async () => {
    const answer = await client.send('POST', path, JSON.stringify(input()), { 'content-type': 'text/plain' });
    expect(answer.status).toBe(200);
  });

  it('a packing that is not known, and bytes that are not packed, are refused', async () => {
    const unknown = await client.send('POST', path, 'x', { 'content-encoding': 'br' });
    expect(unknown.json()['error']).toContain("content-encoding 'br' is not known");
    const broken = await client.send('POST', path, 'x', { 'content-encoding': 'gzip' });
    expect(broken.status).toBe(400);
  });

  it('a body beyond the limit is refused before it is read, and a bomb before it is unpacked', async () => {
    const small = await start({ messageBytesMax: 100_000 });
    const other = new RestClient(small.port);
    const large = await other.send('POST', path, Buffer.alloc(200_000)).catch((error: unknown) => error);
    if (large instanceof Error) expect(['ECONNRESET', 'EPIPE']).toContain((large as NodeJS.ErrnoException).code);
    else expect(large).toMatchObject({ status: 413 });
    const chunked = await other
      .send('POST', path, undefined, { 'transfer-encoding': 'chunked' })
      .catch(() => undefined);
    expect(chunked === undefined || chunked.status === 400).toBe(true);
    const bomb = await other.send('POST', path, gzipSync(Buffer.alloc(10_000_000)), { 'content-encoding': 'gzip' });
    expect(bomb.status).toBe(413);
    expect((await other.post(path, input())).status).toBe(200);
    await small.stop(100);
  });

  it('a claim of 2 GiB costs no memory and no connection', async () => {
    const answer = await client.send('POST', path, 'x', { 'content-length': 2 ** 31 }).catch((error: unknown) => error);
    if (!(answer instanceof Error)) expect(answer).toMatchObject({ status: 413 });
    expect((await client.post(path, input())).status).toBe(200);
  });

  it('bodies that would not fit beside those in flight are refused before they are read', async () => {
    const tight = new PretendHost({ bytesInFlightMax: 1000 });
    const other = await startHttpServer({ ...tight.serverOptions(), log: silentLog, receiveMsMax: 10_000 });
    const answer = await new RestClient(other.port)
      .send('POST', path, Buffer.alloc(2000))
      .catch((error: unknown) => error);
    if (!(answer instanceof Error)) expect(answer).toMatchObject({ status: 429 });
    expect((await new RestClient(other.port).post(path, input())).status).toBe(200);
    await other.stop(100);
  });

  it('headers beyond the limit are 431', async () => {
    const answer = await client.get('/v2', { 'x-large': 'y'.repeat(20_000) });
    expect(answer.status).toBe(431);
  });

  it('failures of a device keep their status', async () => {
    host.devices.cpu.behaviour = intarsiaError('QUEUE_FULL', 'Exceeds maximum queue size');
    const answer = await client.post(path, input());
    expect(answer.status).toBe(503);
    expect(answer.headers['intarsia-code']).toBe('QUEUE_FULL');
    expect(answer.json()).toEqual({ error: 'Exceeds maximum queue size' });
  });

  it('no JSON body, however strange, brings the host down', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), fc.jsonValue(), async (inputs, data) => {
        const answers = await Promise.all([
          client.post(path, inputs),
          client.post(path, { inputs }),
          client.post(path, { inputs: [inputs], parameters: data, outputs: inputs }),
          client.post(path, { inputs: [{ name: 'x', shape: [1, 4], datatype: 'FP32', data }] }),
        ]);
        for (const { status } of answers) expect(status).toBeLessThan(500);
      }),
      { numRuns: 60 },
    );
    expect((await client.post(path, input())).status).toBe(200);
  });
});

describe('connections that behave badly', () => {
  const answerOf = (bytes: string, port = server.port): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1');
      let text = '';
      socket.on('data', (chunk) => (text += chunk.toString('latin1')));
      socket.on('error', () => {});
      socket.on('close', () => resolve(text));
      socket.write(bytes);
    });

  it('bytes that are no HTTP are 400, in our words', async () => {
    const text = await answerOf('\x16\x03\x01 hello\r\n\r\n');
    expect(text).toContain('HTTP/1.1 400');
    expect(text).toContain('{"error":"the bytes are not an HTTP request"}');
    expect((await client.post(path, input())).status).toBe(200);
  });

  it('headers that trickle are cut off (slow-loris)', async () => {
    const impatient = await start({ receiveMsMax: 200 });
    const text = await answerOf('GET /v2 HTTP/1.1\r\nHost: x\r\nX-Slow: ', impatient.port);
    expect(text === '' || text.includes('408')).toBe(true);
    await impatient.stop(100);
  });

  it('a body that trickles is cut off, while one that flows is not', async () => {
    const impatient = await start({ receiveMsMax: 200 });
    const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"inp`;
    const text = await answerOf(head, impatient.port);
    expect(text).toContain('HTTP/1.1 504');
    expect(text).toContain('the body arrives too slowly: 5 bytes');
    expect((await new RestClient(impatient.port).post(path, input())).status).toBe(200);
    await impatient.stop(100);
  });

  it('a client that goes away takes its request out of the queue', async () => {
    host.devices.cpu.behaviour = 'hold';
    const body = JSON.stringify(input());
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    await host.devices.cpu.arrived(1);
    const idle = new Promise<void>((resolve) => host.gateway.whenIdle(resolve));
    socket.destroy();
    await idle;
    expect(host.devices.cpu.cancelled).toHaveLength(1);
  });

  it('a client that goes away in the middle of its body leaves nothing behind', async () => {
    const socket = connect(server.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"inp`);
    const next = await client.post(path, input());
    expect(next.status).toBe(200);
    socket.destroy();
    await server.stop(5000);
    expect(host.gateway.bytesInFlight).toBe(0);
    server = await start();
  });

  it('several requests sent at once on one connection are answered in their order', async () => {
    const body = (id: string) => JSON.stringify({ ...input(), id });
    const one = (id: string) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body(id).length}\r\n\r\n${body(id)}`;
    const last = `GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
    const text = await answerOf(one('first') + one('second') + last);
    expect(text.indexOf('"first"')).toBeGreaterThan(0);
    expect(text.indexOf('"second"')).toBeGreaterThan(text.indexOf('"first"'));
    expect(text).toContain('{"live":true}');
  });
});
