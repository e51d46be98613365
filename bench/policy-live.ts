/**
 * Policies on real requests: a host with CPU, WebAssembly and emulated devices is sent the same requests at the same moments once
 * with the policy that comes with the product, dispatch and batches, and once with the best rule, five times in turns; the same
 * requests then go through the same fleet simulated. Emulated devices compute nothing and take the time of a hardware profile.
 */
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { othersShare, processorTimes, type ProcessorTimes } from '#adapters/hardware/processor-times.js';
import { connect, type InferenceClient } from '#client/index.js';
import { readDecisions } from '#compose/decision-log/log-trace.js';
import { packageRoot } from '#compose/package-root.js';
import { RandomStream } from '#core/random.js';
import { defaultObjective } from '#core/scheduling/objective.js';
import { shippedPolicy } from '#core/scheduling/shipped-policy.js';
import { sloClasses, type SloClass } from '#core/scheduling/slo-class.js';
import { bootstrapMean } from '#policies/learning/bootstrap.js';
import { calibrate, calibrationLimits } from '#policies/learning/calibration.js';
import { episodesOfLog } from '#policies/learning/logged-decisions.js';
import { rewardsOf } from '#policies/learning/returns.js';
import type { Fleet } from '#sim/fleet/fleet.js';
import { startChild, type BenchChild } from './child.js';
import { believedTables, liveFleet, loggedRequests, type LiveDevice, type LoggedRequest } from './live-fleet.js';
import { partsOf, simulateLive, type LiveSimulation, type TimeParts } from './live-simulation.js';
import { treePids } from './memory.js';
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

/** @throws where the system does not tell. */
function timesOfOurs(): ProcessorTimes {
  const times = processorTimes(treePids(process.pid));
  if (times === undefined) throw new Error('this system does not say who uses its processors');
  return times;
}

export async function livePolicies({ quick }: BenchOptions): Promise<readonly BenchRow[]> {
  const { pairs, seconds } = quick ? { pairs: 2, seconds: 3 } : { pairs: 6, seconds: 12 };
  const folder = await mkdtemp(join(tmpdir(), 'intarsia-bench-'));
  const hosts: Host[] = [];
  const start = async (policy: string, name: string, profiles?: string): Promise<Host> => {
    const own = await startLiveHost(folder, policy, join(folder, name), profiles);
    hosts.push(own);
    return own;
  };
  try {
    await writeDenseModel(join(folder, 'models'), itemsMax);

    // What the fleet is, by a run of its own; the best rule for it, by simulation.
    const scout = await start('cheapest-feasible:0.8', 'scout');
    await play(scout, draw('scout', quick ? 3 : 14));
    await stop(scout);
    const scouted = await loggedRequests(join(scout.folder, 'log'));
    const profiles = join(scout.folder, 'profiles');
    const rule = await bestRule(fleetOf(scout, [scouted]), scouted, profiles);

    // Both begin with what the first run has measured, as hosts do that were up before.
    const byRule = await start(rule, 'rule', profiles);
    const byPolicy = await start(learned, 'learned', profiles);
    for (const host of [byRule, byPolicy]) await play(host, draw('warm up', 2));
    const runs = Array.from({ length: pairs }, (_, pair) => draw(`pair ${pair}`, seconds));
    const spans = new Map<Host, Span[]>([
      [byRule, []],
      [byPolicy, []],
    ]);
    const before = timesOfOurs();
    for (const [pair, requests] of runs.entries()) {
      const order = pair % 2 === 0 ? [byRule, byPolicy] : [byPolicy, byRule];
      for (const host of order) spans.get(host)?.push(await play(host, requests));
    }
    const others = othersShare(before, timesOfOurs());
    for (const host of [byRule, byPolicy]) await stop(host);

    const played = await Promise.all([...spans].map(([host, own]) => playedBy(host, own)));
    const live = await Promise.all(played.map(liveObjectives));
    const simulations = await Promise.all(played.map((each) => crossSimulated(each, played, profiles)));
    const changes = runs.map((_, pair) => (live[1]?.[pair] ?? 0) - (live[0]?.[pair] ?? 0));
    const change = {
      mean: meanOf(changes),
      ...bootstrapMean(changes, { random: new RandomStream('live'), resamples: 2000 }),
    };
    return [
      row('others', 'processors used by other programs meanwhile', 100 * others, '%'),
      ...rowsOfComparison(
        rule,
        live,
        change,
        simulations.map(({ objective }) => objective),
      ),
      ...played.flatMap(({ host, stretches }, at) =>
        calibrationRows(host.policy, stretches.flat(), simulations[at]?.parts ?? []),
      ),
    ];
  } finally {
    await Promise.all(hosts.map(stop));
    await rm(folder, { recursive: true, force: true });
  }
}

