/** A folder for one test file, gone afterwards. */
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** Makes the folder at once and removes it after the tests of the file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'intarsia-e2e-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
