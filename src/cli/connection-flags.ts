/** Flags of every command that talks to a host: where it is, who asks, and how long to wait. */
import { InvalidArgumentError, Option, type Command } from 'commander';
import { intarsiaError } from '#core/errors.js';
import type { ClientOptions, InferenceClient } from '#client/index.js';
import type { Program } from './program.js';

export interface ConnectionFlags {
  readonly endpoint?: readonly string[];
  readonly token?: string;
  readonly tls?: boolean;
  readonly tlsAuthority?: string;
  readonly tlsCertificate?: string;
  readonly tlsKey?: string;
  readonly timeoutMs: number;
}

export const endpointDefault = '127.0.0.1:8001';

export function addConnectionFlags(command: Command): Command {
  return command
    .addOption(
      new Option('--endpoint <host:port>', `gRPC endpoint; repeat it for several hosts (default: ${endpointDefault})`)
        .env('INTARSIA_ENDPOINT')
        .argParser(collectEndpoints),
    )
    .addOption(new Option('--token <token>', 'bearer token').env('INTARSIA_TOKEN'))
    .option('--tls', 'talk TLS; implied by the other --tls-… flags')
    .option('--tls-authority <file>', "PEM file of the authority that signed the host's certificate")
    .option('--tls-certificate <file>', "PEM file of this client's certificate")
    .option('--tls-key <file>', "PEM file of this client's key")
    .option('--timeout-ms <ms>', 'time limit of a call', positiveNumber, 30_000);
}

/** A client by these flags; close it. @throws CONFIG_INVALID. */
export function connectBy(flags: ConnectionFlags, program: Program): InferenceClient {
  return program.connect(clientOptionsOf(flags));
}

export function clientOptionsOf(flags: ConnectionFlags): ClientOptions {
  const { tlsAuthority = '', tlsCertificate = '', tlsKey = '' } = flags;
  const named = tlsAuthority !== '' || tlsCertificate !== '' || tlsKey !== '';
  return {
    endpoints: endpointsOf(flags),
    ...(flags.token === undefined ? {} : { token: flags.token }),
    ...(named
      ? { tls: { authorityPath: tlsAuthority, certificatePath: tlsCertificate, keyPath: tlsKey } }
      : flags.tls === true
        ? { tls: true }
        : {}),
    timeoutMs: flags.timeoutMs,
  };
}

export function endpointsOf(flags: Pick<ConnectionFlags, 'endpoint'>): readonly string[] {
  return flags.endpoint ?? [endpointDefault];
}

/** ` --endpoint …` for commands that a user is told to paste; empty for the default. */
export function endpointArgument(endpoint: string): string {
  return endpoint === endpointDefault ? '' : ` --endpoint ${endpoint}`;
}

function collectEndpoints(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), ...value.split(',')];
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0)) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

export function wholeNumber(text: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** Reads a whole number within these bounds, both included. */
export function countBetween(min: number, max: number): (text: string) => number {
  return (text) => {
    const count = wholeNumber(text);
    if (count < min || count > max) throw new InvalidArgumentError(`It must be ${min} to ${max}.`);
    return count;
  };
}

/** `name=value`, repeated. */
export function collectPairs(
  text: string,
  before: ReadonlyMap<string, string> | undefined,
): ReadonlyMap<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('It must be written name=value.');
  const name = text.slice(0, at);
  if (before?.has(name) === true) throw new InvalidArgumentError(`${name} is given twice.`);
  return new Map([...(before ?? []), [name, text.slice(at + 1)]]);
}

/** `1,3,224,224` → sizes. @throws CONFIG_INVALID. */
export function parseShape(flag: string, text: string): readonly number[] {
  const sizes = text === '' ? [] : text.split(',').map(Number);
  if (sizes.every((size) => Number.isSafeInteger(size) && size >= 0)) return sizes;
  throw intarsiaError(
    'CONFIG_INVALID',
    `${flag} must be whole numbers with commas between them, such as 1,3,224,224; it is ${text}`,
  );
}
