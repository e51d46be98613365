/**
 * An obviously simple world for the trainers' tests: three servers of unlike speed, first come first served, no batches.
 * A request may go to any of them; its cost is the time it takes over its objective. Round robin is bad here, the shortest
 * expected delay is good, and both are known by closed form or by heart.
 */
import { RandomStream } from '#core/random.js';
import type { Layer } from '#core/scheduling/network.js';
import type { EpisodeOrder, EpisodeRecord, Environment } from '#policies/learning/environment.js';
import { DecisionRecorder } from '#policies/learning/environment.js';
import { bestChoice, drawChoice } from '#policies/learning/layers.js';

export interface ThreeServers {
  readonly seed: number;
  readonly requests: number;
  /** Arrivals over what the three can serve, below 1. */
  readonly load: number;
}

/** Mean milliseconds of a request by server. */
export const serverMs = [5, 15, 45] as const;
const sloMs = 60;
export const featuresOfServers = 4;

export const threeServers: Environment<ThreeServers> = {
  featureCount: featuresOfServers,
  classes: ['interactive', 'standard'],
  runEpisode: (order) => Promise.resolve(play(order)),
};

function play({
  scenario,
  player,
  dice,
  record,
  teacher,
  withBound = false,
}: EpisodeOrder<ThreeServers>): EpisodeRecord {
  const world = new RandomStream(`three servers ${scenario.seed}`);
  const [arrivals, work, classes] = [world.stream('arrivals'), world.stream('work'), world.stream('classes')];
  const own = new RandomStream(dice);
  const rate = scenario.load * serverMs.reduce((sum, ms) => sum + 1 / ms, 0);
  const freeAtMs = serverMs.map(() => 0);
  const waiting: number[][] = serverMs.map(() => []);
  const recorder = new DecisionRecorder(featuresOfServers);
  const rows = new Float32Array(serverMs.length * featuresOfServers);
  const scores = new Float32Array(serverMs.length);
  const count = scenario.requests;
  const outcomes = {
    arrivedMs: new Float64Array(count),
    doneMs: new Float64Array(count),
    cost: new Float64Array(count),
    energy: new Float64Array(count),
    missed: new Uint8Array(count),
    lateness: new Float64Array(count),
    sloClass: new Uint8Array(count),
    lost: 0,
  };
  let nowMs = 0;
  let hash = 0;
  for (let request = 0; request < count; request += 1) {
    nowMs += -Math.log(1 - arrivals.next()) / rate;
    for (const ends of waiting) while ((ends[0] ?? Infinity) <= nowMs) ends.shift();
    const expected = serverMs.map((ms, server) => ((waiting[server]?.length ?? 0) + 1) * ms);
    for (const [server, ms] of serverMs.entries()) {
      rows.set(
        [expected[server]! / sloMs, ms / sloMs, (waiting[server]?.length ?? 0) / 4, 1],
        server * featuresOfServers,
      );
    }
    const shortest = expected.indexOf(Math.min(...expected));
    let choice = shortest;
    let logProb = 0;
    if (player.kind === 'network') {
      score(player.layers, rows, scores);
      if (player.choose === 'best') choice = bestChoice(scores, scores.length);
      else {
        choice = drawChoice(scores, scores.length, own);
        logProb = Math.log(scores[choice]!);
      }
    } else if (player.kind !== 'rule') throw new Error(`no ${player.kind} plays here`);
    else if (player.name === 'round-robin') choice = request % serverMs.length;
    else if (player.name === 'random') choice = own.below(serverMs.length);
    const teacherChoice = teacher === undefined ? choice : shortest;
    if (record) {
      recorder.add({ rows, count: serverMs.length, atMs: nowMs, choice, logProb, teacher: teacherChoice });
    }
    // The same request is as long wherever it goes, and draws the same numbers whoever decides.
    const size = -Math.log(1 - work.next());
    const startMs = Math.max(nowMs, freeAtMs[choice]!);
    const doneMs = startMs + size * serverMs[choice]!;
    freeAtMs[choice] = doneMs;
    waiting[choice]!.push(doneMs);
    outcomes.arrivedMs[request] = nowMs;
    outcomes.doneMs[request] = doneMs;
    outcomes.cost[request] = (doneMs - nowMs) / sloMs;
    outcomes.lateness[request] = (doneMs - nowMs - sloMs) / sloMs;
    outcomes.missed[request] = doneMs - nowMs > sloMs ? 1 : 0;
    outcomes.sloClass[request] = classes.below(2);
    hash = (Math.imul(hash, 31) + choice + 1) | 0;
  }
  const spanMs = Math.max(...outcomes.doneMs);
  const totals = {
    usd: 0,
    joules: 0,
    spanMs,
    decisions: count,
    fallbacks: 0,
    maskViolations: 0,
    batchDecisions: 0,
    batchFallbacks: 0,
  };
  const bound = withBound ? { bound: 0.1 } : {};
  return { outcomes, totals, ...bound, hash: `${hash} ${nowMs}`, ...(record ? { decisions: recorder.finish() } : {}) };
}

function score(layers: readonly Layer[], rows: Float32Array, scores: Float32Array): void {
  for (let row = 0; row < scores.length; row += 1) {
    let value = rows.subarray(row * featuresOfServers, (row + 1) * featuresOfServers);
    for (const [index, { out: outputs, weights, bias }] of layers.entries()) {
      const next = Float32Array.from(bias);
      for (let output = 0; output < outputs; output += 1) {
        let sum = bias[output]!;
        for (let input = 0; input < value.length; input += 1) sum += value[input]! * weights[input * outputs + output]!;
        next[output] = index < layers.length - 1 ? Math.tanh(sum) : sum;
      }
      value = next;
    }
    scores[row] = value[0]!;
  }
}

/** Mean cost of a request over some episodes. */
export async function meanCost(
  player: EpisodeOrder<ThreeServers>['player'],
  scenarios: readonly ThreeServers[],
): Promise<number> {
  let sum = 0;
  let requests = 0;
  for (const scenario of scenarios) {
    const { outcomes } = await threeServers.runEpisode({ scenario, player, dice: 'judge', record: false });
    sum += outcomes.cost.reduce((total, cost) => total + cost, 0);
    requests += outcomes.cost.length;
  }
  return sum / requests;
}
