/** Lays cases out as a model repository in Triton's form: `<model>/1/model.onnx`, no configuration, files copied. */
import { copyFile, mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ConformanceCase } from './cases.js';

/** Copies the models of the cases below `folder`. Returns the names of the models, each once. */
export async function prepareRepository(cases: readonly ConformanceCase[], folder: string): Promise<readonly string[]> {
  const paths = new Map(cases.map(({ model, modelPath }) => [model, modelPath]));
  for (const [model, path] of paths) {
    if (basename(model) !== model) throw new Error(`'${model}' is no name for a folder`);
    const version = join(folder, model, '1');
    await mkdir(version, { recursive: true });
    await copyFile(path, join(version, 'model.onnx'));
  }
  return [...paths.keys()];
}
