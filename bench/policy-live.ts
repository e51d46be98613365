/**
 * Policies on real requests: a host with CPU, WebAssembly and emulated devices is sent the same requests at the same moments once
 * with the policy that comes with the product, dispatch and batches, and once with the best rule, five times in turns; the same
 * requests then go through the same fleet simulated. Emulated devices compute nothing and take the time of a hardware profile.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type InferenceClient } from '#client/index.js';
import { readDecisions, readLogTrace } from '#compose/decision-log/log-trace.js';
import { policyMaker } from '#compose/learning/contenders.js';
import { packageRoot } from '#compose/package-root.js';
import { RandomStream } from '#core/random.js';
import { defaultObjective } from '#core/scheduling/objective.js';
import { shippedPolicy } from '#core/scheduling/shipped-policy.js';
import { sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import { batchingByName } from '#policies/batching/batching-by-name.js';
import { batchingFromFile } from '#policies/batching/batching-from-file.js';
import { bootstrapMean } from '#policies/learning/bootstrap.js';
import { calibrate, calibrationLimits } from '#policies/learning/calibration.js';
import { episodesOfLog } from '#policies/learning/logged-decisions.js';
import { rewardsOf } from '#policies/learning/returns.js';
import { traceArrivals } from '#sim/fleet/arrivals.js';
import { fleetDispatch } from '#sim/fleet/fleet-dispatch.js';
import { fleetReport } from '#sim/fleet/fleet-report.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { runFleet } from '#sim/fleet/run-fleet.js';
import type { TraceRow } from '#sim/fleet/trace-file.js';
import { startChild, type BenchChild } from './child.js';
import { liveFleet, type LiveDevice } from './live-fleet.js';
import { denseModel, denseWidth, writeDenseModel } from './models/dense-layers.js';
import { benchRow, type BenchOptions, type BenchRow } from './report.js';

const learned = shippedPolicy;
const learnedFolder = join(packageRoot, 'policies/checkpoints', learned);
const batching = 'deadline-cap+shed';
const rules = [
  ...['cheapest-feasible:0.4', 'cheapest-feasible:0.6', 'cheapest-feasible:0.8', 'cheapest-feasible:1'],
  ...['cf-risk:0.02', 'cf-risk:0.1', 'sed', 'milp-rate'],
];
const itemsMax = 8;
const sloMs = { interactive: 150, standard: 600, batch: 4000 };
const classShares: Readonly<Record<SloClass, number>> = { interactive: 0.4, standard: 0.4, batch: 0.2 };
/** Emulated milliseconds last so many real ones: Node's timers are a millisecond apart. */
const timeScale = 100;
const emulated = [
  { id: 'emulated-l4', profile: 'nvidia-l4', timeScale },
  { id: 'emulated-t4', profile: 'nvidia-t4', timeScale },
];
const requestsPerSecond = 130;

interface Request {
  readonly atMs: number;
  readonly sloClass: SloClass;
}

interface Host {
  readonly policy: string;
  readonly folder: string;
  readonly child: BenchChild;
  readonly client: InferenceClient;
  readonly devices: readonly LiveDevice[];
}

