/**
 * Writes the small example models: `node dist/examples/generators/write-small-models.js --out examples/models`.
 *
 * The same code gives the same bytes; a test compares them with what is committed.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { smallModels } from './small-models.js';

const { values } = parseArgs({ options: { out: { type: 'string', default: 'examples/models' } } });
for (const model of smallModels()) {
  for (const [path, content] of model.files) {
    const target = join(values.out, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
    console.log(`${target}  ${content.length} bytes`);
  }
}
