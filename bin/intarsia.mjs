#!/usr/bin/env node
// The launcher: makes sure that what runs is built from the sources that are here, then runs the command line.
import { isBuildFresh } from '../scripts/fingerprint.mjs';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(`intarsia needs Node 20.19 or later; this is ${process.version}\n`);
  process.exit(1);
}

if (!isBuildFresh()) {
  const { build } = await import('../scripts/build.mjs');
  process.stderr.write('intarsia: building, because the sources are newer than the last build …\n');
  try {
    build();
  } catch (error) {
    process.stderr.write(`intarsia: ${error.message}\n`);
    process.exit(1);
  }
}

const { main } = await import('../dist/src/main.js');
await main(process.argv.slice(2));
