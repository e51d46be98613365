// npm run test:cluster: every fault test on real processes, against the embedded store and a real etcd, one after the other.
// Arguments go to vitest. `npm test` runs the short ones among them.
process.env.INTARSIA_CLUSTER = 'full';
const given = process.argv.slice(2);
const files = given.some((argument) => argument.includes('test/cluster')) ? [] : ['test/cluster'];
process.argv.splice(2, given.length, ...files, ...given, '--no-file-parallelism', '--reporter=verbose');
await import('./test.mjs');
