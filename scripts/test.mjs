// npm test: builds, runs vitest, then holds docs/promises.md against what ran. Arguments go to vitest.
//
// A whole run (no file arguments) fails when a promise names a test that does not exist, was skipped or failed. Where
// something the tests need is absent, they are skipped and say why; INTARSIA_REQUIRE=all turns that into a failure for the
// promises, which is how .ci/run runs it.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from './build.mjs';
import { isBuildFresh, root } from './fingerprint.mjs';
import { checkPromises } from './promises.mjs';

const args = process.argv.slice(2);
if (!isBuildFresh()) {
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exit(1);
  }
}

const reportPath = join(root, 'node_modules/.cache/intarsia/tests.json');
mkdirSync(join(root, 'node_modules/.cache/intarsia'), { recursive: true });
rmSync(reportPath, { force: true });
const vitest = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${reportPath}`,
    ...args,
  ],
  { cwd: root, stdio: 'inherit' },
);

let report;
try {
  report = JSON.parse(readFileSync(reportPath, 'utf8'));
} catch {
  process.stderr.write('intarsia: the test run left no report\n');
  process.exit(vitest.status === 0 ? 1 : (vitest.status ?? 1));
}

const whole = args.length === 0;
const broken = whole ? checkPromises(report, { strict: process.env.INTARSIA_REQUIRE === 'all' }) : [];
for (const line of broken) process.stderr.write(`promise: ${line}\n`);
const skipped = report.numPendingTests + (report.numTodoTests ?? 0);
process.stdout.write(`tests: ${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped\n`);
process.exitCode = vitest.status === 0 && broken.length === 0 ? 0 : 1;
