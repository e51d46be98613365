/** A host whose profile database knows its models: measured by one command, used by the next. */
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { repositoryRoot, runProgram, startHostProcess } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

it('devices know the run times of what was profiled before they ran it, and of nothing else', async () => {
  const store = join(temporaryFolder(), 'profiles');
  const repository = join(repositoryRoot, 'examples/models');
  const model = join(repository, 'digits/1/model.onnx');
  const few = ['--cuts', '0', '--repeat', '3', '--batches', '1,32'];
  const profiled = await runProgram(['profile', model, '--devices', 'cpu', ...few, '--store', store]);
  expect(profiled.code, profiled.stderr).toBe(0);

  const host = await startHostProcess(['--repository', repository, '--device', 'cpu', '--profile-store', store]);
  await host.stop();
  const said = host
    .stderr()
    .split('\n')
    .filter((line) => line.includes('run times are known'));
  expect(said.map((line) => JSON.parse(line) as object)).toEqual([
    expect.objectContaining({ model: 'digits', version: '1', batches: '1, 32' }),
  ]);
});
