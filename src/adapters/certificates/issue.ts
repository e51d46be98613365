/**
 * Certificates of a grid: an authority, and what it signs for hosts and for clients. Keys are ECDSA P-256, signatures
 * SHA-256; the keys are made by Node and leave this file as PEM only.
 *
 * A host's certificate serves both ends of a link; a client's cannot be used for a server, so that nobody who may only ask
 * can pose as a host. A host is named by its common name; addresses are alternative names.
 */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
  type KeyObject,
} from 'node:crypto';
import { isIP } from 'node:net';
import { intarsiaError, messageOf } from '#core/errors.js';
import * as der from './der.js';

export interface PemPair {
  readonly certificate: string;
  readonly key: string;
}

export interface AuthorityRequest {
  readonly name: string;
  /** Days it is valid. */
  readonly days: number;
  readonly wallMs: number;
}

export interface CertificateRequest {
  /** Host id, or a client's name. */
  readonly name: string;
  /** DNS names and IP addresses it is reached at. */
  readonly addresses: readonly string[];
  readonly kind: 'host' | 'client';
  readonly days: number;
  readonly wallMs: number;
}

const oids = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  ecdsaSha256: '1.2.840.10045.4.3.2',
  rsaSha256: '1.2.840.113549.1.1.11',
  subjectKey: '2.5.29.14',
  keyUsage: '2.5.29.15',
  alternativeNames: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKey: '2.5.29.35',
  extendedUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;
const dayMs = 86_400_000;
const daysMax = 36_500;
/** Longest common name that X.509 allows, characters. */
const commonNameMax = 64;
const addressesMax = 100;
/** Validity begins a little earlier, ms: clocks of machines differ. */
const skewMs = 300_000;
const dnsPattern = /^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}\.?){1,127}$|^[A-Za-z0-9_]$/;

/** A new authority. @throws INVALID_ARGUMENT. */
export function makeAuthority(request: AuthorityRequest): PemPair {
  const { name, days, wallMs } = request;
  checkName(name);
  checkDays(days);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const subject = nameOf(name);
  const extensions = [
    extension(oids.basicConstraints, true, der.sequence(der.yes(), der.integer(Uint8Array.of(0)))),
    // keyCertSign and cRLSign.
    extension(oids.keyUsage, true, der.bits(Uint8Array.of(0x06), 1)),
    extension(oids.subjectKey, false, der.octets(keyIdOf(publicKey))),
  ];
  const validity = { fromMs: wallMs - skewMs, toMs: wallMs + days * dayMs };
  const certificate = signed({ subject, issuer: subject, validity, publicKey, extensions }, privateKey);
  return { certificate, key: pemOf(privateKey) };
}

/** A certificate of the authority. @throws INVALID_ARGUMENT (a name, an authority that cannot sign), FAILED_PRECONDITION (it ends before). */
export function issueCertificate(authority: PemPair, request: CertificateRequest): PemPair {
  const { name, addresses, kind, days, wallMs } = request;
  checkName(name);
  checkDays(days);
  const { certificate, key, subject, keyId } = readAuthority(authority);
  const endsMs = Date.parse(certificate.validTo);
  const validity = {
    fromMs: Math.max(wallMs - skewMs, Date.parse(certificate.validFrom)),
    toMs: wallMs + days * dayMs,
  };
  if (validity.toMs > endsMs) {
    throw intarsiaError(
      'FAILED_PRECONDITION',
      `the authority ends on ${certificate.validTo}, earlier than in ${days} days; ask for at most ${Math.floor((endsMs - wallMs) / dayMs)}`,
      { days },
    );
  }
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const usages = kind === 'host' ? [oids.serverAuth, oids.clientAuth] : [oids.clientAuth];
  const names = alternativeNames(name, addresses);
  const extensions = [
    extension(oids.basicConstraints, true, der.sequence()),
    // digitalSignature.
    extension(oids.keyUsage, true, der.bits(Uint8Array.of(0x80), 7)),
    extension(oids.extendedUsage, false, der.sequence(...usages.map(der.objectId))),
    extension(oids.subjectKey, false, der.octets(keyIdOf(publicKey))),
    ...(keyId === undefined ? [] : [extension(oids.authorityKey, false, der.sequence(der.implicit(0, keyId)))]),
    ...(names.length === 0 ? [] : [extension(oids.alternativeNames, false, der.sequence(...names))]),
  ];
  return {
    certificate: signed({ subject: nameOf(name), issuer: subject, validity, publicKey, extensions }, key),
    key: pemOf(privateKey),
  };
}

interface CertificateParts {
  readonly subject: Buffer;
  readonly issuer: Buffer;
  readonly validity: { readonly fromMs: number; readonly toMs: number };
  readonly publicKey: KeyObject;
  readonly extensions: readonly Buffer[];
}

