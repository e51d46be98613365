import { describe, expect, it } from 'vitest';
import type { SplitReport, SplitRequest } from '#cli/split-report.js';
import { pretendProgram, run } from './pretend-program.js';

const equal: SplitReport = {
  model: 'model.onnx',
  stages: 2,
  cutsTried: 3,
  bitExact: 2,
  close: 1,
  wrong: 0,
  impossible: [{ cut: [4], reason: '"list" is a sequence' }],
  maxAbsoluteError: 1e-6,
  maxRelativeError: 2e-5,
  verdict: 'equal',
  reason: '',
  nodes: 5,
  devices: ['cpu', 'wasm'],
  optimization: 'all',
  referenceOptimization: 'disabled',
  vectors: ['test_data_set_0'],
  toleranceRelative: 1e-3,
  toleranceSteps: {},
  problems: [],
  notes: ['cut [2]: stage 1 on cpu: optimisation level all failed'],
};

function answering(report: SplitReport): {
  readonly asked: SplitRequest[];
  readonly program: ReturnType<typeof pretendProgram>['program'];
} {
  const asked: SplitRequest[] = [];
  const { program } = pretendProgram({
    verifySplit: (request, progress) => {
      asked.push(request);
      progress(0.5, 'half');
      return Promise.resolve(report);
    },
  });
  return { asked, program };
}

describe('intarsia verify', () => {
  it('hands over what was asked, prints a table, and ends with 0 when the pieces are equal to the whole', async () => {
    const { asked, program } = answering(equal);
    const flags = '--stages 3 --devices cpu,wasm,webgpu --cuts all --optimization basic --vectors data --seed 7';
    const { code, out, err } = await run(['verify', 'model.onnx', ...flags.split(' ')], program);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(asked).toEqual([
      {
        model: 'model.onnx',
        stages: 3,
        devices: ['cpu', 'wasm', 'webgpu'],
        cuts: 'all',
        optimization: 'basic',
        vectors: 'data',
        seed: 7,
      },
    ]);
    expect(out).toContain('cut [4]: "list" is a sequence');
    expect(out).toContain('optimisation level all failed');
    expect(out).toContain('equal within tolerance (0.001 relative)');
  });

  it('--json prints the report and nothing else', async () => {
    const { asked, program } = answering(equal);
    const { code, out } = await run(['verify', 'model.onnx', '--json'], program);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toEqual(equal);
    expect(asked[0]).toMatchObject({ stages: 2, devices: ['cpu'], cuts: 20, optimization: 'all', vectors: '' });
  });

  it('ends with 1 when they differ or cannot be compared, and with 2 when there is no legal cut', async () => {
    const ends = async (change: Partial<SplitReport>): Promise<readonly [number, string]> => {
      const { code, out } = await run(['verify', 'model.onnx'], answering({ ...equal, ...change }).program);
      return [code, out.trimEnd().split('\n').at(-1) ?? ''];
    };
    const problems = [{ cut: [1], problem: "cut [1]: output 'y' differs" }];
    expect(await ends({ verdict: 'different', wrong: 1, reason: 'output differs', problems })).toEqual([
      1,
      'not equal: output differs',
    ]);
    expect(await ends({ verdict: 'not-repeatable', reason: 'it draws' })).toEqual([1, 'cannot be compared: it draws']);
    expect(await ends({ verdict: 'no-legal-cut', reason: 'two nodes' })).toEqual([2, 'no legal cut: two nodes']);
  });

  it('refuses flags that make no sense, and says what does', async () => {
    for (const [flag, value, says] of [
      ['--devices', 'cpu,abacus', "'abacus' is not one of cpu, wasm, webgpu"],
      ['--devices', 'remote', "'remote' is not one of"],
      ['--stages', '0', 'It must be 1 to 64.'],
      ['--cuts', '0', 'It must be all, annotated or at least 1.'],
      ['--cuts', 'many', 'It must be a whole number.'],
      ['--optimization', 'extreme', 'Allowed choices are all, basic, disabled'],
    ] as const) {
      const { code, err } = await run(['verify', 'model.onnx', flag, value]);
      expect(code).toBe(2);
      expect(err).toContain(says);
    }
  });
});
