/**
 * The folder of a training run. What must survive a kill is written beside its place, flushed, then renamed: a file there is
 * always a whole one, of this step or of the one before.
 *
 *     run.json          what was asked for, with digests of all data: a resumed run must find the same
 *     checkpoint.json   everything the trainer knows between two steps
 *     curves.json, curves.svg, curves.html
 *     policy.onnx       the best network so far
 *     manifest.json     what the policy was made of and by; no times of day, so that the same run gives the same bytes
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { open, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';

export const runFiles = {
  run: 'run.json',
  checkpoint: 'checkpoint.json',
  curves: 'curves.json',
  picture: 'curves.svg',
  page: 'curves.html',
  policy: 'policy.onnx',
  batchPolicy: 'batching.onnx',
  manifest: 'manifest.json',
} as const;
export type RunFile = (typeof runFiles)[keyof typeof runFiles];

export class RunFolder {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** A folder for a new run. @throws ALREADY_EXISTS when one is there that holds something. */
  static async create(path: string): Promise<RunFolder> {
    mkdirSync(path, { recursive: true });
    const held = await readdir(path);
    if (held.length > 0) {
      throw intarsiaError('ALREADY_EXISTS', `${path} holds something already; continue it with --resume ${path}`, {
        path,
      });
    }
    return new RunFolder(path);
  }

  /** The folder of a run that stopped. @throws NOT_FOUND when there is no run. */
  static existing(path: string): RunFolder {
    const folder = new RunFolder(path);
    folder.read(runFiles.run);
    return folder;
  }

  at(file: RunFile): string {
    return join(this.path, file);
  }

  /** @throws NOT_FOUND. */
  read(file: RunFile): string {
    try {
      return readFileSync(this.at(file), 'utf8');
    } catch (error) {
      throw intarsiaError('NOT_FOUND', `there is no training run in ${this.path}: ${messageOf(error)}`, {
        path: this.at(file),
      });
    }
  }

  /** Whole or not at all. @throws STORAGE_FULL. */
  async write(file: RunFile, content: string | Uint8Array): Promise<void> {
    const temporary = `${this.at(file)}.new`;
    try {
      const handle = await open(temporary, 'w');
      try {
        await handle.writeFile(content);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, this.at(file));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
      throw intarsiaError('STORAGE_FULL', `${this.at(file)} cannot be written: the disk is full`, {}, error);
    }
  }
}
