import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { FetchProgress } from '#ports/artifact-source.js';
import { affine } from '../e2e/faulty-models.js';
import { modelName, modelVersion } from '#core/ids.js';
import { PretendHosts, sourceOver } from './pretend-hosts.js';
import { content, manifestOf, newFolder } from './weights-folder.js';

const weights = content(1, 1000);
const config = content(2, 50);
const manifest = manifestOf({ '1/model.onnx': weights, 'config.pbtxt': config });
const wait = { deadlineMs: Infinity };

describe('the files of a model', () => {
  it('come from the nearest holder and lie as the model wants them', async () => {
    const files = [weights, config];
    const hosts = new PretendHosts({
      far: { files, peer: { rttMs: 90 } },
      near: { files, peer: { rttMs: 1 } },
      here: { files, peer: { sameMachine: true, rttMs: Infinity } },
    });
    const { source } = await sourceOver(hosts);
    const held = await source.ensure(manifest, wait).held;
    const [tree] = source.held();
    expect(tree?.manifest).toEqual(manifest);
    expect(new Uint8Array(readFileSync(join(tree?.path ?? '', 'm/1/model.onnx')))).toEqual(weights.bytes);
    expect(new Uint8Array(readFileSync(join(tree?.path ?? '', 'm/config.pbtxt')))).toEqual(config.bytes);
    expect(hosts.fetched.map(({ host }) => host)).toEqual(['here', 'here']);
    await held.release();
    await held.release();
    expect(source.held()).toEqual([]);
  });

  it('are lent to whoever only looks at them, and nothing is served of them', async () => {
    const hosts = new PretendHosts({ a: { files: [weights, config] } });
    const { source } = await sourceOver(hosts);
    const lent = await source.borrow(manifest, wait);
    expect(new Uint8Array(readFileSync(join(lent.path, 'm/1/model.onnx')))).toEqual(weights.bytes);
    expect(source.held()).toEqual([]);
    await lent.release();
    expect(existsSync(lent.path)).toBe(false);
    await source.ensure(manifest, wait).held;
    expect(hosts.fetched.length).toBe(2);
  });

  it('are fetched once, however many want them at the same time and later', async () => {
    const hosts = new PretendHosts({ a: { files: [weights, config] } });
    const { source } = await sourceOver(hosts);
    const other = manifestOf({ '2/model.onnx': weights }, '2');
    const held = await Promise.all([manifest, manifest, other].map((wanted) => source.ensure(wanted, wait).held));
    expect(hosts.fetched.map(({ sha256 }) => sha256).sort()).toEqual(
      [weights, config].map(({ wanted }) => wanted.sha256).sort(),
    );
    for (const model of held) await model.release();
    await source.ensure(manifest, wait).held;
    expect(hosts.fetched.length).toBe(2);
  });

  it('are fetched on from another holder at the byte where the first one died', async () => {
    const hosts = new PretendHosts({ dying: { files: [weights], diesAfter: 300 }, other: { files: [weights] } });
    const { source } = await sourceOver(hosts);
    await source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held;
    expect(hosts.fetched.map(({ host, offset }) => [host, offset])).toEqual([
      ['dying', 0],
      ['other', 300],
    ]);
  });

  it('are fetched from one that dies again and again as long as it gets further', async () => {
    const hosts = new PretendHosts({ dying: { files: [weights], diesAfter: 300 } });
    const { source } = await sourceOver(hosts);
    await source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held;
    expect(hosts.fetched.map(({ offset }) => offset)).toEqual([0, 300, 600, 900]);
  });

  it('are not taken from a host that sends other bytes, and it is not asked again', async () => {
    const hosts = new PretendHosts({ liar: { files: [weights], lies: true }, honest: { files: [weights] } });
    const { source, log } = await sourceOver(hosts);
    await source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held;
    expect(hosts.fetched.map(({ host, offset }) => [host, offset])).toEqual([
      ['liar', 0],
      ['honest', 0],
    ]);
    expect(log.find('warn', 'arrived damaged')[0]?.fields).toMatchObject({ from: 'liar', sure: true });
  });

  it('are asked for whole when parts of two hosts do not fit together, until the liar is found', async () => {
    const hosts = new PretendHosts({
      liar: { files: [weights], lies: true, diesAfter: 300 },
      honest: { files: [weights] },
    });
    const { source } = await sourceOver(hosts);
    await source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held;
    expect(hosts.fetched.map(({ host, offset }) => [host, offset])).toEqual([
      ['liar', 0],
      ['honest', 300],
      ['liar', 0],
      ['honest', 0],
    ]);
  });

  it('that only liars have are not there: UNAVAILABLE with who said what', async () => {
    const hosts = new PretendHosts({ liar: { files: [weights], lies: true }, poor: { files: [] } });
    const { source, cache } = await sourceOver(hosts);
    await expect(source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      retryable: true,
      message: expect.stringMatching(/poor: it does not hold the file; liar: .*SHA-256/) as string,
    });
    expect(await cache.find(weights.wanted)).toBeUndefined();
  });

  it('are waited for where every holder gives to others already', async () => {
    const hosts = new PretendHosts({ busy: { files: [weights], busyTimes: 2 } });
    const { source } = await sourceOver(hosts);
    await source.ensure(manifestOf({ '1/model.onnx': weights }), wait).held;
    expect(hosts.fetched.length).toBe(3);
  });

  it('that nobody holds fail at once, and are tried again by the next who asks', async () => {
    const { source } = await sourceOver(new PretendHosts({}));
    for (let attempt = 0; attempt < 2; attempt += 1) {
      await expect(source.ensure(manifest, wait).held).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: expect.stringContaining('there is no other host') as string,
      });
    }
  });

  it('that do not fit into the cache are STORAGE_FULL with its folder', async () => {
    const hosts = new PretendHosts({ a: { files: [weights, config] } });
    const { source, folder } = await sourceOver(hosts, { bytesMax: 900 });
    await expect(source.ensure(manifest, wait).held).rejects.toMatchObject({
      code: 'STORAGE_FULL',
      message: expect.stringContaining(folder) as string,
    });
  });

  it('are refused where the manifest names a path outside', async () => {
    const { source } = await sourceOver(new PretendHosts({ a: { files: [weights] } }));
    await expect(source.ensure(manifestOf({ '../../x': weights }), wait).held).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});

