import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect, type InferenceClient } from '#client/index.js';
import { affine, writeHostileModels, writeInto } from './faulty-models.js';
import { runProgram, startHostProcess, type HostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const repository = join(temporaryFolder(), 'models');
let expected: ReadonlyMap<string, RegExp>;
let host: HostProcess;
let client: InferenceClient;

beforeAll(async () => {
  mkdirSync(repository);
  writeInto(repository, { 'affine/1/model.onnx': affine() });
  expected = writeHostileModels(repository);
  host = await startHostProcess([
    '--repository',
    repository,
    '--device',
    'cpu',
    '--model-control-mode',
    'explicit',
    '--load-model',
    '*',
  ]);
  client = connect({ endpoints: host.grpc, attemptsMax: 1 });
});
afterAll(async () => {
  client.close();
  await host.stop();
});

/** The model that is well answers, as if it were alone. */
async function expectHealthy(): Promise<void> {
  const answer = await client.infer('affine', { x: [[1, 2, 3, 4]] });
  expect(answer.output().toArray()).toEqual([3, 5, 7, 9]);
}

describe('a repository with hostile models', () => {
  it('is served as far as it is well, and the index tells of each bad model why it is not', async () => {
    const index = new Map((await client.repositoryIndex()).map((entry) => [entry.name, entry]));
    expect([...index.keys()].sort()).toEqual(['affine', ...expected.keys()].sort());
    expect(index.get('affine')).toMatchObject({ state: 'READY', reason: '' });
    for (const [name, reason] of expected) {
      expect(index.get(name), name).toMatchObject({ state: 'UNAVAILABLE' });
      expect(index.get(name)?.reason, name).toMatch(reason);
    }
    await expectHealthy();
  });

  it('tells the same reasons when it starts, and in `intarsia models list`', async () => {
    const { stdout, code } = await runProgram(['models', 'list', '--endpoint', host.grpc]);
    expect(code).toBe(0);
    const told = new Map(host.facts.models.map(({ name, reason }) => [name, reason]));
    for (const [name, reason] of expected) expect(told.get(name), name).toMatch(reason);
    expect(stdout).toMatch(/^config-syntax +1 +UNAVAILABLE +config\.pbtxt:4:46: /m);
    expect(stdout).toMatch(/^affine +1 +READY/m);
  });

  it('refuses requests to them with the reason, and loading them again changes nothing', async () => {
    for (const [name, reason] of expected) {
      await expect(client.infer(name, { x: [[1, 2, 3, 4]] }), name).rejects.toMatchObject({
        code: expect.stringMatching(/^(MODEL_NOT_READY|MODEL_INVALID)$/) as string,
      });
      await expect(client.loadModel(name), name).rejects.toThrow(reason);
    }
    await expectHealthy();
  });

  it('serves a model whose fault was mended', async () => {
    writeInto(repository, { 'garbage/1/model.onnx': affine(3) });
    await client.loadModel('garbage');
    const answer = await client.infer('garbage', { x: [[1, 2, 3, 4]] });
    expect(answer.output().toArray()).toEqual([4, 7, 10, 13]);
    await expectHealthy();
  });

  it('cannot be left by a load request: no path of the client leads outside', async () => {
    for (const path of ['../../secret/model.onnx', '/etc/passwd', '1/../../affine/1/model.onnx', '1/..']) {
      const files = { [path]: affine() };
      const load = client.loadModel('affine', { configJson: '{"max_batch_size":8}', files });
      await expect(load, path).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    }
    for (const name of ['../secret', 'affine/../../secret', '..', '/etc', 'a\0b']) {
      await expect(client.loadModel(name), name).rejects.toThrow();
      await expect(client.infer(name, { x: [[1]] }), name).rejects.toThrow();
    }
    await expectHealthy();
  });
});
