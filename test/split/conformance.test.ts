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

/** All cuts with the optimiser take a minute; with the tests every seventh. */
const stride = process.env['INTARSIA_SPLIT_CUTS'] === undefined ? 7 : 1;

const cases =
  missing === ''
    ? listSharedModels().filter(
        (entry): entry is VectorCase => entry.kind === 'vector' && /^onnx-(node|simple|pytorch)/.test(entry.name),
      )
    : [];

interface Tally {
  models: number;
  cuts: number;
  bitExact: number;
  close: number;
  impossible: number;
  readonly wrong: string[];
}

/** Cuts every case in two at every `step`-th place and judges each answer by the whole model without optimisation. */
async function tallyCuts(isOptimized: boolean, step: number): Promise<Tally> {
  const tally: Tally = { models: 0, cuts: 0, bitExact: 0, close: 0, impossible: 0, wrong: [] };
  for (const { name, modelPath, inputs } of cases) {
    const bytes = readFileSync(modelPath);
    const lowest = await lowestLevel(bytes);
    const { cutter, types } = await prepare(bytes, lowest);
    const { length } = cutter.graph.nodes;
    if (length < 2) continue;
    const whole = await loadBytes(bytes, lowest);
    const expected = await whole.run(inputs);
    const isRepeatable = compareOutputs(await whole.run(inputs), expected, exact).bitExact;
    await whole.release();
    // Those that draw random numbers cannot be compared: verify.test.ts.
    if (!isRepeatable) continue;
    tally.models += 1;
    const tolerance = toleranceOf(cutter.graph, types, { isUnoptimized: !isOptimized, isReferenceEngine: true });
    for (let position = 1; position < length; position += step) {
      tally.cuts += 1;
      const plan = cutter.cut([position]);
      if (cutter.problems(plan, types).length > 0) {
        tally.impossible += 1;
        continue;
      }
      try {
        const shards = await loadPlan(plan, types, isOptimized ? 'all' : lowest);
        const { bitExact, close, problem } = compareOutputs(await shards.run(inputs), expected, tolerance);
        await shards.release();
        if (bitExact) tally.bitExact += 1;
        else if (close) tally.close += 1;
        else tally.wrong.push(`${name} cut at ${position}: ${problem}`);
        // Without the optimiser only half floats may differ.
        if (!isOptimized && !bitExact) expect(tolerance.relative, name).toBe(1e-2);
      } catch (error) {
        tally.wrong.push(`${name} cut at ${position}: ${String(error)}`);
      }
    }
  }
  return tally;
}

describe.skipIf(missing !== '')(`ONNX's tests in pieces${missing}`, () => {
  it(
    'every multi-node case, every cut: bit-exact without optimisation, nothing wrong',
    { timeout: 600_000 },
    async () => {
      const { wrong, ...tally } = await tallyCuts(false, 1);
      expect(wrong).toEqual([]);
      expect(tally).toEqual({ models: 184, cuts: 4_828, bitExact: 4_743, close: 82, impossible: 3 });
    },
  );

  it('with all optimisations every answer is within tolerance', { timeout: 600_000 }, async () => {
    const { wrong, ...tally } = await tallyCuts(true, stride);
    expect(wrong).toEqual([]);
    expect(tally.bitExact + tally.close + tally.impossible).toBe(tally.cuts);
    expect(tally.models).toBe(184);
  });
});
