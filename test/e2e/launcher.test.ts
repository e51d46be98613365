import { cp, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { repositoryRoot, runProgram, type ProgramResult } from './host-process.js';
import { temporaryFolder } from './temporary-folder.js';

const clone = join(temporaryFolder(), 'clone');
const mainPath = join(clone, 'src/main.ts');

/** A program small enough to be built in a moment, in the place of the real one. */
function mainSource(text: string): string {
  return `import { Command } from 'commander';
export async function main(argv: readonly string[]): Promise<void> {
  const command = new Command('intarsia').argument('<word>').action((word: string) => console.log('${text}', word));
  await command.parseAsync([...argv], { from: 'user' });
}
`;
}

const run = (): Promise<ProgramResult> =>
  runProgram(['word'], { launcher: join(clone, 'bin/intarsia.mjs'), cwd: clone });
const installPackages = (): Promise<void> =>
  symlink(join(repositoryRoot, 'node_modules'), join(clone, 'node_modules'), 'dir');

describe(
  'the launcher in a clone, the real one with the real build, around a small program',
  { timeout: 120_000 },
  () => {
    beforeAll(async () => {
      await mkdir(clone);
      for (const path of ['bin', 'scripts', 'package.json', 'tsconfig.base.json', 'tsconfig.build.json']) {
        await cp(join(repositoryRoot, path), join(clone, path), { recursive: true });
      }
      for (const folder of ['src', 'actors', 'policies', 'bench', 'examples']) await mkdir(join(clone, folder));
      await writeFile(mainPath, mainSource('first'));
    });

    it('says what to do where the packages are not installed', async () => {
      const { code, stdout, stderr } = await run();
      expect(stderr).toMatch(
        /^intarsia: building.*\nintarsia: the TypeScript compiler is not installed\. Run: npm ci\n$/,
      );
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    });

    it('builds where there is no build, once when two start at the same time, and not again', async () => {
      await installPackages();
      const both = await Promise.all([run(), run()]);
      expect(both.map(({ code, stdout }) => ({ code, stdout }))).toEqual([
        { code: 0, stdout: 'first word\n' },
        { code: 0, stdout: 'first word\n' },
      ]);
      expect(both.filter(({ stderr }) => stderr.includes('intarsia: built in'))).toHaveLength(1);
      expect(await run()).toEqual({ code: 0, signal: null, stdout: 'first word\n', stderr: '' });
    });

    it('builds a changed source before it runs', async () => {
      await writeFile(mainPath, mainSource('second'));
      const { code, stdout, stderr } = await run();
      expect(stderr).toMatch(/^intarsia: building.*\nintarsia: built in [\d.]+ s\n$/);
      expect({ code, stdout }).toEqual({ code: 0, stdout: 'second word\n' });
    });

    it('takes the place of a build that was killed', async () => {
      await writeFile(mainPath, mainSource('third'));
      // No process has this number: it is beyond what systems give.
      await writeFile(join(clone, 'dist/.building'), String(2 ** 30));
      expect(await run()).toMatchObject({ code: 0, stdout: 'third word\n' });
    });

    it('names what is wrong in a source that does not compile, and runs nothing, however often it is asked', async () => {
      await writeFile(mainPath, `${mainSource('fourth')}export const broken: number = 'text';\n`);
      for (const _ of [1, 2]) {
        const { code, stdout, stderr } = await run();
        expect(stderr).toMatch(/src\/main\.ts\(6,14\): error .*'string' is not assignable to type 'number'/);
        expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      }
    });

    it('says what to do where it is built and a package is missing', async () => {
      await writeFile(mainPath, mainSource('fifth').replace("from 'commander'", "from 'no-such-package'"));
      await writeFile(
        join(clone, 'src/shim.d.ts'),
        "declare module 'no-such-package' { export { Command } from 'commander'; }",
      );
      const { code, stderr } = await run();
      expect(stderr).toMatch(/\nintarsia: the package no-such-package is not installed\. Run: npm ci\n$/);
      expect(code).toBe(1);
    });
  },
);
