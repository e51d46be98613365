// Holds docs/promises.md against a test report. A row is `| promise | test/file.test.ts › exact title |`, or
// `| promise | bench: name.key |` for a figure that a benchmark prints.
import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { root } from './fingerprint.mjs';

/** The rows of docs/promises.md: { promise, file, title } or { promise, bench }. Throws on a row of another form. */
export function readPromises() {
  const rows = [];
  for (const line of readFileSync(join(root, 'docs/promises.md'), 'utf8').split('\n')) {
    if (!line.startsWith('|') || /^\|\s*(promise\s*\||-)/.test(line)) continue;
    const cells = line
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('\\|', '|'));
    const [promise, shown] = cells;
    if (cells.length !== 2 || !promise || !shown) throw new Error(`docs/promises.md: not a row of two cells: ${line}`);
    const bench = /^bench: ([\w.-]+)$/.exec(shown);
    const test = /^`?(test\/[^`›]+?\.test\.ts)`? › `?(.+?)`?$/.exec(shown);
    if (bench) rows.push({ promise, bench: bench[1] });
    else if (test) rows.push({ promise, file: test[1].trim(), title: test[2].trim() });
    else throw new Error(`docs/promises.md: shown by what? ${line}`);
  }
  return rows;
}

/** What is wrong, one line each; empty when every promise is kept. Skipped tests count only when `strict`. */
export function checkPromises(report, { strict }) {
  const statusByTest = new Map();
  for (const file of report.testResults) {
    const path = relative(root, file.name);
    for (const test of file.assertionResults) {
      const key = `${path} › ${test.title}`;
      if (statusByTest.get(key) !== 'failed') statusByTest.set(key, test.status);
    }
  }
  const broken = [];
  for (const row of readPromises()) {
    if (row.bench !== undefined) {
      const [name] = row.bench.split('.');
      if (!existsSync(join(root, 'bench', `${name}.ts`))) broken.push(`"${row.promise}": no benchmark ${name}`);
      continue;
    }
    const status = statusByTest.get(`${row.file} › ${row.title}`);
    if (status === undefined) broken.push(`"${row.promise}": no test "${row.title}" in ${row.file}`);
    else if (status === 'failed') broken.push(`"${row.promise}": its test failed: ${row.file} › ${row.title}`);
    // Most faults on real processes take minutes: `npm run test:cluster` runs them.
    else if (status !== 'passed' && strict && !row.file.startsWith('test/cluster/'))
      broken.push(`"${row.promise}": its test was skipped: ${row.file} › ${row.title}`);
  }
  return broken;
}
