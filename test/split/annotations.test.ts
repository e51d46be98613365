import { describe, expect, it } from 'vitest';
import { readModel } from '#core/onnx/model-reader.js';
import { annotatedCut, annotatedStages, annotatePlan } from '#core/split/annotations.js';
import { Cutter } from '#core/split/cut.js';
import { compareOutputs } from '#core/split/equivalence.js';
import { readSplitGraph } from '#core/split/graph.js';
import { join, loadBytes } from './direct-shards.js';
import { randomModel } from './random-graph.js';

function cutterOf(bytes: Uint8Array): Cutter {
  return new Cutter(readSplitGraph(readModel(bytes)));
}

describe('pipeline stages as ONNX writes them', () => {
  it('a plan written into a model is read back as the same cut, and the model answers as before', async () => {
    for (let seed = 0; seed < 8; seed += 1) {
      const { bytes, inputs } = randomModel(seed, 6);
      const cutter = cutterOf(bytes);
      expect(annotatedCut(cutter.graph)).toBeUndefined();
      const middle = Math.ceil(cutter.graph.nodes.length / 2);
      const cut = middle > 1 ? [1, middle] : [1];
      const annotated = join(
        annotatePlan(cutter.cut(cut), { name: 'plan', devices: ['cpu:0', 'wasm:0', 'cpu:1'] }).parts,
      );
      const again = cutterOf(annotated);
      expect(annotatedCut(again.graph)).toEqual(cut);
      expect(annotatedStages(again.graph).size).toBe(cutter.graph.nodes.length);
      expect(again.graph.model.irVersion).toBe(11);
      const [plain, marked] = [await loadBytes(bytes), await loadBytes(annotated)];
      const exact = { relative: 0, steps: new Map<string, number>() };
      expect(compareOutputs(await marked.run(inputs), await plain.run(inputs), exact).problem).toBe('');
      await plain.release();
      await marked.release();
    }
  });

  it('stages that fall along the graph are refused with the node', () => {
    const { bytes } = randomModel(3, 6);
    const cutter = cutterOf(bytes);
    const plan = cutter.cut([1]);
    const [first, second] = plan.shards;
    const swapped = {
      ...plan,
      shards: [
        { ...first!, index: 1 },
        { ...second!, index: 0 },
      ],
    };
    const annotated = cutterOf(join(annotatePlan(swapped, { name: 'plan', devices: ['a', 'b'] }).parts));
    expect(() => annotatedCut(annotated.graph)).toThrow(
      /node 1 \(.*\) is annotated with pipeline stage 0 behind a node of stage 1/,
    );
  });
});
