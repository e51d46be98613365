// A fingerprint of everything the build reads: paths, sizes and modification times. Cheap enough for every start.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';

export const root = join(import.meta.dirname, '..');
export const stampPath = join(root, 'dist', '.fingerprint');

const sourceFolders = ['src', 'actors', 'policies', 'bench', 'examples'];
const sourceFiles = ['package.json', 'tsconfig.base.json', 'tsconfig.build.json'];

export function sourceFingerprint() {
  const hash = createHash('sha256');
  const visit = (path) => {
    const stat = statSync(path);
    if (stat.isDirectory()) {
      for (const name of readdirSync(path).sort()) visit(join(path, name));
    } else if (path.endsWith('.ts') || path.endsWith('.json')) {
      hash.update(`${relative(root, path)} ${stat.size} ${stat.mtimeMs}\n`);
    }
  };
  for (const folder of sourceFolders) visit(join(root, folder));
  for (const file of sourceFiles) visit(join(root, file));
  return hash.digest('hex');
}

export function isBuildFresh() {
  try {
    return readFileSync(stampPath, 'utf8') === sourceFingerprint();
  } catch {
    return false;
  }
}