/** From when to when (ms by the clock on the wall) so many requests were sent. */
interface Span {
  readonly fromMs: number;
  readonly toMs: number;
  readonly requests: number;
}

/** What a host took in: all, and of each span. */
interface Played {
  readonly host: Host;
  readonly all: readonly LoggedRequest[];
  readonly stretches: readonly (readonly LoggedRequest[])[];
  readonly spans: readonly Span[];
}

async function playedBy(host: Host, spans: readonly Span[]): Promise<Played> {
  const all = await loggedRequests(join(host.folder, 'log'));
  const stretches = spans.map(({ fromMs, toMs }) =>
    all.filter(({ arrivedWallMs }) => arrivedWallMs >= fromMs && arrivedWallMs <= toMs),
  );
  return { host, all, stretches, spans };
}

/**
 * A host's requests simulated with several seeds, such that no stretch of time is compared with a fleet that was measured in it: even ones with the
 * fleet of the odd ones of both hosts, and the other way round.
 */
async function crossSimulated(
  { host, all, stretches }: Played,
  played: readonly Played[],
  profiles: string,
): Promise<{ readonly objective: number; readonly parts: readonly (TimeParts | undefined)[] }> {
  const parts: (TimeParts | undefined)[] = [];
  const objectives: number[] = [];
  for (const parity of [0, 1]) {
    const others = played.flatMap((each) => each.stretches.filter((_, number) => number % 2 !== parity));
    const simulation = await simulated(fleetOf(host, others), all, host.policy, profiles);
    objectives.push(simulation.objective);
    const own = stretches.filter((_, number) => number % 2 === parity).flat();
    const places = own.map((request) => all.indexOf(request));
    for (const ofSeed of simulation.parts) parts.push(...places.map((place) => ofSeed[place]));
  }
  return { objective: meanOf(objectives), parts };
}

async function bestRule(fleet: Fleet, requests: readonly LoggedRequest[], profiles: string): Promise<string> {
  let best = '';
  let least = Infinity;
  for (const name of rules) {
    const { objective } = await simulated(fleet, requests, name, profiles);
    if (objective < least) [best, least] = [name, objective];
  }
  return best;
}

