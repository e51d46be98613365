#!/usr/bin/env node
// The launcher: makes sure that what runs is built from the sources that are here, then runs the command line.
// Nothing is imported before the version is checked: an older Node would fail on the imports and say something else.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(`intarsia needs Node 20.19 or later; this is ${process.version}\n`);
  process.exit(1);
}

try {
  const { isBuildFresh } = await import('../scripts/fingerprint.mjs');
  if (!isBuildFresh()) {
    const { build } = await import('../scripts/build.mjs');
    process.stderr.write('intarsia: building: there is no build of these sources yet …\n');
    build();
  }
} catch (error) {
  process.stderr.write(`intarsia: ${error.message}\n`);
  process.exit(1);
}

const { main } = await import('../dist/src/main.js').catch((error) => {
  const [, name] = /^Cannot find package '([^']+)'/.exec(error.message) ?? [];
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || name === undefined) throw error;
  process.stderr.write(`intarsia: the package ${name} is not installed. Run: npm ci\n`);
  process.exit(1);
});
await main(process.argv.slice(2));
