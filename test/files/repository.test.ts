import { createHash } from 'node:crypto';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { mkfifoSync } from './named-pipe.js';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openRepository, type RepositoryOptions } from '#adapters/files/repository.js';
import { IntarsiaError } from '#core/errors.js';
import { modelName, modelVersion } from '#core/ids.js';
import type { ModelFiles } from '#ports/model-files.js';
import { externalData, identityModel, modelBytes, node, tensor, tensorType, value } from '../core/onnx-bytes.js';
import { RepositoryFolder } from './repository-folder.js';

const identity = identityModel(tensorType(1, ['n', 4]), tensorType(1, ['n', 4]));
const m = modelName('m');
const one = modelVersion('1');

function withExternal(location: string, offset: number, elements: number): Uint8Array {
  return modelBytes({
    nodes: [node('Identity', ['w'], ['y'])],
    initializers: [
      tensor('w', 1, [elements], externalData({ location, offset: String(offset), length: String(elements * 4) })),
    ],
    outputs: [value('y', tensorType(1, [elements]))],
  });
}

async function opened(
  roots: readonly RepositoryFolder[],
  options: Partial<RepositoryOptions> = {},
): Promise<ModelFiles> {
  const files = await openRepository({ roots: roots.map(({ path }) => path), ...options });
  onTestFinished(() => files.close());
  return files;
}

async function refusal(promise: Promise<unknown>): Promise<IntarsiaError> {
  const thrown: unknown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(IntarsiaError);
  return thrown as IntarsiaError;
}

function sha256(data: Uint8Array | string): string {
  return createHash('sha256').update(data).digest('hex');
}

describe('listing repositories', () => {
  it('finds models, their versions in order, and what is wrong with the rest', async () => {
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', identity);
    folder.write('m/10/model.onnx', identity);
    folder.write('m/2/model.onnx', identity);
    folder.write('m/01/model.onnx', identity);
    folder.write('m/configs/x', '');
    folder.write('only-config/config.pbtxt', '');
    folder.write('.git/HEAD', '');
    folder.write('README.md', '');
    folder.write('a name/1/model.onnx', identity);
    const { models, notes } = await (await opened([folder])).list();
    expect(models.map(({ name, versions, problem }) => [name, versions, problem])).toEqual([
      ['m', ['1', '2', '10'], ''],
      ['only-config', [], 'model "only-config" has no version folder such as only-config/1'],
    ]);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain('"a name" is not a valid identifier');
  });

  it('refuses a model name that two repositories have, in both', async () => {
    const [first, second] = [new RepositoryFolder(), new RepositoryFolder()];
    first.write('m/1/model.onnx', identity);
    second.write('m/1/model.onnx', identity);
    second.write('other/1/model.onnx', identity);
    const files = await opened([first, second]);
    const { models } = await files.list();
    expect(models.map(({ name, problem }) => [name, problem.slice(0, 30)])).toEqual([
      ['m', 'model "m" is in 2 repositories'],
      ['other', ''],
    ]);
    const error = await refusal(files.open(m));
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain('remove or rename all but one');
  });

  it('changes the fingerprint of a model with its files and of no other', async () => {
    const folder = new RepositoryFolder();
    const path = folder.write('m/1/model.onnx', identity);
    folder.write('n/1/model.onnx', identity);
    const files = await opened([folder]);
    const fingerprints = async (): Promise<readonly string[]> =>
      (await files.list()).models.map((each) => each.fingerprint);
    const [m0, n0] = await fingerprints();
    expect(await fingerprints()).toEqual([m0, n0]);
    utimesSync(path, 1, 2);
    const [m1, n1] = await fingerprints();
    expect(m1).not.toBe(m0);
    expect(n1).toBe(n0);
    folder.write('m/config.pbtxt', '');
    expect((await fingerprints())[0]).not.toBe(m1);
  });

  it('says which repository cannot be read', async () => {
    const folder = new RepositoryFolder();
    const error = await refusal(openRepository({ roots: [join(folder.path, 'nowhere')] }));
    expect(error.code).toBe('NOT_FOUND');
    expect(error.message).toContain(join(folder.path, 'nowhere'));
    folder.write('file', '');
    expect((await refusal(openRepository({ roots: [join(folder.path, 'file')] }))).message).toContain(
      'is not a folder',
    );
  });
});

