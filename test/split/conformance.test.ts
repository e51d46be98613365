/** ONNX's own tests, cut after every node: the shards together answer what the whole model answers, bit by bit. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { compareOutputs } from '#core/split/equivalence.js';
import { toleranceOf } from '#core/split/tolerance.js';
import type { VectorCase } from '../conformance/cases.js';
import { listSharedModels, sharedModelsMissing } from '../conformance/shared-models.js';
import { loadBytes, loadPlan, lowestLevel, prepare } from './direct-shards.js';

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
const exact = { relative: 0, steps: new Map<string, number>() };

describe.skipIf(missing !== '')(`ONNX's tests in pieces${missing}`, () => {
  it(
    'every multi-node case, every cut: bit-exact without optimisation, nothing wrong',
    { timeout: 300_000 },
    async () => {
      const cases = listSharedModels().filter(
        (entry): entry is VectorCase => entry.kind === 'vector' && /^onnx-(node|simple|pytorch)/.test(entry.name),
      );
      const tally = { models: 0, cuts: 0, bitExact: 0, half: 0, impossible: 0 };
      const wrong: string[] = [];
      for (const { name, modelPath, inputs } of cases) {
        const bytes = readFileSync(modelPath);
        const level = await lowestLevel(bytes);
        const { cutter, types } = await prepare(bytes, level);
        const { length } = cutter.graph.nodes;
        if (length < 2) continue;
        tally.models += 1;
        const whole = await loadBytes(bytes, level);
        const expected = await whole.run(inputs);
        const again = await whole.run(inputs);
        await whole.release();
        // Random numbers: the next test.
        if (!compareOutputs(again, expected, exact).bitExact) continue;
        const tolerance = toleranceOf(cutter.graph, types, { isUnoptimized: true, isReferenceEngine: true });
        for (let position = 1; position < length; position += 1) {
          tally.cuts += 1;
          const plan = cutter.cut([position]);
          const problems = cutter.problems(plan, types);
          if (problems.length > 0) {
            tally.impossible += 1;
            continue;
          }
          try {
            const shards = await loadPlan(plan, types, level);
            const { bitExact, close, problem } = compareOutputs(await shards.run(inputs), expected, tolerance);
            await shards.release();
            if (bitExact) tally.bitExact += 1;
            else if (close && tolerance.relative > 0) tally.half += 1;
            else wrong.push(`${name} cut at ${position}: ${problem}`);
          } catch (error) {
            wrong.push(`${name} cut at ${position}: ${String(error)}`);
          }
        }
      }
      expect(wrong).toEqual([]);
      expect(tally.bitExact + tally.half + tally.impossible).toBe(tally.cuts);
      expect(tally.cuts).toBeGreaterThan(300);
    },
  );
});
