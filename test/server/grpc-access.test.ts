/** Who may call what on the gRPC port: tokens, groups, models, restricted headers, TLS and client certificates. */
import { credentials, status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { apiGroups } from '#core/api-group.js';
import { silentLog } from '#ports/log.js';
import { startGrpcServer, type GrpcServerOptions, type RunningGrpcServer } from '#adapters/grpc/server.js';
import { HealthCheckRequest, HealthCheckResponse } from '#gen/health.js';
import * as gen from '#gen/inference.js';
import { haveOpenssl, makeCertificates } from './certificates.js';
import { failureOf, identityRequest, stringParameter, TestClient, valueOf } from './grpc-client.js';
import { PretendHost, sha256, type PretendHostOptions } from './pretend-host.js';

let stopped: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const stop of stopped) await stop();
  stopped = [];
});

async function start(options: PretendHostOptions, serverOptions: Partial<GrpcServerOptions> = {}) {
  const host = new PretendHost(options);
  const server: RunningGrpcServer = await startGrpcServer({
    ...host.serverOptions(),
    log: silentLog,
    ...serverOptions,
  });
  stopped.push(() => server.stop(200));
  return { host, server, client: clientOf(server.port) };
}

function clientOf(
  port: number,
  ...creds: ConstructorParameters<typeof TestClient> extends [number, ...infer Rest] ? Rest : never
) {
  const client = new TestClient(port, ...creds);
  stopped.unshift(() => {
    client.close();
    return Promise.resolve();
  });
  return client;
}

const bearer = (token: string) => ({ metadata: { authorization: `Bearer ${token}` } });
const tokens = [
  { sha256: sha256('all-of-it'), tenant: 'acme', groups: apiGroups, models: ['*'] },
  {
    sha256: sha256('only-texts'),
    tenant: 'writers',
    groups: ['inference', 'model-repository'] as const,
    models: ['text*'],
  },
];

describe('tokens', () => {
  it('without a known token nothing but health is answered', async () => {
    const { client } = await start({ access: { tokens } });
    for (const options of [{}, bearer('wrong'), { metadata: { authorization: 'Basic all-of-it' } }]) {
      expect((await failureOf(client.infer(identityRequest(), options))).code).toBe(status.UNAUTHENTICATED);
    }
    const error = await failureOf(
      client.call('RepositoryIndex', gen.RepositoryIndexRequest, gen.RepositoryIndexResponse, {}),
    );
    expect(error.code).toBe(status.UNAUTHENTICATED);
    await client.call('ServerLive', gen.ServerLiveRequest, gen.ServerLiveResponse, {});
    await client.call('/grpc.health.v1.Health/Check', HealthCheckRequest, HealthCheckResponse, {});
    expect(
      await client.call('ModelReady', gen.ModelReadyRequest, gen.ModelReadyResponse, { name: 'identity' }),
    ).toEqual({ ready: false });
  });

  it("a token's tenant is on the receipt, and nobody else's can be named", async () => {
    const { client } = await start({ access: { tokens } });
    const answer = await client.infer(identityRequest(), bearer('all-of-it'));
    expect(valueOf(answer.parameters['intarsia_tenant'])).toBe('acme');
    const other = { ...identityRequest(), parameters: { intarsia_tenant: stringParameter('writers') } };
    expect((await failureOf(client.infer(other, bearer('all-of-it')))).code).toBe(status.PERMISSION_DENIED);
    const own = { ...identityRequest(), parameters: { intarsia_tenant: stringParameter('acme') } };
    await expect(client.infer(own, bearer('all-of-it'))).resolves.toBeDefined();
  });

  it('where no tokens are configured a request may name its tenant', async () => {
    const { client } = await start({});
    const answer = await client.infer({
      ...identityRequest(),
      parameters: { intarsia_tenant: stringParameter('team-a') },
    });
    expect(valueOf(answer.parameters['intarsia_tenant'])).toBe('team-a');
  });

  it('a token reaches its groups and its models only', async () => {
    const { client } = await start({ access: { tokens } });
    const error = await failureOf(client.infer(identityRequest(), bearer('only-texts')));
    expect(error).toMatchObject({ code: status.PERMISSION_DENIED, details: "the token may not use model 'identity'" });
    const inputs = [gen.ModelInferRequest_InferInputTensor.create({ name: 't', datatype: 'BYTES', shape: [0n] })];
    await expect(client.infer({ modelName: 'texts', inputs }, bearer('only-texts'))).resolves.toBeDefined();
    const group = await failureOf(
      client.call('ServerMetadata', gen.ServerMetadataRequest, gen.ServerMetadataResponse, {}, bearer('only-texts')),
    );
    expect(group).toMatchObject({ code: status.PERMISSION_DENIED });
    const index = await client.call(
      'RepositoryIndex',
      gen.RepositoryIndexRequest,
      gen.RepositoryIndexResponse,
      {},
      bearer('only-texts'),
    );
    expect(index.models.map(({ name }) => name)).toEqual(['texts']);
  });

  it('streams are checked like calls', async () => {
    const { client } = await start({ access: { tokens } });
    const stream = client.stream();
    const code = await new Promise((resolve) => stream.on('error', (error: { code?: number }) => resolve(error.code)));
    expect(code).toBe(status.UNAUTHENTICATED);
  });
});

