/** Certificates for one test run, made by the openssl command: an authority, a server's and a client's. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Whether the openssl command is there. */
export const haveOpenssl = spawnSync('openssl', ['version']).status === 0;

export interface Certificates {
  readonly folder: string;
  readonly authority: string;
  readonly server: { readonly certificatePath: string; readonly keyPath: string };
  readonly client: { readonly certificatePath: string; readonly keyPath: string };
  readonly read: (path: string) => Buffer;
  readonly remove: () => void;
}

export function makeCertificates(): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-tls-'));
  const at = (name: string): string => join(folder, name);
  const openssl = (...args: string[]): void => {
    const result = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`openssl ${args.join(' ')} failed: ${result.stderr}`);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test authority');
  writeFileSync(at('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  for (const name of ['server', 'client']) {
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
      ...['-out', `${name}.pem`, '-days', '2', '-extfile', 'names'],
    );
  }
  return {
    folder,
    authority: at('ca.pem'),
    server: { certificatePath: at('server.pem'), keyPath: at('server.key') },
    client: { certificatePath: at('client.pem'), keyPath: at('client.key') },
    read: (path) => readFileSync(path),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
