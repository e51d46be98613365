/**
 * Who may speak on the links between hosts: mutual TLS under one pinned authority, and a join token.
 *
 * - Both sides show a certificate of the grid's authority, and of no other authority of the system. The side that connects
 *   checks that the certificate names the host it wants; the side that answers, that it names the host that is said to call.
 *   A certificate for clients of the API is not one of a host: it cannot be used for a server.
 * - The join token never travels: what is sent is derived from it and from the grid's name, and compared in constant time.
 * - Without certificates links are plain text: on loopback only, unless the operator allows more, which is said loudly.
 *
 * The files are read once: a renewed certificate is taken up at the next start.
 */
import { createHmac, createPrivateKey, timingSafeEqual, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { checkServerIdentity, type ConnectionOptions, type PeerCertificate } from 'node:tls';
import {
  type ChannelCredentials,
  type ChannelOptions,
  credentials,
  Metadata,
  ServerCredentials,
  status as Status,
  type ServiceError,
} from '@grpc/grpc-js';
import { intarsiaError, messageOf, type IntarsiaError } from '#core/errors.js';
import { hostId, type HostId } from '#core/ids.js';

export interface LinkSecurityOptions {
  /** Name of the grid: hosts of another one are refused. */
  readonly grid: string;
  readonly host: HostId;
  /** PEM files: this host's certificate and key, and the authority of all hosts. All empty: plain text. */
  readonly certificatePath: string;
  readonly keyPath: string;
  readonly authorityPath: string;
  /** File with the join token; empty for none. */
  readonly joinTokenPath: string;
  /** Addresses that the links listen on and are reached at. */
  readonly addresses: readonly string[];
  /** Plain text beyond loopback. */
  readonly allowPlaintext: boolean;
  /** Milliseconds since 1970. */
  readonly wallMs: number;
}

/** What a call shows of itself: a call of the gRPC library's server has both. */
export interface IncomingCall {
  readonly metadata: Metadata;
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate };
}

/** What a host says of itself: in the metadata of a call, or in the hello of a connection that carries no calls. */
export interface ShownIdentity {
  readonly grid: string;
  readonly host: string;
  /** Derived from the join token; empty without one. */
  readonly join: string;
}

export interface LinkSecurity {
  readonly isEncrypted: boolean;
  /** What the operator should know. */
  readonly warnings: readonly string[];
  serverCredentials(): ServerCredentials;
  /** @param peer Host that must answer; absent: whoever's certificate names the address. */
  channelCredentials(peer?: HostId): ChannelCredentials;
  /** Options that a channel to that host needs beside its credentials. */
  channelOptions(peer: HostId): ChannelOptions;
  /** What every call to another host carries. */
  callMetadata(): Metadata;
  /** How a connection without gRPC to that host is encrypted; undefined: it is plain text. */
  connectionOptions(peer: HostId): ConnectionOptions | undefined;
  /** What the hello on such a connection carries. */
  readonly shown: ShownIdentity;
  /** As `admit`, for such a connection. */
  admitShown(shown: ShownIdentity, certificate: PeerCertificate | undefined): HostId;
  /**
   * Lets a call in, or not.
   * @returns The host that calls.
   * @throws UNAUTHENTICATED (no or a wrong join token, no certificate), PERMISSION_DENIED (another grid, a certificate of another host).
   */
  admit(call: IncomingCall): HostId;
}

const gridHeader = 'intarsia-grid';
const hostHeader = 'intarsia-host';
const joinHeader = 'intarsia-join';
const joinTokenLengthMin = 16;
const joinTokenBytesMax = 4096;
const loopbackAddresses = new Set(['127.0.0.1', '::1', 'localhost']);
/** Extended key usage of a server's certificate. */
const serverUsage = '1.3.6.1.5.5.7.3.1';
const dayMs = 86_400_000;
/** An own certificate that ends this soon, days, is worth a warning. */
const expiryWarningDays = 14;

