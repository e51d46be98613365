import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { StoreOptions } from '#cli/program.js';
import { startStore } from '../../src/compose/store.js';

const folder = mkdtempSync(join(tmpdir(), 'intarsia-store-options-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const options: StoreOptions = {
  listen: '127.0.0.1:0',
  dataPath: folder,
  certificatePath: '',
  keyPath: '',
  authorityPath: '',
  tokenPath: '',
  allowPlaintext: false,
};

async function refused(change: Partial<StoreOptions>): Promise<string> {
  const outcome = await startStore({ ...options, ...change }).then(
    async (store) => {
      await store.stop();
      return { code: '', message: 'it started' };
    },
    (error: unknown) => error as { readonly code: string; readonly message: string },
  );
  expect(outcome.message).not.toBe('it started');
  expect(outcome.code).toBe('CONFIG_INVALID');
  return outcome.message;
}

describe('intarsia store', () => {
  it('listens on loopback, on a port of the system, and says which', async () => {
    const store = await startStore(options);
    expect(store.address).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
    await store.stop();
  });

  it('refuses plain text beyond loopback unless it is allowed', async () => {
    expect(await refused({ listen: '0.0.0.0:0' })).toContain('must be a loopback address unless');
    const allowed = await startStore({ ...options, listen: '0.0.0.0:0', allowPlaintext: true });
    await allowed.stop();
  });

  it('refuses addresses that are none', async () => {
    for (const listen of ['', '8004', '127.0.0.1', '127.0.0.1:port', '127.0.0.1:70000', ':8004']) {
      expect(await refused({ listen })).toContain('--listen must be address:port');
    }
  });

  it('wants certificate and key together, and names a file that cannot be read', async () => {
    expect(await refused({ certificatePath: 'host.pem' })).toContain('--certificate and --key');
    const missing = join(folder, 'no-such-token');
    expect(await refused({ tokenPath: missing })).toContain(`--token-file: ${missing} cannot be read`);
    expect(await refused({ certificatePath: missing, keyPath: missing })).toContain('--certificate: ');
  });
});
