/**
 * The folder in which an operator keeps a grid's certificates: `ca.pem` and `ca.key` of the authority, `<name>.pem` and
 * `<name>.key` of each host and client. Keys can be read by their owner alone; nothing is written over.
 */
import { constants } from 'node:fs';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';
import { hostId } from '#core/ids.js';
import { issueCertificate, makeAuthority, type PemPair } from './issue.js';

export interface CertificatePaths {
  readonly certificatePath: string;
  readonly keyPath: string;
  readonly authorityPath: string;
  /** When it ends, ISO 8601. */
  readonly validTo: string;
}

export interface InitRequest {
  readonly folder: string;
  readonly name: string;
  readonly days: number;
  readonly wallMs: number;
}

export interface IssueRequest {
  readonly folder: string;
  readonly name: string;
  readonly addresses: readonly string[];
  readonly kind: 'host' | 'client';
  readonly days: number;
  readonly wallMs: number;
}

const dayMs = 86_400_000;

/** Makes an authority. @throws ALREADY_EXISTS, INVALID_ARGUMENT, STORAGE_FULL … */
export async function initAuthority(request: InitRequest): Promise<CertificatePaths> {
  const paths = pathsOf(request.folder, 'ca', request);
  await mkdir(request.folder, { recursive: true, mode: 0o700 });
  await writePair(paths, makeAuthority(request));
  return paths;
}

/** Makes a certificate of the folder's authority. @throws NOT_FOUND (no authority), ALREADY_EXISTS, INVALID_ARGUMENT … */
export async function issueFromFolder(request: IssueRequest): Promise<CertificatePaths> {
  // A host's name may hold characters that no file name should, such as a slash.
  const fileName = hostId(request.name).replaceAll(/[^A-Za-z0-9_.@+-]/g, '_');
  if (fileName === 'ca') throw intarsiaError('INVALID_ARGUMENT', "'ca' is the authority's own name");
  const paths = pathsOf(request.folder, fileName, request);
  const authority = {
    certificate: await readPem(join(request.folder, 'ca.pem')),
    key: await readPem(join(request.folder, 'ca.key')),
  };
  await writePair(paths, issueCertificate(authority, request));
  return paths;
}

function pathsOf(
  folder: string,
  name: string,
  { days, wallMs }: { readonly days: number; readonly wallMs: number },
): CertificatePaths {
  return {
    certificatePath: join(folder, `${name}.pem`),
    keyPath: join(folder, `${name}.key`),
    authorityPath: join(folder, 'ca.pem'),
    validTo: Number.isFinite(days) && days > 0 && days < 1e6 ? new Date(wallMs + days * dayMs).toISOString() : '',
  };
}

async function writePair(paths: CertificatePaths, pair: PemPair): Promise<void> {
  await writeNew(paths.keyPath, pair.key, 0o600);
  try {
    await writeNew(paths.certificatePath, pair.certificate, 0o644);
  } catch (error) {
    await rm(paths.keyPath, { force: true });
    throw error;
  }
}

async function writeNew(path: string, content: string, mode: number): Promise<void> {
  let handle;
  try {
    handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode);
    await handle.writeFile(content);
    await handle.sync();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (code === 'EEXIST') {
      throw intarsiaError('ALREADY_EXISTS', `${path} is there already and is not written over; move it away first`, {
        path,
      });
    }
    if (handle !== undefined) await rm(path, { force: true });
    const full = code === 'ENOSPC' || code === 'EDQUOT';
    throw intarsiaError(
      full ? 'STORAGE_FULL' : 'UNAVAILABLE',
      `${path} cannot be written: ${messageOf(error)}`,
      { path },
      error,
    );
  } finally {
    await handle?.close();
  }
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw intarsiaError(
      'NOT_FOUND',
      `${path} cannot be read: ${messageOf(error)}; make an authority first: intarsia certs init`,
      { path },
      error,
    );
  }
}