function signed(parts: CertificateParts, key: KeyObject): string {
  const isRsa = key.asymmetricKeyType === 'rsa';
  const algorithm = isRsa
    ? der.sequence(der.objectId(oids.rsaSha256), der.element(0x05))
    : der.sequence(der.objectId(oids.ecdsaSha256));
  const content = der.sequence(
    der.tagged(0, der.integer(Uint8Array.of(2))),
    der.integer(serialNumber()),
    algorithm,
    parts.issuer,
    der.sequence(der.time(parts.validity.fromMs), der.time(parts.validity.toMs)),
    parts.subject,
    parts.publicKey.export({ type: 'spki', format: 'der' }),
    der.tagged(3, der.sequence(...parts.extensions)),
  );
  const certificate = der.sequence(content, algorithm, der.bits(sign('sha256', content, key)));
  const lines = certificate.toString('base64').replaceAll(/(.{64})(?=.)/g, '$1\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

interface Authority {
  readonly certificate: X509Certificate;
  readonly key: KeyObject;
  /** As it is written in the authority's own certificate. */
  readonly subject: Buffer;
  readonly keyId: Buffer | undefined;
}

function readAuthority(authority: PemPair): Authority {
  let certificate: X509Certificate;
  let key: KeyObject;
  try {
    certificate = new X509Certificate(authority.certificate);
    key = createPrivateKey(authority.key);
  } catch (error) {
    throw intarsiaError('INVALID_ARGUMENT', `the authority cannot be read: ${messageOf(error)}`, {}, error);
  }
  if (!certificate.ca)
    throw intarsiaError('INVALID_ARGUMENT', 'the certificate given as authority is not one of an authority');
  if (!certificate.checkPrivateKey(key)) {
    throw intarsiaError('INVALID_ARGUMENT', "the key given is not the authority's");
  }
  if (key.asymmetricKeyType !== 'ec' && key.asymmetricKeyType !== 'rsa') {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `an authority with a key of the type ${key.asymmetricKeyType ?? '?'} is not supported`,
    );
  }
  const content = der.elementsOf(der.elementsOf(certificate.raw)[0]?.content ?? Buffer.alloc(0))[0]?.content;
  // Version, serial number, algorithm, issuer, validity, subject, key, and extensions under [3].
  const fields = der.elementsOf(content ?? Buffer.alloc(0));
  const subject = fields[5]?.whole;
  if (subject === undefined) throw intarsiaError('INVALID_ARGUMENT', 'the authority has no subject');
  const extensions = fields.find(({ tag }) => tag === 0xa3)?.content ?? Buffer.alloc(0);
  return { certificate, key, subject, keyId: subjectKeyOf(extensions) };
}

function subjectKeyOf(extensions: Buffer): Buffer | undefined {
  const wanted = der.objectId(oids.subjectKey);
  for (const { content } of der.elementsOf(der.elementsOf(extensions)[0]?.content ?? Buffer.alloc(0))) {
    const fields = der.elementsOf(content);
    const value = fields.at(-1)?.content;
    if (fields[0]?.whole.equals(wanted) === true && value !== undefined) return der.elementsOf(value)[0]?.content;
  }
  return undefined;
}

function extension(oid: string, isCritical: boolean, value: Buffer): Buffer {
  return der.sequence(der.objectId(oid), ...(isCritical ? [der.yes()] : []), der.octets(value));
}

function nameOf(common: string): Buffer {
  const part = (oid: string, value: string): Buffer => der.set(der.sequence(der.objectId(oid), der.text(value)));
  return der.sequence(part(oids.organization, 'Intarsia'), part(oids.commonName, common));
}

/** The host's own name where it can be one of the DNS, and its addresses. */
function alternativeNames(name: string, addresses: readonly string[]): readonly Buffer[] {
  if (addresses.length > addressesMax) {
    throw intarsiaError('INVALID_ARGUMENT', `${addresses.length} addresses; a certificate has at most ${addressesMax}`);
  }
  const own = dnsPattern.test(name) && isIP(name) === 0 ? [name] : [];
  return [...new Set([...own, ...addresses])].map((address) => {
    const family = isIP(address);
    if (family !== 0) return der.implicit(7, family === 4 ? ipv4Bytes(address) : ipv6Bytes(address));
    if (dnsPattern.test(address)) return der.implicit(2, Buffer.from(address, 'latin1'));
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `${JSON.stringify(address.slice(0, 120))} is neither a DNS name nor an IP address; give it without scheme and port`,
      { address: address.slice(0, 120) },
    );
  });
}

function ipv4Bytes(address: string): Buffer {
  return Buffer.from(address.split('.').map(Number));
}

function ipv6Bytes(address: string): Buffer {
  // URL writes an address out in one form, its last four bytes as hexadecimal digits too.
  const plain = new URL(`http://[${address.replace(/%.*$/, '')}]/`).hostname.slice(1, -1);
  const [left = '', right] = plain.split('::');
  const groups = (half: string): string[] => (half === '' ? [] : half.split(':'));
  const head = groups(left);
  const tail = right === undefined ? [] : groups(right);
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => '0');
  const all = [...head, ...zeros, ...tail].map((group) => Number.parseInt(group, 16));
  return Buffer.from(all.flatMap((group) => [group >> 8, group & 0xff]));
}

/** SHA-1 of the public key's bits: RFC 5280's first way to name a key; nothing rests on its strength. */
function keyIdOf(key: KeyObject): Buffer {
  const info = key.export({ type: 'spki', format: 'der' });
  const keyBits = der.elementsOf(der.elementsOf(info)[0]?.content ?? Buffer.alloc(0))[1]?.content ?? Buffer.alloc(1);
  return createHash('sha1').update(keyBits.subarray(1)).digest();
}

/** 127 random bits, never zero. */
function serialNumber(): Uint8Array {
  const number = randomBytes(16);
  number[0] = ((number[0] ?? 0) & 0x7f) | 0x40;
  return number;
}

function pemOf(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }) as string;
}

function checkName(name: string): void {
  if (name.length > commonNameMax || !/^[\p{L}\p{N}\p{P}\p{S}](?:[\p{L}\p{N}\p{P}\p{S} ]*)$/u.test(name)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `the name ${JSON.stringify(name.slice(0, 80))} has ${name.length} characters; a certificate's name has 1 to ${commonNameMax} and no control characters`,
    );
  }
}

function checkDays(days: number): void {
  if (!Number.isInteger(days) || days < 1 || days > daysMax) {
    throw intarsiaError('INVALID_ARGUMENT', `${days} days; a certificate is valid for 1 to ${daysMax}`, { days });
  }
}
