import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { initAuthority, issueFromFolder, type IssueRequest } from '#adapters/certificates/certificate-files.js';
import { issueCertificate, makeAuthority } from '#adapters/certificates/issue.js';
import { newFolder } from '../weights/weights-folder.js';

const wallMs = Date.now();
const dayMs = 86_400_000;
const haveOpenssl = spawnSync('openssl', ['version']).status === 0;
const request = (folder: string, changes: Partial<IssueRequest> = {}): IssueRequest => ({
  folder,
  name: 'host-1',
  addresses: [],
  kind: 'host',
  days: 365,
  wallMs,
  ...changes,
});

async function initialised(): Promise<string> {
  const folder = join(newFolder(), 'certs');
  await initAuthority({ folder, name: 'my grid', days: 3650, wallMs });
  return folder;
}

function openssl(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

describe('certificates of a grid', () => {
  it.skipIf(!haveOpenssl)(
    'are found right by OpenSSL, strictly, for what they are for (skipped without openssl)',
    async () => {
      const folder = await initialised();
      const host = await issueFromFolder(
        request(folder, { addresses: ['10.0.0.7', 'gpu-1.example.org', '2001:db8::7'] }),
      );
      const client = await issueFromFolder(request(folder, { name: 'ci', kind: 'client' }));
      const verify = (purpose: string, path: string): string =>
        openssl('verify', '-x509_strict', '-purpose', purpose, '-CAfile', join(folder, 'ca.pem'), path);
      expect(verify('sslserver', host.certificatePath)).toContain('OK');
      expect(verify('sslclient', host.certificatePath)).toContain('OK');
      expect(verify('sslclient', client.certificatePath)).toContain('OK');
      expect(() => verify('sslserver', client.certificatePath)).toThrow(/purpose/);
      const shown = openssl('x509', '-in', host.certificatePath, '-noout', '-text');
      expect(shown).toContain(
        'DNS:host-1, IP Address:10.0.0.7, DNS:gpu-1.example.org, IP Address:2001:DB8:0:0:0:0:0:7',
      );
      expect(shown).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
      expect(shown).toContain('O = Intarsia, CN = host-1');
      expect(openssl('x509', '-in', join(folder, 'ca.pem'), '-noout', '-text')).toMatch(/CA:TRUE, pathlen:0/);
    },
  );

  it('say from when to when they are valid, beyond 2050 too', () => {
    const authority = makeAuthority({ name: 'a', days: 20_000, wallMs });
    const certificate = new X509Certificate(authority.certificate);
    expect(Date.parse(certificate.validTo)).toBe(Math.floor((wallMs + 20_000 * dayMs) / 1000) * 1000);
    expect(Date.parse(certificate.validFrom)).toBeLessThan(wallMs);
    const { certificate: pem } = issueCertificate(authority, request('', { days: 7 }));
    expect(Date.parse(new X509Certificate(pem).validTo)).toBe(Math.floor((wallMs + 7 * dayMs) / 1000) * 1000);
  });

  it('have keys that only their owner can read, and are never written over', async () => {
    const folder = await initialised();
    const { keyPath, certificatePath } = await issueFromFolder(request(folder));
    for (const path of [join(folder, 'ca.key'), keyPath]) expect(statSync(path).mode & 0o777).toBe(0o600);
    const before = readFileSync(certificatePath, 'utf8');
    await expect(issueFromFolder(request(folder))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(initAuthority({ folder, name: 'again', days: 1, wallMs })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    expect(readFileSync(certificatePath, 'utf8')).toBe(before);
  });

  it('differ in key and number each time', () => {
    const authority = makeAuthority({ name: 'a', days: 10, wallMs });
    const [one, two] = [0, 1].map(
      () => new X509Certificate(issueCertificate(authority, request('', { days: 1 })).certificate),
    );
    expect(one?.serialNumber).not.toBe(two?.serialNumber);
    expect(one?.publicKey.export({ type: 'spki', format: 'pem' })).not.toBe(
      two?.publicKey.export({ type: 'spki', format: 'pem' }),
    );
  });

  it.each([
    ['an address with a port', { addresses: ['10.0.0.7:8003'] }, 'INVALID_ARGUMENT', /without scheme and port/],
    ['a URL', { addresses: ['https://a'] }, 'INVALID_ARGUMENT', /neither a DNS name nor an IP address/],
    ['no days', { days: 0 }, 'INVALID_ARGUMENT', /1 to 36500/],
    ['more days than the authority has', { days: 4000 }, 'FAILED_PRECONDITION', /the authority ends on/],
    ['a name that is none', { name: '../ca' }, 'INVALID_ARGUMENT', /host id/],
    ["the authority's own name", { name: 'ca' }, 'INVALID_ARGUMENT', /the authority's own name/],
    ['a name that is too long', { name: 'x'.repeat(65) }, 'INVALID_ARGUMENT', /1 to 64/],
    [
      'too many addresses',
      { addresses: Array.from({ length: 101 }, (_, n) => `h${n}`) },
      'INVALID_ARGUMENT',
      /at most 100/,
    ],
  ] as const)('are not made for %s, and nothing is left behind', async (_name, changes, code, message) => {
    const folder = await initialised();
    await expect(issueFromFolder(request(folder, changes))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
    expect(readdirSync(folder).sort()).toEqual(['ca.key', 'ca.pem']);
  });

  it('need an authority, with its own key', async () => {
    const folder = newFolder();
    await expect(issueFromFolder(request(folder))).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('intarsia certs init') as string,
    });
    expect(existsSync(join(folder, 'host-1.key'))).toBe(false);
    const [one, two] = [makeAuthority({ name: 'a', days: 10, wallMs }), makeAuthority({ name: 'b', days: 10, wallMs })];
    const wanted = request('', { days: 1 });
    expect(() => issueCertificate({ certificate: one.certificate, key: two.key }, wanted)).toThrow(
      /not the authority's/,
    );
    const leaf = issueCertificate(one, wanted);
    expect(() => issueCertificate(leaf, wanted)).toThrow(/not one of an authority/);
    expect(() => issueCertificate({ certificate: 'no', key: 'no' }, wanted)).toThrow(/cannot be read/);
  });

  it.skipIf(!haveOpenssl)('are signed by an authority that OpenSSL made, too (skipped without openssl)', () => {
    const folder = newFolder();
    for (const [index, key] of [['rsa:2048'], ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']].entries()) {
      const [pem, keyFile] = [join(folder, `${index}.pem`), join(folder, `${index}.key`)];
      openssl(
        ...['req', '-x509', '-newkey', ...key, '-nodes', '-keyout', keyFile, '-out', pem, '-days', '9'],
        ...['-subj', '/C=CH/O=Example/CN=Their authority'],
      );
      const authority = { certificate: readFileSync(pem, 'utf8'), key: readFileSync(keyFile, 'utf8') };
      const issued = new X509Certificate(issueCertificate(authority, request('', { days: 2 })).certificate);
      const root = new X509Certificate(authority.certificate);
      expect([issued.checkIssued(root), issued.verify(root.publicKey)]).toEqual([true, true]);
    }
  });
});