interface TlsMaterial {
  readonly certificate: Buffer;
  readonly key: Buffer;
  readonly authority: Buffer;
}

/** @throws CONFIG_INVALID naming the file and what is wrong with it: unreadable, expired, another key, another host, another authority. */
export function openLinkSecurity(options: LinkSecurityOptions): LinkSecurity {
  const warnings: string[] = [];
  const tls = readTls(options, warnings);
  const join = readJoinToken(options, warnings);
  if (tls === undefined) checkPlaintext(options, warnings);
  else if (join === '') warnings.push('no join token is set: every host with a certificate of the authority may join');
  const wanted = { grid: options.grid, join, mutual: tls !== undefined };
  return {
    isEncrypted: tls !== undefined,
    warnings,
    serverCredentials: () =>
      tls === undefined
        ? ServerCredentials.createInsecure()
        : ServerCredentials.createSsl(tls.authority, [{ cert_chain: tls.certificate, private_key: tls.key }], true),
    channelCredentials: (peer) =>
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(tls.authority, tls.key, tls.certificate, {
            checkServerIdentity: (address, certificate) => identityProblem(address, certificate, peer),
          }),
    // Without it TLS would be asked for a server of the name of an IP address, which is none.
    channelOptions: (peer) =>
      tls === undefined || !isServerName(peer) ? {} : { 'grpc.ssl_target_name_override': peer },
    connectionOptions: (peer) =>
      tls === undefined
        ? undefined
        : {
            ca: tls.authority,
            cert: tls.certificate,
            key: tls.key,
            rejectUnauthorized: true,
            checkServerIdentity: (address, certificate) => identityProblem(address, certificate, peer),
            ...(isServerName(peer) ? { servername: peer } : {}),
          },
    shown: { grid: options.grid, host: options.host, join },
    admitShown: (shown, certificate) => admit(shown, certificate, wanted),
    callMetadata: () => {
      const metadata = new Metadata();
      metadata.set(gridHeader, options.grid);
      metadata.set(hostHeader, options.host);
      if (join !== '') metadata.set(joinHeader, join);
      return metadata;
    },
    admit: (call) => admit(shownIn(call.metadata), call.getAuthContext().sslPeerCertificate, wanted),
  };
}

function shownIn(metadata: Metadata): ShownIdentity {
  return {
    grid: textOf(metadata, gridHeader),
    host: textOf(metadata, hostHeader),
    join: textOf(metadata, joinHeader),
  };
}

function isServerName(host: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9.-]*$/.test(host);
}

/** Why a call to another host failed, where the reason is in the certificates; undefined otherwise. */
export function certificateFailure(peer: string, error: ServiceError): IntarsiaError | undefined {
  if (error.code !== Status.UNAVAILABLE) return undefined;
  const text = error.details;
  const meaning = certificateTexts.find(([pattern]) => pattern.test(text))?.[1];
  if (meaning === undefined) return undefined;
  return intarsiaError('UNAUTHENTICATED', `host ${peer}: ${meaning} (${text})`, { peer }, error);
}

const certificateTexts: readonly (readonly [RegExp, string])[] = [
  [
    /certificate has expired|alert certificate expired/i,
    'a certificate has expired; issue a new one: intarsia certs issue',
  ],
  [/not yet valid/i, 'a certificate is not valid yet; compare the clocks of the two machines'],
  [/does not name the host|altnames/i, 'its certificate is one of another host'],
  [
    /self[- ]signed|unable to verify|unable to get (local )?issuer|unknown ca|certificate signature failure/i,
    'its certificate is not of the authority of this grid',
  ],
  [/wrong version number|EPROTO|packet length too long/i, 'one side speaks TLS and the other does not'],
];

