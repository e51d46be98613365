/** Streams and generated text through three shards: what travels from step to step comes out as it must. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { intarsiaError } from '#core/errors.js';
import type { Cutter } from '#core/split/cut.js';
import { compareOutputs } from '#core/split/equivalence.js';
import { runCase, type GenerationCase, type Infer, type StreamCase } from '../conformance/cases.js';
import { listSharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { loadBytes, loadPlan, prepare } from './direct-shards.js';

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
const cases = sharedModelsMissing === '' ? listSharedModels() : [];
const exact = { relative: 0, steps: new Map<string, number>() };

/** Into three parts of about the same number of nodes, moved on to the next legal place. */
function thirds(cutter: Cutter): readonly number[] {
  const { length } = cutter.graph.nodes;
  return [Math.max(1, Math.floor(length / 3)), Math.max(2, Math.floor((2 * length) / 3))];
}

/** A road through three shards that also compares each answer with the whole model's, bit by bit. */
async function throughShards(
  testCase: StreamCase | GenerationCase,
  work: (infer: Infer) => Promise<void>,
): Promise<{ readonly steps: number; readonly stages: number }> {
  const bytes = readFileSync(testCase.modelPath);
  const { cutter, types } = await prepare(bytes);
  const plan = cutter.cut(thirds(cutter));
  expect(cutter.problems(plan, types)).toEqual([]);
  const whole = await loadBytes(bytes);
  const shards = await loadPlan(plan, types);
  let steps = 0;
  await work(async (_, inputs) => {
    const outputs = await shards.run(inputs);
    const { problem } = compareOutputs(outputs, await whole.run(inputs), exact);
    if (problem !== '') throw intarsiaError('EXECUTION_FAILED', `step ${steps}: ${problem}`);
    steps += 1;
    return outputs;
  });
  await shards.release();
  await whole.release();
  return { steps, stages: plan.shards.length };
}

describe.skipIf(missing !== '')(`state that travels through shards${missing}`, () => {
  it(
    'gtcrn enhances its whole stream through three shards, each frame as the whole model does',
    { timeout: 120_000 },
    async () => {
      const stream = cases.find((entry): entry is StreamCase => entry.name === 'gtcrn-stream');
      const { steps, stages } = await throughShards(stream!, async (infer) => {
        expect((await runCase(stream!, infer)).problem).toBe('');
      });
      expect({ steps, stages }).toEqual({ steps: stream!.steps, stages: 3 });
    },
  );

  it(
    'silero-vad hears its stream through three shards, each chunk as the whole model does',
    { timeout: 120_000 },
    async () => {
      const stream = cases.find((entry): entry is StreamCase => entry.name === 'silero-vad-stream');
      const { steps, stages } = await throughShards(stream!, async (infer) => {
        expect((await runCase(stream!, infer)).problem).toBe('');
      });
      expect({ steps, stages }).toEqual({ steps: stream!.steps, stages: 3 });
    },
  );

  it(
    'stories260K tells its 200 tokens through three shards, with its past and without',
    { timeout: 120_000 },
    async () => {
      for (const name of ['stories260K-with-past', 'stories260K-no-past']) {
        const story = cases.find((entry): entry is GenerationCase => entry.name === name);
        const { stages } = await throughShards(story!, async (infer) => {
          expect((await runCase(story!, infer)).problem).toBe('');
        });
        expect(stages).toBe(3);
      }
      const story = cases.find((entry): entry is GenerationCase => entry.name === 'stories260K-with-past');
      expect(story!.tokens.length).toBeGreaterThanOrEqual(200);
    },
  );
});
