/** Builds benchmark models: `node dist/bench/models/build-models.js [kind...] [--out .cache/bench-models]`; without a kind, all. */
import { parseArgs } from 'node:util';
import { benchModelKinds, ensureModel } from './ensure-model.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string', default: '.cache/bench-models' } },
});
const unknown = positionals.filter((name) => !(benchModelKinds as readonly string[]).includes(name));
if (unknown.length > 0) {
  console.error(`unknown model ${unknown.join(', ')}; there are ${benchModelKinds.join(', ')}`);
  process.exitCode = 2;
} else {
  for (const kind of benchModelKinds) {
    if (positionals.length > 0 && !positionals.includes(kind)) continue;
    const startedMs = performance.now();
    const { path, digest, bytes, built } = await ensureModel(kind, values.out);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`${kind}  ${bytes} bytes  ${built ? 'built' : 'checked'} in ${seconds} s  sha256 ${digest}  ${path}`);
  }
}
