/**
 * Training from nothing to a policy, one step at a time: rules are compared and the best becomes the teacher; the network
 * has a rule built in, or imitates the teacher, plays and is corrected; its last layer is searched by the cross-entropy
 * method; all of it is optimised by policy gradients. After each stage, and now and then within, the network plays scenarios it is never trained on; the
 * best one there is the result, wherever it came from.
 *
 * A step takes a state and gives the next. Every draw is named by its stage and step, so that going on from a saved state
 * gives the same numbers as never having stopped.
 */
import type { Tensorflow } from '#adapters/tfjs/tensorflow.js';
import type { Layer } from '#core/scheduling/network.js';
import type { TrainedRanges } from '#core/scheduling/policy-file.js';
import type { Random } from '#ports/random.js';
import { cloneBehaviour } from './bc.js';
import { iterateCem, startCem } from './cem.js';
import type { Batcher, Decisions, EpisodeOrder, EpisodeRecord, Outcomes, Player, Rollouts } from './environment.js';
import { featureRanges, joinRanges } from './feature-ranges.js';
import { flatten, initialLayers, unflatten, withLastLayer } from './layers.js';
import { joinDecisions } from './join-decisions.js';
import { iteratePpo, startPpo } from './ppo.js';
import { missesByClass } from './returns.js';
import { stepsOf, type Stage, type TrainingPlan, type TrainingState } from './training-plan.js';

/** The world that is trained in, as the trainer sees it. */
export interface TrainingWorld<Scenario> {
  readonly featureCount: number;
  readonly classes: readonly string[];
  readonly rollouts: Rollouts<Scenario>;
  /**
   * A scenario by its name: same name, same scenario. `progress` (0 to 1) is how far the curriculum is, `requests` how long
   * it should be, `seconds` of virtual time, where above 0, after which it ends before. Names that begin with `validation` give scenarios that no other name gives.
   */
  scenario(name: string, progress: number, requests: number, seconds?: number): Scenario;
  /** A network that decides like `cheapest-feasible:share`, for worlds with features to build it of. */
  ruleLayers?(share: number): Layer[];
  /** A network that forms batches sensibly, to begin with, for worlds whose batches are formed. */
  batchRuleLayers?(): Layer[];
  /** Mean objective of an episode's requests; lower is better. */
  objective(outcomes: Outcomes): number;
  /** By class: price of a miss in the objective, and share that may be missed. */
  readonly missWeights: readonly number[];
  readonly allowedMisses: readonly number[];
}

export interface TrainingTools<Scenario> {
  readonly tf: Tensorflow;
  readonly random: Random;
  readonly world: TrainingWorld<Scenario>;
  readonly plan: TrainingPlan;
}

export function firstState(): TrainingState {
  return {
    ...{
      stage: 'rules',
      step: 0,
      teacher: '',
      fallback: '',
      ruleObjectives: [],
      ruleMisses: [],
      layers: [],
      batchLayers: [],
    },
    ...{ ranges: undefined, batchRanges: undefined },
    ...{ search: undefined, optimisation: undefined, best: undefined, curves: [] },
  };
}

/** The next step. Gives back the same state once training is done. */
export async function trainStep<Scenario>(
  state: TrainingState,
  tools: TrainingTools<Scenario>,
): Promise<TrainingState> {
  switch (state.stage) {
    case 'rules':
      return compareRules(state, tools);
    case 'imitation':
      return imitate(state, tools);
    case 'search':
      return search(state, tools);
    case 'optimisation':
      return optimise(state, tools);
    case 'done':
      return state;
  }
}

