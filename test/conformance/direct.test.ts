import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compareOutputs, runCase, type ConformanceCase, type VectorCase } from './cases.js';
import { loadDirect } from './direct-runtime.js';
import { prepareRepository } from './repository.js';
import { listSharedModels, sharedModelsMissing } from './shared-models.js';

const missing = sharedModelsMissing === '' ? '' : ` (skipped: ${sharedModelsMissing})`;
const all = sharedModelsMissing === '' ? listSharedModels() : [];
const cases = all.filter((entry): entry is ConformanceCase => entry.kind !== 'impossible');
const isOnnxTest = ({ name }: ConformanceCase): boolean => name.startsWith('onnx-') && !name.startsWith('onnx-light-');

async function verdictOf(testCase: ConformanceCase): Promise<string> {
  const model = await loadDirect(testCase.modelPath);
  try {
    const verdict = await runCase(testCase, (_, inputs) => model.run(inputs));
    return verdict.pass ? '' : `${testCase.name}: ${verdict.problem}`;
  } finally {
    await model.release();
  }
}

describe.skipIf(missing !== '')(`shared models run directly${missing}`, () => {
  it('real models, streams and generated text come out as stored', { timeout: 300_000 }, async () => {
    const problems: string[] = [];
    for (const testCase of cases) if (!isOnnxTest(testCase)) problems.push(await verdictOf(testCase));
    expect(problems.length).toBeGreaterThan(20);
    expect(problems.filter((problem) => problem !== '')).toEqual([]);
  });

  it('every test of ONNX comes out as stored', { timeout: 300_000 }, async () => {
    const problems: string[] = [];
    for (const testCase of cases) if (isOnnxTest(testCase)) problems.push(await verdictOf(testCase));
    expect(problems.length).toBe(303);
    expect(problems.filter((problem) => problem !== '')).toEqual([]);
  });

  it('a changed answer is noticed in every vector', () => {
    const vectors = cases.filter((entry): entry is VectorCase => entry.kind === 'vector');
    for (const testCase of vectors) {
      expect(compareOutputs(testCase, testCase.expected).pass, testCase.name).toBe(true);
      const [first, ...others] = testCase.expected;
      expect(compareOutputs(testCase, others).problem).toBe(`output '${first!.name}' is missing`);
      const wrongShape = { ...first!, shape: [...first!.shape, 7] };
      expect(compareOutputs(testCase, [wrongShape, ...others]).pass, testCase.name).toBe(false);
      if (first!.data.byteLength === 0) continue;
      // The sign bit and the highest bit of the exponent of the last element.
      const data = new Uint8Array(first!.data);
      data[data.length - 1] = data[data.length - 1]! ^ 0xc0;
      expect(compareOutputs(testCase, [{ ...first!, data }, ...others]).pass, testCase.name).toBe(false);
    }
  });

  it('cases become a model repository without configuration', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'intarsia-conformance-'));
    try {
      const names = await prepareRepository(cases.filter(({ heavy }) => !heavy).slice(0, 12), folder);
      expect((await readdir(folder)).sort()).toEqual([...names].sort());
      for (const name of names) expect(await readdir(join(folder, name, '1'))).toEqual(['model.onnx']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
