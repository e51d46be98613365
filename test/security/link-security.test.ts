import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Server } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { artifactTransfer } from '#adapters/grpc/artifact-client.js';
import { artifactService } from '#adapters/grpc/artifact-server.js';
import { openLinkSecurity, type LinkSecurity } from '#adapters/grpc/link-security.js';
import { intarsiaError } from '#core/errors.js';
import { hostId } from '#core/ids.js';
import { silentLog } from '#ports/log.js';
import { newFolder } from '../weights/weights-folder.js';
import { dayMs, newAuthority, plainSecurity, securityOf, strangerOf, writeIdentity } from './grid-certificates.js';

const authority = newAuthority();
const token = 'a token of more than sixteen characters';

/** Asks host `b`, which is secured by `theirs`, a harmless question as the host that `ours` is. */
async function ask(ours: LinkSecurity, theirs: LinkSecurity, hostName = 'b'): Promise<unknown> {
  const server = new Server();
  const shelf = {
    holds: () => Promise.resolve(true),
    open: () => Promise.reject(intarsiaError('NOT_FOUND', 'nothing')),
  };
  const service = artifactService({ shelf, log: silentLog, admit: (call) => void theirs.admit(call) });
  server.addService(service.definition, service.implementation);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', theirs.serverCredentials(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  const transfer = artifactTransfer({ security: ours });
  onTestFinished(() => {
    transfer.close();
    server.forceShutdown();
  });
  const peer = {
    host: hostId(hostName),
    linkAddress: `127.0.0.1:${port}`,
    zone: '',
    sameMachine: true,
    rttMs: 1,
    serves: true,
  };
  return [...(await transfer.holds(peer, ['c'.repeat(64)], 5_000))];
}

describe('links between hosts', () => {
  it('are open to hosts with a certificate of the authority and the join token', async () => {
    const folder = newFolder();
    const [ours, theirs] = [
      securityOf(folder, 'a', { authority, token }),
      securityOf(folder, 'b', { authority, token }),
    ];
    expect(ours.isEncrypted).toBe(true);
    expect(ours.warnings).toEqual([]);
    expect(await ask(ours, theirs)).toEqual(['c'.repeat(64)]);
  });

  const expired = { days: 30, issuedMs: Date.now() - 60 * dayMs };
  const oldAuthority = newAuthority(Date.now() - 90 * dayMs);

  it.each([
    ['a wrong join token', { authority, token: `${token}!` }, 'UNAUTHENTICATED', /shows another join token/],
    ['no join token', { authority }, 'UNAUTHENTICATED', /no join token/],
    [
      'a certificate of another host',
      { authority, token, certificateName: 'c' },
      'PERMISSION_DENIED',
      /CN=c\).*does not name the host a/,
    ],
    ['a certificate for clients', { authority, token, kind: 'client' }, 'PERMISSION_DENIED', /not one of a host/],
    ['a certificate of another authority', { authority: newAuthority(), trusts: authority, token }, 'UNAVAILABLE', /./],
  ] as const)('are closed to %s', async (_name, identity, code, message) => {
    const folder = newFolder();
    const theirs = securityOf(folder, 'b', { authority, token });
    await expect(ask(strangerOf(folder, 'a', identity), theirs)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
    });
  });

  it('are closed to an expired certificate', async () => {
    const folder = newFolder();
    const theirs = securityOf(folder, 'b', { authority: oldAuthority, token });
    const ours = strangerOf(folder, 'a', { authority: oldAuthority, token, ...expired });
    await expect(ask(ours, theirs)).rejects.toMatchObject({ details: { host: 'b' } });
  });

  it.each([
    ['an expired certificate', { authority: oldAuthority, token, ...expired }, /has expired.*intarsia certs issue/],
    ['a certificate of another authority', { authority: newAuthority(), token }, /not of the authority of this grid/],
    ['a certificate of another host', { authority: oldAuthority, token, certificateName: 'c' }, /one of another host/],
  ] as const)('do not open to a host that shows %s, and say so', async (_name, identity, message) => {
    const folder = newFolder();
    const ours = securityOf(folder, 'a', { authority: oldAuthority, token });
    await expect(ask(ours, strangerOf(folder, 'b', identity))).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
      retryable: false,
      message: expect.stringMatching(message) as string,
    });
  });

  it('need no addresses in certificates: the host is named, wherever it is reached', async () => {
    const folder = newFolder();
    const ours = securityOf(folder, 'a', { authority, token });
    expect(await ask(ours, securityOf(folder, 'host-2', { authority, token }), 'host-2')).toHaveLength(1);
    await expect(ask(ours, securityOf(folder, 'b', { authority, token }), 'host-2')).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
  });

  it('say that one side speaks TLS and the other does not', async () => {
    const secure = securityOf(newFolder(), 'a', { authority });
    await expect(ask(secure, plainSecurity('b'))).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('are closed to hosts of another grid', async () => {
    await expect(ask(plainSecurity('a', { grid: 'test' }), plainSecurity('b'))).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining('"default"') as string,
    });
  });

  it('never carry the join token itself', () => {
    const path = join(newFolder(), 'token');
    writeFileSync(path, token, { mode: 0o600 });
    const sent = plainSecurity('a', { joinTokenPath: path }).callMetadata().getMap();
    expect(sent['intarsia-join']).toMatch(/^[0-9a-f]{64}$/);
    expect(JSON.stringify(sent)).not.toContain(token);
    const elsewhere = plainSecurity('a', { joinTokenPath: path, grid: 'g' }).callMetadata().getMap();
    expect(elsewhere['intarsia-join']).not.toBe(sent['intarsia-join']);
  });
});

