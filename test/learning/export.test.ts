import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { loadTensorflow } from '#adapters/tfjs/tensorflow.js';
import { packageRoot } from '#compose/package-root.js';
import { inputsOf } from '#core/scheduling/network.js';
import { encodePolicy, readPolicy, type PolicyArtifact } from '#core/scheduling/policy-file.js';
import { TrainableNetwork } from '#policies/learning/trainable-network.js';
import { seededRandom } from '#sim/random.js';
import { anyNetwork } from '../scheduling/networks.js';

const decisions = 10_000;
const candidates = 4;

const shipped = (file: string): PolicyArtifact =>
  readPolicy(readFileSync(join(packageRoot, 'policies/checkpoints', file)));

/** A network by chance, and those that training ended with. */
const policies: readonly (readonly [name: string, policy: PolicyArtifact])[] = [
  ['a network by chance', { ...shipped('dispatch-4/policy.onnx'), network: anyNetwork([36, 32, 32, 1], 7) }],
  ['dispatch-4', shipped('dispatch-4/policy.onnx')],
  ['batches of dispatch-4', shipped('dispatch-4/batching.onnx')],
];

describe('a network that leaves training as an ONNX file', () => {
  it('scores in ONNX Runtime as in TensorFlow.js: within 1e-5 and with the same best row, on 10,000 decisions', async () => {
    const { tf } = await loadTensorflow('wasm');
    for (const [name, policy] of policies) {
      const { network, ranges } = policy;
      const inputs = inputsOf(network);
      const random = seededRandom(3);
      const count = decisions * candidates;
      const rows = Float32Array.from({ length: count * inputs }, (_, at) => {
        const low = ranges.least[at % inputs] ?? 0;
        return low + random.next() * ((ranges.greatest[at % inputs] ?? 0) - low);
      });
      const trained = new TrainableNetwork(tf, network.layers);
      const ours = trained.values(rows);
      trained.dispose();
      const session = await InferenceSession.create(encodePolicy(policy), { intraOpNumThreads: 1 });
      const { scores } = await session.run({ rows: new Tensor('float32', rows, [count, inputs]) });
      await session.release();
      const theirs = scores?.data as Float32Array;
      expect(theirs, name).toHaveLength(count);
      let largest = 0;
      let otherwise = 0;
      for (let from = 0; from < count; from += candidates) {
        let scale = 1;
        let best = from;
        let expected = from;
        for (let at = from; at < from + candidates; at += 1) {
          scale = Math.max(scale, Math.abs(ours[at] as number));
          if ((theirs[at] as number) > (theirs[best] as number)) best = at;
          if ((ours[at] as number) > (ours[expected] as number)) expected = at;
        }
        // Rows that are nearer to each other than what may differ are alike: either is the best.
        if ((ours[expected] as number) - (ours[best] as number) >= 1e-5 * scale) otherwise += 1;
        for (let at = from; at < from + candidates; at += 1) {
          // Scores are of 32 bits: what is above 1 is held against its size.
          largest = Math.max(largest, Math.abs((theirs[at] as number) - (ours[at] as number)) / scale);
        }
      }
      expect(largest, name).toBeLessThan(1e-5);
      expect(otherwise, name).toBe(0);
    }
  }, 120_000);
});
