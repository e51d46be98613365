// Compiles the product into dist/ and stamps it with a fingerprint of its sources, so that a stale build is never run.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { root, sourceFingerprint, stampPath } from './fingerprint.mjs';

export function build({ quiet = false } = {}) {
  let compiler;
  try {
    compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  } catch {
    throw new Error('the TypeScript compiler is not installed. Run: npm ci');
  }
  const fingerprint = sourceFingerprint();
  const startedMs = Date.now();
  rmSync(stampPath, { force: true });
  const result = spawnSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.build.json')], {
    cwd: root,
    encoding: 'utf8',
  });
  if (result.status !== 0) throw new Error(`the build failed:\n${result.stdout}${result.stderr}`);
  mkdirSync(join(root, 'dist'), { recursive: true });
  writeFileSync(stampPath, fingerprint);
  if (!quiet) process.stderr.write(`intarsia: built in ${((Date.now() - startedMs) / 1000).toFixed(1)} s\n`);
}

if (process.argv[1] === import.meta.filename) {
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exitCode = 1;
  }
}