describe('taking an artefact', () => {
  it('hashes every file and keeps a private copy that later changes do not reach', async () => {
    const folder = new RepositoryFolder();
    const weights = new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer);
    const bytes = withExternal('data/w.bin', 4, 3);
    const path = folder.write('m/1/model.onnx', bytes);
    folder.write('m/1/data/w.bin', weights);
    const files = await opened([folder]);
    const artifact = await (await files.open(m)).artifact(one, 'model.onnx');
    expect(artifact.files).toEqual([
      { name: 'model.onnx', bytes: bytes.byteLength, sha256: sha256(bytes) },
      { name: 'data/w.bin', bytes: 16, sha256: sha256(weights) },
    ]);
    expect(artifact.digest).toBe(sha256(`model ${sha256(bytes)}\n"data/w.bin" ${sha256(weights)}\n`));
    expect(artifact.facts.weightBytes).toBe(12);
    writeFileSync(path, 'something else');
    writeFileSync(join(folder.path, 'm/1/data/w.bin'), '');
    expect(readFileSync(artifact.path)).toEqual(Buffer.from(bytes));
    expect(readFileSync(join(artifact.path, '../data/w.bin'))).toEqual(Buffer.from(weights));
    expect(statSync(artifact.path).mode & 0o777).toBe(0o400);
    await artifact.release();
    expect(existsSync(artifact.path)).toBe(false);
  });

  it('uses the digest of the file itself when there is no external data, and keeps equal files once', async () => {
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', identity);
    folder.write('m/2/model.onnx', identity);
    const model = await (await opened([folder])).open(m);
    const [first, second] = [
      await model.artifact(one, 'model.onnx'),
      await model.artifact(modelVersion('2'), 'model.onnx'),
    ];
    expect(first.digest).toBe(sha256(identity));
    expect(second.path).toBe(first.path);
    await first.release();
    await first.release();
    expect(existsSync(second.path)).toBe(true);
    await second.release();
    expect(existsSync(second.path)).toBe(false);
  });

  it('keeps what is taken again while it is being released', async () => {
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', identity);
    const model = await (await opened([folder])).open(m);
    let held = await model.artifact(one, 'model.onnx');
    for (let round = 0; round < 20; round += 1) {
      const [next] = await Promise.all([model.artifact(one, 'model.onnx'), held.release()]);
      expect(existsSync(next.path)).toBe(true);
      held = next;
    }
  });

  it('does not read again what looks the same, and does when it looks different', async () => {
    const folder = new RepositoryFolder();
    const path = folder.write('m/1/model.onnx', identity);
    const model = await (await opened([folder])).open(m);
    const first = await model.artifact(one, 'model.onnx');
    const inode = statSync(first.path).ino;
    expect(statSync((await model.artifact(one, 'model.onnx')).path).ino).toBe(inode);
    const other = identityModel(tensorType(1, ['n', 5]), tensorType(1, ['n', 5]));
    writeFileSync(`${path}.new`, other);
    renameSync(`${path}.new`, path);
    expect((await model.artifact(one, 'model.onnx')).digest).toBe(sha256(other));
  });

  it('loads from the repository itself when copies are not wanted', async () => {
    const folder = new RepositoryFolder();
    const path = folder.write('m/1/model.onnx', identity);
    const model = await (await opened([folder], { copyArtifacts: false })).open(m);
    const artifact = await model.artifact(one, 'model.onnx');
    expect(artifact.path).toBe(path);
    await artifact.release();
    expect(existsSync(path)).toBe(true);
  });

  it('refuses external data that is missing or too short', async () => {
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', withExternal('w.bin', 8, 2));
    const model = await (await opened([folder])).open(m);
    expect((await refusal(model.artifact(one, 'model.onnx'))).message).toContain('w.bin does not exist');
    folder.write('m/1/w.bin', new Uint8Array(15));
    const error = await refusal(model.artifact(one, 'model.onnx'));
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain('from byte 8 to 16; the file has 15 bytes');
  });

  it('leaves nothing behind when it fails, and nothing when it is closed', async () => {
    const folder = new RepositoryFolder();
    const work = new RepositoryFolder();
    folder.write('m/1/model.onnx', 'not a model');
    folder.write('m/2/model.onnx', identity);
    const files = await openRepository({ roots: [folder.path], workFolder: work.path });
    const model = await files.open(m);
    expect((await refusal(model.artifact(one, 'model.onnx'))).code).toBe('MODEL_INVALID');
    const [own = ''] = readdirSync(work.path);
    expect(readdirSync(join(work.path, own))).toEqual([]);
    await model.artifact(modelVersion('2'), 'model.onnx');
    expect(readdirSync(join(work.path, own))).toEqual([sha256(identity)]);
    await files.close();
    expect(readdirSync(work.path)).toEqual([]);
  });

  it('says that the disk is full, and where', async () => {
    const folder = new RepositoryFolder();
    const path = folder.write('m/1/model.onnx', identity);
    const files = await opened([folder]);
    const model = await files.open(m);
    const probe = await open(path);
    const prototype = Object.getPrototypeOf(probe) as { write: () => Promise<unknown> };
    await probe.close();
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    const spy = vi.spyOn(prototype, 'write').mockRejectedValue(full);
    const error = await refusal(model.artifact(one, 'model.onnx'));
    spy.mockRestore();
    expect(error.code).toBe('STORAGE_FULL');
    expect(error.message).toContain('no space left while writing');
    expect((await model.artifact(one, 'model.onnx')).digest).toBe(sha256(identity));
  });
});

