/** Dense layers that take some ten milliseconds on one core and hardly more in a batch: work for unlike devices to share. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { sloClasses } from '#core/scheduling/slo-class.js';
import { Network } from './network.js';

export const denseModel = 'dense';
export const denseWidth = 1024;
const layers = 40;

/** Writes it as a model repository with batches of up to so many. */
export async function writeDenseModel(repository: string, itemsMax: number): Promise<void> {
  const network = new Network({ name: denseModel, seed: 11, countOnly: false });
  const { graph } = network;
  let value = graph.input('values', 'FP32', ['batch', denseWidth]);
  for (let layer = 0; layer < layers; layer += 1) {
    const sums = graph.node('Gemm', [value, network.weights([denseWidth, denseWidth], Math.sqrt(6 / denseWidth))]);
    value = graph.node('Relu', [sums], layer === layers - 1 ? { output: 'result' } : {});
  }
  graph.output(value, 'FP32', ['batch', denseWidth]);
  const folder = join(repository, denseModel, '1');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'model.onnx'), encodeModelBytes(graph.model({ opset: 17 })));
  // A level a class, as simulated fleets have them.
  const batching = `dynamic_batching { priority_levels: ${sloClasses.length} default_priority_level: ${sloClasses.length} }`;
  await writeFile(join(repository, denseModel, 'config.pbtxt'), `max_batch_size: ${itemsMax}\n${batching}\n`);
}