async function startLiveHost(folder: string, policy: string, own: string, profiles?: string): Promise<Host> {
  if (profiles !== undefined) await cp(profiles, join(own, 'profiles'), { recursive: true });
  const args = ['--repository', join(folder, 'models'), '--model', denseModel];
  const isLearned = policy === learned;
  const file = isLearned ? join(learnedFolder, 'policy.onnx') : policy;
  const child = await startChild('bench/live-host-main.js', [
    ...[
      ...args,
      '--policy',
      file,
      '--batching',
      batchingOf(policy),
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

function batchingOf(policy: string): string {
  return policy === learned ? join(learnedFolder, 'batching.onnx') : batching;
}

function fleetOf({ devices }: Host, stretches: readonly (readonly LoggedRequest[])[]): Fleet {
  return liveFleet({ model: denseModel, itemsMax, sloMs, devices, stretches });
}

async function simulated(
  fleet: Fleet,
  requests: readonly LoggedRequest[],
  policy: string,
  profiles: string,
): Promise<LiveSimulation> {
  const believed = await believedTables(profiles, fleet, itemsMax);
  return simulateLive({ fleet, model: denseModel, requests, policy, batching: batchingOf(policy), believed });
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
async function play({ client }: Host, requests: readonly Request[]): Promise<Span> {
  const fromMs = Date.now();
  const values = new Float32Array(denseWidth).fill(0.1);
  const tensor = { datatype: 'FP32', shape: [1, denseWidth], data: new Uint8Array(values.buffer) } as const;
  const startMs = performance.now();
  const ended: Promise<unknown>[] = [];
  for (const { atMs, sloClass } of requests) {
    const waitMs = startMs + atMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const target = { sloClass, sloMs: sloMs[sloClass], priority: sloClasses.indexOf(sloClass) + 1 };
    // As simulated: whoever is refused when he would be late has no use for a late answer either.
    const options = sloClass === 'interactive' ? { ...target, timeoutMs: sloMs[sloClass] } : target;
    // Refusals are outcomes; the log has them.
    ended.push(client.infer(denseModel, { values: tensor }, options).catch(() => undefined));
  }
  await Promise.all(ended);
  return { fromMs, toMs: Date.now(), requests: requests.length };
}

/** Objective of each run of a host, from its log. What ended before anybody decided about it was missed. */
async function liveObjectives({ host: { folder }, stretches, spans }: Played): Promise<readonly number[]> {
  const { data } = await readDecisions(join(folder, 'log'));
  const [episode] = episodesOfLog(data);
  if (episode === undefined) throw new Error(`${folder} has no decisions`);
  const { outcomes } = episode;
  const rewards = rewardsOf(outcomes, {
    multipliers: defaultObjective.missWeight,
    latenessWeight: defaultObjective.lateWeight,
    energyWeight: defaultObjective.energyWeight,
    halfLifeMs: Infinity,
  });
  const missed = defaultObjective.missWeight[sloClasses.indexOf('interactive')] ?? 0;
  return spans.map(({ requests }, run) => {
    const from = stretches[run]?.[0]?.arrivedMs ?? Infinity;
    const to = stretches[run]?.at(-1)?.arrivedMs ?? -Infinity;
    const own = rewards.filter((_, index) => {
      const arrivedMs = outcomes.arrivedMs[index] ?? NaN;
      return arrivedMs >= from && arrivedMs <= to;
    });
    return (missed * (requests - own.length) - own.reduce((sum, value) => sum + value, 0)) / requests;
  });
}

function calibrationRows(
  policy: string,
  requests: readonly LoggedRequest[],
  simulatedParts: readonly (TimeParts | undefined)[],
): readonly BenchRow[] {
  const live = requests
    .filter(({ isAnswered }) => isAnswered)
    .map(({ durationMs, queueMs, computeMs }) => partsOf(durationMs, queueMs, computeMs));
  const same = simulatedParts.filter((each) => each !== undefined);
  const timesOf = (all: readonly TimeParts[]): Float64Array => Float64Array.from(all, ({ durationMs }) => durationMs);
  const { p50Ms, p99Ms, p50Error, p99Error, ksDistance } = calibrate(timesOf(live), timesOf(same));
  const rowOf = (name: string, label: string, value: number, unit: string, limit?: number): BenchRow =>
    benchRow({
      key: `policy.live.calibration.${policy}.${name}`,
      label: `${policy}: ${label}`,
      ...{ value, unit },
      ...(limit === undefined ? {} : { target: { kind: 'at-most' as const, value: limit } }),
    });
  const share = (all: readonly TimeParts[], part: keyof TimeParts): number => meanOf(all.map((each) => each[part]));
  const partRows = (['queueMs', 'computeMs', 'restMs'] as const).flatMap((part) => [
    rowOf(`${part}.live`, `mean ${partLabels[part]}, live`, share(live, part), 'ms'),
    rowOf(`${part}.simulated`, `mean ${partLabels[part]}, simulated`, share(same, part), 'ms'),
  ]);
  const [p50, p99] = [100 * Math.abs(p50Error), 100 * Math.abs(p99Error)];
  return [
    rowOf('p50-ms', 'p50 live', p50Ms, 'ms'),
    rowOf('p99-ms', 'p99 live', p99Ms, 'ms'),
    rowOf('p50', 'error of the simulated p50', p50, '%', 100 * calibrationLimits.p50Error),
    rowOf('p99', 'error of the simulated p99', p99, '%', 100 * calibrationLimits.p99Error),
    rowOf('ks', 'Kolmogorov-Smirnov distance', ksDistance, '', calibrationLimits.ksDistance),
    ...partRows,
  ];
}

const partLabels = {
  queueMs: 'wait in the queue',
  computeMs: 'computing',
  restMs: 'behind the batch in hand and beside',
};

function rowsOfComparison(
  rule: string,
  [byRule = [], byPolicy = []]: readonly (readonly number[])[],
  change: { readonly mean: number; readonly low: number; readonly high: number },
  [simulatedRule = 0, simulatedPolicy = 0]: readonly number[],
): readonly BenchRow[] {
  const isSame = Math.sign(change.mean) === Math.sign(simulatedPolicy - simulatedRule);
  const base = meanOf(byRule);
  const percent = (value: number): number => (100 * value) / base;
  return [
    row('rule', `objective live: ${rule}, best of ${rules.length} rules by simulation`, base, ''),
    row('policy', `objective live: ${learned}`, meanOf(byPolicy), ''),
    row('change', `change live, mean of ${byRule.length} pairs`, percent(change.mean), '%'),
    row('change-low', 'lower end of its 95 % interval', percent(change.low), '%'),
    row('change-high', 'upper end of its 95 % interval', percent(change.high), '%'),
    row('simulated-change', 'change simulated, same requests', 100 * (simulatedPolicy / simulatedRule - 1), '%'),
    row('same-direction', 'live and simulated change have the same sign (1) or not (0)', isSame ? 1 : 0, '', 1),
  ];
}

function row(name: string, label: string, value: number, unit: string, least?: number): BenchRow {
  const target = least === undefined ? {} : { target: { kind: 'at-least' as const, value: least } };
  return benchRow({ key: `policy.live.${name}`, label, value, unit, ...target });
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
