// npm test: builds, runs vitest, then holds docs/promises.md against what ran. Arguments go to vitest.
//
// A whole run (no file arguments) fails when a promise names a test that does not exist, was skipped or failed. Where
// something the tests need is absent, they are skipped and say why; INTARSIA_REQUIRE=all turns that into a failure for the
// promises, which is how .ci/run runs it. INTARSIA_REPEAT=N, there 2, lets up to N files that did not pass run once more,
// alone; what passes then is named as unsteady in the last lines, for somebody to mend. More than N fail at once.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { build } from './build.mjs';
import { isBuildFresh, root } from './fingerprint.mjs';
import { checkPromises } from './promises.mjs';
import { failedFiles, withRepeated } from './unsteady.mjs';

const args = process.argv.slice(2);
if (!isBuildFresh()) {
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exit(1);
  }
}

const reportFolder = join(root, 'node_modules/.cache/intarsia');
mkdirSync(reportFolder, { recursive: true });

/** Whether vitest was content, and its report. Ends this program where there is none. */
function runTests(reportName, more) {
  const path = join(reportFolder, reportName);
  rmSync(path, { force: true });
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${path}`,
      ...more,
    ],
    { cwd: root, stdio: 'inherit' },
  );
  try {
    return { passed: status === 0, report: JSON.parse(readFileSync(path, 'utf8')) };
  } catch {
    process.stderr.write('intarsia: the test run left no report\n');
    return process.exit(status === 0 ? 1 : (status ?? 1));
  }
}

const shown = (file) => relative(root, file);

let { passed, report } = runTests('tests.json', args);
const failed = passed ? [] : failedFiles(report);
const mayRepeat = failed.length > 0 && failed.length <= Number(process.env.INTARSIA_REPEAT ?? 0);
if (mayRepeat) {
  process.stdout.write(`\nonce more, alone: ${failed.map(shown).join(' ')}\n`);
  const again = runTests('tests-again.json', ['--no-file-parallelism', ...failed]);
  passed = again.passed;
  report = withRepeated(report, again.report);
}

const whole = args.length === 0;
const broken = whole ? checkPromises(report, { strict: process.env.INTARSIA_REQUIRE === 'all' }) : [];
for (const line of broken) process.stderr.write(`promise: ${line}\n`);
const skipped = report.numPendingTests + (report.numTodoTests ?? 0);
process.stdout.write(`tests: ${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped\n`);
if (mayRepeat && passed) {
  for (const file of failed)
    process.stdout.write(`unsteady: ${shown(file)} did not pass, and passed when it ran again\n`);
}
process.exitCode = passed && broken.length === 0 ? 0 : 1;
