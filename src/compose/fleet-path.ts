/** Finds the fleet that a name means: a file, or one that comes with the product. */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { intarsiaError } from '#core/errors.js';
import { packageRoot } from './package-root.js';

/** @throws NOT_FOUND naming those that there are. */
export async function fleetPath(name: string): Promise<string> {
  if (existsSync(name)) return name;
  const folder = join(packageRoot, 'policies/fleets');
  const own = join(folder, `${name}.yaml`);
  if (/^[A-Za-z0-9-]+$/.test(name) && existsSync(own)) return own;
  const names = (await readdir(folder)).filter((file) => file.endsWith('.yaml')).map((file) => basename(file, '.yaml'));
  throw intarsiaError(
    'NOT_FOUND',
    `there is no fleet file ${name}, and no fleet of that name; there are ${names.join(', ')}`,
  );
}
