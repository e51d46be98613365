/**
 * What a repository holds, without reading contents: its models, their versions, and a fingerprint of each that changes
 * when a file does. Hidden files and plain files beside the model folders are passed over.
 */
import { createHash } from 'node:crypto';
import { readdir, realpath, stat } from 'node:fs/promises';
import { intarsiaError, messageOf } from '#core/errors.js';
import { modelName, type ModelName, type ModelVersion } from '#core/ids.js';
import type { ModelListing } from '#ports/model-files.js';
import { diskFailure } from './disk-failure.js';
import { resolveInside, type GuardedRoot } from './guarded-file.js';

/** Models of one repository. */
const modelsMax = 10_000;
/** Files and folders of one model. */
const entriesMax = 10_000;
const depthMax = 8;
const versionPattern = /^[1-9][0-9]{0,14}$/;

/** A repository's folder, its own links resolved. @throws UNAVAILABLE or NOT_FOUND. */
export async function openRoot(path: string, allowHardLinks: boolean): Promise<GuardedRoot> {
  try {
    const realPath = await realpath(path);
    if ((await stat(realPath)).isDirectory()) return { realPath, allowHardLinks };
  } catch (thrown) {
    throw diskFailure(path, thrown);
  }
  throw intarsiaError('NOT_FOUND', `the repository ${path} is not a folder`, { path });
}

/** Every model of one repository. */
export async function surveyRoot(root: GuardedRoot, notes: string[]): Promise<readonly ModelListing[]> {
  const models: ModelListing[] = [];
  for (const entry of await entriesOf(root, '.')) {
    if (!entry.couldBeFolder) continue;
    if (models.length >= modelsMax) {
      notes.push(`${root.realPath} has more than ${modelsMax} models; the rest is not looked at`);
      break;
    }
    let name: ModelName;
    try {
      name = modelName(entry.name);
    } catch (thrown) {
      notes.push(`${root.realPath}: ${messageOf(thrown)}`);
      continue;
    }
    const listing = await surveyModel(root, name);
    if (listing !== undefined) models.push(listing);
  }
  return models;
}

/** One model of a repository; undefined when there is no such folder. */
export async function surveyModel(root: GuardedRoot, name: ModelName): Promise<ModelListing | undefined> {
  const hash = createHash('sha256');
  try {
    const real = await resolveInside(root, name);
    if (!(await stat(real)).isDirectory()) return undefined;
    const versions = await versionsOf(root, name);
    const counter = { entries: 0 };
    await fingerprint(root, name, hash, counter, 0);
    const problem =
      versions.length === 0 ? `model ${JSON.stringify(name)} has no version folder such as ${name}/1` : '';
    return { name, versions, fingerprint: hash.digest('hex'), problem };
  } catch (thrown) {
    const failure = diskFailure(`${root.realPath}/${name}`, thrown);
    if (failure.code === 'NOT_FOUND') return undefined;
    return { name, versions: [], fingerprint: `problem: ${failure.message}`, problem: failure.message };
  }
}

/** Numbers of the version folders of a model, ascending. */
export async function versionsOf(root: GuardedRoot, name: string): Promise<readonly ModelVersion[]> {
  const versions: ModelVersion[] = [];
  for (const entry of await entriesOf(root, name)) {
    if (entry.couldBeFolder && versionPattern.test(entry.name)) versions.push(entry.name as ModelVersion);
  }
  return versions.sort((a, b) => Number(a) - Number(b));
}

/** Names of the folders in a folder; none when it does not exist. */
export async function foldersIn(root: GuardedRoot, path: string): Promise<readonly string[]> {
  try {
    return (await entriesOf(root, path)).filter(({ couldBeFolder }) => couldBeFolder).map(({ name }) => name);
  } catch (thrown) {
    const failure = diskFailure(`${root.realPath}/${path}`, thrown);
    if (failure.code === 'NOT_FOUND') return [];
    throw failure;
  }
}

interface Entry {
  readonly name: string;
  /** A folder, or a link that may lead to one. */
  readonly couldBeFolder: boolean;
}

async function entriesOf(root: GuardedRoot, path: string): Promise<readonly Entry[]> {
  const real = await resolveInside(root, path);
  try {
    const entries = await readdir(real, { withFileTypes: true });
    return entries
      .filter(({ name }) => !name.startsWith('.'))
      .map((entry) => ({ name: entry.name, couldBeFolder: entry.isDirectory() || entry.isSymbolicLink() }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (thrown) {
    throw diskFailure(real, thrown);
  }
}

async function fingerprint(
  root: GuardedRoot,
  path: string,
  hash: ReturnType<typeof createHash>,
  counter: { entries: number },
  depth: number,
): Promise<void> {
  for (const { name } of await entriesOf(root, path)) {
    counter.entries += 1;
    if (counter.entries > entriesMax || depth >= depthMax) {
      throw intarsiaError(
        'MODEL_INVALID',
        `${root.realPath}/${path} has more than ${entriesMax} files, or folders deeper than ${depthMax}`,
        { path, entriesMax, depthMax },
      );
    }
    const inner = `${path}/${name}`;
    let real: string;
    try {
      real = await resolveInside(root, inner);
    } catch (thrown) {
      // A link that leads nowhere or outside is refused when it is read; here it only must look different once mended.
      hash.update(`${inner}: ${messageOf(thrown)}\n`);
      continue;
    }
    const stats = await stat(real).catch(() => undefined);
    if (stats === undefined) continue;
    if (stats.isDirectory()) await fingerprint(root, inner, hash, counter, depth + 1);
    else hash.update(`${inner} ${real} ${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}\n`);
  }
}
