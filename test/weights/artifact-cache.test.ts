import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { openArtifactCache, type ArtifactCache } from '#adapters/files/artifact-cache.js';
import { isOwnerDead, makeProcessFolder, ownerText, removeLeftovers } from '#adapters/files/process-folder.js';
import { content, newFolder, type Content } from './weights-folder.js';

async function open(folder: string, bytesMax = 10_000): Promise<ArtifactCache> {
  const cache = await openArtifactCache({ folder, bytesMax });
  onTestFinished(() => cache.close());
  return cache;
}

async function add(cache: ArtifactCache, { bytes, wanted }: Content): Promise<void> {
  const partial = await cache.begin(wanted);
  await partial.write(bytes.subarray(partial.offset));
  await partial.finish();
  cache.closed(wanted);
}

/** Owner text of a process of this machine that has ended. */
function deadOwner(): string {
  const ended = spawnSync(process.execPath, ['-e', '']);
  return ownerText.replace(/-\d+-\d+$/, `-${ended.pid}-1`);
}

describe('the cache of model files', () => {
  it('gives back what was put in, and links it where it is held', async () => {
    const cache = await open(newFolder());
    const one = content(1, 1000);
    expect(await cache.find(one.wanted)).toBeUndefined();
    await add(cache, one);
    const path = (await cache.find(one.wanted)) ?? '';
    expect(new Uint8Array(readFileSync(path))).toEqual(one.bytes);
    expect(statSync(path).mode & 0o777).toBe(0o400);
    const tree = await cache.makeTree();
    expect(await cache.place(one.wanted, tree, 'm/1/model.onnx')).toBe(true);
    expect(statSync(join(tree, 'm/1/model.onnx')).ino).toBe(statSync(path).ino);
    expect(await cache.bytesUsed()).toBe(1000);
  });

  it('throws out the longest unused file that nobody holds when it needs room', async () => {
    const folder = newFolder();
    const cache = await open(folder, 3000);
    const files = [1, 2, 3, 4].map((seed) => content(seed, 1000));
    const [first, second, third, fourth] = files as [Content, Content, Content, Content];
    for (const file of [first, second, third]) await add(cache, file);
    const tree = await cache.makeTree();
    await cache.place(first.wanted, tree, 'a');
    // The second was used after the third.
    const old = (Date.now() - 60_000) / 1000;
    for (const { wanted } of [first, third]) {
      const path = join(folder, 'blobs', wanted.sha256);
      utimesSync(path, old, statSync(path).mtimeMs / 1000);
    }
    await add(cache, fourth);
    const there = await Promise.all(files.map(async ({ wanted }) => (await cache.find(wanted)) !== undefined));
    expect(there).toEqual([true, true, false, true]);
    expect(await cache.bytesUsed()).toBe(3000);
  });

  it('says that it is full, with its folder and its bound, when everything is held', async () => {
    const folder = newFolder();
    const cache = await open(folder, 1500);
    const one = content(1, 1000);
    await add(cache, one);
    await cache.place(one.wanted, await cache.makeTree(), 'a');
    await expect(cache.begin(content(2, 1000).wanted)).rejects.toMatchObject({
      code: 'STORAGE_FULL',
      message: expect.stringContaining(folder) as string,
      details: { bytesMax: 1500, bytes: 1000, bytesHeld: 1000 },
    });
  });

  it('counts files under way in full', async () => {
    const cache = await open(newFolder(), 1500);
    const partial = await cache.begin(content(1, 1000).wanted);
    expect(await cache.bytesUsed()).toBe(1000);
    await expect(cache.begin(content(2, 1000).wanted)).rejects.toMatchObject({ code: 'STORAGE_FULL' });
    await partial.discard();
    cache.closed(content(1, 1000).wanted);
    expect(await cache.bytesUsed()).toBe(0);
  });

  it('finds a damaged file, removes it, and takes it in anew', async () => {
    const folder = newFolder();
    const one = content(1, 1000);
    await add(await open(folder), one);
    const path = join(folder, 'blobs', one.wanted.sha256);
    chmodSync(path, 0o600);
    const damaged = Uint8Array.from(one.bytes);
    damaged[500] = (damaged[500] ?? 0) ^ 1;
    writeFileSync(path, damaged);
    const cache = await open(folder);
    expect(await cache.find(one.wanted)).toBeUndefined();
    expect(existsSync(path)).toBe(false);
    await add(cache, one);
    expect(await cache.find(one.wanted)).toBe(path);
  });

  it('takes no bytes in whose SHA-256 is another, or that are too few or too many', async () => {
    const folder = newFolder();
    const cache = await open(folder);
    const { bytes, wanted } = content(1, 1000);
    const partial = await cache.begin(wanted);
    await partial.write(bytes.subarray(0, 999));
    await expect(partial.finish()).rejects.toMatchObject({ code: 'ARTIFACT_DAMAGED' });
    await expect(partial.write(new Uint8Array(2))).rejects.toMatchObject({ code: 'ARTIFACT_DAMAGED' });
    await partial.write(Uint8Array.of((bytes[999] ?? 0) ^ 1));
    await expect(partial.finish()).rejects.toMatchObject({ code: 'ARTIFACT_DAMAGED' });
    expect(readdirSync(join(folder, 'blobs'))).toEqual([]);
    await partial.restart();
    await partial.write(bytes);
    await partial.finish();
    cache.closed(wanted);
    expect(readdirSync(join(folder, 'blobs'))).toEqual([wanted.sha256]);
  });

  it('continues where a killed process stopped, and removes what it held', async () => {
    const folder = newFolder();
    const { bytes, wanted } = content(1, 1000);
    const owner = deadOwner();
    mkdirSync(join(folder, 'partial'), { recursive: true });
    writeFileSync(join(folder, 'partial', `${wanted.sha256}.1000.${owner}`), bytes.subarray(0, 600));
    mkdirSync(join(folder, `held-${owner}-abcdef`, 'm'), { recursive: true });
    const cache = await open(folder);
    expect(readdirSync(folder).filter((name) => name.includes(owner))).toEqual([]);
    const partial = await cache.begin(wanted);
    expect(partial.offset).toBe(600);
    await partial.write(bytes.subarray(600));
    await partial.finish();
    cache.closed(wanted);
    expect(readdirSync(join(folder, 'partial'))).toEqual([]);
    expect(await cache.find(wanted)).toBeDefined();
  });

  it('throws out what dead processes had under way when it needs room', async () => {
    const folder = newFolder();
    const cache = await open(folder, 1500);
    const left = content(1, 1000).wanted;
    writeFileSync(join(folder, 'partial', `${left.sha256}.1000.${deadOwner()}`), 'abc');
    await add(cache, content(2, 1000));
    expect(readdirSync(join(folder, 'partial'))).toEqual([]);
  });

  it('never takes away what another process of the machine holds', async () => {
    const folder = newFolder();
    const [mine, theirs] = [await open(folder, 1000), await open(folder, 1000)];
    const one = content(1, 1000);
    await add(mine, one);
    const tree = await theirs.makeTree();
    await theirs.place(one.wanted, tree, 'a');
    await expect(mine.begin(content(2, 1000).wanted)).rejects.toMatchObject({ code: 'STORAGE_FULL' });
    await theirs.removeTree(tree);
    await add(mine, content(2, 1000));
    expect(await theirs.find(one.wanted)).toBeUndefined();
  });
});

