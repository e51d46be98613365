// Runs a benchmark from built output, after making sure that it is built from the sources that are here.
import { isBuildFresh } from '../scripts/fingerprint.mjs';

if (!isBuildFresh()) {
  const { build } = await import('../scripts/build.mjs');
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exit(1);
  }
}

const { main } = await import('../dist/bench/main.js');
process.exitCode = await main(process.argv.slice(2));
