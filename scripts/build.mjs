// Compiles the product into dist/ and stamps it with a fingerprint of its sources, so that a stale build is never run.
//
// One build at a time: a second process (an `intarsia infer` beside an `intarsia serve`) waits for the first and then finds
// that there is nothing left to do, instead of writing into files that the first is about to run.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { isBuildFresh, root, sourceFingerprint, stampPath } from './fingerprint.mjs';

const lockPath = join(root, 'dist', '.building');
/** A lock older than this was left behind, whoever has its process id now. */
const lockMsMax = 10 * 60_000;
const lookMs = 200;

export function build({ quiet = false } = {}) {
  let compiler;
  try {
    // The package exports its program interface only, so its program is found beside its description.
    compiler = join(dirname(createRequire(import.meta.url).resolve('typescript-7/package.json')), 'bin/tsc');
  } catch {
    throw new Error('the TypeScript compiler is not installed. Run: npm ci');
  }
  const waited = lock();
  try {
    if (waited && isBuildFresh()) return;
    compile(compiler, quiet);
  } finally {
    rmSync(lockPath, { force: true });
  }
}

function compile(compiler, quiet) {
  const fingerprint = sourceFingerprint();
  const startedMs = Date.now();
  rmSync(stampPath, { force: true });
  const result = spawnSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.build.json')], {
    cwd: root,
    encoding: 'utf8',
  });
  if (result.status !== 0) throw new Error(`the build failed:\n${result.stdout}${result.stderr}`);
  writeFileSync(stampPath, fingerprint);
  if (!quiet) process.stderr.write(`intarsia: built in ${((Date.now() - startedMs) / 1000).toFixed(1)} s\n`);
}

/** Takes the lock, waiting for who has it. Whether it had to wait. */
function lock() {
  mkdirSync(join(root, 'dist'), { recursive: true });
  for (let waited = false; ; waited = true) {
    try {
      writeFileSync(lockPath, String(process.pid), { flag: 'wx' });
      return waited;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (isLeftBehind()) rmSync(lockPath, { force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lookMs);
  }
}

function isLeftBehind() {
  try {
    if (Date.now() - statSync(lockPath).mtimeMs > lockMsMax) return true;
    const owner = Number(readFileSync(lockPath, 'utf8'));
    // Just created and not written yet.
    if (owner === 0) return false;
    process.kill(owner, 0);
    return false;
  } catch (error) {
    // No such process; or the lock was freed meanwhile.
    return error.code === 'ESRCH';
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exitCode = 1;
  }
}
