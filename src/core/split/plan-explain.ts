/** A plan in sentences: what was chosen, against what, and what keeps it from being better. */
import { formatBytes, formatMs } from '../units.js';
import type { PlanGoal } from './plan-problem.js';

/** The parts of a report that the sentences are made of. */
export interface ExplainedNumber {
  readonly value: number;
  readonly plusMinus: number;
  readonly source: 'measured' | 'estimated';
}
export interface ExplainedStage {
  readonly devices: readonly string[];
  readonly emulated: boolean;
  readonly from: number;
  readonly to: number;
  readonly ms: ExplainedNumber;
  readonly memoryBytes: number;
  readonly sendsBytes: number;
  readonly sendsMs: ExplainedNumber;
  readonly share: number;
}
export interface ExplainedRow {
  readonly strategy: 'whole' | 'pipeline' | 'data';
  readonly batch: number;
  readonly runsPerRequest: number;
  readonly stages: readonly ExplainedStage[];
  readonly latencyMs: ExplainedNumber;
  readonly requestsPerSecond: ExplainedNumber;
  readonly usdPer1000: ExplainedNumber;
  readonly joulesPerRequest: ExplainedNumber;
}
export interface ExplainedReport {
  readonly nodes: number;
  readonly legalCuts: number;
  readonly impossibleCuts: number;
  readonly impossibleReason: string;
  readonly goal: PlanGoal;
  readonly sloMs?: number;
  readonly reason: string;
  readonly choice?: ExplainedRow;
  readonly isExact: boolean;
  readonly gap: number;
  readonly devices: readonly { readonly id: string; readonly refusal: string }[];
}

type Others = Partial<Readonly<Record<'whole' | 'pipeline' | 'data', ExplainedRow>>>;

/** Sentences in reading order. `others`: the best of each strategy. */
export function explainPlan(report: ExplainedReport, others: Others): readonly string[] {
  const { choice, nodes, legalCuts, impossibleCuts, impossibleReason, goal } = report;
  const sentences = [
    `The graph has ${nodes} nodes and ${legalCuts} places where it is cut well${impossibleCuts > 0 ? `; ${impossibleCuts} are impossible, the first because ${impossibleReason}` : ''}.`,
  ];
  for (const { id, refusal } of report.devices) if (refusal !== '') sentences.push(`${id}: ${refusal}.`);
  if (choice === undefined) return [...sentences, `There is no plan: ${report.reason}.`];
  sentences.push(`Best for ${goal}: ${nameOf(choice)}${choice.batch > 1 ? `, in runs of ${choice.batch} items` : ''}.`);
  sentences.push(...comparisons(choice, others, goal));
  sentences.push(...bottleneck(choice, goal));
  if (report.sloMs !== undefined) {
    sentences.push(`A request takes ${formatMs(choice.latencyMs.value)} of the ${formatMs(report.sloMs)} allowed.`);
  }
  sentences.push(
    report.isExact
      ? 'No plan over these cuts, devices and batch sizes is better by these tables.'
      : `A better plan may exist, by at most ${percent(report.gap)}; what was searched is not all there is${report.sloMs === undefined ? '' : ' (the bound does not know the latency allowed)'}.`,
  );
  sentences.push(trust(choice));
  return sentences;
}

function nameOf({ strategy, stages }: ExplainedRow): string {
  if (strategy === 'whole') return `the whole model on ${deviceOf(stages[0])}`;
  if (strategy === 'data') {
    return `the whole model on each of ${stages.map((stage) => `${deviceOf(stage)} (${percent(stage.share)} of the work)`).join(', ')}`;
  }
  return stages.map((stage) => `nodes ${stage.from} to ${stage.to - 1} on ${deviceOf(stage)}`).join(', then ');
}

function deviceOf(stage: ExplainedStage | undefined): string {
  const names = stage?.devices.join(' and ') ?? '';
  return stage?.emulated === true && !names.includes('emulated') ? `${names} (emulated)` : names;
}

const goalNames: Readonly<
  Record<PlanGoal, { readonly unit: (row: ExplainedRow) => string; readonly value: (row: ExplainedRow) => number }>
> = {
  latency: { unit: (row) => formatMs(row.latencyMs.value), value: (row) => row.latencyMs.value },
  throughput: {
    unit: (row) => `${rate(row.requestsPerSecond.value)} requests/s`,
    value: (row) => 1 / row.requestsPerSecond.value,
  },
  cost: { unit: (row) => `$${short(row.usdPer1000.value)} for 1,000 requests`, value: (row) => row.usdPer1000.value },
  energy: {
    unit: (row) => `${short(row.joulesPerRequest.value)} J a request`,
    value: (row) => row.joulesPerRequest.value,
  },
};

