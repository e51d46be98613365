/** Every REST route but inference: metadata, control, statistics, log settings, verbs, access, TLS, and the metrics port. */
import { Agent, request as httpsRequest } from 'node:https';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { apiGroups } from '#core/api-group.js';
import { intarsiaError } from '#core/errors.js';
import { silentLog } from '#ports/log.js';
import { startMetricsServer } from '#adapters/http/metrics-server.js';
import { startHttpServer, type HttpServerOptions, type RunningHttpServer } from '#adapters/http/server.js';
import { haveOpenssl, makeCertificates } from './certificates.js';
import { PretendHost, sha256, type PretendHostOptions } from './pretend-host.js';
import { RestClient } from './rest-client.js';

let host: PretendHost;
let server: RunningHttpServer;
let client: RestClient;

async function start(options: PretendHostOptions = {}, serverOptions: Partial<HttpServerOptions> = {}) {
  host = new PretendHost({ broken: { sick: 'model.onnx is corrupt' }, ...options });
  server = await startHttpServer({ ...host.serverOptions(), log: silentLog, receiveMsMax: 10_000, ...serverOptions });
  client = new RestClient(server.port);
}
beforeEach(() => start());
afterEach(() => server.stop(200));

async function restart(options: PretendHostOptions, serverOptions: Partial<HttpServerOptions> = {}): Promise<void> {
  await server.stop(0);
  await start(options, serverOptions);
}

describe('what a host says about itself and its models', () => {
  it('liveness and readiness are 200 or 503, with a word', async () => {
    expect((await client.get('/v2/health/live')).json()).toEqual({ live: true });
    expect((await client.get('/v2/health/ready')).json()).toEqual({ ready: true });
    host.isReady = false;
    const unready = await client.get('/v2/health/ready');
    expect([unready.status, unready.json()]).toEqual([503, { ready: false }]);
    expect((await client.get('/v2/models/identity/ready')).json()).toEqual({ name: 'identity', ready: true });
    expect((await client.get('/v2/models/nobody/ready')).status).toBe(503);
  });

  it('metadata of the server, with and without the last slash, and the list of models', async () => {
    for (const path of ['/v2', '/v2/']) {
      expect((await client.get(path)).json()).toMatchObject({ name: 'intarsia', version: '9.9.9' });
    }
    expect((await client.get('/v2/models')).json()['models']).toContain('identity');
  });

  it('metadata and configuration of a model have numbers where clients expect numbers', async () => {
    for (const path of ['/v2/models/identity', '/v2/models/identity/versions/1']) {
      expect((await client.get(path)).json()).toEqual({
        name: 'identity',
        versions: ['1'],
        platform: 'onnxruntime_onnx',
        inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }],
        outputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 4] }],
      });
    }
    expect((await client.get('/v2/models/identity/config')).json()).toMatchObject({
      name: 'identity',
      max_batch_size: 8,
      input: [{ name: 'x', data_type: 'TYPE_FP32', format: 'FORMAT_NONE', dims: [4] }],
      instance_group: [{ kind: 'KIND_CPU', count: 1 }],
    });
    expect((await client.get('/v2/models/nobody')).status).toBe(404);
  });

  it('statistics are numbers', async () => {
    const { model_stats: all } = (await client.get('/v2/models/stats')).json() as { model_stats: unknown[] };
    expect(all.length).toBeGreaterThan(3);
    const one = (await client.get('/v2/models/identity/versions/1/stats')).json();
    expect(one).toMatchObject({
      model_stats: [{ name: 'identity', inference_count: 3, inference_stats: { success: { count: 2, ns: 40_000 } } }],
    });
  });

  it('log settings can be read and changed', async () => {
    expect((await client.get('/v2/logging')).json()).toMatchObject({ log_info: true, log_verbose_level: 0 });
    expect((await client.post('/v2/logging', { log_verbose_level: 1 })).json()).toMatchObject({ log_verbose_level: 1 });
    expect(host.logLevel).toBe('debug');
    expect((await client.post('/v2/logging', { log_file: 'x' })).status).toBe(400);
  });
});

describe('model control', () => {
  it('index, load and unload', async () => {
    const index = (await client.post('/v2/repository/index', { ready: true })).json() as unknown as { name: string }[];
    expect(index.map(({ name }) => name)).toContain('identity');
    expect(index.map(({ name }) => name)).not.toContain('sick');
    const empty = await client.send('POST', '/v2/repository/index');
    expect((empty.json() as unknown as unknown[]).length).toBe(index.length + 1);
    const parameters = { config: '{}', 'file:1/model.onnx': Buffer.from([1, 2, 3]).toString('base64') };
    expect((await client.post('/v2/repository/models/m/load', { parameters })).json()).toEqual({
      name: 'm',
      load: true,
    });
    expect(
      (await client.post('/v2/repository/r/models/m/unload', { parameters: { unload_dependents: true } })).json(),
    ).toEqual({
      name: 'm',
      unload: true,
    });
    const [load, unload] = host.controlled;
    expect(load).toMatchObject({ type: 'load', model: 'm', overrides: { configJson: '{}' } });
    if (load?.type === 'load') expect([...(load.overrides.files.get('1/model.onnx') ?? [])]).toEqual([1, 2, 3]);
    expect(unload).toMatchObject({ type: 'unload', model: 'm' });
    host.registryOutcome = { ok: false, error: intarsiaError('MODEL_INVALID', 'the graph has a cycle') };
    const failed = await client.post('/v2/repository/models/m/load', {});
    expect([failed.status, failed.json()]).toEqual([400, { error: 'the graph has a cycle' }]);
  });
});

