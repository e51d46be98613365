import { describe, expect, it, onTestFinished } from 'vitest';
import { startGrpcServer } from '#adapters/grpc/server.js';
import { startRemoteExecutor } from '#adapters/remote/remote-executor.js';
import { silentLog } from '#ports/log.js';
import { PretendHost } from '../server/pretend-host.js';
import { newFolder } from '../weights/weights-folder.js';
import { newAuthority, writeIdentity } from './grid-certificates.js';
import { completeConfig } from '#config.js';

describe('a remote device over TLS', () => {
  it('is trusted by the authority that is named for it, and shown the certificate it asks for', async () => {
    const authority = newAuthority();
    const folder = newFolder();
    const [theirs, ours] = [writeIdentity(folder, 'b', { authority }), writeIdentity(folder, 'a', { authority })];
    const server = await startGrpcServer({
      ...new PretendHost({}).serverOptions(),
      log: silentLog,
      tls: { ...theirs, clientAuthorityPath: theirs.authorityPath },
    });
    onTestFinished(() => server.stop(200));
    const { authorityPath, certificatePath, keyPath } = ours;
    const remote = { endpoint: `localhost:${server.port}`, token: '', tls: true, startMsMax: 3_000 };
    const executor = await startRemoteExecutor({ ...remote, authorityPath, certificatePath, keyPath });
    expect(executor.description.provider).toBe('remote');
    await executor.close({ graceMs: 100 });
    for (const changes of [{}, { authorityPath }]) {
      await expect(startRemoteExecutor({ ...remote, ...changes })).rejects.toMatchObject({
        code: 'DEVICE_UNAVAILABLE',
      });
    }
    await expect(startRemoteExecutor({ ...remote, authorityPath: '/nowhere/ca.pem' })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('/nowhere/ca.pem') as string,
    });
  });

  it('names certificates only with TLS, and a certificate only with its key', () => {
    const device = { id: 'r', endpoint: 'b:1' };
    for (const changes of [{ authorityPath: 'ca.pem' }, { tls: true, certificatePath: 'a.pem' }]) {
      expect(() => completeConfig({ remoteDevices: [{ ...device, ...changes }] })).toThrow(
        expect.objectContaining({
          code: 'CONFIG_INVALID',
          message: expect.stringContaining('remoteDevices.r') as string,
        }),
      );
    }
    completeConfig({ remoteDevices: [{ ...device, tls: true, authorityPath: 'ca.pem' }] });
  });
});
