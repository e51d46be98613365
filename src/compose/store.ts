/** The embedded store as the command line runs it: options read from files, plain text beyond loopback only when asked for. */
import { readFile } from 'node:fs/promises';
import { startEmbeddedStore } from '#adapters/embedded-store/server.js';
import { NodeClock } from '#adapters/node/clock.js';
import { openPinoLog } from '#adapters/pino/pino-log.js';
import { intarsiaError, messageOf } from '#core/errors.js';
import type { RunningStore, StoreOptions } from '#cli/program.js';
import { isLoopback } from '#config.js';

/** @throws CONFIG_INVALID (an option), FAILED_PRECONDITION (folder in use or damaged, port taken) */
export async function startStore(options: StoreOptions): Promise<RunningStore> {
  const { bindAddress, port } = parseAddress(options.listen);
  const files = [options.certificatePath, options.keyPath];
  const hasTls = files.every((path) => path !== '');
  if (!hasTls && files.some((path) => path !== '')) {
    throw intarsiaError('CONFIG_INVALID', '--certificate and --key are given together or not at all', {});
  }
  if (!hasTls && !options.allowPlaintext && !isLoopback(bindAddress)) {
    throw intarsiaError(
      'CONFIG_INVALID',
      `--listen must be a loopback address unless --certificate and --key or --allow-plaintext are given; it is ${bindAddress}`,
      { address: bindAddress },
    );
  }
  const { log } = openPinoLog({ level: 'warn', format: 'json', fields: { process: 'store' } });
  let fail: (error: unknown) => void = () => {};
  const failed = new Promise<never>((_resolve, reject) => (fail = reject));
  // Whoever does not look at it must not be ended by it.
  failed.catch(() => {});
  const token = options.tokenPath === '' ? undefined : (await read('--token-file', options.tokenPath)).trim();
  const authority = options.authorityPath === '' ? undefined : await read('--authority', options.authorityPath);
  const store = await startEmbeddedStore({
    folder: options.dataPath,
    bindAddress,
    port,
    clock: new NodeClock(),
    log,
    ...(token === undefined ? {} : { token }),
    ...(hasTls
      ? {
          tls: {
            certificate: await read('--certificate', options.certificatePath),
            key: await read('--key', options.keyPath),
            ...(authority === undefined ? {} : { authority }),
          },
        }
      : {}),
    onFatal: fail,
  });
  return { address: store.address, failed, stop: () => store.stop() };
}

function parseAddress(text: string): { readonly bindAddress: string; readonly port: number } {
  const parts = /^\[?([^\]]+)\]?:([0-9]{1,5})$/.exec(text);
  const port = Number(parts?.[2]);
  if (parts?.[1] === undefined || port > 65_535) {
    throw intarsiaError('CONFIG_INVALID', `--listen must be address:port, such as 127.0.0.1:8004; it is ${text}`, {});
  }
  return { bindAddress: parts[1], port };
}

async function read(option: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw intarsiaError('CONFIG_INVALID', `${option}: ${path} cannot be read: ${messageOf(error)}`, { path });
  }
}
