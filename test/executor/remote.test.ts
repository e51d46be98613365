import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startRemoteExecutor } from '#adapters/remote/remote-executor.js';
import type { IntarsiaError } from '#core/errors.js';
import type { SessionId } from '#core/ids.js';
import { input, loadRequest } from '#test/contract/executor.js';
import { writeExecutorModels } from '#test/contract/executor-models.js';
import { startOipServer } from '#test/contract/oip-server.js';

let folder = '';
let pathOf: (name: string) => string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'intarsia-remote-'));
  pathOf = writeExecutorModels(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('remote executor', () => {
  it('cannot be started where nobody answers', async () => {
    await expect(
      startRemoteExecutor({ endpoint: '127.0.0.1:1', token: 'hunter2', tls: false, startMsMax: 2_000 }),
    ).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.not.stringContaining('hunter2') as string,
    });
  });

  it('names the server, shows its token, and says which model is not there', async () => {
    const server = await startOipServer();
    const executor = await startRemoteExecutor({ endpoint: `127.0.0.1:${server.port}`, token: 'secret-1', tls: false });
    expect(executor.description.engine).toBe('test server 1.2');
    expect([...server.tokensSeen]).toEqual(['Bearer secret-1']);
    await expect(executor.load(loadRequest('nobody', ''))).rejects.toMatchObject({
      code: 'MODEL_NOT_READY',
      message: expect.stringContaining('nobody') as string,
    });
    await executor.close({ graceMs: 1_000 });
    await server.stop();
  });

  it('is not started on a server that is not live', async () => {
    const server = await startOipServer();
    server.live = false;
    await expect(
      startRemoteExecutor({ endpoint: `127.0.0.1:${server.port}`, token: '', tls: false }),
    ).rejects.toMatchObject({ code: 'DEVICE_UNAVAILABLE' });
    await server.stop();
  });

  it('is lost when the server fails its probes, with everything in flight', async () => {
    const server = await startOipServer();
    server.publish('slow', pathOf('slow'));
    const executor = await startRemoteExecutor({
      endpoint: `127.0.0.1:${server.port}`,
      token: '',
      tls: false,
      probeMs: 20,
      probesMax: 2,
    });
    await executor.load(loadRequest('slow', ''));
    const lost = new Promise<IntarsiaError>((resolve) => executor.onLost(resolve));
    const flight = executor.run({
      session: 'slow' as SessionId,
      inputs: [input('x', 'FP32', [4, 512, 512], new Uint8Array(4 * 512 * 512 * 4))],
      outputs: [],
    });
    const refused = expect(flight).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    server.live = false;
    expect((await lost).message).toContain('failed 2 probes');
    await refused;
    await expect(executor.load(loadRequest('slow', ''))).rejects.toMatchObject({ code: 'EXECUTOR_LOST' });
    await server.stop();
  });
});
