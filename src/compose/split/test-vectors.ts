/** Test vectors as ONNX lays them out: folders `test_data_set_N` with `input_0.pb`, `input_1.pb` … in the order of inputs. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { intarsiaError, messageOf } from '#core/errors.js';
import { readTensorProto, tensorOfOnnx } from '#core/onnx/tensor-proto.js';
import type { Tensor } from '#core/tensor.js';

/** Sets read at most; further ones are left out. */
const setsMax = 16;
/** Bytes of one file. */
const fileBytesMax = 2 ** 30;

export interface VectorSet {
  /** Name of its folder. */
  readonly name: string;
  readonly inputs: readonly Tensor[];
}

/**
 * The sets of a folder: its `test_data_set_N`, or the folder itself where it holds `input_0.pb`. Empty when there are none.
 *
 * @param inputNames Inputs of the model that have no default, in file order.
 * @throws NOT_FOUND (no such folder, a file is missing), INVALID_ARGUMENT (a file is no tensor).
 */
export async function readVectorSets(folder: string, inputNames: readonly string[]): Promise<readonly VectorSet[]> {
  let entries: string[];
  try {
    entries = await readdir(folder);
  } catch (error) {
    throw intarsiaError('NOT_FOUND', `folder of test vectors ${folder} cannot be read: ${messageOf(error)}`, {}, error);
  }
  const names = entries.includes('input_0.pb')
    ? ['.']
    : entries
        .filter((name) => /^test_data_set_\d+$/.test(name))
        .sort((a, b) => Number(a.slice(14)) - Number(b.slice(14)))
        .slice(0, setsMax);
  const sets: VectorSet[] = [];
  for (const name of names) {
    const inputs: Tensor[] = [];
    for (const [index, input] of inputNames.entries()) {
      inputs.push(await readVector(join(folder, name, `input_${index}.pb`), input));
    }
    sets.push({ name, inputs });
  }
  return sets;
}

async function readVector(path: string, name: string): Promise<Tensor> {
  let bytes: Uint8Array;
  try {
    const { size } = await stat(path);
    if (size > fileBytesMax) {
      throw intarsiaError('INVALID_ARGUMENT', `test vector ${path} has ${size} bytes; ${fileBytesMax} are read`);
    }
    bytes = await readFile(path);
  } catch (error) {
    throw intarsiaError('NOT_FOUND', `test vector of input '${name}' cannot be read: ${messageOf(error)}`, {}, error);
  }
  return { ...tensorOfOnnx(readTensorProto(bytes)), name };
}
