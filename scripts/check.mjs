// npm run check: types, the pure layers without Node's types, lint, layers and cycles, dead code, formatting, generated code.
// All run at once, as far as there are cores; every failure is shown, not only the first.
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { root } from './fingerprint.mjs';

mkdirSync(join(root, 'node_modules/.cache/intarsia'), { recursive: true });
const bin = (name) => join(root, 'node_modules/.bin', name);
// Two packages bring a `tsc`: this one is native and takes a quarter of the time. Other tools need the interface of the other.
const typescript = join(root, 'node_modules/typescript-7/bin/tsc');
// The longest first: with two cores it takes one of them until the end.
const checks = [
  ['formatting', bin('prettier'), ['--check', '--log-level', 'warn', '.']],
  ['lint', bin('oxlint'), ['.']],
  ['types', process.execPath, [typescript, '-p', 'tsconfig.json']],
  [
    'layers and cycles',
    bin('depcruise'),
    ['src', 'actors', 'policies', '--config', '.dependency-cruiser.cjs', '--output-type', 'err'],
  ],
  ['dead code', bin('knip'), ['--no-progress']],
  ['pure layers', process.execPath, [typescript, '-p', 'tsconfig.core.json']],
  ['generated code', process.execPath, ['scripts/generate.mjs', '--check']],
];

const startedMs = Date.now();
let failures = 0;
const queue = [...checks];

async function lane() {
  for (let check = queue.shift(); check !== undefined; check = queue.shift()) {
    const [name, command, args] = check;
    const beganMs = Date.now();
    const { status, output } = await run(command, args);
    const seconds = ((Date.now() - beganMs) / 1000).toFixed(1);
    console.log(`${status === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds} s)`);
    if (status !== 0) {
      failures += 1;
      console.log(output.trimEnd());
    }
  }
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ status: 1, output: error.message }));
    child.on('close', (status) => resolve({ status, output }));
  });
}

await Promise.all(Array.from({ length: Math.max(1, Math.min(4, availableParallelism())) }, lane));
console.log(
  `${checks.length - failures} passed, ${failures} failed (${((Date.now() - startedMs) / 1000).toFixed(1)} s)`,
);
process.exitCode = failures === 0 ? 0 : 1;