describe('staying inside the repository', () => {
  const secret = 'a secret';

  function outside(): string {
    return new RepositoryFolder().write('secret', secret);
  }

  it('refuses files, versions and models that are links to the outside', async () => {
    const target = outside();
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', identity);
    symlinkSync(target, join(folder.path, 'm/labels.txt'));
    symlinkSync(target, join(folder.path, 'm/config.pbtxt'));
    symlinkSync(join(target, '..'), join(folder.path, 'm/2'));
    symlinkSync(join(target, '..'), join(folder.path, 'escaped'));
    const files = await opened([folder]);
    const { models } = await files.list();
    expect(models.find(({ name }) => name === 'escaped')?.problem).toContain('is a link that leaves the repository');
    expect((await refusal(files.open(modelName('escaped')))).message).toContain('leaves the repository');
    expect((await refusal(files.open(m))).message).toContain('config.pbtxt is a link that leaves the repository');
    rmSync(join(folder.path, 'm/config.pbtxt'));
    const model = await files.open(m);
    expect((await refusal(model.bytes('labels.txt'))).message).toContain('leaves the repository');
    expect((await refusal(model.artifact(modelVersion('2'), 'secret'))).message).toContain('leaves the repository');
  });

  it('refuses paths with ".." wherever they come from', async () => {
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', identity);
    const model = await (await opened([folder])).open(m);
    const path = `../../${outside().split('/').slice(-2).join('/')}`;
    expect((await refusal(model.bytes(path))).message).toContain('leaves the repository');
    expect((await refusal(model.artifact(one, `../../../${path}`))).code).toMatch(/MODEL_INVALID|NOT_FOUND/);
    const files = await opened([folder]);
    expect((await refusal(files.open('m/1' as typeof m))).code).toBe('MODEL_NOT_FOUND');
    expect((await refusal(files.open(m, new Map([['../1/model.onnx', identity]])))).code).toBe('INVALID_ARGUMENT');
    expect((await refusal(files.open(m, new Map([['/1/model.onnx', identity]])))).code).toBe('INVALID_ARGUMENT');
  });

  it('refuses external data that is a link to the outside, or a hard link', async () => {
    const target = outside();
    const folder = new RepositoryFolder();
    folder.write('m/1/model.onnx', withExternal('w.bin', 0, 2));
    symlinkSync(target, join(folder.path, 'm/1/w.bin'));
    const model = await (await opened([folder])).open(m);
    expect((await refusal(model.artifact(one, 'model.onnx'))).message).toContain('leaves the repository');
    rmSync(join(folder.path, 'm/1/w.bin'));
    linkSync(target, join(folder.path, 'm/1/w.bin'));
    const error = await refusal(model.artifact(one, 'model.onnx'));
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toContain('w.bin has 2 hard links');
    const lenient = await (await opened([folder], { allowHardLinks: true })).open(m);
    expect((await lenient.artifact(one, 'model.onnx')).files[1]?.sha256).toBe(sha256(secret));
  });

  it('refuses what is not a file without waiting for it', async () => {
    const folder = new RepositoryFolder();
    mkdirSync(join(folder.path, 'm/1/model.onnx'), { recursive: true });
    mkfifoSync(join(folder.path, 'm/labels.txt'));
    const model = await (await opened([folder])).open(m);
    expect((await refusal(model.artifact(one, 'model.onnx'))).message).toContain('is not a file');
    expect((await refusal(model.bytes('labels.txt'))).message).toContain('is not a file');
  });

  it('follows links that stay inside, and a repository that is a link itself', async () => {
    const folder = new RepositoryFolder();
    folder.write('real/m/1/model.onnx', identity);
    folder.write('real/m/shared.txt', 'labels');
    symlinkSync('nowhere', join(folder.path, 'real', 'dangling'));
    symlinkSync('m', join(folder.path, 'real', 'also'));
    symlinkSync(join(folder.path, 'real'), join(folder.path, 'linked'));
    symlinkSync('1', join(folder.path, 'real/m/2'));
    const files = await openRepository({ roots: [join(folder.path, 'linked')] });
    onTestFinished(() => files.close());
    expect((await files.list()).models.map(({ name, versions, problem }) => [name, versions, problem])).toEqual([
      ['also', ['1', '2'], ''],
      ['m', ['1', '2'], ''],
    ]);
    const artifact = await (await files.open(modelName('also'))).artifact(modelVersion('2'), 'model.onnx');
    expect(artifact.digest).toBe(sha256(identity));
  });
});