/** Every rule plays the training scenarios and those of validation. */
async function compareRules<Scenario>(state: TrainingState, tools: TrainingTools<Scenario>): Promise<TrainingState> {
  const { world, plan } = tools;
  const training = Array.from({ length: plan.imitation.episodes }, (_, number) =>
    world.scenario(
      `rules ${number}`,
      number / plan.imitation.episodes,
      plan.imitation.requests,
      plan.imitation.seconds,
    ),
  );
  const judged = validationScenarios(tools);
  const orders = plan.rules.flatMap((name) =>
    [...training, ...judged].map((scenario) => order(scenario, { kind: 'rule', name })),
  );
  const records = await world.rollouts.run(orders);
  const perRule = training.length + judged.length;
  const objectives = plan.rules.map((_, rule) =>
    records.slice(rule * perRule, (rule + 1) * perRule).map(({ outcomes }) => world.objective(outcomes)),
  );
  // Scenarios differ in scale: each counts by how far a rule is from the best rule there.
  const regret = objectives.map((own) =>
    own.slice(0, training.length).reduce((sum, value, index) => {
      return sum + value / Math.min(...objectives.map((others) => others[index] ?? Infinity)) - 1;
    }, 0),
  );
  const best = regret.indexOf(Math.min(...regret));
  const teacher = plan.rules[best] ?? '';
  const byRegret = plan.rules.map((name, index) => ({ name, regret: regret[index] ?? Infinity }));
  byRegret.sort((left, right) => left.regret - right.regret);
  const fallback = byRegret.find(({ name }) => plan.fallbacks.includes(name))?.name ?? teacher;
  const ruleObjectives = judged.map((_, index) =>
    Math.min(...objectives.map((own) => own[training.length + index] ?? Infinity)),
  );
  const ofTeacher = records.slice(best * perRule + training.length, (best + 1) * perRule);
  const values = Object.fromEntries(
    plan.rules.map((name, index) => [`regret ${name}`, (regret[index] ?? 0) / training.length]),
  );
  return advance(state, tools, {
    teacher,
    fallback,
    ruleObjectives,
    ruleMisses: rates(ofTeacher, world.classes.length),
    layers: initialLayers(tools.random.stream('first weights'), [world.featureCount, ...plan.hidden, 1]),
    batchLayers: plan.batching > 0 ? (world.batchRuleLayers?.() ?? []) : [],
    values,
  });
}

/** Step 0: the teacher plays. Later: the network plays, the teacher says what it would have done, and both are learned from. */
async function imitate<Scenario>(state: TrainingState, tools: TrainingTools<Scenario>): Promise<TrainingState> {
  const { world, plan, random, tf } = tools;
  const { teacher, step } = state;
  if (plan.ruleShare > 0 && world.ruleLayers !== undefined) {
    return beginWithRule(world.ruleLayers(plan.ruleShare), state, tools);
  }
  const playedIn = (round: number): Player =>
    round === 0 ? { kind: 'rule', name: teacher } : { kind: 'network', layers: state.layers, choose: 'sample' };
  const ordersOf = (round: number): EpisodeOrder<Scenario>[] =>
    Array.from({ length: plan.imitation.episodes }, (_, number) => ({
      scenario: world.scenario(
        `imitation ${number}`,
        number / plan.imitation.episodes,
        plan.imitation.requests,
        plan.imitation.seconds,
      ),
      player: playedIn(round),
      dice: `imitation ${round} ${number} ${plan.seed}`,
      teacher,
      record: true,
    }));
  const records = await world.rollouts.run([...ordersOf(0), ...(step === 0 ? [] : ordersOf(step))]);
  const decisions = joinDecisions(records, world.featureCount, random.stream(`imitation order ${step}`));
  let loss = 0;
  const stream = random.stream(`imitation ${step}`);
  const { layers, agreement } = cloneBehaviour(
    { tf, random: stream },
    state.layers,
    decisions,
    plan.imitation,
    (epoch) => {
      loss = epoch.loss;
    },
  );
  const values = { loss, agreement, decisions: decisions.choices.length };
  return advance(state, tools, { layers, values, judge: true, ranges: featureRanges(decisions, world.featureCount) });
}

/** Nothing is learned: the network with a rule built in plays, and its states give the first ranges. */
async function beginWithRule<Scenario>(
  layers: Layer[],
  state: TrainingState,
  tools: TrainingTools<Scenario>,
): Promise<TrainingState> {
  const { decisions, batchRanges } = await statesOf({ layers, batchLayers: state.batchLayers }, state, tools);
  const { choices, teacherChoices } = decisions;
  const agreed = choices.reduce((count, choice, index) => count + (choice === teacherChoices[index] ? 1 : 0), 0);
  const values = { agreement: agreed / choices.length, decisions: choices.length };
  const ranges = featureRanges(decisions, tools.world.featureCount);
  return advance(state, tools, { layers, values, judge: true, ranges, batchRanges });
}

