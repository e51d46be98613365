import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { run } from './pretend-program.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-completion-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const has = (shell: string): boolean => spawnSync(shell, ['-c', 'true']).status === 0;

/** What bash offers for the last of the words. */
async function offered(...words: string[]): Promise<string[]> {
  const script = join(folder, 'completion.bash');
  writeFileSync(script, (await run(['completion', 'bash'])).out);
  const quoted = ['intarsia', ...words].map((word) => `'${word}'`).join(' ');
  const { stdout, stderr, status } = spawnSync(
    'bash',
    [
      '--norc',
      '-c',
      `source '${script}'; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _intarsia; printf '%s\\n' "\${COMPREPLY[@]}"`,
    ],
    { encoding: 'utf8' },
  );
  expect([status, stderr]).toEqual([0, '']);
  return stdout.split('\n').filter((line) => line !== '');
}

describe('completion', () => {
  it.skipIf(!has('bash'))(
    'in bash offers commands, subcommands, flags and choices (skipped where there is no bash)',
    async () => {
      expect(await offered('')).toEqual(expect.arrayContaining(['start', 'serve', 'bench', '--help', '--json']));
      expect(await offered('se')).toEqual(['serve']);
      expect(await offered('models', '')).toEqual(expect.arrayContaining(['list', 'inspect', 'load', 'unload']));
      expect(await offered('models', 'load', '--end')).toEqual(['--endpoint']);
      expect(await offered('bench', 'serve', '--conc')).toEqual(['--concurrency']);
      expect(await offered('bench', 'serve', '--protocol', 'rest-')).toEqual(['rest-json', 'rest-binary']);
      expect(await offered('serve', '--repository', 'x', '--grpc-p')).toEqual(['--grpc-port']);
      expect(await offered('infer', 'digits', '--j')).toEqual(['--json']);
    },
  );

  it.skipIf(!has('zsh'))('in zsh is a script that zsh reads (skipped where there is no zsh)', async () => {
    writeFileSync(join(folder, '_intarsia'), (await run(['completion', 'zsh'])).out);
    expect(spawnSync('zsh', ['-n', join(folder, '_intarsia')], { encoding: 'utf8' }).stderr).toBe('');
  });

  it.skipIf(!has('fish'))('in fish is a script that fish reads (skipped where there is no fish)', async () => {
    writeFileSync(join(folder, 'intarsia.fish'), (await run(['completion', 'fish'])).out);
    expect(spawnSync('fish', ['--no-execute', join(folder, 'intarsia.fish')], { encoding: 'utf8' }).stderr).toBe('');
  });

  it('in every shell knows every command and flag', async () => {
    for (const shell of ['bash', 'zsh', 'fish']) {
      const { code, out } = await run(['completion', shell]);
      expect(code).toBe(0);
      for (const word of ['unload', 'inspect', 'completion', 'concurrency', 'warm-up-seconds', 'model-control-mode']) {
        expect(out).toContain(word);
      }
    }
    expect((await run(['completion', 'tcsh'])).code).toBe(2);
  });
});
