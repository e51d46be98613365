import { Command } from 'commander';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { initAuthority, issueFromFolder } from '#adapters/certificates/certificate-files.js';
import { addCertsCommand } from '#cli/commands/certs.js';
import type { Program } from '#cli/program.js';
import { openLinkSecurity } from '#adapters/grpc/link-security.js';
import { hostId } from '#core/ids.js';
import { newFolder } from '../weights/weights-folder.js';
import { pretendProgram, run as runWith } from './pretend-program.js';

async function run(...argv: readonly string[]) {
  const told: string[] = [];
  const write = (text: string): void => void told.push(text);
  const terminal = {
    out: write,
    err: write,
    outIsTty: false,
    errIsTty: false,
    env: {},
    progressStream: process.stderr,
  };
  const context = { program: {} as Program, terminal, exitCode: 0 };
  const root = new Command('intarsia').exitOverride().option('--json').option('--verbose');
  addCertsCommand(root, context, {
    init: (request) => initAuthority({ ...request, wallMs: Date.now() }),
    issue: (request) => issueFromFolder({ ...request, wallMs: Date.now() }),
  });
  await root.parseAsync([...argv], { from: 'user' });
  return { text: told.join(''), exitCode: context.exitCode };
}

describe('intarsia certs', () => {
  it('makes an authority and a certificate that a host starts its links with', async () => {
    const dir = join(newFolder(), 'certs');
    expect((await run('certs', 'init', '--dir', dir)).text).toContain(join(dir, 'ca.key'));
    const { text } = await run('certs', 'issue', 'host-1', '--address', '10.0.0.7', '--dir', dir);
    expect(text).toContain(`--grid-certificate ${join(dir, 'host-1.pem')}`);
    const security = openLinkSecurity({
      grid: 'default',
      host: hostId('host-1'),
      certificatePath: join(dir, 'host-1.pem'),
      keyPath: join(dir, 'host-1.key'),
      authorityPath: join(dir, 'ca.pem'),
      joinTokenPath: '',
      addresses: ['10.0.0.7'],
      allowPlaintext: false,
      wallMs: Date.now(),
    });
    expect(security.isEncrypted).toBe(true);
  });

  it('says in one line what is wrong, and ends with another code than 0', async () => {
    const dir = newFolder();
    const { text, exitCode } = await run('certs', 'issue', 'host-1', '--dir', dir);
    expect(exitCode).not.toBe(0);
    expect(text.trim().split('\n')).toHaveLength(1);
  });

  it('refuses days that no certificate is valid for as a mistake of the command line, with the range', async () => {
    const { program } = pretendProgram();
    for (const days of ['0', '36501', 'many']) {
      const { code, err } = await runWith(['certs', 'issue', 'host-1', '--days', days], program);
      expect(code).toBe(2);
      expect(err).toContain(days === 'many' ? 'a whole number' : '1 to 36500');
    }
  });
});
