/**
 * The process of an embedded store: `store-main.js FOLDER ADDRESS PORT`. Options that are secret come by environment:
 * INTARSIA_STORE_TOKEN. It prints `listening ADDRESS:PORT` when it can be reached, and ends on SIGTERM or when its disk fails.
 */
import { NodeClock } from '#adapters/node/clock.js';
import { startEmbeddedStore } from '#adapters/embedded-store/server.js';
import { messageOf } from '#core/errors.js';
import { silentLog } from '#ports/log.js';
import type { Log } from '#ports/log.js';

const [folder, bindAddress = '127.0.0.1', port = '0'] = process.argv.slice(2);
const log: Log = {
  ...silentLog,
  warn: (message, fields) => process.stderr.write(`store: ${message} ${JSON.stringify(fields ?? {})}\n`),
  error: (message, fields) => process.stderr.write(`store: ${message} ${JSON.stringify(fields ?? {})}\n`),
  with: () => log,
};

async function main(): Promise<void> {
  if (folder === undefined) throw new Error('store-main needs the folder of its data');
  const token = process.env['INTARSIA_STORE_TOKEN'];
  const store = await startEmbeddedStore({
    folder,
    bindAddress,
    port: Number(port),
    clock: new NodeClock(),
    log,
    ...(token === undefined ? {} : { token }),
    onFatal: (error) => {
      process.stderr.write(`store: ${messageOf(error)}\n`);
      process.exit(1);
    },
  });
  process.once('SIGTERM', () => {
    void store.stop().then(() => process.exit(0));
  });
  process.stdout.write(`listening ${store.address}\n`);
}

main().catch((error: unknown) => {
  process.stderr.write(`store: ${messageOf(error)}\n`);
  process.exitCode = 1;
});