describe('what a load request brings along', () => {
  it('is read instead of the repository, by the same rules, and forgotten', async () => {
    const folder = new RepositoryFolder();
    const work = new RepositoryFolder();
    folder.write('m/1/model.onnx', 'broken');
    const files = await openRepository({ roots: [folder.path], workFolder: work.path });
    onTestFinished(() => files.close());
    const brought = new Map<string, Uint8Array>([
      ['7/model.onnx', withExternal('w.bin', 0, 2)],
      ['7/w.bin', new Uint8Array(8)],
      ['config.pbtxt', new TextEncoder().encode('max_batch_size: 0')],
    ]);
    const model = await files.open(m, brought);
    expect(model.versions).toEqual(['7']);
    expect(model.configText).toBe('max_batch_size: 0');
    const artifact = await model.artifact(modelVersion('7'), 'model.onnx');
    await model.close();
    expect(readFileSync(artifact.path).byteLength).toBe(brought.get('7/model.onnx')?.byteLength);
    const [own = ''] = readdirSync(work.path);
    expect(readdirSync(join(work.path, own))).toEqual([artifact.digest]);
    expect((await refusal(files.open(m, new Map([['x.txt', new Uint8Array(1)]])))).message).toContain(
      'contain no version',
    );
    expect(readdirSync(join(work.path, own))).toEqual([artifact.digest]);
  });
});
