/**
 * How long a dispatch decision takes, from the picker's entry to its return: rows of features, scoring, shield and all. Between
 * decisions the thread does what a busy host does (it parses, allocates and collects garbage, and keeps the ledger), so that
 * neither the processor's caches nor the collector are kinder than in service.
 */
import { performance } from 'node:perf_hooks';
import { anonymousTenant, deviceId, hostId, modelName, modelVersion, replicaId, type RequestId } from '#core/ids.js';
import type { InferenceRequest } from '#core/inference.js';
import type { Candidate, Picker } from '#core/picker.js';
import { DispatchLedger } from '#core/scheduling/dispatch-ledger.js';
import type { DispatchPolicy } from '#core/scheduling/dispatch-view.js';
import { planFeatureCount } from '#core/scheduling/features.js';
import { unknownDevice, unknownReplica, type FleetBook } from '#core/scheduling/fleet-book.js';
import type { Layer } from '#core/scheduling/network.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import { RatePlan } from '#core/scheduling/rate-plan.js';
import { SimdScorer } from '#core/scheduling/simd-scorer.js';
import { RandomStream } from '#core/random.js';
import { dispatchByName } from '#policies/placement/dispatch-by-name.js';
import { LearnedDispatch } from '#policies/placement/dispatch-learned.js';
import { dispatchPicker } from '#policies/placement/dispatch-picker.js';
import { benchRow, type BenchRow } from './report.js';

const model = modelName('resnet');
const host = hostId('bench');
const nobody: ReadonlySet<string> = new Set();
/** Two hidden layers and three heads over rows with the fluid programme's turns: more than the shipped policy's one layer and one head. */
const widths = [planFeatureCount, 32, 32, 3];

/** Targets of issue and facts, µs: by candidates. */
const targets: Readonly<Record<number, { readonly p50?: number; readonly p99: number }>> = {
  16: { p50: 25, p99: 100 },
  32: { p99: 100 },
  128: { p99: 100 },
};

export function decisionLatency({ quick }: { readonly quick: boolean }): readonly BenchRow[] {
  const rows: BenchRow[] = [];
  const decisions = quick ? 2_000 : 20_000;
  for (const count of [16, 32, 128]) {
    for (const make of [() => dispatchByName('cheapest-feasible'), learnedPolicy]) {
      const policy = make();
      const name = policy instanceof LearnedDispatch ? 'learned' : 'cheapest-feasible';
      const { times, fallbackShare } = measure(policy, count, decisions);
      const target = name === 'learned' ? targets[count] : undefined;
      for (const [percentile, value] of [
        ['p50', times[Math.floor(times.length * 0.5)] ?? 0],
        ['p99', times[Math.floor(times.length * 0.99)] ?? 0],
      ] as const) {
        const most = target?.[percentile];
        rows.push(
          benchRow({
            key: `policy.decision.${name}.${count}.${percentile}`,
            label: `decision among ${count} candidates, ${name}, ${percentile}`,
            value: value * 1000,
            unit: 'µs',
            ...(most === undefined ? {} : { target: { kind: 'at-most', value: most } }),
          }),
        );
      }
      if (name === 'learned') {
        rows.push(
          benchRow({
            key: `policy.decision.learned.${count}.fallback`,
            label: `of them left to the rule`,
            value: fallbackShare * 100,
            unit: '%',
          }),
        );
      }
    }
  }
  return rows;
}

function learnedPolicy(): LearnedDispatch {
  const random = new RandomStream('bench network');
  const draw = (length: number, scale: number): Float32Array =>
    Float32Array.from({ length }, () => (random.next() * 2 - 1) * scale);
  const layers = widths.slice(1).map((out, index): Layer => {
    const inputs = widths[index] ?? 1;
    return { in: inputs, out, weights: draw(inputs * out, 1 / Math.sqrt(inputs)), bias: draw(out, 0.1) };
  });
  const flat = (value: number): number[] => new Array<number>(planFeatureCount).fill(value);
  const ranges: TrainedRanges = { least: flat(-3), low: flat(-3), high: flat(3), greatest: flat(3) };
  return new LearnedDispatch({
    name: 'learned',
    scorer: new SimdScorer({ layers, activation: 'tanh' }),
    plan: new RatePlan(),
    ranges,
    fallback: dispatchByName('cheapest-feasible'),
    // Heads of a network by chance disagree all the time; a trained one's seldom.
    leadMin: 0,
    clockMs: () => performance.now(),
  });
}

interface Measured {
  /** Milliseconds, ascending. */
  readonly times: Float64Array;
  readonly fallbackShare: number;
}

function measure(policy: DispatchPolicy, count: number, decisions: number): Measured {
  const book: FleetBook = {
    revision: 0,
    device: (key) => ({ ...unknownDevice, usdPerHour: 0.1 + (key.length % 7), watts: 70 }),
    replica: ({ id }) => ({
      ...unknownReplica,
      itemsMax: 16,
      profile: { batches: [1, 4, 16], ms: [4 + (id.length % 3), 8, 20], spread: 0.1 },
    }),
  };
  const ledger = new DispatchLedger({ book });
  const picker: Picker = dispatchPicker({ policy, ledger, random: new RandomStream('bench') });
  const candidates = Array.from({ length: count }, (_, index): Candidate => {
    const device = deviceId(`gpu:${index}`);
    const stages = [{ digest: 'd'.repeat(64) as never, host, device }];
    return {
      replica: { id: replicaId(`${model}/1@${host}/${device}`), model, version: modelVersion('1'), stages },
      load: { itemsInFlight: 0, msPerItem: 0, ready: true },
    };
  });
  const lanes = candidates.map(({ replica }) => ledger.laneOf(replica));
  const warmUp = Math.min(5_000, decisions);
  const times = new Float64Array(decisions);
  const open: number[] = [];
  const ballast = JSON.stringify({ inputs: Array.from({ length: 200 }, (_, index) => ({ name: `x${index}`, index })) });
  let kept: unknown[] = [];
  for (let index = -warmUp; index < decisions; index += 1) {
    const nowMs = (index + warmUp) * 0.4;
    const request: InferenceRequest = {
      id: (index + warmUp + 1) as RequestId,
      model,
      version: modelVersion('1'),
      inputs: [],
      outputs: [],
      items: 1,
      batchKey: '',
      bytes: 0,
      priority: 0,
      queueTimeoutUs: 0,
      deadlineMs: Infinity,
      sloMs: 100,
      sloClass: 'interactive',
      billing: { tenant: anonymousTenant, project: '', user: '' },
      arrivedMs: nowMs,
    };
    // What a host does between two decisions.
    kept.push(JSON.parse(ballast));
    if (kept.length > 50) kept = [];
    const startMs = performance.now();
    const chosen = picker.pick(request, candidates, nowMs, nobody);
    const tookMs = performance.now() - startMs;
    if (index >= 0) times[index] = tookMs;
    const lane = lanes[chosen];
    if (lane !== undefined) {
      ledger.sent(lane, 1, 'interactive', nowMs);
      open.push(chosen);
    }
    const done = open.length > count * 2 ? lanes[open.shift() ?? 0] : undefined;
    if (done !== undefined) ledger.answered(done, 1, 'interactive', nowMs, { ok: true, batchItems: 2, computeMs: 6 });
  }
  times.sort();
  const counts = policy instanceof LearnedDispatch ? policy.counts : undefined;
  const fallbacks = Object.values(counts?.fallbacks ?? {}).reduce((sum, each) => sum + each, 0);
  return { times, fallbackShare: counts === undefined ? 0 : fallbacks / counts.decisions };
}
