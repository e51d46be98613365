import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '#core/onnx/builder.js';
import { readModel } from '#core/onnx/model-reader.js';
import { encodeModelBytes } from '#core/onnx/writer.js';
import { Cutter } from '#core/split/cut.js';
import { readSplitGraph } from '#core/split/graph.js';
import { explainPlan, type ExplainedReport, type ExplainedRow, type ExplainedStage } from '#core/split/plan-explain.js';
import { drawPlan } from '#core/split/plan-picture.js';

function chain(nodes: number, name: (index: number) => string): Cutter {
  const builder = new GraphBuilder('chain');
  let value = builder.input('x', 'FP32', [4]);
  for (let at = 0; at < nodes; at += 1) value = builder.node('Relu', [value], { output: name(at) });
  builder.output(value, 'FP32', [4]);
  return new Cutter(readSplitGraph(readModel(encodeModelBytes(builder.model({ opset: 17 })))));
}

const number = (value: number): ExplainedRow['latencyMs'] => ({ value, plusMinus: 0.05, source: 'measured' });

function rowOf(bounds: readonly number[], strategy: ExplainedRow['strategy'] = 'pipeline'): ExplainedRow {
  const stages = bounds.slice(1).map((to, index): ExplainedStage => {
    const isLast = index === bounds.length - 2;
    return {
      devices: [index === 0 ? 'cpu:0' : 'emulated:nvidia-l4'],
      emulated: index > 0,
      from: bounds[index] ?? 0,
      to,
      ms: { ...number(10 + index), source: index > 0 ? 'estimated' : 'measured' },
      memoryBytes: 2 ** 20,
      sendsBytes: isLast ? 0 : 4096,
      sendsMs: number(isLast ? 0 : 1),
      share: 1,
    };
  });
  return {
    ...{ strategy, batch: 1, runsPerRequest: 1, stages },
    latencyMs: number(22),
    requestsPerSecond: number(90),
    usdPer1000: number(0.1),
    joulesPerRequest: number(1),
  };
}

/** Tags that open and close, each in turn: enough to tell a document from a broken one. */
function isWellFormed(svg: string): boolean {
  const open: string[] = [];
  for (const [, closing, name, self] of svg.matchAll(/<(\/?)([a-z]+)(?:\s[^<>]*?)?(\/?)>/gi)) {
    if (self === '/') continue;
    if (closing === '/') {
      if (open.pop() !== name) return false;
    } else open.push(name ?? '');
  }
  return open.length === 0 && !/&(?!(amp|lt|gt|quot|#39);)/.test(svg);
}

describe('the picture of a plan', () => {
  it('shows stages with their devices and nodes, what crosses with its bytes, and what is emulated', () => {
    const svg = drawPlan(
      { model: 'folder/net.onnx', items: 1 },
      rowOf([0, 3, 6]),
      chain(6, (at) => `v${at}`),
      () => 16,
    );
    expect(isWellFormed(svg)).toBe(true);
    for (const words of [
      'net.onnx: 2 stages',
      'Stage 1: cpu:0',
      'Stage 2: emulated:nvidia-l4',
      'emulated',
      'v2 16 B',
      '4 KiB · 1 ms',
      'node 5: Relu_5',
      '± 5 % estimated',
    ]) {
      expect(svg).toContain(words);
    }
    expect(svg.match(/>Relu</g)?.length).toBe(6);
  });

  it('of 4,000 nodes gathers them into few blocks', () => {
    const svg = drawPlan(
      { model: 'net.onnx', items: 1 },
      rowOf([0, 1500, 4000]),
      chain(4000, (at) => `v${at}`),
    );
    expect(isWellFormed(svg)).toBe(true);
    expect(svg.length).toBeLessThan(40_000);
    expect(svg).toContain('Relu ×');
    expect(svg).toContain('nodes 1500 to 4000'.replace('4000', '3999'));
  });

  it('has names from files as text and nothing else', () => {
    const hostile = '</text><script>alert("&1")</script>\u0007';
    const svg = drawPlan(
      { model: `${hostile}.onnx`, items: 1 },
      rowOf([0, 1, 2]),
      chain(2, (at) => `${hostile.slice(0, 14)}${at}`),
    );
    expect(svg).not.toContain('<script');
    expect(svg).toContain('&lt;/text&gt;&lt;script');
    expect(svg).not.toContain('\u0007');
    expect(isWellFormed(svg)).toBe(true);
  });
});

describe('the explanation of a plan', () => {
  const report: ExplainedReport = {
    nodes: 6,
    legalCuts: 4,
    impossibleCuts: 1,
    impossibleReason: '"list" is a sequence',
    goal: 'throughput',
    reason: '',
    choice: rowOf([0, 3, 6]),
    isExact: true,
    gap: 0,
    devices: [{ id: 'cpu:0', refusal: 'the whole model does not fit: 3 MiB are missing' }],
  };

  it('says what was chosen, what bounds it, against what, and what is not measured', () => {
    const whole = { ...rowOf([0, 6], 'whole'), requestsPerSecond: number(45) };
    const text = explainPlan(report, { whole }).join('\n');
    expect(text).toContain('1 are impossible, the first because "list" is a sequence');
    expect(text).toContain('cpu:0: the whole model does not fit: 3 MiB are missing');
    expect(text).toContain('nodes 0 to 2 on cpu:0, then nodes 3 to 5 on emulated:nvidia-l4');
    expect(text).toContain('gives 45 requests/s against 90 requests/s: the choice is 2 times as good');
    expect(text).toContain('A full pipe answers once in 11 ms: stage 2 on emulated:nvidia-l4 is its slowest part');
    expect(text).toContain('stage 1 on cpu:0 is busy 91 % of that');
    expect(text).toContain('emulated:nvidia-l4 (± 5 %) is estimated, not measured');
  });

  it('says so when a better plan may exist, when a gain is within the doubt, and when there is none', () => {
    const near = { ...rowOf([0, 6], 'whole'), requestsPerSecond: number(88) };
    const text = explainPlan({ ...report, isExact: false, gap: 0.04 }, { whole: near }).join('\n');
    expect(text).toContain('A better plan may exist, by at most 4 %');
    expect(text).toContain('within what these figures may be off');
    const { choice, ...rest } = report;
    expect(choice).toBeDefined();
    expect(explainPlan({ ...rest, reason: 'nothing fits' }, {}).at(-1)).toBe('There is no plan: nothing fits.');
  });
});
