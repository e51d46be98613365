import { describe, expect, it } from 'vitest';
import { explainPlan, type ExplainedReport, type ExplainedRow } from '#core/split/plan-explain.js';

const number = (value: number) => ({ value, plusMinus: 0.02, source: 'measured' as const });

function row(
  strategy: ExplainedRow['strategy'],
  requestsPerSecond: number,
  stages: readonly (readonly string[])[],
): ExplainedRow {
  return {
    ...{ strategy, batch: 1, runsPerRequest: 1 },
    stages: stages.map((devices, index) => ({
      ...{ devices, emulated: false, from: index, to: index + 1, ms: number(1), memoryBytes: 1024 },
      ...{ sendsBytes: 0, sendsMs: number(0), share: 1 / stages.length },
    })),
    latencyMs: number(1000 / requestsPerSecond),
    requestsPerSecond: number(requestsPerSecond),
    ...{ usdPer1000: number(1), joulesPerRequest: number(1) },
  };
}

const report: ExplainedReport = {
  ...{ nodes: 2, legalCuts: 1, impossibleCuts: 0, impossibleReason: '', goal: 'throughput', reason: '' },
  ...{ choice: row('whole', 100, [['cpu:0']]), isExact: true, gap: 0, devices: [] },
};

describe('a plan in sentences', () => {
  it('calls a split only what is cut: one stage on several devices is the whole model, taken in turns', () => {
    const split = explainPlan(report, { pipeline: row('pipeline', 50, [['cpu:0'], ['wasm:0']]) });
    expect(split).toContain(
      'The best split (nodes 0 to 0 on cpu:0, then nodes 1 to 1 on wasm:0) gives 50 requests/s against 100 requests/s: the choice is 2 times as good.',
    );
    const turns = explainPlan(report, { pipeline: row('pipeline', 50, [['cpu:0', 'wasm:0']]) });
    expect(turns.join(' ')).not.toContain('split');
    expect(turns[2]).toMatch(/^The whole model on devices that take turns \(nodes 0 to 0 on cpu:0 and wasm:0\) gives/);
  });
});