function comparisons(choice: ExplainedRow, others: Others, goal: PlanGoal): readonly string[] {
  const { unit, value } = goalNames[goal];
  const lines: string[] = [];
  for (const kind of ['whole', 'pipeline', 'data'] as const) {
    const other = others[kind];
    if (other === undefined || other.strategy === choice.strategy) continue;
    const ratio = value(other) / value(choice);
    lines.push(
      `${kindOf(other)} (${nameOf(other)}) gives ${unit(other)} against ${unit(choice)}${verdict(ratio, { choice, other })}.`,
    );
  }
  if (others.whole === undefined && choice.strategy !== 'whole')
    lines.push('No device takes the whole model by itself.');
  return lines;
}

function kindOf({ strategy, stages }: ExplainedRow): string {
  if (strategy === 'whole') return 'Not splitting';
  if (strategy === 'data') return 'Sharing whole models';
  return stages.length > 1 ? 'The best split' : 'The whole model on devices that take turns';
}

/** How much better the choice is, and whether that can be relied on. */
function verdict(
  ratio: number,
  { choice, other }: { readonly choice: ExplainedRow; readonly other: ExplainedRow },
): string {
  if (!Number.isFinite(ratio) || ratio <= 0) return '';
  if (ratio < 1) return `: better by ${percent(1 / ratio - 1)}, too little for more devices`;
  const unsure = Math.hypot(choice.requestsPerSecond.plusMinus, other.requestsPerSecond.plusMinus);
  const doubt = ratio - 1 < unsure ? ', which is within what these figures may be off' : '';
  return `: the choice is ${short(ratio)} times as good${doubt}`;
}

function bottleneck({ strategy, stages }: ExplainedRow, goal: PlanGoal): readonly string[] {
  const [first] = stages;
  if (first === undefined) return [];
  if (strategy === 'whole') return [`One run takes ${formatMs(first.ms.value)} on ${deviceOf(first)}.`];
  if (strategy === 'data') {
    return [
      `Each takes a share by its speed: ${stages.map((stage) => `${deviceOf(stage)} ${formatMs(stage.ms.value)} a run`).join(', ')}.`,
    ];
  }
  const parts = stages.flatMap((stage, index) => [
    {
      name: `stage ${index + 1} on ${deviceOf(stage)}`,
      ms: stage.ms.value / stage.devices.length,
      work: stage.ms.value,
    },
    ...(index < stages.length - 1
      ? [
          {
            name: `sending ${formatBytes(stage.sendsBytes)} after stage ${index + 1}`,
            ms: stage.sendsMs.value,
            work: 0,
          },
        ]
      : []),
  ]);
  const slowest = parts.reduce((a, b) => (b.ms > a.ms ? b : a));
  const computing = stages.reduce((sum, { ms }) => sum + ms.value, 0);
  const sending = stages.reduce((sum, { sendsMs }) => sum + sendsMs.value, 0);
  const lines = [
    `A full pipe answers once in ${formatMs(slowest.ms)}: ${slowest.name} is its slowest part; ${parts
      .filter((part) => part !== slowest)
      .map((part) => `${part.name} is busy ${percent(part.ms / slowest.ms)} of that`)
      .join(', ')}.`,
    `One run takes ${formatMs(computing)} of computing and ${formatMs(sending)} of sending (${percent(sending / (computing + sending))}).`,
  ];
  if (goal === 'latency')
    lines.push(
      'Stages of one run wait for each other: a split is faster only where another device runs its part faster by more than sending costs.',
    );
  const memory = stages.map((stage) => `${deviceOf(stage)} ${formatBytes(stage.memoryBytes)}`).join(', ');
  return [...lines, `Memory: ${memory}.`];
}

function trust(row: ExplainedRow): string {
  const guessed = row.stages.filter(({ ms }) => ms.source === 'estimated');
  if (guessed.length === 0)
    return `Every stage was measured; its latency is known to ± ${percent(row.latencyMs.plusMinus)}.`;
  return `${guessed.map((stage) => `${deviceOf(stage)} (± ${percent(stage.ms.plusMinus)})`).join(', ')} ${guessed.length === 1 ? 'is' : 'are'} estimated, not measured.`;
}

function percent(share: number): string {
  const value = share * 100;
  return `${value < 1 && value > 0 ? value.toFixed(1) : Math.round(value)} %`;
}

function rate(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
}

function short(value: number): string {
  return String(Number(value.toPrecision(3)));
}