function admit(
  shown: ShownIdentity,
  certificate: PeerCertificate | undefined,
  wanted: { readonly grid: string; readonly join: string; readonly mutual: boolean },
): HostId {
  const { grid, join } = shown;
  if (grid !== wanted.grid) {
    throw intarsiaError(
      'PERMISSION_DENIED',
      `this host is of the grid ${JSON.stringify(wanted.grid)}, the caller of ${JSON.stringify(grid.slice(0, 80))}`,
    );
  }
  const host = hostId(shown.host);
  if (wanted.join !== '') {
    if (join === '') {
      throw intarsiaError(
        'UNAUTHENTICATED',
        `host ${host} shows no join token and this grid asks for one (--join-token-file)`,
      );
    }
    if (!equalInConstantTime(join, wanted.join)) {
      throw intarsiaError('UNAUTHENTICATED', `host ${host} shows another join token than that of this grid`);
    }
  }
  if (wanted.mutual) checkCaller(certificate, host);
  return host;
}

function checkCaller(shown: PeerCertificate | undefined, host: HostId): void {
  if (shown?.raw === undefined) throw intarsiaError('UNAUTHENTICATED', `host ${host} shows no certificate`);
  const certificate = new X509Certificate(shown.raw);
  if (!namesHost(certificate, host)) {
    throw intarsiaError(
      'PERMISSION_DENIED',
      `the certificate (${oneLine(certificate.subject)}) does not name the host ${host} that is said to call`,
      { host },
    );
  }
  if (!isOfHost(certificate)) {
    throw intarsiaError('PERMISSION_DENIED', `the certificate (${oneLine(certificate.subject)}) is not one of a host`);
  }
}

function identityProblem(address: string, shown: PeerCertificate, peer: HostId | undefined): Error | undefined {
  if (peer === undefined) return checkServerIdentity(address, shown);
  const certificate = new X509Certificate(shown.raw);
  if (namesHost(certificate, peer)) return undefined;
  return new Error(`the certificate (${oneLine(certificate.subject)}) of ${address} does not name the host ${peer}`);
}

/** Whether a certificate names a host: as its common name or among its DNS names. */
export function namesHost(certificate: X509Certificate, host: string): boolean {
  const common = /^CN=(.*)$/m.exec(certificate.subject)?.[1];
  const names = (certificate.subjectAltName ?? '').split(', ').filter((name) => name.startsWith('DNS:'));
  return common === host || names.some((name) => name.slice('DNS:'.length) === host);
}

function isOfHost(certificate: X509Certificate): boolean {
  // Without the extension a certificate may be used for anything.
  const usages = certificate.keyUsage as readonly string[] | undefined;
  return usages === undefined || usages.includes(serverUsage);
}

function readTls(options: LinkSecurityOptions, warnings: string[]): TlsMaterial | undefined {
  const { certificatePath, keyPath, authorityPath, host, wallMs } = options;
  const given = [certificatePath, keyPath, authorityPath].filter((path) => path !== '');
  if (given.length === 0) return undefined;
  if (given.length < 3) {
    throw invalid(
      'grid.certificatePath, grid.keyPath and grid.authorityPath belong together; one or two of them are missing',
    );
  }
  const certificate = readPem('grid.certificatePath', certificatePath);
  const authority = readPem('grid.authorityPath', authorityPath);
  const key = readPem('grid.keyPath', keyPath);
  const own = certificateOf('grid.certificatePath', certificatePath, certificate);
  const root = certificateOf('grid.authorityPath', authorityPath, authority);
  checkDates('grid.authorityPath', authorityPath, root, wallMs);
  checkDates('grid.certificatePath', certificatePath, own, wallMs);
  let fits: boolean;
  try {
    fits = own.checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw invalid(`grid.keyPath: ${keyPath} is no private key in PEM: ${messageOf(error)}`, error);
  }
  if (!fits) throw invalid(`grid.keyPath: ${keyPath} is not the key of ${certificatePath}`);
  if (!own.checkIssued(root) || !own.verify(root.publicKey)) {
    throw invalid(`grid.certificatePath: ${certificatePath} was not signed by the authority ${authorityPath}`);
  }
  if (!namesHost(own, host)) {
    throw invalid(
      `grid.certificatePath: ${certificatePath} (${oneLine(own.subject)}) does not name this host, ${host}; issue one: intarsia certs issue ${host}`,
    );
  }
  if (!isOfHost(own))
    throw invalid(`grid.certificatePath: ${certificatePath} is a certificate for clients, not for a host`);
  const days = (Date.parse(own.validTo) - wallMs) / dayMs;
  if (days < expiryWarningDays) {
    warnings.push(`the certificate ${certificatePath} ends in ${Math.floor(days)} days, on ${own.validTo}`);
  }
  const secretWarning = openToOthers('the key', keyPath);
  if (secretWarning !== '') warnings.push(secretWarning);
  return { certificate, key, authority };
}