describe("a host's own files", () => {
  const folder = (): string => newFolder();

  it.each([
    ['that expired', { days: 30, issuedMs: Date.now() - 60 * dayMs }, {}, /has expired on .*intarsia certs issue/],
    ['of another host', { certificateName: 'c' }, {}, /does not name this host, a/],
    ['for clients', { kind: 'client' }, {}, /for clients/],
    ['of another authority', { trusts: newAuthority() }, {}, /was not signed by the authority/],
    ['without its key', {}, { keyPath: '' }, /belong together/],
    ['that is not there', {}, { certificatePath: '/nowhere/a.pem' }, /grid.certificatePath: .*nowhere/],
  ] as const)('are refused at the start: a certificate %s', (_name, identity, changes, message) => {
    const old = newAuthority(Date.now() - 90 * dayMs);
    const options = { ...writeIdentity(folder(), 'a', { authority: old, ...identity }), ...changes };
    expect(() => openLinkSecurity(options)).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(message) as string }),
    );
  });

  it('with a key of another certificate are refused', () => {
    const options = writeIdentity(folder(), 'a', { authority });
    const other = writeIdentity(folder(), 'a', { authority });
    expect(() => openLinkSecurity({ ...options, keyPath: other.keyPath })).toThrow(/is not the key of/);
    writeFileSync(options.keyPath, 'no key');
    expect(() => openLinkSecurity(options)).toThrow(/is no private key in PEM/);
    expect(() => openLinkSecurity({ ...options, authorityPath: options.keyPath })).toThrow(/is no certificate in PEM/);
  });

  it('are warned of: an end that is near, a key and a token that others can read, no token', () => {
    const options = writeIdentity(folder(), 'a', { authority, days: 5, token });
    chmodSync(options.keyPath, 0o644);
    chmodSync(options.joinTokenPath, 0o640);
    const { warnings } = openLinkSecurity(options);
    expect(warnings.join('\n')).toMatch(/ends in [45] days/);
    expect(warnings.join('\n')).toMatch(/key .*can be read by other users \(mode 644\)/);
    expect(warnings.join('\n')).toMatch(/join token .*\(mode 640\)/);
    expect(warnings.join('\n')).not.toContain(token);
    expect(securityOf(folder(), 'a', { authority }).warnings.join()).toMatch(/no join token is set/);
  });

  it('with a token that is too short are refused, without showing it', () => {
    const path = join(folder(), 'token');
    writeFileSync(path, 'short');
    expect(() => plainSecurity('a', { joinTokenPath: path })).toThrow(/has 5 characters; 16 to 4096 are wanted/);
  });
});

describe('plain text between hosts', () => {
  it('is for loopback, and beyond it only when that is allowed, loudly', () => {
    expect(plainSecurity('a').warnings).toEqual([]);
    expect(() => plainSecurity('a', { addresses: ['127.0.0.1', '10.0.0.7'] })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining('10.0.0.7') as string }),
    );
    const allowed = plainSecurity('a', { addresses: ['0.0.0.0'], allowPlaintext: true });
    expect(allowed.warnings[0]).toMatch(/^PLAIN TEXT BETWEEN HOSTS on 0\.0\.0\.0/);
  });
});