/** Decisions of an episode that are kept for ranges, about. */
const rangeDecisions = 3_000;

/** Decisions of a network, of its teacher and of the rule it falls back to, each in the states that it gets into by itself. */
async function statesOf<Scenario>(
  networks: Networks,
  { teacher, fallback }: TrainingState,
  { world, plan, random }: TrainingTools<Scenario>,
): Promise<{ readonly decisions: Decisions; readonly batchRanges: TrainedRanges | undefined }> {
  const { episodes, requests, seconds } = plan.imitation;
  const rules = [...new Set([teacher, fallback])].map((name): Player => ({ kind: 'rule', name }));
  const players: readonly Player[] = [playedBy(networks), ...rules];
  const orders = players.flatMap((player) =>
    Array.from({ length: episodes }, (_, number) => {
      const scenario = world.scenario(`imitation ${number}`, number / episodes, requests, seconds);
      // Ranges need no more of a long run.
      const recordEvery = Math.ceil(requests / rangeDecisions);
      return { ...order(scenario, player), teacher, record: true, recordEvery };
    }),
  );
  const records = await world.rollouts.run(orders);
  const batchRows = records.flatMap((record) => (record.batchRows === undefined ? [] : [record.batchRows]));
  const inputs = networks.batchLayers[0]?.in ?? 0;
  return {
    decisions: joinDecisions(records, world.featureCount, random.stream('states')),
    batchRanges: batchRows.length === 0 ? undefined : featureRanges({ rows: joined(batchRows) }, inputs),
  };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

/** Who decides in a run: the network of dispatch, and the one that forms batches or none. */
interface Networks {
  readonly layers: readonly Layer[];
  readonly batchLayers: readonly Layer[];
}

function playedBy({ layers, batchLayers }: Networks): Player {
  return { kind: 'network', layers, choose: 'best', ...batchedBy(batchLayers) };
}

function batchedBy(layers: readonly Layer[]): { readonly batching?: Batcher } {
  return layers.length === 0 ? {} : { batching: { kind: 'network', layers } };
}

/** The last layers in one vector, and networks with such a vector in their place. */
function lastLayers({ layers, batchLayers }: Networks): Float32Array {
  return joined([flatten(layers.slice(-1)), flatten(batchLayers.slice(-1))]);
}

function withLastLayers({ layers, batchLayers }: Networks, vector: Float32Array): Networks {
  const own = flatten(layers.slice(-1)).length;
  return {
    layers: withLastLayer(layers, vector.slice(0, own)),
    batchLayers: batchLayers.length === 0 ? [] : withLastLayer(batchLayers, vector.slice(own)),
  };
}

interface Played {
  readonly objective: number;
  readonly misses: readonly number[];
}

/** How far a player is from the best rule of its scenario; 0 is as good. */
function distance(own: Played, rule: Played, { worseWeight, missWeight }: TrainingPlan['search']): number {
  const ratio = Math.log(own.objective / rule.objective);
  const missed = own.misses.reduce((sum, rate, index) => sum + Math.max(0, rate - (rule.misses[index] ?? 0)), 0);
  return ratio + worseWeight * Math.max(0, ratio) + missWeight * missed;
}

/** One iteration of the cross-entropy method on the last layer. */
async function search<Scenario>(state: TrainingState, tools: TrainingTools<Scenario>): Promise<TrainingState> {
  const { world, plan, random } = tools;
  const { step } = state;
  const options = plan.search;
  const before = state.search ?? startCem(lastLayers(state), options);
  const scenarios = Array.from({ length: options.scenarios }, (_, number) =>
    world.scenario(
      `search ${step} ${number}`,
      (plan.strain * (number + 0.5)) / options.scenarios,
      options.requests,
      options.seconds,
    ),
  );
  const iteration = await iterateCem(before, options, random.stream('search'), async (vectors) => {
    const players: Player[] = [
      ...plan.rules.map((name): Player => ({ kind: 'rule', name })),
      ...vectors.map((vector): Player => playedBy(withLastLayers(state, vector))),
    ];
    const records = await world.rollouts.run(
      players.flatMap((player) => scenarios.map((scenario) => order(scenario, player))),
    );
    // Scenarios differ in scale: each counts by how far a vector is from the best rule there, in hindsight, and by the
    // logarithm, so that one hard scenario does not outweigh all others. What is worse than the rule counts more, in the
    // objective and in what any class misses.
    const count = scenarios.length;
    const played = records.map((record) => ({
      objective: world.objective(record.outcomes),
      misses: rates([record], world.classes.length),
    }));
    const best = scenarios.map((_, index) =>
      plan.rules
        .map((__, rule) => played[rule * count + index])
        .reduce((left, right) => ((right?.objective ?? Infinity) < (left?.objective ?? Infinity) ? right : left)),
    );
    return vectors.map((_, vector) => {
      const from = (plan.rules.length + vector) * count;
      const own = played.slice(from, from + count);
      return own.reduce((sum, each, index) => sum + distance(each, best[index] ?? each, options), 0) / count;
    });
  });
  const found = withLastLayers(state, Float32Array.from(iteration.state.mean));
  const values = {
    'mean against best rule': iteration.meanObjective,
    'elite against best rule': iteration.eliteObjective,
    deviation: iteration.state.deviation.reduce((sum, value) => sum + value, 0) / iteration.state.deviation.length,
  };
  const isLast = step + 1 === options.iterations;
  const next = { values, search: iteration.state, judge: isLast || (step + 1) % plan.validation.every === 0 };
  if (!isLast) return advance(state, tools, { ...next, judged: found });
  // What was found may go where the network that the search began with never went.
  const { decisions, batchRanges: batchesVisited } = await statesOf(found, state, tools);
  const ranges = join(state.ranges, featureRanges(decisions, world.featureCount));
  const batchRanges = join(state.batchRanges, batchesVisited);
  return advance(state, tools, { ...next, ...found, ranges, batchRanges });
}

function join(left: TrainedRanges | undefined, right: TrainedRanges | undefined): TrainedRanges | undefined {
  return left === undefined || right === undefined ? (left ?? right) : joinRanges(left, right);
}

/** One iteration of policy optimisation, from the best network so far. */
async function optimise<Scenario>(state: TrainingState, tools: TrainingTools<Scenario>): Promise<TrainingState> {
  const { world, plan, random, tf } = tools;
  const options = plan.optimisation;
  const start = state.best?.layers ?? state.layers;
  const batchLayers = state.best?.batchLayers ?? state.batchLayers;
  const before = state.optimisation ?? startPpo(start, flatten(start), world.missWeights);
  const { state: after, ...measures } = await iteratePpo(
    before,
    { tf, random: random.stream('optimisation') },
    {
      shape: start,
      ...batchedBy(batchLayers),
      rollouts: world.rollouts,
      scenario: (iteration, sequence) => {
        const progress = iteration / Math.max(1, options.iterations - 1);
        // The end of an episode must not be foreseen: lengths are drawn, memoryless, with a growing mean.
        const mean = options.requestsFirst * (options.requestsLast / options.requestsFirst) ** progress;
        const draw = random.stream(`length ${iteration} ${sequence}`).next();
        const requests = Math.round(mean * Math.min(3, 0.5 - 0.5 * Math.log(1 - draw)));
        return world.scenario(`optimisation ${iteration} ${sequence}`, progress, requests);
      },
      // What the rule itself misses under overload cannot be asked of the network.
      allowedMisses: world.allowedMisses.map((allowed, index) => Math.max(allowed, state.ruleMisses[index] ?? 0)),
      multipliersMin: world.missWeights,
    },
    options,
  );
  const layers = unflatten(start, after.parameters);
  const values = {
    'mean reward': measures.meanReward,
    'mean cost': measures.meanCost,
    entropy: measures.entropy,
    divergence: measures.divergence,
    ...Object.fromEntries(world.classes.map((name, index) => [`misses ${name}`, measures.missRates[index] ?? 0])),
    ...Object.fromEntries(
      world.classes.map((name, index) => [`price of a miss ${name}`, after.multipliers[index] ?? 0]),
    ),
  };
  const isLast = state.step + 1 === options.iterations;
  const judge = isLast || (state.step + 1) % plan.validation.every === 0;
  return advance(state, tools, { layers, batchLayers, values, optimisation: after, judge });
}

interface StepResult extends Partial<
  Pick<
    TrainingState,
    'teacher' | 'fallback' | 'ruleObjectives' | 'ruleMisses' | 'layers' | 'batchLayers' | 'search' | 'optimisation'
  >
> {
  readonly ranges?: TrainedRanges | undefined;
  readonly batchRanges?: TrainedRanges | undefined;
  readonly values: Readonly<Record<string, number>>;
  /** Whether the network is judged after this step; `judged` when it is another one than `layers`. */
  readonly judge?: boolean;
  readonly judged?: Networks;
}

async function advance<Scenario>(
  state: TrainingState,
  tools: TrainingTools<Scenario>,
  { values, judge = false, judged, ...change }: StepResult,
): Promise<TrainingState> {
  const { plan } = tools;
  const after: TrainingState = { ...state, ...change };
  const networks = judged ?? after;
  let { best } = state;
  let measured = values;
  if (judge) {
    const { gain, missRates } = await validate(networks, after, tools);
    const { classes } = tools.world;
    const misses = Object.fromEntries(
      classes.map((name, index) => [`validation misses ${name}`, missRates[index] ?? 0]),
    );
    measured = { ...values, 'validation gain': gain, ...misses };
    if (best === undefined || gain < best.gain) {
      const { layers, batchLayers } = networks;
      best = { stage: state.stage, step: state.step, gain, layers, batchLayers };
    }
  }
  const curves = [...state.curves, { stage: state.stage, step: state.step, values: measured }];
  const isOver = state.step + 1 >= stepsOf(plan, state.stage);
  const stage = isOver ? stageAfter(plan, state.stage) : state.stage;
  return { ...after, best, curves, stage, step: isOver ? 0 : state.step + 1 };
}

function stageAfter(plan: TrainingPlan, stage: Stage): Stage {
  const rest: readonly Stage[] = ['rules', 'imitation', 'search', 'optimisation', 'done'];
  return rest.slice(rest.indexOf(stage) + 1).find((next) => next === 'done' || stepsOf(plan, next) > 0) ?? 'done';
}

async function validate<Scenario>(
  networks: Networks,
  state: TrainingState,
  tools: TrainingTools<Scenario>,
): Promise<{ readonly gain: number; readonly missRates: readonly number[] }> {
  const { world } = tools;
  const scenarios = validationScenarios(tools);
  const player = playedBy(networks);
  const records = await world.rollouts.run(scenarios.map((scenario) => order(scenario, player)));
  const gain = records.reduce((sum, { outcomes }, index) => {
    return sum + world.objective(outcomes) / (state.ruleObjectives[index] ?? 1) - 1;
  }, 0);
  return { gain: gain / scenarios.length, missRates: rates(records, world.classes.length) };
}

function validationScenarios<Scenario>({ world, plan }: TrainingTools<Scenario>): Scenario[] {
  const { scenarios, requests, seconds } = plan.validation;
  return Array.from({ length: scenarios }, (_, number) =>
    world.scenario(`validation ${number}`, (plan.strain * (number + 0.5)) / scenarios, requests, seconds),
  );
}

function order<Scenario>(scenario: Scenario, player: Player): EpisodeOrder<Scenario> {
  return { scenario, player, dice: 'judge', record: false };
}

function rates(records: readonly EpisodeRecord[], classes: number): number[] {
  const { requests, missed } = missesByClass(records, classes);
  return requests.map((count, index) => (count === 0 ? 0 : (missed[index] ?? 0) / count));
}
