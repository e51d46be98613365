/** Weights between two hosts over a real gRPC port, up to opening the model on a host that has no repository. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Server } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openArtifactCache } from '#adapters/files/artifact-cache.js';
import { CachedArtifacts } from '#adapters/files/cached-artifacts.js';
import { gridModelFiles } from '#adapters/files/grid-model-files.js';
import { LocalManifests } from '#adapters/files/local-manifests.js';
import { openRepository } from '#adapters/files/repository.js';
import { artifactTransfer } from '#adapters/grpc/artifact-client.js';
import { artifactService, type ArtifactServiceOptions } from '#adapters/grpc/artifact-server.js';
import { NodeClock } from '#adapters/node/clock.js';
import { SeededRandom } from '#adapters/node/random.js';
import { PublishedManifests } from '#core/grid/published-manifests.js';
import type { ModelManifest } from '#core/grid/records.js';
import { hostId, modelName, modelVersion } from '#core/ids.js';
import type { ArtifactPeer, ArtifactShelf } from '#ports/artifact-source.js';
import { silentLog } from '#ports/log.js';
import { affine, affineWithExternalData } from '../e2e/faulty-models.js';
import { plainSecurity } from '../security/grid-certificates.js';
import { content, newFolder } from './weights-folder.js';

async function serve(shelf: ArtifactShelf, options: Partial<ArtifactServiceOptions> = {}): Promise<ArtifactPeer> {
  const server = new Server();
  const security = plainSecurity('a');
  const service = artifactService({ shelf, log: silentLog, admit: (call) => void security.admit(call), ...options });
  server.addService(service.definition, service.implementation);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', security.serverCredentials(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  onTestFinished(() => server.forceShutdown());
  return { host: hostId('a'), linkAddress: `127.0.0.1:${port}`, zone: '', sameMachine: true, rttMs: 1, serves: true };
}

function client(idleMsMax = 10_000) {
  const transfer = artifactTransfer({ security: plainSecurity('b'), idleMsMax });
  onTestFinished(() => transfer.close());
  return transfer;
}

/** A host: its source and what opens models there. */
async function host(repositories: readonly string[], peers: readonly ArtifactPeer[] = []) {
  const folder = newFolder();
  const published = new PublishedManifests();
  const source = new CachedArtifacts({
    cache: await openArtifactCache({ folder, bytesMax: 1e8 }),
    local: new LocalManifests({ roots: repositories }),
    published,
    transfer: client(),
    peers: () => peers,
    zone: '',
    clock: new NodeClock(),
    random: new SeededRandom('weights'),
    log: silentLog,
  });
  const deployed = new Set<string>();
  const files = gridModelFiles({
    local: await openRepository({ roots: repositories, workFolder: newFolder() }),
    held: () => source.held(),
    isDeployed: (model) => deployed.has(model),
    onDamaged: (sha256) => source.distrust(sha256),
  });
  onTestFinished(async () => {
    await files.close();
    await source.close();
  });
  return { folder, published, source, files, deployed };
}

function repository(files: Readonly<Record<string, Uint8Array | string>>): string {
  const folder = newFolder();
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
}

const model = modelName('m');
const wait = { deadlineMs: Infinity };

