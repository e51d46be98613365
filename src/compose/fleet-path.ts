/** Finds the fleet that a name means: a file, or one that comes with the product. */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { packageRoot } from './package-root.js';

/** Fleets that policies are trained on, and those that are kept for judging: nothing is trained on them. */
const trainingFolder = 'policies/fleets';
const judgingFolder = 'policies/fleets/judging';

/** @throws NOT_FOUND naming those that there are. */
export async function fleetPath(name: string): Promise<string> {
  if (existsSync(name)) return name;
  const folders = [trainingFolder, judgingFolder].map((folder) => join(packageRoot, folder));
  const own = folders.map((folder) => join(folder, `${name}.yaml`)).find((path) => existsSync(path));
  if (/^[A-Za-z0-9-]+$/.test(name) && own !== undefined) return own;
  const files = (await Promise.all(folders.map((folder) => readdir(folder)))).flat();
  const names = files.filter((file) => file.endsWith('.yaml')).map((file) => basename(file, '.yaml'));
  throw intarsiaError(
    'NOT_FOUND',
    `there is no fleet file ${name}, and no fleet of that name; there are ${names.join(', ')}`,
  );
}