describe('restricted groups', () => {
  it('a group restricted as in Triton wants its header, prefixed with triton-grpc-protocol-', async () => {
    const restricted = [{ group: 'model-repository' as const, header: 'admin-key', value: 'sesame' }];
    const { client } = await start({ access: { restricted } });
    const index = (metadata: Record<string, string>) =>
      client.call('RepositoryIndex', gen.RepositoryIndexRequest, gen.RepositoryIndexResponse, {}, { metadata });
    for (const metadata of [
      { other: 'x' },
      { 'admin-key': 'sesame' },
      { 'triton-grpc-protocol-admin-key': 'sesamE' },
    ]) {
      const error = await failureOf(index(metadata));
      expect(error.code).toBe(status.PERMISSION_DENIED);
      expect(error.details).toBe("This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'");
    }
    await expect(index({ 'triton-grpc-protocol-admin-key': 'sesame' })).resolves.toBeDefined();
    await expect(client.infer(identityRequest())).resolves.toBeDefined();
  });
});

describe.skipIf(!haveOpenssl)('TLS (needs the openssl command to make certificates)', () => {
  it('a client that trusts the authority is served, one in plain text is not', async () => {
    const certificates = makeCertificates();
    stopped.push(certificates.remove);
    const { server, client } = await start({}, { tls: { ...certificates.server, clientAuthorityPath: '' } });
    const trusting = clientOf(server.port, credentials.createSsl(certificates.read(certificates.authority)));
    await expect(trusting.infer(identityRequest())).resolves.toBeDefined();
    const deadline = Date.now() + 3000;
    expect((await failureOf(client.infer(identityRequest(), { deadline }))).code).not.toBe(status.OK);
  });

  it('with mutual TLS a client must show a certificate of the authority', async () => {
    const certificates = makeCertificates();
    stopped.push(certificates.remove);
    const tls = { ...certificates.server, clientAuthorityPath: certificates.authority };
    const { server } = await start({}, { tls });
    const authority = certificates.read(certificates.authority);
    const { keyPath, certificatePath } = certificates.client;
    const known = clientOf(
      server.port,
      credentials.createSsl(authority, certificates.read(keyPath), certificates.read(certificatePath)),
    );
    await expect(known.infer(identityRequest())).resolves.toBeDefined();
    const unknown = clientOf(server.port, credentials.createSsl(authority));
    const deadline = Date.now() + 3000;
    expect((await failureOf(unknown.infer(identityRequest(), { deadline }))).code).not.toBe(status.OK);
  });

  it('TLS files that cannot be used are told by their option', async () => {
    const tls = { certificatePath: 'missing.pem', keyPath: 'missing.key', clientAuthorityPath: '' };
    await expect(start({}, { tls })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(start({}, { tls })).rejects.toThrow('tls.certificatePath cannot be read');
  });
});
