import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { completeModelConfig } from '#core/model-config-completion.js';
import { modelConfigFromPbtxt } from '#core/model-config-text.js';
import { readModelFacts } from '#core/onnx/model-facts.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { benchModelKinds, benchModels, configOf } from '#bench/models/ensure-model.js';

const repository = join(import.meta.dirname, '../../examples/models');

describe('configurations of our own models', () => {
  it('every example model fits its configuration, which needs no remark', async () => {
    const names = (await readdir(repository)).sort();
    expect(names).toEqual(['accumulator', 'digits', 'identity', 'simple', 'words']);
    for (const name of names) {
      const draft = modelConfigFromPbtxt(
        await readFile(join(repository, name, 'config.pbtxt'), 'utf8'),
        `${name}/config.pbtxt`,
      );
      const facts = readModelFacts(await readFile(join(repository, name, '1/model.onnx')));
      const config = completeModelConfig(draft, facts, name);
      expect(draft.notes, name).toEqual([]);
      expect(config.maxBatchSize, name).toBeGreaterThan(0);
    }
  });

  it('every benchmark model fits its configuration', () => {
    for (const kind of benchModelKinds) {
      // Without weights: names, types and shapes are all that is looked at.
      const { nodes, inputs, outputs } = benchModels[kind].build(true).graph.graph();
      const graph = { name: kind, nodes, inputs, outputs, initializers: [] };
      const draft = modelConfigFromPbtxt(configOf(kind, graph), `${kind}/config.pbtxt`);
      const weightless = { ...graph, nodes: [] };
      const config = completeModelConfig(
        draft,
        readModelFacts(encodeModelBytes({ graph: weightless, opset: 17 })),
        kind,
      );
      expect([config.name, config.maxBatchSize]).toEqual([kind, benchModels[kind].maxBatchSize]);
      expect(config.dynamicBatching).toBeDefined();
    }
  });
});
