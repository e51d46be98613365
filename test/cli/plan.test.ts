import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { PlanNumber, PlanReport, PlanRequest, PlanRow, PlanStage } from '#cli/plan-report.js';
import { pretendProgram, run } from './pretend-program.js';

const number = (value: number, source: PlanNumber['source'] = 'measured'): PlanNumber => ({
  value,
  plusMinus: 0.03,
  source,
});

const stage: PlanStage = {
  devices: ['cpu:0'],
  emulated: false,
  threads: 1,
  from: 0,
  to: 4,
  ms: number(10),
  memoryBytes: 1024,
  sendsBytes: 2048,
  sendsMs: number(1),
  share: 1,
};

const split: PlanRow = {
  strategy: 'pipeline',
  batch: 1,
  runsPerRequest: 1,
  cuts: [4],
  stages: [
    stage,
    {
      ...stage,
      devices: ['emulated:nvidia-l4'],
      emulated: true,
      from: 4,
      to: 9,
      sendsBytes: 0,
      ms: number(5, 'estimated'),
    },
  ],
  latencyMs: number(16, 'estimated'),
  requestsPerSecond: number(100),
  usdPer1000: number(0.02),
  joulesPerRequest: number(0.5, 'estimated'),
};
const whole: PlanRow = {
  ...split,
  strategy: 'whole',
  cuts: [],
  stages: [{ ...stage, to: 9, sendsBytes: 0 }],
  latencyMs: number(19),
};

const report: PlanReport = {
  format: 1,
  model: 'model.onnx',
  digest: 'abc',
  nodes: 9,
  legalCuts: 8,
  impossibleCuts: 0,
  impossibleReason: '',
  goal: 'throughput',
  items: 1,
  verdict: 'plan',
  reason: '',
  devices: [
    {
      ...{ id: 'emulated:nvidia-l4', name: 'NVIDIA L4 (emulated)', provider: 'none', emulated: true, threads: 0 },
      ...{ memoryBytes: 24 * 2 ** 30, usdPerHour: 0.8, busyWatts: 72, measurements: 0, refusal: '' },
    },
  ],
  choice: split,
  frontier: [split],
  wholes: [whole],
  lowerBound: 10,
  gap: 0,
  isExact: true,
  explanation: ['It was the best.'],
  notes: ['nothing to note'],
  measuredSeconds: 1,
  picture: '<svg/>',
};

function answering(answer: PlanReport): {
  readonly asked: PlanRequest[];
  readonly program: ReturnType<typeof pretendProgram>['program'];
} {
  const asked: PlanRequest[] = [];
  const { program } = pretendProgram({
    planModel: (request) => {
      asked.push(request);
      return Promise.resolve(answer);
    },
  });
  return { asked, program };
}

