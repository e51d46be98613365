/** The planner alone: a large problem with devices of sixteen kinds, over all batch sizes and orders. One thread. */
import { performance } from 'node:perf_hooks';
import { choosePlan, goalValue, type ChoiceOptions } from '#core/split/plan-choice.js';
import { planGoals } from '#core/split/plan-problem.js';
import { largeProblems } from './plan-problem.js';
import { benchReport, benchRow, type Bench } from './report.js';

const options: Omit<ChoiceOptions, 'goal'> = {
  items: 1,
  latencyMsMax: Infinity,
  strategies: ['whole', 'pipeline', 'data'],
  frontierMax: 12,
  sweepSteps: 12,
  worthwhile: 0,
};

export const run: Bench = (benchOptions) => {
  const problems = benchOptions.quick ? largeProblems().slice(0, 1) : largeProblems();
  const shared = problems.map(({ batch, problem }) => ({ batch, problem: { ...problem, mayShare: () => true } }));
  const cases = [
    ...planGoals.map((goal) => ({ goal, key: goal as string, name: goal as string, asked: problems })),
    { goal: 'throughput' as const, key: 'shared', name: 'throughput with shared stages', asked: shared },
  ];
  const rows = cases.flatMap(({ goal, key, name, asked }) => {
    const startedMs = performance.now();
    const { user: before } = process.cpuUsage();
    const choice = choosePlan(asked, { ...options, goal });
    const wallMs = performance.now() - startedMs;
    const cpuMs = (process.cpuUsage().user - before) / 1000;
    const found = choice.choice === undefined ? Infinity : goalValue(choice.choice, goal);
    return [
      benchRow({
        key: `plan.${key}.wall`,
        label: `1,000 cut points × 16 devices × ${problems.length} batch sizes, best ${name} and frontier`,
        value: wallMs,
        unit: 'ms',
        ...(benchOptions.quick ? {} : { target: { kind: 'at-most', value: 2000 } }),
      }),
      benchRow({ key: `plan.${key}.cpu`, label: `${name}: processor time of it`, value: cpuMs, unit: 'ms' }),
      benchRow({
        key: `plan.${key}.gap`,
        label: `${name}: how much better a plan could still be`,
        value: 100 * (found / choice.lowerBound - 1),
        unit: '%',
      }),
    ];
  });
  return Promise.resolve(
    benchReport('plan', benchOptions, rows, ['one planning each, no warm-up: pure computation on one thread']),
  );
};
