/** Name and version of the CPU's engine as its executors tell them, without loading it: variants may be for one only. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

/** Such as `onnxruntime-node 1.30.0`; empty where the package does not say. */
export function nativeEngine(): string {
  const name = 'onnxruntime-node';
  const { version } = JSON.parse(
    readFileSync(createRequire(import.meta.url).resolve(`${name}/package.json`), 'utf8'),
  ) as { readonly version?: string };
  return version === undefined ? '' : `${name} ${version}`;
}
