import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { connect } from '#client/index.js';
import { affine, heavy, writeInto } from './faulty-models.js';
import { startHostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();
const disk = join(folder, 'disk');
mkdirSync(disk);
const mount = (options: string): boolean =>
  process.platform === 'linux' && spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk]).status === 0;
const isMounted = mount('size=256k');
afterAll(() => {
  if (isMounted) spawnSync('umount', ['-l', disk]);
});

describe.skipIf(!isMounted)('a disk that is full (skipped where a small file system cannot be mounted)', () => {
  it('costs the model that does not fit, named with the path, and nothing else; with room it loads', async () => {
    const repository = join(folder, 'models');
    writeInto(repository, { 'affine/1/model.onnx': affine(), 'heavy/1/model.onnx': heavy(2 ** 20) });
    const args = [
      '--repository',
      repository,
      '--device',
      'cpu',
      '--model-control-mode',
      'explicit',
      '--load-model',
      '*',
    ];
    const host = await startHostProcess(args, { env: { TMPDIR: disk } });
    const client = connect({ endpoints: host.grpc, attemptsMax: 1 });
    try {
      const told = host.facts.models.map(({ name, state, reason }) => `${name} ${state} ${reason}`);
      expect(told).toEqual(['affine READY ', expect.stringContaining('heavy UNAVAILABLE no space left while writing')]);
      expect(told[1]).toContain(disk);
      await expect(client.loadModel('heavy')).rejects.toMatchObject({ code: 'STORAGE_FULL', retryable: false });
      expect((await client.infer('affine', { x: [[1, 2, 3, 4]] })).output().toArray()).toEqual([3, 5, 7, 9]);

      expect(spawnSync('mount', ['-o', 'remount,size=8m', disk]).status).toBe(0);
      await client.loadModel('heavy');
      expect((await client.infer('heavy', { x: [[1, 2, 3, 4]] })).output().toArray()).toEqual([1, 2, 3, 4]);
    } finally {
      client.close();
      await host.stop();
    }
  });
});