describe('folders of processes', () => {
  it('of a killed process are removed by the next, those of a living one stay', async () => {
    const parent = newFolder();
    const child = spawn(process.execPath, ['-e', 'console.log("up"); setInterval(() => {}, 1000)']);
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
    await once(child.stdout, 'data');
    // Where start times are known they must fit the process.
    const stat = process.platform === 'linux' ? readFileSync(`/proc/${child.pid ?? 0}/stat`, 'latin1') : ') ';
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '0';
    const owner = ownerText.replace(/-\d+-\d+$/, `-${child.pid ?? 0}-${started}`);
    mkdirSync(join(parent, `x-${owner}-abc`));
    mkdirSync(join(parent, 'x-somebody-else'));
    const own = await makeProcessFolder(parent, 'x-');
    expect(isOwnerDead(owner)).toBe(false);
    expect(await removeLeftovers(parent, 'x-')).toEqual([]);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(await removeLeftovers(parent, 'x-')).toEqual([`x-${owner}-abc`]);
    expect(readdirSync(parent).sort()).toEqual([own.path.slice(parent.length + 1), 'x-somebody-else'].sort());
    await own.remove();
    expect(readdirSync(parent)).toEqual(['x-somebody-else']);
  });

  it.skipIf(process.platform !== 'linux')(
    'of a process whose id another one has now are removed (skipped where start times are not known)',
    async () => {
      const parent = newFolder();
      mkdirSync(join(parent, `x-${ownerText.replace(/-\d+$/, '-1')}-abc`));
      expect((await removeLeftovers(parent, 'x-')).length).toBe(1);
    },
  );
});

const disk = newDisk();
describe.skipIf(disk === undefined)('a full disk (skipped where a small file system cannot be mounted)', () => {
  it('is STORAGE_FULL with the path, and what was written of the file makes room again', async () => {
    const folder = disk ?? '';
    const cache = await open(folder, 1e9);
    const { bytes, wanted } = content(1, 400_000);
    const partial = await cache.begin(wanted);
    await expect(partial.write(bytes)).rejects.toMatchObject({
      code: 'STORAGE_FULL',
      message: expect.stringContaining(folder) as string,
    });
    await partial.discard();
    cache.closed(wanted);
    await add(cache, content(2, 100_000));
    expect(await cache.find(content(2, 100_000).wanted)).toBeDefined();
  });
});

function newDisk(): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const parent = mkdtempSync(join(tmpdir(), 'intarsia-weights-'));
  const path = join(parent, 'disk');
  mkdirSync(path);
  const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', path]).status === 0;
  afterAll(() => {
    if (isMounted) spawnSync('umount', ['-l', path]);
    rmSync(parent, { recursive: true, force: true });
  });
  return isMounted ? path : undefined;
}
