/**
 * Branded identifiers, so that the compiler catches a device handed over where a host was meant.
 *
 * A brand costs nothing at run time. Values enter the program through the constructor functions below, which check the
 * characters that file names, metric labels and actor paths have in common.
 */
import { intarsiaError } from './errors.js';

declare const brand: unique symbol;
/** A `Base` that the compiler keeps apart from other values of the same base type. */
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** A machine with devices, unique in a grid. */
export type HostId = Branded<string, 'HostId'>;
/** One accelerator or CPU pool of a host, such as `cpu:0`, `webgpu:0`, `cuda:1`, `wasm:0`; unique on its host. */
export type DeviceId = Branded<string, 'DeviceId'>;
/** A model as clients call it: the name of its folder in the repository. */
export type ModelName = Branded<string, 'ModelName'>;
/** A version of a model: the decimal number that names its folder. */
export type ModelVersion = Branded<string, 'ModelVersion'>;
/** One copy of a model version: the chain of its shards. */
export type ReplicaId = Branded<string, 'ReplicaId'>;
/** A loaded session inside one executor; meaningless outside of it. */
export type SessionId = Branded<string, 'SessionId'>;
/** SHA-256 of an artefact's bytes, 64 lower-case hexadecimal digits. */
export type ArtifactDigest = Branded<string, 'ArtifactDigest'>;
/** Who pays: the owner of an API token, or `anonymous`. */
export type TenantId = Branded<string, 'TenantId'>;
/** Number of a request on one host, unique for the life of the process. */
export type RequestId = Branded<number, 'RequestId'>;

const identifierPattern = /^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,254}$/;
const identifierLengthMax = 255;

function checked(kind: string, text: string): string {
  if (!identifierPattern.test(text) || text.includes('..')) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `${kind} ${JSON.stringify(text.slice(0, 80))} is not a valid identifier: 1 to ${identifierLengthMax} characters of letters, digits and _ . : / @ + -, not starting with punctuation, without ".."`,
      { kind, length: text.length },
    );
  }
  return text;
}

/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const hostId = (text: string): HostId => checked('host id', text) as HostId;
/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const deviceId = (text: string): DeviceId => checked('device id', text) as DeviceId;
/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const modelName = (text: string): ModelName => checked('model name', text) as ModelName;
/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const replicaId = (text: string): ReplicaId => checked('replica id', text) as ReplicaId;
/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const sessionId = (text: string): SessionId => checked('session id', text) as SessionId;
/** @throws INVALID_ARGUMENT when the text is not an identifier. */
export const tenantId = (text: string): TenantId => checked('tenant id', text) as TenantId;

/** @throws INVALID_ARGUMENT when the text is not a positive decimal number of at most 15 digits. */
export function modelVersion(text: string): ModelVersion {
  if (!/^[1-9][0-9]{0,14}$/.test(text)) {
    throw intarsiaError(
      'INVALID_ARGUMENT',
      `model version ${JSON.stringify(text.slice(0, 80))} is not a positive whole number`,
      { version: text.slice(0, 80) },
    );
  }
  return text as ModelVersion;
}

/** @throws INVALID_ARGUMENT when the text is not 64 lower-case hexadecimal digits. */
export function artifactDigest(text: string): ArtifactDigest {
  if (!/^[0-9a-f]{64}$/.test(text)) {
    throw intarsiaError('INVALID_ARGUMENT', `artefact digest ${JSON.stringify(text.slice(0, 80))} is not a SHA-256`, {
      length: text.length,
    });
  }
  return text as ArtifactDigest;
}

/** Who pays when a request carries no token. */
export const anonymousTenant = 'anonymous' as TenantId;