describe('verbs and paths', () => {
  it('a path that nobody knows is 404, a wrong verb 405 with those that are there', async () => {
    const unknown = await client.get('/v2/nothing');
    expect([unknown.status, unknown.json()]).toEqual([404, { error: 'no such path: /v2/nothing' }]);
    for (const [method, path, allow] of [
      ['GET', '/v2/models/identity/infer', 'POST'],
      ['POST', '/v2/health/live', 'GET, HEAD'],
      ['DELETE', '/v2/models/identity', 'GET, HEAD'],
      ['PUT', '/v2/logging', 'GET, HEAD, POST'],
    ] as const) {
      const answer = await client.send(method, path);
      expect([answer.status, answer.headers['allow']]).toEqual([405, allow]);
    }
  });

  it.each([
    ['POST', '/v2/models/identity/generate'],
    ['POST', '/v2/models/identity/versions/1/generate_stream'],
    ['GET', '/v2/systemsharedmemory/status'],
    ['POST', '/v2/cudasharedmemory/region/r/register'],
    ['GET', '/v2/trace/setting'],
  ])('%s %s is honestly 501', async (method, path) => {
    const answer = await client.send(method, path);
    expect(answer.status).toBe(501);
    expect(answer.json()['error']).toContain('is not offered by this host');
  });

  it('names are unescaped, and a name that is too long is no crash', async () => {
    expect((await client.get('/v2/models/ident%69ty')).status).toBe(200);
    expect((await client.get(`/v2/models/${'x'.repeat(3000)}`)).status).toBeGreaterThanOrEqual(400);
    expect((await client.get('/v2/models/%ff%fe')).status).toBeGreaterThanOrEqual(400);
  });

  it('the port being taken is told with the port and what to do', async () => {
    const second = startHttpServer({ ...host.serverOptions(), port: server.port, log: silentLog, receiveMsMax: 1000 });
    await expect(second).rejects.toThrow(/the HTTP port 127\.0\.0\.1:\d+ cannot be opened: .*EADDRINUSE.*--http-port/);
  });
});

describe('access', () => {
  it('tokens and restricted groups hold on REST as on gRPC', async () => {
    const tokens = [{ sha256: sha256('secret'), tenant: 'acme', groups: apiGroups, models: ['ident*'] }];
    const restricted = [{ group: 'logging' as const, header: 'Admin-Key', value: 'sesame' }];
    await restart({ access: { tokens, restricted } });
    const bearer = { authorization: 'Bearer secret' };
    expect((await client.get('/v2')).status).toBe(401);
    expect((await client.get('/v2/health/live')).status).toBe(200);
    expect((await client.get('/v2', bearer)).status).toBe(200);
    expect((await client.get('/v2/models', bearer)).json()).toEqual({ models: ['identity'] });
    expect((await client.get('/v2/models/texts', bearer)).status).toBe(403);
    expect((await client.post('/v2/models/identity/infer', {})).status).toBe(401);
    const inputs = [{ name: 'x', shape: [1, 4], datatype: 'FP32', data: [1, 2, 3, 4] }];
    const answer = await client.post('/v2/models/identity/infer', { inputs }, bearer);
    expect(answer.json()['parameters']).toMatchObject({ intarsia_tenant: 'acme' });
    expect((await client.get('/v2/logging', bearer)).status).toBe(403);
    expect((await client.get('/v2/logging', { ...bearer, 'admin-key': 'sesame' })).status).toBe(200);
  });

  it.skipIf(!haveOpenssl)('mutual TLS wants a certificate (needs the openssl command)', async () => {
    const certificates = makeCertificates();
    await restart({}, { tls: { ...certificates.server, clientAuthorityPath: certificates.authority } });
    const ca = certificates.read(certificates.authority);
    const get = (agent: Agent): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const options = {
          host: '127.0.0.1',
          servername: 'localhost',
          port: server.port,
          path: '/v2/health/live',
          agent,
        };
        const request = httpsRequest(options, (response) => {
          response.resume();
          resolve(response.statusCode);
        });
        request.on('error', reject);
        request.end();
      });
    const { keyPath, certificatePath } = certificates.client;
    const known = new Agent({ ca, key: certificates.read(keyPath), cert: certificates.read(certificatePath) });
    expect(await get(known)).toBe(200);
    await expect(get(new Agent({ ca }))).rejects.toThrow();
    known.destroy();
    certificates.remove();
  });
});

describe('the metrics port', () => {
  it('serves the exposition at /metrics and nothing else', async () => {
    const options = { bindAddress: '127.0.0.1', port: 0, connectionsMax: 10, headerBytesMax: 8192, receiveMsMax: 1000 };
    let fails = false;
    const metrics = () => (fails ? Promise.reject(new Error('no figures')) : Promise.resolve('nv_inference_count 1\n'));
    const port = await startMetricsServer({ ...options, metrics });
    const scrape = new RestClient(port.port);
    const answer = await scrape.get('/metrics');
    expect([answer.status, answer.body.toString()]).toEqual([200, 'nv_inference_count 1\n']);
    expect(answer.headers['content-type']).toContain('text/plain; version=0.0.4');
    expect((await scrape.get('/')).status).toBe(404);
    expect((await scrape.send('POST', '/metrics')).status).toBe(405);
    fails = true;
    expect((await scrape.get('/metrics')).status).toBe(500);
    await port.stop(100);
  });
});
