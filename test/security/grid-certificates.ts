/** Certificates of a pretended grid in a folder of the test, and link security made of them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { credentials, ServerCredentials } from '@grpc/grpc-js';
import { issueCertificate, makeAuthority, type PemPair } from '#adapters/certificates/issue.js';
import { openLinkSecurity, type LinkSecurity, type LinkSecurityOptions } from '#adapters/grpc/link-security.js';
import { hostId } from '#core/ids.js';

export const dayMs = 86_400_000;

export function newAuthority(wallMs = Date.now()): PemPair {
  return makeAuthority({ name: 'test authority', days: 1000, wallMs });
}

export interface PretendIdentity {
  readonly authority: PemPair;
  /** Authority that this host trusts; its own by default. */
  readonly trusts?: PemPair;
  /** Name in the certificate; the host's by default. */
  readonly certificateName?: string;
  readonly kind?: 'host' | 'client';
  /** Days that the certificate is valid, and when it was made. */
  readonly days?: number;
  readonly issuedMs?: number;
  readonly token?: string;
}

/** Writes a host's files and gives back the options that name them. */
export function writeIdentity(folder: string, host: string, identity: PretendIdentity): LinkSecurityOptions {
  const pair = issueCertificate(identity.authority, {
    name: identity.certificateName ?? host,
    addresses: ['127.0.0.1', 'localhost'],
    kind: identity.kind ?? 'host',
    days: identity.days ?? 30,
    wallMs: identity.issuedMs ?? Date.now(),
  });
  const write = (name: string, text: string): string => {
    const path = join(folder, `${host}.${name}`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };
  return {
    grid: 'default',
    host: hostId(host),
    certificatePath: write('pem', pair.certificate),
    keyPath: write('key', pair.key),
    authorityPath: write('ca.pem', (identity.trusts ?? identity.authority).certificate),
    joinTokenPath: identity.token === undefined ? '' : write('token', `${identity.token}\n`),
    addresses: ['127.0.0.1'],
    allowPlaintext: false,
    wallMs: Date.now(),
  };
}

export function securityOf(folder: string, host: string, identity: PretendIdentity): LinkSecurity {
  return openLinkSecurity(writeIdentity(folder, host, identity));
}

/** Plain text on loopback. */
export function plainSecurity(host: string, changes: Partial<LinkSecurityOptions> = {}): LinkSecurity {
  return openLinkSecurity({
    grid: 'default',
    host: hostId(host),
    certificatePath: '',
    keyPath: '',
    authorityPath: '',
    joinTokenPath: '',
    addresses: ['127.0.0.1'],
    allowPlaintext: false,
    wallMs: Date.now(),
    ...changes,
  });
}

/** A host that passes over the checks of its own start, as an attacker or a host with a stopped clock would. */
export function strangerOf(folder: string, host: string, identity: PretendIdentity): LinkSecurity {
  const files = writeIdentity(folder, host, identity);
  const [root, key, certificate] = [files.authorityPath, files.keyPath, files.certificatePath].map((path) =>
    readFileSync(path),
  ) as [Buffer, Buffer, Buffer];
  const plain = plainSecurity(host, { joinTokenPath: files.joinTokenPath });
  return {
    ...plain,
    serverCredentials: () => ServerCredentials.createSsl(root, [{ cert_chain: certificate, private_key: key }], false),
    channelOptions: () => ({ 'grpc.ssl_target_name_override': 'localhost' }),
    channelCredentials: () => credentials.createSsl(root, key, certificate, { checkServerIdentity: () => undefined }),
  };
}