describe('a fetch', () => {
  const gated = () => {
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    return { hosts: new PretendHosts({ slow: { files: [weights, config], gate } }), open };
  };

  it('that is cancelled ends, and does not disturb who wants the same', async () => {
    const { hosts, open } = gated();
    const { source } = await sourceOver(hosts);
    const one = source.ensure(manifest, wait);
    const two = source.ensure(manifest, wait);
    one.cancel();
    await expect(one.held).rejects.toMatchObject({ code: 'CANCELLED' });
    open();
    await expect(two.held).resolves.toBeDefined();
    expect(hosts.fetched.length).toBe(2);
  });

  it('that nobody wants any more is stopped; the next one begins after it has ended', async () => {
    const { hosts, open } = gated();
    const { source } = await sourceOver(hosts);
    const one = source.ensure(manifest, wait);
    one.cancel();
    await expect(one.held).rejects.toMatchObject({ code: 'CANCELLED' });
    const two = source.ensure(manifest, wait);
    open();
    await expect(two.held).resolves.toBeDefined();
  });

  it('ends at its deadline', async () => {
    const { hosts, open } = gated();
    const { source, clock } = await sourceOver(hosts);
    await expect(source.ensure(manifest, { deadlineMs: clock.nowMs() + 5 }).held).rejects.toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    open();
  });

  it('ends when the host stops', async () => {
    const { hosts } = gated();
    const { source } = await sourceOver(hosts);
    const { held } = source.ensure(manifest, wait);
    const ended = expect(held).rejects.toMatchObject({ code: 'CANCELLED' });
    await source.close();
    await ended;
  });

  it('tells how far it is while it waits for the rest', async () => {
    const never = new Promise<void>(() => undefined);
    const hosts = new PretendHosts({ fast: { files: [weights] }, slow: { files: [config], gate: never } });
    const { source } = await sourceOver(hosts);
    const told = await new Promise<FetchProgress>((resolve) => {
      const onProgress = (progress: FetchProgress): void => {
        if (progress.filesDone === 1) resolve(progress);
      };
      source.ensure(manifest, { deadlineMs: Infinity, onProgress }).held.catch(() => undefined);
    });
    expect(told).toEqual({ filesDone: 1, filesTotal: 2, bytesDone: 1000, bytesTotal: 1050, bytesReceived: 1000 });
  });
});

describe("a host's own repository", () => {
  const repository = (): string => {
    const folder = newFolder();
    const write = (path: string, bytes: Uint8Array | string): void => {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      writeFileSync(join(folder, path), bytes);
    };
    write('affine/1/model.onnx', affine());
    write('affine/2/model.onnx', affine(3));
    write('affine/labels.txt', 'a\nb\n');
    write('affine/.hidden', 'secret');
    write('affine/config.pbtxt', 'max_batch_size: 8\n');
    return folder;
  };
  const describeOne = async (folder: string) => {
    const { source, published } = await sourceOver(new PretendHosts({}), { repositories: [folder] });
    const found = await source.describe(modelName('affine'), modelVersion('1'));
    if (found === undefined) throw new Error('it was not described');
    return { source, published, found };
  };

  it('is described with all that serving one version needs, and nothing else', async () => {
    const { found, source } = await describeOne(repository());
    expect(found.files.map(({ path }) => path)).toEqual(['1/model.onnx', 'config.pbtxt', 'labels.txt']);
    expect(found.digest).toBe(found.files[0]?.sha256);
    expect(found.memoryBytes).toBeGreaterThan(0);
    expect(await source.describe(modelName('affine'), modelVersion('9'))).toBeUndefined();
    expect(await source.describe(modelName('unknown'), modelVersion('1'))).toBeUndefined();
  });

  it('is used instead of other hosts', async () => {
    const { source, found } = await describeOne(repository());
    await source.ensure(found, wait).held;
    expect(source.held().length).toBe(1);
  });

  it('gives files of published manifests and no others', async () => {
    const { source, published, found } = await describeOne(repository());
    const sha256 = found.files[0]?.sha256 ?? '';
    expect(await source.holds(sha256)).toBe(false);
    await expect(source.open(sha256)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    published.set(found);
    expect(await source.holds(sha256)).toBe(true);
    const file = await source.open(sha256);
    expect(await file.read(0, file.bytes)).toEqual(new Uint8Array(affine()));
    await file.close();
  });

  it('does not give a file that was changed after it was hashed', async () => {
    const folder = repository();
    const { source, published, found } = await describeOne(folder);
    published.set(found);
    writeFileSync(join(folder, 'affine/1/model.onnx'), affine(7));
    expect(await source.holds(found.files[0]?.sha256 ?? '')).toBe(false);
    expect((await source.describe(modelName('affine'), modelVersion('1')))?.digest).not.toBe(found.digest);
  });
});