describe('weights between hosts', () => {
  it('serve on a host without a repository, external data and configuration included', async () => {
    const { model: onnx, weights } = affineWithExternalData('weights.bin');
    const files = { 'm/2/model.onnx': onnx, 'm/2/weights.bin': weights, 'm/config.pbtxt': 'max_batch_size: 0\n' };
    const giver = await host([repository(files)]);
    const manifest = (await giver.source.describe(model, modelVersion('2'))) as ModelManifest;
    giver.published.set(manifest);
    const taker = await host([], [await serve(giver.source)]);
    await expect(taker.files.open(model)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });

    const held = await taker.source.ensure(manifest, wait).held;
    expect((await taker.files.list()).models).toMatchObject([{ name: 'm', versions: ['2'], problem: '' }]);
    const folder = await taker.files.open(model);
    expect(folder.configText).toBe('max_batch_size: 0\n');
    const artifact = await folder.artifact(modelVersion('2'), 'model.onnx');
    expect(artifact.digest).toBe(manifest.digest);
    expect(new Uint8Array(readFileSync(join(artifact.path, '..', 'weights.bin')))).toEqual(new Uint8Array(weights));
    await folder.close();
    expect(existsSync(artifact.path)).toBe(true);
    await artifact.release();
    await held.release();
    expect((await taker.files.list()).models).toEqual([]);
  });

  it('arrive whole when they are large, in pieces, from any offset', async () => {
    const { bytes, wanted } = content(5, 9_000_001);
    const shelf: ArtifactShelf = {
      holds: () => Promise.resolve(true),
      open: () =>
        Promise.resolve({
          bytes: bytes.byteLength,
          read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
          close: () => Promise.resolve(),
        }),
    };
    const peer = await serve(shelf);
    for (const offset of [0, 4_999_999, bytes.byteLength]) {
      let at = offset;
      await client().fetch(peer, wanted.sha256, offset, {
        write: (piece) => {
          expect(Buffer.compare(piece, bytes.subarray(at, at + piece.byteLength))).toBe(0);
          at += piece.byteLength;
          return Promise.resolve();
        },
      }).done;
      expect(at).toBe(bytes.byteLength);
    }
    const beyond = client().fetch(peer, wanted.sha256, bytes.byteLength + 1, { write: () => Promise.resolve() });
    await expect(beyond.done).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('are read no faster than they are taken', async () => {
    let read = 0;
    const bytes = 512 * 1024 * 1024;
    const shelf: ArtifactShelf = {
      holds: () => Promise.resolve(true),
      open: () =>
        Promise.resolve({
          bytes,
          read: (_offset, length) => {
            read += length;
            return Promise.resolve(new Uint8Array(length));
          },
          close: () => Promise.resolve(),
        }),
    };
    let stuck = (): void => undefined;
    const arrived = new Promise<void>((resolve) => {
      stuck = resolve;
    });
    const call = client(400).fetch(await serve(shelf), 'a'.repeat(64), 0, {
      write: () => {
        stuck();
        return new Promise(() => undefined);
      },
    });
    call.done.catch(() => undefined);
    await arrived;
    // The server's part comes to rest: what it has read fits the windows of the connection.
    let before = -1;
    while (before !== read) {
      before = read;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(read).toBeLessThan(64 * 1024 * 1024);
    call.cancel();
  });

  it('of a host that falls silent are given up: it counts as gone', async () => {
    const shelf: ArtifactShelf = {
      holds: () => Promise.resolve(true),
      open: () =>
        Promise.resolve({ bytes: 10, read: () => new Promise(() => undefined), close: () => Promise.resolve() }),
    };
    const call = client(50).fetch(await serve(shelf), 'a'.repeat(64), 0, { write: () => Promise.resolve() });
    await expect(call.done).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('has sent nothing for 50 ms') as string,
    });
  });

  it('are given to so many at a time; the next is told at once', async () => {
    const shelf: ArtifactShelf = {
      holds: () => Promise.resolve(true),
      open: () =>
        Promise.resolve({ bytes: 10, read: () => new Promise(() => undefined), close: () => Promise.resolve() }),
    };
    const peer = await serve(shelf, { fetchesMax: 1 });
    const transfer = client();
    const sink = { write: () => Promise.resolve() };
    const first = transfer.fetch(peer, 'a'.repeat(64), 0, sink);
    first.done.catch(() => undefined);
    await expect(transfer.fetch(peer, 'a'.repeat(64), 0, sink).done).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
    });
    first.cancel();
  });

  it('are named by SHA-256 and nothing else', async () => {
    const giver = await host([repository({ 'm/1/model.onnx': affine() })]);
    const peer = await serve(giver.source);
    for (const name of ['../../etc/passwd', '/etc/passwd', 'A'.repeat(64), '']) {
      const call = client().fetch(peer, name, 0, { write: () => Promise.resolve() });
      await expect(call.done).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    const manifest = (await giver.source.describe(model, modelVersion('1'))) as ModelManifest;
    const unpublished = client().fetch(peer, manifest.files[0]?.sha256 ?? '', 0, { write: () => Promise.resolve() });
    await expect(unpublished.done).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('models of a host in a grid', () => {
  it('are its own and the held ones; a deployed one is there only where it is held', async () => {
    const folder = repository({
      'm/1/model.onnx': affine(),
      'm/2/model.onnx': affine(3),
      'own/1/model.onnx': affine(),
    });
    const { source, files, deployed } = await host([folder]);
    const names = async (): Promise<unknown> =>
      (await files.list()).models.map(({ name, versions }) => [name, ...versions]);
    expect(await names()).toEqual([
      ['m', '1', '2'],
      ['own', '1'],
    ]);
    deployed.add('m');
    expect(await names()).toEqual([['own', '1']]);
    await expect(files.open(model)).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
      message: expect.stringContaining('served by a deployment') as string,
    });
    const one = (await source.describe(model, modelVersion('1'))) as ModelManifest;
    const two = (await source.describe(model, modelVersion('2'))) as ModelManifest;
    const held = await source.ensure(one, wait).held;
    expect((await files.open(model)).servedVersions).toEqual(['1']);
    await source.ensure(two, wait).held;
    const opened = await files.open(model);
    expect(opened.servedVersions).toEqual(['1', '2']);
    expect((await opened.artifact(modelVersion('1'), 'model.onnx')).digest).toBe(one.digest);
    await held.release();
    expect(await names()).toEqual([
      ['m', '2'],
      ['own', '1'],
    ]);
  });

  it('that are damaged in the cache are refused, and whole again once they are fetched anew', async () => {
    const folder = repository({ 'm/1/model.onnx': affine() });
    const { source, files, folder: cache } = await host([folder]);
    const manifest = (await source.describe(model, modelVersion('1'))) as ModelManifest;
    const held = await source.ensure(manifest, wait).held;
    const blob = join(cache, 'blobs', manifest.files[0]?.sha256 ?? '');
    chmodSync(blob, 0o600);
    writeFileSync(blob, affine(9));
    const opened = await files.open(model);
    await expect(opened.artifact(modelVersion('1'), 'model.onnx')).rejects.toMatchObject({ code: 'ARTIFACT_DAMAGED' });
    await held.release();
    await source.ensure(manifest, wait).held;
    const mended = await (await files.open(model)).artifact(modelVersion('1'), 'model.onnx');
    expect(mended.digest).toBe(manifest.digest);
  });
});