export async function livePolicies({ quick }: BenchOptions): Promise<readonly BenchRow[]> {
  const { pairs, seconds } = quick ? { pairs: 1, seconds: 3 } : { pairs: 5, seconds: 14 };
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-bench-'));
  const hosts: Host[] = [];
  const start = async (policy: string, name: string): Promise<Host> => {
    const own = await startLiveHost(folder, policy, join(folder, name));
    hosts.push(own);
    return own;
  };
  try {
    await writeDenseModel(join(folder, 'models'), itemsMax);

    // What the fleet is, by a run of its own; the best rule for it, by simulation.
    const scout = await start('cheapest-feasible:0.8', 'scout');
    const scouted = draw('scout', quick ? 3 : 14);
    await play(scout, scouted);
    await stop(scout);
    const fleet = await fleetOf([scout]);
    const trace = await readLogTrace(join(scout.folder, 'log'));
    let rule = '';
    let least = Infinity;
    for (const name of rules) {
      const { objective } = await simulated(fleet, trace, name);
      if (objective < least) [rule, least] = [name, objective];
    }

    const byRule = await start(rule, 'rule');
    const byPolicy = await start(learned, 'learned');
    for (const host of [byRule, byPolicy]) await play(host, draw('warm up', 2));
    const runs = Array.from({ length: pairs }, (_, pair) => draw(`pair ${pair}`, seconds));
    for (const [pair, requests] of runs.entries()) {
      const order = pair % 2 === 0 ? [byRule, byPolicy] : [byPolicy, byRule];
      for (const host of order) await play(host, requests);
    }
    for (const host of [byRule, byPolicy]) await stop(host);
    const warmUps = draw('warm up', 2).length;
    const measured = await fleetOf([byRule, byPolicy]);
    const live = await Promise.all(
      [byRule, byPolicy].map((host) =>
        liveObjectives(
          host,
          warmUps,
          runs.map(({ length }) => length),
        ),
      ),
    );
    const changes = runs.map((_, pair) => (live[1]?.[pair] ?? 0) - (live[0]?.[pair] ?? 0));
    const mean = meanOf(changes);
    const { low, high } = bootstrapMean(changes, { random: new RandomStream('live'), resamples: 2000 });

    const arrivals = await readLogTrace(join(byRule.folder, 'log'));
    const ruleRun = await simulated(measured, arrivals, rule);
    const policyRun = await simulated(measured, arrivals, learned);
    const simulatedChange = policyRun.objective - ruleRun.objective;
    return [
      ...rowsOfComparison(rule, live, { mean, low, high }, [ruleRun.objective, policyRun.objective]),
      row(
        'same-direction',
        'live and simulated change have the same sign (1) or not (0)',
        Math.sign(mean) === Math.sign(simulatedChange) ? 1 : 0,
        '',
        1,
      ),
      ...(await calibrationRows(byRule, ruleRun.durationsMs, rule)),
      ...(await calibrationRows(
        byPolicy,
        (await simulated(measured, await readLogTrace(join(byPolicy.folder, 'log')), learned)).durationsMs,
        learned,
      )),
    ];
  } finally {
    await Promise.all(hosts.map(stop));
    await rm(folder, { recursive: true, force: true });
  }
}

async function startLiveHost(folder: string, policy: string, own: string): Promise<Host> {
  const args = ['--repository', join(folder, 'models'), '--model', denseModel];
  const isLearned = policy === learned;
  const file = isLearned ? join(learnedFolder, 'policy.onnx') : policy;
  const batches = isLearned ? join(learnedFolder, 'batching.onnx') : batching;
  const child = await startChild('bench/live-host-main.js', [
    ...[
      ...args,
      '--policy',
      file,
      '--batching',
      batches,
      '--log',
      join(own, 'log'),
      '--profiles',
      join(own, 'profiles'),
    ],
    ...['--emulated', JSON.stringify(emulated)],
  ]);
  const client = connect({ endpoints: `127.0.0.1:${String(child.ready['grpc'])}`, attemptsMax: 1 });
  return { policy, folder: own, child, client, devices: child.ready['devices'] as readonly LiveDevice[] };
}

async function stop({ client, child }: Host): Promise<void> {
  client.close();
  await child.stop();
}

function fleetOf(hosts: readonly Host[]): Promise<Fleet> {
  const [first] = hosts as readonly [Host];
  return liveFleet({
    ...{ model: denseModel, itemsMax, sloMs, devices: first.devices },
    profileFolders: hosts.map(({ folder }) => join(folder, 'profiles')),
    logFolder: join(first.folder, 'log'),
  });
}

/** Poisson arrivals; the same for the same name. */
function draw(name: string, seconds: number): readonly Request[] {
  const random = new RandomStream(`live ${name}`);
  const requests: Request[] = [];
  for (let atMs = 0; ;) {
    atMs -= (Math.log(1 - random.next()) * 1000) / requestsPerSecond;
    if (atMs > seconds * 1000) return requests;
    let left = random.next();
    const sloClass = sloClasses.find((each) => (left -= classShares[each]) < 0) ?? 'batch';
    requests.push({ atMs, sloClass });
  }
}

/** Sends each request at its moment, whatever became of those before; resolves when all have ended. */
async function play({ client }: Host, requests: readonly Request[]): Promise<void> {
  const values = new Float32Array(denseWidth).fill(0.1);
  const tensor = { datatype: 'FP32', shape: [1, denseWidth], data: new Uint8Array(values.buffer) } as const;
  const startMs = performance.now();
  const ended: Promise<unknown>[] = [];
  for (const { atMs, sloClass } of requests) {
    const waitMs = startMs + atMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const options = { sloClass, sloMs: sloMs[sloClass] };
    // Refusals are outcomes; the log has them.
    ended.push(client.infer(denseModel, { values: tensor }, options).catch(() => undefined));
  }
  await Promise.all(ended);
}