function checkDates(option: string, path: string, certificate: X509Certificate, wallMs: number): void {
  if (wallMs > Date.parse(certificate.validTo)) {
    throw invalid(
      `${option}: the certificate ${path} has expired on ${certificate.validTo}; issue a new one: intarsia certs issue`,
    );
  }
  if (wallMs < Date.parse(certificate.validFrom)) {
    throw invalid(
      `${option}: the certificate ${path} is not valid before ${certificate.validFrom}; is the clock right?`,
    );
  }
}

/** What is sent instead of the token; empty without one. */
function readJoinToken(options: LinkSecurityOptions, warnings: string[]): string {
  const { joinTokenPath, grid } = options;
  if (joinTokenPath === '') return '';
  const bytes = readPem('grid.joinTokenPath', joinTokenPath);
  const token = bytes.toString('utf8').trim();
  if (token.length < joinTokenLengthMin || bytes.byteLength > joinTokenBytesMax) {
    throw invalid(
      `grid.joinTokenPath: the token in ${joinTokenPath} has ${token.length} characters; ${joinTokenLengthMin} to ${joinTokenBytesMax} are wanted, such as from: openssl rand -hex 32`,
    );
  }
  const warning = openToOthers('the join token', joinTokenPath);
  if (warning !== '') warnings.push(warning);
  return createHmac('sha256', token).update(`intarsia join 1\n${grid}`).digest('hex');
}

function checkPlaintext({ addresses, allowPlaintext }: LinkSecurityOptions, warnings: string[]): void {
  const open = addresses.filter((address) => !loopbackAddresses.has(address));
  if (open.length === 0) return;
  if (!allowPlaintext) {
    throw invalid(
      `links on ${open.join(', ')} would be plain text: give this host a certificate (intarsia certs init, intarsia certs issue, --grid-certificate, --grid-key, --grid-authority), or allow it with --allow-plaintext where the network is trusted`,
    );
  }
  warnings.push(
    `PLAIN TEXT BETWEEN HOSTS on ${open.join(', ')}: whoever reaches the network reads models, requests and answers, and may pose as a host`,
  );
}

function openToOthers(what: string, path: string): string {
  if (process.platform === 'win32') return '';
  const mode = statSync(path).mode & 0o777;
  return (mode & 0o077) === 0
    ? ''
    : `${what} in ${path} can be read by other users (mode ${mode.toString(8)}); chmod 600 it`;
}

function certificateOf(option: string, path: string, pem: Buffer): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw invalid(`${option}: ${path} is no certificate in PEM: ${messageOf(error)}`, error);
  }
}

function readPem(option: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw invalid(`${option}: ${path} cannot be read: ${messageOf(error)}`, error);
  }
}

function textOf(metadata: Metadata, name: string): string {
  const [value] = metadata.get(name);
  return typeof value === 'string' ? value : '';
}

function equalInConstantTime(left: string, right: string): boolean {
  const a = Buffer.from(left);
  const b = Buffer.from(right);
  return a.byteLength === b.byteLength && timingSafeEqual(a, b);
}

/** A subject on one line, as people write it. */
function oneLine(subject: string): string {
  return subject.replaceAll('\n', ', ');
}

function invalid(message: string, cause?: unknown): IntarsiaError {
  return intarsiaError('CONFIG_INVALID', `option ${message}`, {}, cause);
}
