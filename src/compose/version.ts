/** The version of the product, from its package.json: one directory up from the sources, two from what is built. */
import { readFileSync } from 'node:fs';
import { packageRoot } from './package-root.js';
import { join } from 'node:path';

const manifest = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { readonly version: string };

export const version = manifest.version;