/** Objective of each run of a host, from its log. */
async function liveObjectives(
  { folder }: Host,
  warmUps: number,
  lengths: readonly number[],
): Promise<readonly number[]> {
  const { data } = await readDecisions(join(folder, 'log'));
  const [episode] = episodesOfLog(data);
  if (episode === undefined) throw new Error(`${folder} has no decisions`);
  const rewards = rewardsOf(episode.outcomes, {
    multipliers: defaultObjective.missWeight,
    latenessWeight: defaultObjective.lateWeight,
    energyWeight: defaultObjective.energyWeight,
    halfLifeMs: Infinity,
  });
  const expected = lengths.reduce((sum, length) => sum + length, warmUps);
  if (rewards.length !== expected) throw new Error(`${folder}: ${rewards.length} requests of ${expected} were logged`);
  let at = warmUps;
  return lengths.map((length) => {
    const own = rewards.subarray(at, at + length);
    at += length;
    return -own.reduce((sum, value) => sum + value, 0) / length;
  });
}

async function simulated(
  fleet: Fleet,
  trace: readonly TraceRow[],
  policy: string,
): Promise<{ readonly objective: number; readonly durationsMs: Float64Array }> {
  const batches =
    policy === learned
      ? batchingFromFile(await readFile(join(learnedFolder, 'batching.onnx')))
      : () => batchingByName(batching);
  const result = await runFleet({
    ...{ fleet, seed: 1, arrivals: traceArrivals(fleet, trace, { seed: 1 }) },
    dispatch: fleetDispatch((await policyMaker(policy))()),
    batching: batches,
  });
  const durations: number[] = [];
  for (const [index, doneMs] of result.doneMs.entries()) {
    if ((result.outcome[index] ?? 3) < 2) durations.push(doneMs - (result.arrivals.atMs[index] ?? 0));
  }
  return { objective: fleetReport(fleet, result).objective.total, durationsMs: Float64Array.from(durations) };
}

async function calibrationRows(
  { folder }: Host,
  simulatedMs: Float64Array,
  policy: string,
): Promise<readonly BenchRow[]> {
  const { data } = await readDecisions(join(folder, 'log'));
  const [ends, durations] = [data.outcomes.columns.get('outcome'), data.outcomes.columns.get('duration_ms')];
  const measured = Float64Array.from((durations ?? []).flatMap((ms, at) => (ends?.[at] === 'ok' ? [Number(ms)] : [])));
  const { p50Ms, p99Ms, p50Error, p99Error, ksDistance } = calibrate(measured, simulatedMs);
  const most = (name: string, label: string, value: number, unit: string, limit: number): BenchRow =>
    benchRow({
      key: `policy.live.calibration.${policy}.${name}`,
      label: `simulator against the log of ${policy}: ${label}`,
      ...{ value, unit, target: { kind: 'at-most', value: limit } },
    });
  return [
    benchRow({
      key: `policy.live.calibration.${policy}.p50-ms`,
      label: `${policy}: measured p50`,
      value: p50Ms,
      unit: 'ms',
    }),
    benchRow({
      key: `policy.live.calibration.${policy}.p99-ms`,
      label: `${policy}: measured p99`,
      value: p99Ms,
      unit: 'ms',
    }),
    most('p50', 'error of p50', 100 * Math.abs(p50Error), '%', 100 * calibrationLimits.p50Error),
    most('p99', 'error of p99', 100 * Math.abs(p99Error), '%', 100 * calibrationLimits.p99Error),
    most('ks', 'Kolmogorov-Smirnov distance', ksDistance, '', calibrationLimits.ksDistance),
  ];
}

function rowsOfComparison(
  rule: string,
  [byRule = [], byPolicy = []]: readonly (readonly number[])[],
  change: { readonly mean: number; readonly low: number; readonly high: number },
  [simulatedRule = 0, simulatedPolicy = 0]: readonly number[],
): readonly BenchRow[] {
  const base = meanOf(byRule);
  const percent = (value: number): number => (100 * value) / base;
  return [
    row('rule', `objective live: ${rule}, best of ${rules.length} rules by simulation`, base, ''),
    row('policy', `objective live: ${learned}`, meanOf(byPolicy), ''),
    row('change', `change live, mean of ${byRule.length} pairs`, percent(change.mean), '%'),
    row('change-low', 'lower end of its 95 % interval', percent(change.low), '%'),
    row('change-high', 'upper end of its 95 % interval', percent(change.high), '%'),
    row('simulated-change', 'change simulated, same requests', 100 * (simulatedPolicy / simulatedRule - 1), '%'),
  ];
}

function row(name: string, label: string, value: number, unit: string, least?: number): BenchRow {
  const target = least === undefined ? {} : { target: { kind: 'at-least' as const, value: least } };
  return benchRow({ key: `policy.live.${name}`, label, value, unit, ...target });
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
