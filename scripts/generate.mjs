// npm run generate: makes src/gen from proto/. With --check it writes nothing and fails when src/gen is not what proto/ says.
// The plugin's output is adapted to this project's compiler flags: module paths carry `.js`, enums become plain objects.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './fingerprint.mjs';

const protoFolder = join(root, 'proto');
const genFolder = join(root, 'src/gen');
const bin = (name) => join(root, 'node_modules/.bin', name);

function buf(args) {
  const result = spawnSync(bin('buf'), args, { cwd: root, encoding: 'utf8' });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`buf ${args[0]} failed:\n${result.stdout}${result.stderr}`);
}

function generateInto(folder, scratch) {
  const template = {
    version: 'v2',
    plugins: [
      {
        local: bin('protoc-gen-ts'),
        out: scratch,
        opt: [
          'force_client_none',
          'force_server_none',
          'force_optimize_code_size',
          'eslint_disable',
          'disable_ts_nocheck',
        ],
      },
    ],
  };
  buf(['generate', protoFolder, '--template', JSON.stringify(template)]);
  for (const file of readdirSync(scratch).filter((name) => name.endsWith('.ts'))) {
    writeFileSync(join(folder, file), adapt(readFileSync(join(scratch, file), 'utf8')));
  }
  const image = join(scratch, 'descriptors.binpb');
  buf(['build', protoFolder, '--as-file-descriptor-set', '--exclude-source-info', '-o', image]);
  writeFileSync(join(folder, 'descriptors.ts'), descriptorsSource(readFileSync(image)));
}

/** Module paths with `.js`; `enum` as an object with both directions and a union type. */
function adapt(source) {
  return source
    .replace(/from "(\.\/[^"]+)"/g, 'from "$1.js"')
    .replace(/export enum (\w+) \{([^]*?)\n\}/g, (_, name, body) => {
      const forward = body.replace(/^(\s+)(\w+) = (-?\d+)/gm, '$1$2: $3');
      const backward = [...body.matchAll(/^\s+(\w+) = (-?\d+)/gm)].map(([, key, value]) => `    ${value}: '${key}'`);
      return [
        `export const ${name} = {${forward},`,
        `${backward.join(',\n')}`,
        '} as const;',
        `export type ${name} = Extract<(typeof ${name})[keyof typeof ${name}], number>;`,
      ].join('\n');
    });
}

/** The descriptors of every file, for server reflection. A FileDescriptorSet is a sequence of field 1, length-delimited. */
function descriptorsSource(set) {
  const files = [];
  for (let offset = 0; offset < set.length;) {
    if (set[offset] !== 0x0a) throw new Error(`unexpected tag ${set[offset]} in the descriptor set`);
    let length = 0;
    let shift = 0;
    do {
      offset += 1;
      length |= (set[offset] & 0x7f) << shift;
      shift += 7;
    } while (set[offset] >= 0x80);
    offset += 1;
    files.push(set.subarray(offset, offset + length).toString('base64'));
    offset += length;
  }
  return [
    '// Descriptors of the files in proto/, serialized and in base64, for server reflection. Made by scripts/generate.mjs.',
    'export const fileDescriptors: readonly string[] = [',
    ...files.map((text) => `  '${text}',`),
    '];',
    '',
  ].join('\n');
}

function listing(folder) {
  return new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

const scratch = mkdtempSync(join(tmpdir(), 'intarsia-generate-'));
try {
  const fresh = join(scratch, 'gen');
  const raw = join(scratch, 'raw');
  mkdirSync(fresh);
  mkdirSync(raw);
  generateInto(fresh, raw);
  const wanted = listing(fresh);
  if (process.argv.includes('--check')) {
    const present = listing(genFolder);
    const names = [...new Set([...wanted.keys(), ...present.keys()])].sort();
    const different = names.filter((name) => wanted.get(name) !== present.get(name));
    if (different.length > 0) {
      throw new Error(`src/gen is not what proto/ says: ${different.join(', ')}. Run: npm run generate`);
    }
  } else {
    rmSync(genFolder, { recursive: true, force: true });
    mkdirSync(genFolder, { recursive: true });
    for (const [name, text] of wanted) writeFileSync(join(genFolder, name), text);
    console.log(`generate: wrote ${wanted.size} files to src/gen`);
  }
} catch (error) {
  console.error(`generate: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
