import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { repositoryRoot, runProgram, type ProgramResult } from './host-process.js';
import { readFences, type Fence } from './markdown-fences.js';
import { temporaryFolder } from './temporary-folder.js';

/** As they stand in the documents, so that what is shown there runs. */
const fencesOf = (path: string, heading: string): readonly Fence[] =>
  readFences(readFileSync(join(repositoryRoot, path), 'utf8'), heading);
const readme = fencesOf('README.md', 'A scheduler that learns');
const folder = temporaryFolder();
const minutesMs = 60_000;

/** The command that begins so, without the program's own name. */
function command(fences: readonly Fence[], start: string): readonly string[] {
  const lines = fences.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.trim().split('\n'));
  const line = lines.map((each) => each.replace(/^npx /, '')).find((each) => each.startsWith(start));
  if (line === undefined) throw new Error(`no command is shown that begins with ${start}`);
  return line.split(' ').slice(1);
}

/** Runs it with what makes it shorter; it must end well. */
async function run(words: readonly string[], shorter: readonly string[], cwd = folder): Promise<ProgramResult> {
  const result = await runProgram([...words, ...shorter], { cwd, timeoutMs: 15 * minutesMs });
  expect(result, result.stderr).toMatchObject({ code: 0 });
  return result;
}

describe('what the documents show of learning', () => {
  it(
    'simulates',
    async () => {
      const shown = await run(command(readme, 'intarsia simulate'), ['--requests', '500'], repositoryRoot);
      expect(shown.stdout).toMatch(/^cheapest-feasible:0\.6\+shed +deadline-cap\+shed +\d/m);
      const simulate = fencesOf('docs/policies.md', 'Simulate');
      const several = await run(command(simulate, 'intarsia simulate'), ['--requests', '500']);
      for (const name of ['cheapest-feasible:0.6+shed', 'sed', 'jsq']) expect(several.stdout).toContain(`\n${name} `);
      const learned = await run(command(simulate, 'intarsia simulate --fleet stadium'), ['--requests', '500']);
      expect(JSON.parse(learned.stdout)).toMatchObject({
        runs: [{ policy: 'dispatch-4' }, { policy: 'cf-risk:0.02+shed' }],
      });
    },
    45 * minutesMs,
  );

  it(
    'judges a policy that comes with the product',
    async () => {
      const shown = await run(command(readme, 'intarsia evaluate'), ['--requests', '300']);
      expect(shown.stdout).toMatch(/^stadium \/ poisson \/ 0\.7: 2 seeds/m);
      expect(shown.stdout).toMatch(/^dispatch-4 +/m);
    },
    15 * minutesMs,
  );

  it(
    'compares a policy of one’s own in one file',
    async () => {
      const own = fencesOf('docs/policies.md', 'A policy of your own');
      writeFileSync(join(folder, 'my-policy.mjs'), own.find(({ language }) => language === 'js')?.text ?? '');
      const shown = await run(command(own, 'intarsia evaluate'), ['--requests', '200']);
      expect(shown.stdout).toMatch(/^\.\/my-policy\.mjs +[\d.]+ +[+-]/m);
    },
    15 * minutesMs,
  );

  it(
    'trains a policy within minutes, which evaluate then judges with the batches it forms',
    async ({ skip }) => {
      skip(process.env['INTARSIA_REQUIRE'] !== 'all', 'takes minutes: where all is required, as in CI');
      const train = fencesOf('docs/policies.md', 'Train');
      const trained = await run(command(train, 'intarsia train --quick'), []);
      expect(trained.stdout).toMatch(/run\/policy\.onnx: from \w+, [+-][\d.]+ % objective against the best rule/);
      const judged = await run(
        ['evaluate', '--policies', 'run/policy.onnx@run/batching.onnx'],
        ['--fleets', 'four', '--loads', '0.7', '--seeds', '2', '--requests', '300', '--json'],
      );
      const report = JSON.parse(judged.stdout) as { readonly files: unknown; readonly isDone: boolean };
      expect(report).toMatchObject({ isDone: true, files: [{ contender: 'run/policy.onnx@run/batching.onnx' }] });
    },
    45 * minutesMs,
  );
});