describe('intarsia plan', () => {
  it('prints devices, frontier, the whole model on each device, explanation and choice, with what is estimated marked', async () => {
    const { asked, program } = answering(report);
    const { code, out, err } = await run(['plan', 'model.onnx', '--explain'], program);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toContain('emulated:nvidia-l4 (emulated)');
    expect(out).toMatch(/> +nodes 0-3: cpu:0, sends 2 KiB +1 +~16 ms ±3% +100 ±3% +1 KiB +0\.02 +~0\.5\n/);
    expect(out).toMatch(/nodes 4-8: emulated:nvidia-l4/);
    expect(out).toMatch(/whole on cpu:0 +1 +19 ms ±3%/);
    expect(out).toContain('It was the best.');
    expect(out).toContain('note: nothing to note');
    expect(out).toContain('choice: split in 2 at 4: cpu:0 → emulated:nvidia-l4; ~16 ms ±3%, 100 ±3% requests/s');
    expect(asked[0]).toMatchObject({
      devices: [],
      goal: 'throughput',
      items: 1,
      strategy: 'auto',
      measureSeconds: 30,
      picture: false,
    });
  });

  it('hands over what was asked', async () => {
    const { asked, program } = answering(report);
    const flags =
      '--devices cpu,wasm,emulated:nvidia-l4*2 --goal latency --slo-ms 12.5 --max-stages 3 --batch 8 --strategy pipeline --providers cpu,wasm --memory cpu:0=64MiB,wasm:0=1.5GiB --no-measure --rows 4 --vectors data --profiles p.yaml';
    const { code } = await run(['plan', 'model.onnx', ...flags.split(' ')], program);
    expect(code).toBe(0);
    expect(asked).toEqual([
      {
        ...{ model: 'model.onnx', devices: ['cpu', 'wasm', 'emulated:nvidia-l4*2'], goal: 'latency', sloMs: 12.5 },
        ...{
          stagesMax: 3,
          items: 8,
          strategy: 'pipeline',
          providers: ['cpu', 'wasm'],
          measureSeconds: 0,
          frontierMax: 4,
        },
        ...{ vectors: 'data', profilesPath: 'p.yaml', picture: false },
        memoryBytes: new Map([
          ['cpu:0', 64 * 2 ** 20],
          ['wasm:0', 1.5 * 2 ** 30],
        ]),
      },
    ]);
  });

  it('--json prints the report without the picture and nothing else; --svg writes the picture', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'intarsia-plan-cli-'));
    try {
      const path = join(folder, 'plan.svg');
      const { asked, program } = answering(report);
      const { code, out } = await run(['plan', 'model.onnx', '--json', '--svg', path], program);
      expect(code).toBe(0);
      const { picture, ...rest } = report;
      expect(JSON.parse(out)).toEqual(rest);
      expect(readFileSync(path, 'utf8')).toBe(picture);
      expect(asked[0]?.picture).toBe(true);
      const bad = await run(['plan', 'model.onnx', '--svg', join(folder, 'no', 'plan.svg')], program);
      expect(bad).toMatchObject({ code: 1 });
      expect(bad.err).toContain('cannot be written');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('plans for a grid with its connection and limits, and writes the plan as a file', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'intarsia-plan-cli-'));
    try {
      const path = join(folder, 'plan.json');
      const { asked, program } = answering(report);
      const flags = `--grid --endpoint h:1 --tiers core,edge --zones a --hosts host-1 --out ${path}`;
      const { code, out } = await run(['plan', 'model.onnx', ...flags.split(' ')], program);
      expect(code).toBe(0);
      expect(asked[0]).toMatchObject({ grid: { endpoints: ['h:1'] }, tiers: ['core', 'edge'], zones: ['a'] });
      expect(asked[0]?.hosts).toEqual(['host-1']);
      const { picture: _, ...rest } = report;
      expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(rest);
      expect(out).toContain(`intarsia deploy -f ${path} makes it so`);
    } finally {
      rmSync(folder, { recursive: true });
    }
    const alone = await run(['plan', 'model.onnx', '--tiers', 'core']);
    expect(alone.err).toContain('--tiers core means hosts of a grid: it goes with --grid');
  });

  it('ends with 2 and the reason when there is no plan', async () => {
    const { choice, ...rest } = report;
    expect(choice).toBeDefined();
    const { program } = answering({
      ...rest,
      verdict: 'no-plan',
      reason: 'nothing fits: 3 MiB are missing',
      frontier: [],
      wholes: [],
    });
    const { code, out } = await run(['plan', 'model.onnx'], program);
    expect(code).toBe(2);
    expect(out.trimEnd().split('\n').at(-1)).toBe('no plan: nothing fits: 3 MiB are missing');
  });

  it('refuses flags that make no sense, and says what does', async () => {
    for (const [flag, value, says] of [
      ['--goal', 'beauty', 'Allowed choices are latency, throughput, cost, energy'],
      ['--slo-ms', '0', 'It must be a number above 0.'],
      ['--max-stages', '65', 'It must be 1 to 64.'],
      ['--batch', '0', 'It must be 1 to 4096.'],
      ['--memory', 'cpu:0', "'cpu:0' is not like cpu:0=64MiB."],
      ['--providers', 'abacus', "'abacus' is not one of cpu"],
      ['--tiers', 'moon', "'moon' is not one of edge, regional, core"],
      ['--strategy', 'luck', 'Allowed choices are auto, pipeline, data'],
    ] as const) {
      const { code, err } = await run(['plan', 'model.onnx', flag, value]);
      expect(code).toBe(2);
      expect(err).toContain(says);
    }
  });
});
