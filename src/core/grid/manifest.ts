/**
 * Manifests from outside: checked before anything is done with them, because their paths become paths on this machine's
 * disk and their sizes become room in its cache.
 *
 * A path is made of plain names joined by `/`; nothing in it can leave the folder it is put in.
 */
import { intarsiaError, messageOf } from '../errors.js';
import { artifactDigest, modelName, modelVersion } from '../ids.js';
import type { ModelManifest } from './records.js';

/** Files of one model version. */
export const manifestFilesMax = 2_000;
/** Names in one path. */
const depthMax = 8;
const nameLengthMax = 255;
const fileBytesMax = 2 ** 50;
// No separators of any system; a name does not start with a dot, so neither does `..`.
const namePattern = /^[^./\\:][^/\\:]*$/;

export type ManifestFile = ModelManifest['files'][number];

/** Whether a path is made of plain names joined by `/`. */
export function isManifestPath(path: string): boolean {
  const names = path.split('/');
  return names.length <= depthMax && names.every(isPlainName);
}

function isPlainName(name: string): boolean {
  if (name.length > nameLengthMax || !namePattern.test(name)) return false;
  for (let index = 0; index < name.length; index += 1) if (name.charCodeAt(index) < 32) return false;
  return true;
}

/** Bytes of all files of a manifest, the same content counted once. */
export function manifestBytes({ files }: ModelManifest): number {
  return [...new Map(files.map(({ sha256, bytes }) => [sha256, bytes])).values()].reduce(
    (sum, bytes) => sum + bytes,
    0,
  );
}

/** A manifest as the store holds it. */
export function manifestToText(manifest: ModelManifest): string {
  return JSON.stringify(manifest);
}

/** @throws INVALID_ARGUMENT saying which rule the text breaks. */
export function manifestFromText(text: string): ModelManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw broken(`is no JSON: ${messageOf(thrown)}`);
  }
  return checkManifest(value);
}

/** @throws INVALID_ARGUMENT saying which rule the value breaks. */
export function checkManifest(value: unknown): ModelManifest {
  if (!isRecord(value)) throw broken('is not an object');
  if (value['format'] !== 1) throw broken(`has the format ${JSON.stringify(value['format'])}; this host reads 1`);
  const model = modelName(textOf(value, 'model'));
  // A model is one folder of a repository.
  if (model.includes('/')) throw broken(`is for the model ${JSON.stringify(model)}, which cannot be a folder's name`);
  const listed = value['files'];
  if (!Array.isArray(listed)) throw broken('has no list of files');
  if (listed.length === 0 || listed.length > manifestFilesMax) {
    throw broken(`lists ${listed.length} files; 1 to ${manifestFilesMax} are possible`);
  }
  const files = (listed as readonly unknown[]).map(checkFile);
  checkTree(files);
  return {
    format: 1,
    model,
    version: modelVersion(textOf(value, 'version')),
    digest: artifactDigest(textOf(value, 'digest')),
    memoryBytes: bytesOf(value, 'memoryBytes'),
    files,
  };
}

function checkFile(value: unknown): ManifestFile {
  if (!isRecord(value)) throw broken('lists something that is not a file');
  const path = textOf(value, 'path');
  if (!isManifestPath(path)) {
    throw broken(
      `lists the path ${JSON.stringify(path.slice(0, 120))}; a path is at most ${depthMax} plain names joined by "/"`,
    );
  }
  return { path, bytes: bytesOf(value, 'bytes'), sha256: artifactDigest(textOf(value, 'sha256')) };
}

/** No path twice, none that is a folder of another, no content with two sizes. */
function checkTree(files: readonly ManifestFile[]): void {
  const paths = new Set<string>();
  const sizes = new Map<string, number>();
  for (const { path, sha256, bytes } of files) {
    if (paths.has(path)) throw broken(`lists ${JSON.stringify(path)} twice`);
    paths.add(path);
    if ((sizes.get(sha256) ?? bytes) !== bytes) throw broken(`gives the content ${sha256} two sizes`);
    sizes.set(sha256, bytes);
  }
  for (const { path } of files) {
    for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) {
      if (paths.has(path.slice(0, at)))
        throw broken(`lists ${JSON.stringify(path.slice(0, at))} as file and as folder`);
    }
  }
}

function textOf(value: Readonly<Record<string, unknown>>, field: string): string {
  const text = value[field];
  if (typeof text !== 'string') throw broken(`has no text in ${field}`);
  return text;
}

function bytesOf(value: Readonly<Record<string, unknown>>, field: string): number {
  const bytes = value[field];
  if (typeof bytes !== 'number' || !Number.isInteger(bytes) || bytes < 0 || bytes > fileBytesMax) {
    throw broken(`has ${JSON.stringify(bytes)} in ${field}; it must be a whole number of bytes from 0 to 2^50`);
  }
  return bytes;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function broken(how: string): Error {
  return intarsiaError('INVALID_ARGUMENT', `a model manifest ${how}`);
}
